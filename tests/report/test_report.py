"""Reports and plots of a comparison that was put together by hand."""

import json
import math
import re
from dataclasses import replace
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

from jgd.condense import Average
from jgd.data import contextual_sbm
from jgd.data.condensed import Condensed
from jgd.graph import from_adjacency
from jgd.metrics import frechet_distance
from jgd.protocols.compare import Comparison, propagated_distance
from jgd.protocols.evaluate import Protocol, Score
from jgd.protocols.sweep import Cell, MethodComparison
from jgd.report import (
    plot_accuracy,
    plot_condensed,
    plot_curves,
    plot_methods,
    write_method_report,
    write_report,
)
from jgd.report.geometry import edges_of, positions, project, spread
from jgd.report.markup import Markup, el
from jgd.report.parts import best_rows, distance_text, seconds_text, size_text
from jgd.report.plots import DARK, _apart, curve

EPOCHS = 12


def score(mean, *, seeds=3, every=4, looks=True):
    curve = np.full(EPOCHS, np.nan)
    if looks:
        curve[every - 1 :: every] = np.linspace(0.4, mean, len(curve[every - 1 :: every]))
    test = mean + 0.011 * np.arange(-1, seeds - 1)
    return Score(test, test - 0.02, curve, np.linspace(1, 0.1, EPOCHS), 0.5)


def make_task(name="toy", **options):
    task = contextual_sbm(0, num_nodes=60, num_classes=3, num_features=5, mean_degree=4, **options)
    return replace(task, name=name)


def with_edges(small, task, structure="raw"):
    n = len(small.targets)
    a = np.triu(np.random.default_rng(0).random((n, n)), 1)
    graph = from_adjacency((a + a.T + np.eye(n)).astype(np.float32), small.data.nodes)
    return Condensed(
        data=graph, targets=small.targets, train={**small.train, "structure": structure},
        provenance=small.provenance,
    )  # fmt: skip


def make(name="toy", method="ours", models=("gcn", "mlp"), identity=False, fid=0.0123, looks=True, **options):
    task = make_task(name)
    base = Average(label_ratio=None, nodes=9)(jax.random.key(0), task)
    condensed = {method: base if identity else with_edges(base, task)}
    if options.get("baselines", True):
        condensed |= {"random": base, "average": base}
    means = dict(zip(("full", *condensed), (0.91, 0.87, 0.71, 0.8), strict=False))
    scores = {
        name: {model: score(mean - 0.03 * i, looks=looks) for i, model in enumerate(models)}
        for name, mean in means.items()
    }
    seconds = {
        method: 1.5,
        "condense": 1.5,
        "evaluate": 2.25,
        "embedding": 3.75,
        "random": 0.001,
        "average": 0.04,
    }
    distances = {name: fid * (i + 1) for i, name in enumerate(condensed)}
    protocol = Protocol(epochs=12, select_every=4)
    return Comparison(task, method, condensed, scores, seconds, distances, protocol)


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


def render(path, comparison, **options):
    metrics = comparison.metrics(**options)
    assert write_report(path / "deep" / "report.html", comparison, metrics) == path / "deep" / "report.html"
    source = (path / "deep" / "report.html").read_text(encoding="utf-8")
    return source, Page(source), metrics


def numbers(value):
    if isinstance(value, dict):
        return [n for v in value.values() for n in numbers(v)]
    if isinstance(value, list | tuple):
        return [n for v in value for n in numbers(v)]
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else []


def check(source, page, svgs=3):
    """What holds for every report."""
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
    assert {"header", "nav", "main", "footer", "caption", "figcaption"} <= {tag for tag, _ in page.elements}
    assert all("scope" in th for th in page.all("th"))
    assert all(a["tabindex"] == "0" for t, a in page.elements if a.get("class") == "scroll" or t == "pre")
    assert not re.search(r"\bnan\b", page.text(), re.IGNORECASE)


