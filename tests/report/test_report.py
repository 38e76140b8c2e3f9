"""Pages, tables and plots of comparisons: of one put together by hand, of a small real one, and of a grid."""

import json
import math
import re
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from jgd.condense import Average
from jgd.core import in_memory
from jgd.data import Condensed, contextual_sbm
from jgd.evaluation import EvalConfig, compare
from jgd.evaluation._grid import Cell, Grid
from jgd.evaluation.kinds.nodes import propagated_distance, propagated_pair
from jgd.graph import adjacency, from_adjacency
from jgd.metrics import ReliabilityBins, frechet_distance
from jgd.report import (
    Column,
    Comparison,
    Line,
    Picture,
    plot_bars,
    plot_condensed,
    plot_curves,
    plot_lines,
    plot_reliability,
)
from jgd.report.figures import DARK, _apart
from jgd.report.geometry import classes_of, edges_of, positions, project, thinned
from jgd.report.markup import Markup, el
from jgd.report.page import finite, percent, size_text
from jgd.report.table import best_rows, cell

EVIL = "<script>alert('$x$ & \"y\"')</script>"
MEANS = {"full graph": 0.91, "ours": 0.87, "random": 0.71, "average": 0.8}
BYTES = {"full graph": 15_400, "ours": 960, "random": 480, "average": 480}


def scores(mean):
    return mean + np.asarray([-0.011, 0.0, 0.011])


def learning_curve(mean, measured=True):
    curve = np.full(12, np.nan)
    if measured:
        curve[3::4] = np.linspace(0.4, mean, 3)
    return curve


def make(
    method="ours", networks=("gcn", "mlp"), *, baselines=True, distance=0.0123, measured=True, **changes
):
    """A comparison with every kind of column and two figures, without any training."""
    means = {method if name == "ours" else name: mean for name, mean in MEANS.items()}
    sizes = {method if name == "ours" else name: size for name, size in BYTES.items()}
    names = list(means) if baselines else list(means)[:2]
    panels = {n.upper(): {k: scores(means[k] - 0.03 * i) for k in names} for i, n in enumerate(networks)}
    curves = {n.upper(): {k: learning_curve(means[k], measured) for k in names} for n in networks}
    rows = tuple(
        {
            "name": name,
            "nodes": 60 if i == 0 else 9,
            "bytes": sizes[name],
            **{n: panels[n.upper()][name] for n in networks},
            "distance": None if i == 0 else i * distance,
            "seconds": (None, 1.5, 0.001, 1234.5)[i],
            "reference": i == 0,
            "stress": name == method,
        }
        for i, name in enumerate(names)
    )
    record = {
        "dataset": "toy",
        "seed": 7,
        "scores": {name: {n: panels[n.upper()][name].tolist() for n in networks} for name in names},
        "distances": {row["name"]: row["distance"] for row in rows},
        "config": {"hops": 2, "label_ratio": None},
        "seconds": {"condense": 1.5, "evaluate": 2.25},
        "versions": {"jgd": "1.2.3", "device": "abacus"},
        "command": f"jgd condense toy --method {method}",
    }
    comparison = Comparison(
        title=f"toy condensed by {method}",
        headline=f"{method} reaches {percent(0.87, 0.009)}.",
        rows=rows,
        columns=(
            Column("nodes", "Nodes"),
            Column("bytes", "Size", "bytes", best="smallest"),
            *(Column(n, n.upper(), 100, best="largest", group="Test accuracy, %") for n in networks),
            Column("distance", "Fréchet distance", 1, 4, "smallest"),
            Column("seconds", "Seconds", "seconds"),
        ),
        figures=(
            Picture(
                "accuracy",
                f"Accuracy of {method}",
                "Test accuracy.",
                partial(plot_bars, panels, reference="full graph", stress=method),
                f"Bars of {method}.",
            ),
            Picture(
                "curves",
                "Learning curves",
                f"While {method} is trained on.",
                partial(plot_curves, curves, label="score, %", reference="full graph", stress=method),
            ),
        ),
        record=record,
        facts={"Nodes": ("9 of 60", "10 % of the labelled")},
        notes=f"Seconds: time in which {method} makes a set.",
        protocol="Each network is trained for 12 steps.",
    )
    return replace(comparison, **changes)


