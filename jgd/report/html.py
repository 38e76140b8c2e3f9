"""One self-contained HTML page about a comparison.

No scripts, no requests, no dependencies: text, a table and inline SVG that follow the reader's light or dark
theme, fit a phone, print, and can be read with a keyboard and a screen reader.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jgd.files import atomic_write
from jgd.protocols.compare import Comparison
from jgd.protocols.evaluate import Score
from jgd.report.geometry import edges_of
from jgd.report.markup import Markup, el, inline_svg
from jgd.report.parts import (
    GLUE,
    accuracy_text,
    captioned,
    column,
    data_section,
    distance_text,
    document,
    key_list,
    number_range,
    percent,
    run_section,
    seconds_text,
    set_table,
    size_text,
)
from jgd.report.plots import (
    MOST_EDGES,
    MOST_NODES,
    MOST_POINTS,
    curve,
    network_title,
    plot_accuracy,
    plot_condensed,
    plot_curves,
)

__all__ = ["write_report"]


def write_report(path: str | os.PathLike, comparison: Comparison, metrics: dict[str, Any]) -> Path:
    """Write a report as a single HTML file, whole or not at all.

    Args:
      path: of the file; folders are made.
      comparison: what `jgd.compare` returned.
      metrics: what `Comparison.metrics` returned.

    Returns:
      The path.
    """
    page = _page(comparison, metrics)
    with atomic_write(path, "w") as file:
        file.write(page)
    return Path(path)


def _page(comparison: Comparison, metrics: dict[str, Any]) -> str:
    return document(
        f"{metrics['dataset'] or 'a graph'} condensed by {metrics['method']}",
        _summary(comparison, metrics),
        _key_numbers(comparison, metrics),
        {
            "results": ("Results", _table(comparison)),
            "accuracy": ("Accuracy", _accuracy_figure(comparison)),
            "curves": ("Learning curves", _curves_figure(comparison)),
            "graph": ("The condensed graph", _condensed_figure(comparison)),
            "run": ("What was run", run_section(metrics, _protocol(comparison, metrics))),
            "data": ("The numbers as data", data_section(metrics)),
        },
        version=metrics["versions"].get("jgd", ""),
    )


def _difference(score: Score, other: Score) -> str:
    points = 100 * (score.test_mean - other.test_mean)
    if abs(points) < 0.05:
        return "the same as"
    return f"{abs(points):.1f} points {'above' if points > 0 else 'below'}"


# --- what came out ------------------------------------------------------------------------------


def _first_model(comparison: Comparison) -> tuple[str, dict[str, Score]]:
    model = next(iter(comparison.scores["full"]))
    return model, {name: scores[model] for name, scores in comparison.scores.items()}


def _summary(comparison: Comparison, metrics: dict[str, Any]) -> str:
    """The outcome in a sentence."""
    model, scores = _first_model(comparison)
    full, ours = scores.pop("full"), scores.pop(comparison.method)
    text = (
        f"Trained on the {metrics['nodes']:,} nodes that {metrics['method']} made of the "
        f"{metrics['original']['nodes']:,} of {metrics['dataset'] or 'the graph'}, {network_title(model)} "
        f"reaches {accuracy_text(ours)} test accuracy, {_difference(ours, full)} the {accuracy_text(full)} "
        "of the whole graph"
    )
    if scores:
        best = max(scores, key=lambda name: scores[name].test_mean)
        named = "the baseline" if len(scores) == 1 else f"the best of {len(scores)} baselines of that size"
        text += f" and {_difference(ours, scores[best])} {named} ({best}, {accuracy_text(scores[best])})"
    return f"{text}."


def _key_numbers(comparison: Comparison, metrics: dict[str, Any]) -> Markup:
    model, scores = _first_model(comparison)
    original, seconds = metrics["original"], metrics["seconds"]
    factor = original["bytes"] / max(1, metrics["bytes"])
    items = {
        "Nodes": (
            f"{metrics['nodes']:,} of {original['nodes']:,}",
            f"{percent(metrics['label_ratio'])} of the labelled, {percent(metrics['node_ratio'])} of all",
        ),
        "Size": (
            size_text(metrics["bytes"]),
            f"{factor:.3g} times smaller than {size_text(original['bytes'])}"
            if factor >= 1
            else f"larger than the {size_text(original['bytes'])} of the original",
        ),
        f"Test accuracy, {network_title(model)}": (
            accuracy_text(scores[comparison.method]),
            f"{accuracy_text(scores['full'])} on the whole graph",
        ),
        "Time to condense": (
            f"{seconds_text(seconds.get('condense'))} s",
            f"{seconds_text(seconds.get('evaluate'))} s to evaluate all sets",
        ),
    }
    return key_list(items)


# --- the table ----------------------------------------------------------------------------------


def _table(comparison: Comparison) -> Markup:
    rows, models = comparison.rows(), list(comparison.scores["full"])

    def accuracy(model: str) -> list[Markup]:
        def show(row):
            return str(row["scores"][model]).removesuffix(" %")

        return column(rows, show, lambda row: row["scores"][model].test_mean, largest=True)

    columns = [
        column(rows, lambda row: f"{row['nodes']:,}"),
        column(rows, lambda row: f"{row['edges']:,}"),
        column(rows, lambda row: f"{row['bytes']:,}", lambda row: row["bytes"]),
        *map(accuracy, models),
        column(rows, lambda row: distance_text(row["fid"]), lambda row: row["fid"]),
        column(rows, lambda row: seconds_text(row["seconds"])),
    ]
    method, note = comparison.method, _table_notes(comparison)
    return set_table(rows, columns, _table_head(models), whole="full graph", method=method, note=note)


def _table_head(models: Sequence[str]) -> Markup:
    def tall(text):
        return el("th", text, scope="col", rowspan=2)

    return el(
        "thead",
        el(
            "tr",
            *map(tall, ("Set", "Nodes", "Edges", "Bytes")),
            el("th", "Test accuracy, %", scope="colgroup", colspan=len(models)),
            *map(tall, ("Fréchet distance", "Seconds")),
        ),
        el("tr", *(el("th", network_title(model), scope="col") for model in models)),
    )


def _table_notes(comparison: Comparison) -> str:
    seeds = {len(score.test) for scores in comparison.scores.values() for score in scores.values()}
    text = (
        f"Accuracy: mean ± standard deviation over {number_range(seeds)} seeds. Edges count once in each "
        "direction. Fréchet distance: between the features Â²X of the original and of the condensed graph, "
        "each of mean squared norm one. Seconds: to make the set. Bold with an asterisk: fewest bytes, "
        "highest accuracy and smallest distance among the condensed sets."
    )
    own = [name for name, small in comparison.condensed.items() if "predictor" in small.train]
    if own:
        text += f" {', '.join(own)}: by the predictor that the set is meant for, whatever the column."
    if "embedding" in comparison.seconds:
        text += (
            " Not in the table is the time to train the network whose embeddings herding and k-center select "
            f"by: {seconds_text(comparison.seconds['embedding'])}{GLUE}s."
        )
    return text


# --- figures ------------------------------------------------------------------------------------


def _accuracy_figure(comparison: Comparison) -> Markup:
    title = "Test accuracy of each set and architecture"
    panels = [
        f"{network_title(model)}: "
        + ", ".join(f"{name} {comparison.scores[name][model]}" for name in comparison.scores)
        for model in comparison.scores["full"]
    ]
    description = f"Bar chart, one panel for each architecture. {'; '.join(panels)}."
    caption = (
        "Test accuracy of networks trained on each set. Error bars and numbers: standard deviation over "
        "seeds. Dashed line: the whole graph."
    )
    svg = inline_svg(plot_accuracy(comparison), "accuracy-plot", title=title, description=description)
    return captioned(1, svg, title, caption)


def _curves_figure(comparison: Comparison) -> Markup:
    title = "Validation accuracy during training"
    ends = []
    for model in comparison.scores["full"]:
        last = {name: curve(comparison.scores[name][model])[1][-1:] for name in comparison.scores}
        text = ", ".join(
            f"{name} {percent(v[0])}" if len(v) else f"{name} unknown" for name, v in last.items()
        )
        ends.append(f"{network_title(model)}: {text}")
    description = f"Line chart, one panel for each architecture. At the end {'; '.join(ends)}."
    caption = (
        "Accuracy on the validation nodes of the original graph while a network is trained on each set, mean "
        "over seeds, at the epochs where it was measured."
    )
    svg = inline_svg(plot_curves(comparison), "curves-plot", title=title, description=description)
    return captioned(2, svg, title, caption)


def _condensed_figure(comparison: Comparison) -> Markup:
    title = "The condensed graph and its features among those of the original"
    caption = f"{_graph_caption(comparison)} {_feature_caption(comparison)}"
    svg = inline_svg(
        plot_condensed(comparison), "graph-plot", title=title, description=f"Two panels. {caption}"
    )
    return captioned(3, svg, title, caption)


def _graph_caption(comparison: Comparison) -> str:
    nodes, edges = len(comparison.small.targets), edges_of(comparison.small, MOST_EDGES)
    drawn = len(edges.pairs)
    if not drawn:
        text = "Left: the condensed nodes; there are no edges between them (A' = I)."
    else:
        which = (
            f"its {drawn:,}" if drawn == edges.total else f"the {drawn:,} strongest of its {edges.total:,}"
        )
        text = (
            f"Left: the condensed graph with {which} undirected edges (no self loops), wider where heavier."
        )
        if len(np.unique(edges.pairs)) < nodes:
            text += " Nodes without any of them stand below."
    if nodes > MOST_NODES:
        text += f" Of its {nodes:,} nodes {MOST_NODES:,} are marked."
    return text


def _feature_caption(comparison: Comparison) -> str:
    count = comparison.task.num_nodes
    dots = f"the {count:,} original nodes"
    if count > MOST_POINTS:
        dots = f"{MOST_POINTS:,} of {dots}, evenly spaced by number"
    return (
        f"Right: small dots are {dots}, large markers all condensed nodes, by their features propagated "
        "twice (Â²X on the original graph, Â'²X' on the condensed one), each scaled to a mean squared norm "
        "of one and projected on the first two principal components of the original. The frame holds at "
        f"least 98{GLUE}% of the original nodes. Colour, and the shape of large markers: class."
    )


# --- what was run -------------------------------------------------------------------------------


_SETTINGS = {
    "transductive": "training sees all nodes and edges, but only the labels of training nodes",
    "inductive": "training sees the subgraph of training nodes only; validation and test nodes are judged "
    "each on their own subgraph",
}


def _protocol(comparison: Comparison, metrics: dict[str, Any]) -> str:
    """How networks were trained and tested."""
    scores = [score for by_model in comparison.scores.values() for score in by_model.values()]
    protocol = comparison.protocol
    seeds = number_range({len(score.test) for score in scores})
    look = "every epoch" if protocol.select_every == 1 else f"every {protocol.select_every} epochs"
    return (
        f"The setting is {metrics['setting']}: {_SETTINGS[metrics['setting']]}. Each architecture is trained "
        f"full-batch on each set for {protocol.epochs} epochs, from {seeds} random "
        f"initialisations. Its accuracy on the validation nodes of the original graph is measured "
        f"after {look}; the state that was best there is tested on the test nodes of the "
        "original graph. The whole graph goes through the same procedure. Standard deviations are those of "
        "the seeds at hand (the sum of squares is divided by their number)."
    )