def test_report_holds_every_number(tmp_path):
    source, page, metrics = render(tmp_path, make(), command="jgd condense toy", seed=7)
    check(source, page)
    data = json.loads(page.text("code").removeprefix("jgd condense toy"))
    assert data == json.loads(json.dumps(metrics))
    for number in numbers(metrics):
        assert json.dumps(number) in source
    body = source[: source.index("<details>")].replace("\N{NO-BREAK SPACE}", " ")
    for text in ("9 of 60", "87.0 ± 0.9", "91.0 ± 0.9", "68.0 ± 0.9", "4.0 points below", "7.0 points above"):
        assert text in body
    for text in (
        "average, 80.0 ± 0.9 %",
        "every 4 epochs",
        "for 12 epochs",
        "from 3 random",
        "jgd condense toy",
    ):
        assert text in body
    assert f"{metrics['bytes']:,}" in body
    assert metrics["versions"]["device"] in page.text("dd")


def test_report_is_deterministic_and_replaces_an_old_one(tmp_path):
    first = render(tmp_path, make())[0]
    assert render(tmp_path, make())[0] == first
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["report.html"]


def test_best_values_are_marked_by_more_than_colour(tmp_path):
    source, _, _ = render(tmp_path, make())
    marked = re.findall(
        r'<td class="best">([^<]*)<span class="mark"><span aria-hidden="true">\*</span>', source
    )
    nodes_only = f"{make().rows()[2]['bytes']:,}"
    assert marked == ["87.0 ± 0.9", "84.0 ± 0.9", "0.0123", nodes_only, nodes_only]
    assert best_rows([1, 1, 1]) == set()
    assert best_rows([3, None, 1, math.nan]) == {2}
    assert best_rows([3, 5, 5], largest=True) == {1, 2}


@pytest.mark.parametrize("field", ["name", "method"])
def test_user_strings_are_text(tmp_path, field):
    evil = "<script>alert('$x$ & \"y\"')</script>"
    source, page, _ = render(tmp_path, make(**{field: evil}), command=evil)
    check(source, page)
    assert "<script" not in source
    assert page.text().count(evil) >= 4
    assert evil in page.text("text" if field == "method" else "h1") or evil.capitalize() in page.text("h1")


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
        {"identity": True},
        {"models": ("gcn",), "baselines": False},
        {"models": ("gcn", "mlp", "sgc", "custom")},
        {"looks": False},
        {"fid": math.nan},
    ],
    ids=["identity", "one model, no baseline", "four models", "no curve", "no distance"],
)
def test_report_of_less_than_everything(tmp_path, options):
    comparison = make(**options)
    source, page, _ = render(tmp_path, comparison)
    check(source, page)
    text = page.text()
    assert ("no edges between them" in text) == options.get("identity", False)
    assert ("baseline" in page.text("p")) == options.get("baselines", True)
    assert ("nobody looked" in text) == (not options.get("looks", True))
    assert "no command was recorded" in text


def test_report_where_condensed_nodes_miss_a_class_and_labels_are_soft_or_unknown(tmp_path):
    comparison = make()
    small = comparison.small
    soft = np.eye(3, dtype=np.float32)[np.where(small.targets == 2, 0, small.targets)]
    labels = np.asarray(comparison.task.labels).copy()
    labels[:5] = -1
    comparison = replace(
        comparison,
        task=replace(comparison.task, labels=labels),
        condensed={**comparison.condensed, "ours": replace(small, targets=soft)},
    )
    source, page, _ = render(tmp_path, comparison)
    check(source, page)
    assert {"class 0", "class 1", "class 2", "no label"} <= {
        data for tag, data in page.texts if tag == "text"
    }


def test_plots_are_figures_and_leave_matplotlib_as_it_was():
    before = dict(matplotlib.rcParams)
    comparison = make()
    task, small = comparison.task, comparison.small
    figures = [
        plot_accuracy(comparison),
        plot_curves(comparison),
        plot_condensed(comparison),
        plot_condensed((task, small)),
    ]
    assert all(isinstance(figure, Figure) for figure in figures)
    assert figures[0]._repr_png_().startswith(b"\x89PNG")
    assert dict(matplotlib.rcParams) == before
    assert [ax.get_title() for ax in figures[0].axes] == ["", ""]
    assert [ax.get_title(loc="left") for ax in figures[0].axes] == ["GCN", "MLP"]