VOID = {"meta"}


class Page(HTMLParser):
    """Checks that tags balance, and keeps elements, texts by element, and all attributes."""

    def __init__(self, source):
        super().__init__(convert_charrefs=True)
        self.stack, self.elements, self.texts = [], [], []
        self.feed(source)
        self.close()
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in <{tag}>"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append((self.stack[-1] if self.stack else "", data))

    def all(self, tag):
        return [attrs for t, attrs in self.elements if t == tag]

    def text(self, *tags):
        return "".join(data for tag, data in self.texts if not tags or tag in tags)


def render(path, comparison):
    target = path / "deep" / "report.html"
    assert comparison.save(target) == target
    source = target.read_text(encoding="utf-8")
    return source, Page(source)


def numbers(value):
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list | tuple):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def check(source, page, svgs):
    """What holds for every page."""
    count = svgs
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}
    assert not re.search(r"(?:src|href|action|srcset)=\"(?!#)", source)
    assert not re.search(r"url\((?!#)|@import", source)
    ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    wanted = re.findall(r'href="#([^"]+)"|url\(#([^)"]+)\)', source)
    wanted = {a or b for a, b in wanted}
    for _, attrs in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            wanted |= set(attrs.get(name, "").split())
    assert wanted <= set(ids)
    svgs = page.all("svg")
    assert len(svgs) == count
    assert all(svg["role"] == "img" and svg["aria-labelledby"] and svg["aria-describedby"] for svg in svgs)
    assert not re.search("|".join(DARK), source[source.index("</style>") :]), "a colour that no theme changes"
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(b - a <= 1 for a, b in pairwise(headings))
    assert page.all("html")[0]["lang"] == "en"
    tags = {"header", "nav", "main", "footer", "caption", *(["figcaption"] if count else [])}
    assert tags <= {tag for tag, _ in page.elements}
    assert all("scope" in th for th in page.all("th"))
    assert all(a["tabindex"] == "0" for t, a in page.elements if a.get("class") == "scroll" or t == "pre")
    assert not re.search(r"\bnan\b", page.text(), re.IGNORECASE)


def data_of(page):
    """The record, read back from the end of the page."""
    text = page.text("code")
    return json.loads(text[text.index("{") :])


# --- pages --------------------------------------------------------------------------------------


def test_page_holds_every_number(tmp_path):
    comparison = make()
    source, page = render(tmp_path, comparison)
    check(source, page, svgs=2)
    assert data_of(page) == json.loads(json.dumps(comparison.record))
    for number in numbers(comparison.record):
        assert json.dumps(number) in source
    body = source[: source.index("<details>")].replace("\N{NO-BREAK SPACE}", " ")
    for text in ("9 of 60", "87.0 ± 0.9", "91.0 ± 0.9", "68.0 ± 0.9", "0.0123", "15.4 kB", "&lt;0.01"):
        assert text in body
    for text in ("ours reaches 87.0 ± 0.9 %.", "1,234", "for 12 steps", "jgd condense toy", "abacus"):
        assert text in body
    assert page.text("h1") == "Toy condensed by ours"
    assert "Written by JGD 1.2.3." in page.text("footer")


def test_page_is_deterministic_and_replaces_an_old_one(tmp_path):
    first = render(tmp_path, make())[0]
    assert render(tmp_path, make())[0] == first
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_best_values_are_marked_by_more_than_colour(tmp_path):
    source, _ = render(tmp_path, make())
    marked = re.findall(
        r'<td class="best">([^<]*)<span class="mark"><span aria-hidden="true">\*</span>', source
    )
    assert marked == ["87.0 ± 0.9", "84.0 ± 0.9", "0.0123", "480 B", "480 B"]
    assert "Bold with an asterisk" in source
    without = make(columns=(Column("nodes", "Nodes"),))
    assert "Bold with an asterisk" not in render(tmp_path, without)[0]


def test_best_rows_compete_in_their_group_and_not_with_the_reference():
    def best(values, how="smallest", **more):
        rows = [{"v": v, **{k: x[i] for k, x in more.items()}} for i, v in enumerate(values)]
        return best_rows(rows, Column("v", "", best=how))

    assert best([1, 1, 1]) == set()
    assert best([3, None, 1, math.nan]) == {2}
    assert best([3, 5, 5], "largest") == {1, 2}
    assert best([3, 5, 4], "largest", reference=[False, True, False]) == {2}
    assert best([3, 5, 4, 1], "largest", group=["a", "a", "b", "b"]) == {1, 2}
    assert best([[1.0, 3.0], [2.5, 2.5]], "largest") == {1}
    assert best([1, 2], None) == set()


@pytest.mark.parametrize("where", ["method", "title", "headline", "notes", "protocol", "column", "group"])
def test_strings_of_users_are_text(where, tmp_path):
    comparison = make(method=EVIL) if where == "method" else make()
    if where == "column":
        comparison = replace(comparison, columns=(Column("nodes", EVIL, group=EVIL), *comparison.columns))
    elif where == "group":
        comparison = replace(comparison, rows=tuple({**row, "group": EVIL} for row in comparison.rows))
    elif where != "method":
        comparison = replace(comparison, **{where: EVIL})
    source, page = render(tmp_path, comparison)
    check(source, page, svgs=2)
    assert "<script" not in source
    assert page.text().count(EVIL) >= (6 if where == "method" else 1)
    if where == "method":
        assert EVIL in page.text("text")  # in the figures


@pytest.mark.parametrize(
    "evil", ["\"><script>alert('x')</script>", "' onload='x' \"", "a &quot; b &lt;", "<&>\"'"]
)
def test_attributes_are_escaped(evil):
    """Text cannot leave the quotes of an attribute, be it plain or HTML already, at any depth."""
    inner = el("b", "bold", data_x=evil)
    for element in (
        el("a", inner, title=evil),
        el("a", inner, title=Markup(evil)),
        el("a", inner, title=evil, id=1),
    ):
        page = Page(element)
        (outer,), (b,) = page.all("a"), page.all("b")
        assert len(page.elements) == 2
        assert (outer["title"], b) == (evil, {"data-x": evil})
        assert set(outer) <= {"title", "id"}
        assert page.text() == "bold"


@pytest.mark.parametrize(
    "options",
    [
        {"networks": ("gcn",), "baselines": False},
        {"networks": ("gcn", "mlp", "sgc", "custom")},
        {"measured": False},
        {"distance": math.nan},
        {"figures": (), "record": {}, "facts": {}, "notes": "", "protocol": ""},
    ],
    ids=["one network, no baseline", "four networks", "no curve", "no distance", "a table only"],
)
def test_page_of_less_than_everything(options, tmp_path):
    comparison = make(**options)
    source, page = render(tmp_path, comparison)
    check(source, page, svgs=len(comparison.figures))
    assert ("not measured" in page.text("text")) == (not options.get("measured", True))
    assert ("no command was recorded" in page.text()) == ("record" in options)
    if "distance" in options:
        assert data_of(page)["distances"]["ours"] is None


def test_record_takes_further_entries():
    comparison = make().recorded(command="jgd other", seed=3)
    found = json.loads(comparison.json())
    assert (found["command"], found["seed"], found["dataset"]) == ("jgd other", 3, "toy")
    assert make().record["seed"] == 7
    assert finite({"a": [math.nan, (1.5, math.inf)], "b": "x"}) == {"a": [None, [1.5, None]], "b": "x"}


# --- tables -------------------------------------------------------------------------------------


def test_markdown_has_a_cell_for_each_value_and_bold_best_ones():
    lines = make().markdown().splitlines()
    assert lines[0] == (
        "| | Nodes | Size | Test accuracy, %, GCN | Test accuracy, %, MLP | Fréchet distance | Seconds |"
    )
    assert lines[2] == "| full graph | 60 | 15.4 kB | 91.0 ± 0.9 | 88.0 ± 0.9 | – | – |"
    assert lines[3] == "| ours | 9 | 960 B | **87.0 ± 0.9** | **84.0 ± 0.9** | **0.0123** | 1.5 |"
    assert make()._repr_markdown_() == str(make())  # what notebooks show
    assert {line.count("|") for line in lines} == {8}
    assert str(make()).startswith("toy condensed by ours\n\n| |")
    assert repr(make()) == "Comparison('toy condensed by ours', 4 rows)"