def test_bars_and_curves_show_the_scores():
    comparison = make(models=("gcn",))
    bars = [patch.get_width() for patch in plot_accuracy(comparison).axes[0].patches]
    np.testing.assert_allclose(bars, [91, 87, 71, 80])
    epochs, values = curve(comparison.scores["full"]["gcn"])
    np.testing.assert_array_equal(epochs, [4, 8, 12])
    drawn = plot_curves(comparison).axes[0].lines[0]
    np.testing.assert_array_equal(drawn.get_xdata(), epochs)
    np.testing.assert_allclose(drawn.get_ydata(), 100 * values)


def test_projection_keeps_the_distance_where_there_are_two_features():
    task = make_task()
    task = replace(task, graph=task.graph._replace(nodes=np.asarray(task.graph.nodes)[:, :2]))
    small = with_edges(Average(label_ratio=None, nodes=9)(jax.random.key(0), task), task)
    plane = project(task, small)
    points = (jnp.asarray(x, jnp.float32) for x in plane[:2])
    np.testing.assert_allclose(frechet_distance(*points), propagated_distance(task, small), rtol=1e-3)
    assert sum(plane.explained) == pytest.approx(1)


def test_projection_of_a_single_feature_is_a_line():
    task = make_task()
    task = replace(task, graph=task.graph._replace(nodes=np.asarray(task.graph.nodes)[:, :1]))
    small = Average(label_ratio=None, nodes=3)(jax.random.key(0), task)
    assert np.ptp(project(task, small).original[:, 1]) < 1e-5
    plot_condensed((task, small))


def test_strongest_edges():
    a = np.zeros((4, 4), np.float32)
    a[0, 0], a[0, 1], a[1, 0], a[2, 1], a[3, 2] = 9, 0.5, 0.2, -2, 1
    small = Condensed(data=from_adjacency(a, np.eye(4, dtype=np.float32)), targets=np.arange(4))
    edges = edges_of(small, 2)
    assert edges.total == 3
    np.testing.assert_array_equal(edges.pairs, [[2, 3], [1, 2]])
    np.testing.assert_allclose(edges.weights, [1, 2])


def test_nodes_without_edges_stand_apart_below():
    a = np.zeros((7, 7), np.float32)
    a[0, 1] = a[1, 2] = a[2, 0] = 1
    small = Condensed(data=from_adjacency(a, np.eye(7, dtype=np.float32)), targets=np.arange(7))
    place = positions(edges_of(small, 10), np.arange(7))
    assert len(np.unique(place, axis=0)) == 7
    assert np.abs(place).max() <= 1
    assert place[:3, 1].min() > place[3:, 1].max()


def test_spread_is_even_and_bounded():
    np.testing.assert_array_equal(spread(3, 10), [0, 1, 2])
    assert len(spread(5000, 2000)) == 2000
    assert spread(5000, 2000)[[0, -1]].tolist() == [0, 4999]


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
    seconds = {None: "–", math.inf: "–", 0.001: "<0.01", 0.04: "0.04", 1234.5: "1,234.50"}
    assert {s: seconds_text(s) for s in seconds} == seconds
    distances = {None: "–", math.inf: "–", 0.0: "0.0000", 0.01118: "0.0112", 0.00002: "2.0e-05"}
    assert {d: distance_text(d) for d in distances} == distances


# --- many methods -------------------------------------------------------------------------------


def make_methods(names=("random", "herding", "clustgdd"), models=("gcn", "mlp"), seeds=2, **fails):
    rng = np.random.default_rng(0)
    cells = []
    for ratio in (0.25, 1.0):
        for i, name in enumerate(names):
            for s in range(seeds):
                cell = Cell(name, ratio, s)
                if fails.get(name) == ratio:
                    cells.append(replace(cell, error="it <diverged>"))
                    continue
                test = {m: (0.6 + 0.05 * i + 0.02 * rng.random(3)).tolist() for m in models}
                n = int(140 * ratio)
                cells.append(
                    replace(
                        cell,
                        nodes=n,
                        bytes=4000 * n + i,
                        seconds=10.0 ** (i - 1) + 0.01 * s,
                        test=test,
                        val=test,
                    )
                )
    original = {"nodes": 2708, "edges": 10556, "bytes": 15_000_000, "labelled": 140}
    full = {m: np.asarray([0.8, 0.82]) for m in models}
    return MethodComparison(
        "cora", "transductive", original, models, full, 3.0, tuple(cells), versions={"jgd": "1"}
    )