def test_terminal_shows_headline_table_and_notes_in_its_width(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    make(headline=f"{'word ' * 30}{percent(0.5, 0.1)}.", notes="note " * 30).show()
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 60
    assert printed.count("word") == printed.count("note") == 30
    assert "50.0 ± 10.0 %." in printed
    assert "\N{NO-BREAK SPACE}" not in printed
    for name in MEANS:
        assert f"\n{name} " in printed
    assert "87.0 ± 0.9" in printed
    make(notes="").show()
    assert capsys.readouterr().out.endswith("\n")


def test_numbers_as_text():
    sizes = {
        0: "0 bytes",
        999: "999 bytes",
        1000: "1 kB",
        18184: "18.2 kB",
        626_068: "626 kB",
        3 * 10**9: "3 GB",
    }
    assert {n: size_text(n).replace("\N{NO-BREAK SPACE}", " ") for n in sizes} == sizes
    assert percent(0.1234).replace("\N{NO-BREAK SPACE}", " ") == "12.3 %"

    def texts(values, *how):
        return {str(v): cell({"v": v}, Column("v", "", *how)) for v in values}

    seconds = {None: "–", math.inf: "–", 0.001: "<0.01", 0.04: "0.04", 1.26: "1.3", 1234.5: "1,234"}
    assert texts(seconds, "seconds") == {str(k): v for k, v in seconds.items()}
    distances = {None: "–", math.inf: "–", 0.0: "0.0000", 0.01118: "0.0112", 0.00002: "2.0e-05"}
    assert texts(distances, 1, 4) == {str(k): v for k, v in distances.items()}
    assert texts([1234567, None], "count") == {"1234567": "1,234,567", "None": "–"}
    assert texts(["a", 0.25], "text") == {"a": "a", "0.25": "0.25"}
    assert cell({}, Column("v", "")) == cell({"v": np.zeros(0)}, Column("v", "", 100)) == "–"
    assert cell({"v": [0.5, 0.7]}, Column("v", "", 100)) == "60.0 ± 10.0"
    assert cell({"v": [0.5]}, Column("v", "", 100)) == "50.0"  # one number has no deviation
    assert cell({"v": [1.0, 3.0]}, Column("v", "", "seconds")) == "2.0 ± 1.0"


# --- plots of plain arrays ----------------------------------------------------------------------


def test_plots_are_figures_and_leave_matplotlib_as_it_was(small_task):
    before = dict(matplotlib.rcParams)
    figures = [picture.draw() for picture in make().figures]
    share = np.full(4, 0.25)
    bins = ReliabilityBins(np.linspace(0.3, 0.9, 4), np.linspace(0.2, 0.8, 4), share)
    line = Line(np.asarray([10.0, 20.0]), np.ones((2, 2)), np.full((2, 2), 0.1))
    figures += [plot_reliability({"net": bins}), plot_lines({"a": {"m": line}}, {"a": 0.5}, size="nodes")]
    plane = project(np.eye(4, 3), np.eye(2, 3))
    figures.append(plot_condensed(edges_of(None, 9), np.arange(2), plane, np.arange(4)))
    assert all(isinstance(figure, Figure) for figure in figures)
    assert figures[0]._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert [ax.get_title() for ax in figures[0].axes] == ["", ""]
    assert [ax.get_title(loc="left") for ax in figures[0].axes] == ["GCN", "MLP"]


def test_bars_and_curves_show_the_scores():
    bars, curves = (picture.draw() for picture in make(networks=("gcn",)).figures)
    np.testing.assert_allclose([patch.get_width() for patch in bars.axes[0].patches], [91, 87, 71, 80])
    names = [label.get_text() for label in bars.axes[0].get_yticklabels()]
    assert names == list(MEANS)
    for line, mean in zip(curves.axes[0].lines, MEANS.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), [4, 8, 12])
        np.testing.assert_allclose(line.get_ydata(), 100 * np.linspace(0.4, mean, 3))


def test_reliability_shows_the_bins_that_have_predictions():
    bins = ReliabilityBins(
        confidence=np.asarray([0.1, 0.5, 0.9]),
        accuracy=np.asarray([0.2, 0.4, 0.8]),
        share=np.asarray([0.25, 0.0, 0.75]),
    )
    figure = plot_reliability({"net": bins, "other": bins})
    ax = figure.axes[0]
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[0.1, 0.2], [0.9, 0.8]])
    np.testing.assert_allclose(ax.collections[0].get_sizes(), [46, 126])
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["net", "other"]


# --- condensed graphs ---------------------------------------------------------------------------

CONFIG = EvalConfig(steps=12, select_every=4, hidden=8)


@pytest.fixture
def small_task():
    task = contextual_sbm(0, num_nodes=60, num_classes=3, num_features=5, mean_degree=4)
    return replace(task, name="toy")


def condensed_nodes(task, *, soft=False, edges=True):
    """Nine nodes by class means, with edges of random weights; soft ones leave the last class out."""
    base = Average(label_ratio=None, nodes=9)(jax.random.key(0), task)
    a = np.triu(np.random.default_rng(0).random((9, 9)), 1)
    graph = from_adjacency((a + a.T + np.eye(9)).astype(np.float32), base.data.nodes)
    targets = np.asarray(base.targets)
    if soft:
        targets = np.eye(3, dtype=np.float32)[np.where(targets == 2, 0, targets)]
    training = replace(base.training, adjacency="raw") if edges else base.training
    data = graph if edges else base.data
    return Condensed(data=data, targets=targets, training=training, provenance=base.provenance)


def compared(task, method="ours", **options):
    """A real comparison of one small training."""

    def recipe(key, task, loop=in_memory):
        return condensed_nodes(task, **options)

    return compare(
        recipe, task, key=jax.random.key(0), method=method, baselines=("random",), networks=("sgc",),
        seeds=2, config=CONFIG,
    )  # fmt: skip


@pytest.mark.long
def test_page_of_condensed_nodes(small_task, tmp_path):
    comparison = compared(small_task).recorded(command="jgd condense toy", seed=7)
    source, page = render(tmp_path, comparison)
    check(source, page, svgs=3)
    assert data_of(page) == json.loads(comparison.json())
    for number in numbers(comparison.record):
        assert json.dumps(number) in source
    body = page.text().replace("\N{NO-BREAK SPACE}", " ")
    full, ours = (comparison.scores[name]["sgc"] for name in ("full", "ours"))
    for one in (full, ours):
        assert body.count(f"{100 * one.test_mean:.1f} ± {100 * one.test_std:.1f}") >= 3
    assert "the 9 nodes that ours made of the 60 of toy" in body
    assert "its 36 undirected edges" in body
    assert "every 4 steps" in body
    assert "for 12 steps" in body
    assert comparison.record["versions"]["device"] in page.text("dd")
    texts = {data for tag, data in page.texts if tag == "text"}
    assert {"class 0", "class 1", "class 2", "SGC", "full graph"} <= texts
    assert "no label" not in texts


@pytest.mark.long
def test_page_of_condensed_nodes_without_edges_soft_labels_and_unknown_ones(small_task, tmp_path):
    labels, mask = np.asarray(small_task.labels).copy(), ~np.asarray(small_task.train)
    labels[np.flatnonzero(mask)[:5]] = -1
    task = replace(small_task, labels=labels)
    source, page = render(tmp_path, compared(task, method=EVIL, soft=True))
    check(source, page, svgs=3)
    assert "<script" not in source
    texts = {data for tag, data in page.texts if tag == "text"}
    assert {"class 0", "class 1", "class 2", "no label"} <= texts
    plain = compared(task, edges=False)
    figure = next(picture for picture in plain.figures if picture.name == "graph")
    assert "no edges between them" in figure.caption
    assert figure.draw().axes[0].get_title(loc="left") == "Condensed nodes (no edges)"


@pytest.mark.long
def test_projection_keeps_the_distance_where_there_are_two_features(small_task):
    graph = small_task.graph
    task = replace(small_task, graph=graph._replace(nodes=np.asarray(graph.nodes)[:, :2]))
    small = condensed_nodes(task)
    plane = project(*propagated_pair(task, small)[:2])
    points = (jnp.asarray(x, jnp.float32) for x in plane[:2])
    np.testing.assert_allclose(frechet_distance(*points), propagated_distance(task, small), rtol=1e-3)
    assert sum(plane.explained) == pytest.approx(1)