def render_methods(path, comparison, **options):
    target = write_method_report(path / "deep" / "methods.html", comparison, **options)
    source = target.read_text(encoding="utf-8")
    return source, Page(source)


@pytest.mark.parametrize("models", [("gcn",), ("gcn", "mlp", "sage")])
def test_method_report_holds_every_number(tmp_path, models):
    comparison = make_methods(models=models)
    source, page = render_methods(tmp_path, comparison, command="jgd compare cora")
    check(source, page, svgs=1)
    metrics = comparison.metrics(command="jgd compare cora")
    assert json.loads(page.text("code").removeprefix("jgd compare cora")) == json.loads(json.dumps(metrics))
    body = source[: source.index("<details>")].replace("\N{NO-BREAK SPACE}", " ")
    for row in comparison.rows():
        for model in models:
            mean, std = row.accuracy(model)
            assert body.count(f"{100 * mean:.1f} ± {100 * std:.1f}") >= 2  # in the table and for the plot
    top = max(comparison.rows(), key=lambda row: row.accuracy(models[0])[0])
    assert f"{top.nodes:.0f} nodes that {top.method} made of 2,708" in body
    assert "81.0 ± 1.0 %" in body
    assert "3 condensers on cora" in page.text("h1")
    assert render_methods(tmp_path, comparison, command="jgd compare cora")[0] == source
    best = re.findall(r'<td class="best">([^<]*)<span class="mark">', source)
    assert len(best) == 2 * (2 + len(models))  # of each size: bytes, seconds and accuracies


def test_method_report_of_less_than_everything(tmp_path):
    source, page = render_methods(tmp_path, make_methods(herding=1.0, seeds=1))
    check(source, page, svgs=1)
    assert "No set could be made by herding at 100\N{NO-BREAK SPACE}%: it <diverged>." in page.text("p")
    alone = make_methods(names=("<b>",), models=("gcn",), seeds=1)
    source, page = render_methods(tmp_path, alone)
    check(source, page, svgs=1)
    assert "1 condenser on cora" in page.text("h1").lower()
    none = make_methods(names=("random",), models=("gcn",))
    none = replace(none, cells=tuple(Cell("random", r, 0, error="no") for r in (0.25, 0.5)))
    source, page = render_methods(tmp_path, none)
    check(source, page, svgs=1)
    assert "No method could make a set." in page.text("p")


def test_method_plot_shows_the_rows():
    comparison = make_methods(models=("gcn",))
    figure = plot_methods(comparison)
    left, right = figure.axes
    assert (left.get_xscale(), right.get_xscale()) == ("log", "log")
    for ax, where in ((left, lambda row: row.nodes), (right, lambda row: row.time[0])):
        lines = {line.get_label(): line for line in ax.get_lines()}
        for name in comparison.methods:
            rows = [row for row in comparison.rows() if row.method == name]
            np.testing.assert_allclose(lines[name].get_xdata(), [where(row) for row in rows])
            np.testing.assert_allclose(
                lines[name].get_ydata(), [100 * row.accuracy("gcn")[0] for row in rows]
            )
        np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), 81)
        assert {note.get_text() for note in ax.texts} == {"full graph", *comparison.methods}
    assert len({line.get_marker() for line in left.get_lines()[1:]}) == 3


def test_names_do_not_hide_each_other():
    """Whatever the values, and a dozen of them that nearly coincide."""
    names = tuple(f"method-{i}" for i in range(12))
    figure = plot_methods(make_methods(names=names, models=("gcn",)))
    figure.draw_without_rendering()
    for ax in figure.axes:
        boxes = np.asarray([n.get_window_extent().extents for n in ax.texts if n.get_text() in names])
        middle = (boxes[:, 1] + boxes[:, 3]) / 2 * 72 / figure.dpi
        apart = np.abs(middle[:, None] - middle) >= 8.9
        beside = (boxes[:, None, 2] <= boxes[None, :, 0] + 2) | (boxes[None, :, 2] <= boxes[:, None, 0] + 2)
        assert (apart | beside | np.eye(12, dtype=bool)).all()


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