def test_projection_of_a_single_feature_is_a_line(rng):
    original, small = rng.normal(size=(60, 1)), rng.normal(size=(3, 1))
    plane = project(original, small)
    assert np.ptp(plane.original[:, 1]) < 1e-5
    np.testing.assert_allclose(np.abs(plane.condensed[:, 0]), np.abs(small - original.mean())[:, 0])
    plot_condensed(edges_of(None, 1), np.arange(3), plane, np.zeros(60, int))


def test_strongest_edges():
    a = np.zeros((4, 4), np.float32)
    a[0, 0], a[0, 1], a[1, 0], a[2, 1], a[3, 2] = 9, 0.5, 0.2, -2, 1
    edges = edges_of(adjacency(from_adjacency(a, np.eye(4, dtype=np.float32))), 2)
    assert edges.total == 3
    np.testing.assert_array_equal(edges.pairs, [[2, 3], [1, 2]])
    np.testing.assert_allclose(edges.weights, [1, 2])
    assert edges_of(None, 2).total == len(edges_of(None, 2).pairs) == 0


def test_nodes_without_edges_stand_apart_below():
    a = np.zeros((7, 7), np.float32)
    a[0, 1] = a[1, 2] = a[2, 0] = 1
    graph = from_adjacency(a, np.eye(7, dtype=np.float32))
    place = positions(edges_of(adjacency(graph), 10), np.arange(7))
    assert len(np.unique(place, axis=0)) == 7
    assert np.abs(place).max() <= 1
    assert place[:3, 1].min() > place[3:, 1].max()


def test_thinned_is_even_and_bounded():
    np.testing.assert_array_equal(thinned(3, 10), [0, 1, 2])
    assert len(thinned(5000, 2000)) == 2000
    assert thinned(5000, 2000)[[0, -1]].tolist() == [0, 4999]


def test_class_of_soft_labels_is_the_largest():
    np.testing.assert_array_equal(classes_of([[0.2, 0.8], [0.9, 0.1]]), [1, 0])
    np.testing.assert_array_equal(classes_of([2, -1]), [2, -1])


# --- grids --------------------------------------------------------------------------------------


def make_grid(names=("random", "herding", "clustgdd"), networks=("gcn", "mlp"), seeds=2, **fails):
    rng = np.random.default_rng(0)
    cells = []
    for ratio in (0.25, 1.0):
        for i, name in enumerate(names):
            for s in range(seeds):
                cell = Cell(name, ratio, s)
                if fails.get(name) == ratio:
                    cells.append(replace(cell, error="it <diverged>"))
                    continue
                test = {n: {"accuracy": (0.6 + 0.05 * i + 0.02 * rng.random(3)).tolist()} for n in networks}
                n = int(140 * ratio)
                sizes = {"nodes": n, "edges": 3 * n, "bytes": 4000 * n + 100 * i}
                seconds = 10.0 ** (i - 1) + 0.01 * s
                cells.append(replace(cell, sizes=sizes, seconds=seconds, test=test, val=test))
    return Grid(
        dataset="cora",
        kind="nodes",
        setting="transductive",
        budget="label_ratio",
        original={"nodes": 2708, "edges": 10556, "bytes": 15_000_000},
        networks=networks,
        metrics=("accuracy",),
        full={n: {"accuracy": np.asarray([0.8, 0.82])} for n in networks},
        full_seconds=3.0,
        cells=tuple(cells),
        config=CONFIG,
        versions={"jgd": "1"},
    )


@pytest.mark.long
@pytest.mark.parametrize("networks", [("gcn",), ("gcn", "mlp", "sage")])
def test_page_of_a_grid_holds_every_number(networks, tmp_path):
    grid = make_grid(networks=networks)
    comparison = grid.comparison().recorded(command="jgd compare cora")
    source, page = render(tmp_path, comparison)
    check(source, page, svgs=1)
    assert data_of(page) == json.loads(json.dumps(grid.record(command="jgd compare cora")))
    body = source[: source.index("<details>")].replace("\N{NO-BREAK SPACE}", " ")
    for row in grid.rows():
        for network in networks:
            mean, std = row.score(network)
            assert body.count(f"{100 * mean:.1f} ± {100 * std:.1f}") >= 2  # in the table and for the plot
    top = max(grid.rows(), key=lambda row: row.score(networks[0])[0])
    assert f"{top.sizes['nodes']:.0f} nodes that {top.method} made of 2,708" in body
    assert "81.0 ± 1.0 %" in body
    assert "3 condensers on cora" in page.text("h1")
    assert render(tmp_path, comparison)[0] == source
    best = re.findall(r'<td class="best">([^<]*)<span class="mark">', source)
    assert len(best) == 2 * (2 + len(networks))  # of each size: bytes, seconds and scores
    assert page.text("th").count("label ratio 0.25") == 1


def test_page_of_a_grid_with_less_than_everything(tmp_path):
    source, page = render(tmp_path, make_grid(herding=1.0, seeds=1).comparison())
    check(source, page, svgs=1)
    assert "No set could be made by herding at 1: it <diverged>." in page.text("p")
    alone = make_grid(names=("<b>",), networks=("gcn",), seeds=1)
    source, page = render(tmp_path, alone.comparison())
    check(source, page, svgs=1)
    assert "1 condenser on cora" in page.text("h1").lower()
    none = make_grid(names=("random",), networks=("gcn",))
    none = replace(none, cells=tuple(Cell("random", r, 0, error="no") for r in (0.25, 0.5)))
    source, page = render(tmp_path, none.comparison())
    check(source, page, svgs=0)
    assert "No method could make a set." in page.text("p")


def test_plot_of_a_grid_shows_the_rows():
    grid = make_grid(networks=("gcn",))
    (figure,) = [picture.draw() for picture in grid.comparison().figures]
    left, right = figure.axes
    assert (left.get_xscale(), right.get_xscale()) == ("log", "log")
    for ax, where in ((left, lambda row: row.sizes["nodes"]), (right, lambda row: row.time[0])):
        lines = {line.get_label(): line for line in ax.get_lines()}
        for name in grid.methods:
            rows = [row for row in grid.rows() if row.method == name]
            np.testing.assert_allclose(lines[name].get_xdata(), [where(row) for row in rows])
            np.testing.assert_allclose(lines[name].get_ydata(), [100 * row.score("gcn")[0] for row in rows])
        np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 81)
        assert {note.get_text() for note in ax.texts} == {"full graph", *grid.methods}
    assert len({line.get_marker() for line in left.get_lines()[1:]}) == 3


def test_names_do_not_hide_each_other(rng):
    """Whatever the values, and a dozen of them that nearly coincide."""
    names = tuple(f"method-{i}" for i in range(12))
    lines = {
        name: Line(
            np.asarray([35.0, 140.0]),
            np.asarray([[10.0 ** (i - 1), 0.01]] * 2),
            np.stack([0.6 + 0.05 * i + 0.02 * rng.random(2), np.full(2, 0.01)], axis=1),
        )
        for i, name in enumerate(names)
    }
    close = {name: line._replace(score=0.6 + 0.01 * line.score) for name, line in lines.items()}
    for panel in (lines, close):
        figure = plot_lines({"accuracy, %": panel}, {"accuracy, %": 0.81}, size="nodes")
        figure.draw_without_rendering()
        for ax in figure.axes:
            boxes = np.asarray([Text.get_window_extent(n).extents for n in ax.texts if n.get_text() in names])
            assert len(boxes) == 12
            middle = (boxes[:, 1] + boxes[:, 3]) / 2 * 72 / figure.dpi
            apart = np.abs(middle[:, None] - middle) >= 8.9
            right = boxes[:, None, 2] <= boxes[None, :, 0] + 2
            assert (apart | right | right.T | np.eye(12, dtype=bool)).all()


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_heights_are_pushed_apart_as_little_as_possible(values):
    found = _apart(np.asarray(values), 10.0, -5.0, 105.0)
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) >= 10 - 1e-6).all()
    assert found.min() >= -5 - 1e-6
    assert found.max() <= 105 + 1e-6
    if len(values) == 1 or np.diff(np.sort(values)).min() >= 10:
        np.testing.assert_allclose(found, values, atol=1e-6)
