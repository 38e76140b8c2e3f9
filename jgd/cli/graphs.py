"""Commands about sets of graphs, and about provenance graphs."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from jgd.cli.errors import mistakes
from jgd.cli.options import Flag, Names, Number, Out, OwnData, Reading

__all__ = ["CondenseGraphs", "Detect"]


def _settings(command: Any) -> dict[str, Any]:
    """What tells a run of a command from others, as plain values."""
    settings = dataclasses.asdict(command)
    for name in ("out", "no_resume", "quiet", "reading"):  # how data are read is told by their checksum
        settings.pop(name, None)
    return {name: str(value) if isinstance(value, Path) else value for name, value in settings.items()}


@dataclass(frozen=True)
class CondenseGraphs:
    """Distil a set of labelled graphs into a few, and compare.

    Trains networks on the condensed graphs, on all training graphs and on graphs chosen at the same number of
    nodes, prints one table, and writes condensed.npz, metrics.json and report.html.

    Examples: `jgd condense-graphs tu:NCI1 --nodes 300`, `jgd condense-graphs tu:MUTAG --method kidd`.

    Attributes:
      dataset: a set of graphs, see `jgd datasets`, or the path of one of your own, see `jgd describe`.
      method: name, see `jgd methods`; its settings are the authors' where they are known.
      nodes: most nodes of all condensed graphs together (mirage and the choices of graphs); of each
        condensed graph (doscond-graphs, kidd).
      graphs_per_class: condensed graphs of each class (all but mirage).
      support: least share of the graphs of a class that hold a pattern (mirage).
      epochs: steps of the condenser (doscond-graphs, kidd).
      seed: of the random key.
      out: folder for the outputs; runs/DATASET-METHOD-seedSEED by default.
      models: networks to evaluate with, of gcn, sgc, sage, gat, appnp, cheb, gin, gprgnn.
      seeds: networks of each kind that are trained on each set.
      steps: training steps of each network.
      baselines: what to compare with, of random-graphs, herding-graphs, k-center-graphs.
      no_resume: replace an earlier run in the folder instead of going on with it.
      quiet: print the table only.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "mirage"
    nodes: Number = None
    graphs_per_class: Number = None
    support: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    epochs: Number = None
    seed: int = 0
    out: Out = None
    models: Names = ("gin",)
    seeds: int = 5
    steps: int = 500
    baselines: Names = ("random-graphs", "herding-graphs", "k-center-graphs")
    no_resume: Flag = False
    quiet: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax

        from jgd.cli.job import check_writable, claimed, driver, finish, load_data, short_dataset, teller
        from jgd.cli.results import OUTPUTS, graph_table
        from jgd.data import GraphTask, artifact, checksum
        from jgd.protocols.compare_graphs import compare_graphs
        from jgd.protocols.evaluate import NETWORKS
        from jgd.protocols.graphs import GraphProtocol
        from jgd.protocols.methods import GRAPH_BASELINES, named, preferred_for_graphs
        from jgd.report.graphs import write_graph_report

        say = teller(self.quiet)
        given = {
            name: getattr(self, name)
            for name in ("nodes", "graphs_per_class", "support", "epochs")
            if getattr(self, name) is not None
        }
        with mistakes():  # names before data, which may be a download
            preferred_for_graphs(self.method, self.dataset, **given)
            for kind, names, known in (
                ("model", self.models, NETWORKS),
                ("baseline", self.baselines, GRAPH_BASELINES),
            ):
                for name in names:
                    named(kind, name, known)
            if self.seeds < 1 or not self.models:
                raise ValueError("name at least one model and one seed")
            protocol = GraphProtocol(steps=self.steps)
        named_so = f"{short_dataset(self.dataset)}-{self.method}-seed{self.seed}"
        out = Path("runs") / named_so if self.out is None else self.out
        check_writable(out)
        with mistakes():
            task = load_data(
                self.dataset,
                self.reading.options(self.dataset),
                refuse=lambda task: None if isinstance(task, GraphTask) else self._other(task),
                quiet=self.quiet,
            )
            recipe = preferred_for_graphs(self.method, task.name, **given)
        settings, data = _settings(self), checksum(task)
        resume = not self.no_resume
        with claimed(out, "condense-graphs", settings, data, resume=resume, say=say), mistakes():
            found = compare_graphs(
                recipe,
                task,
                key=jax.random.key(self.seed),
                method=self.method,
                baselines=self.baselines,
                models=self.models,
                seeds=self.seeds,
                protocol=protocol,
                loop=driver(out, self.quiet),
                say=say,
            )
            metrics = found.metrics(command=command, seed=self.seed) | {"checksum": checksum(task)}
            small = dataclasses.replace(
                found.small,
                provenance={
                    **found.small.provenance,
                    "method": self.method,
                    "command": command,
                    "seed": self.seed,
                    "checksum": metrics["checksum"],
                },
            )
            artifact.save(small, out / "condensed.npz")
            write_graph_report(out / "report.html", found, metrics)

            def tell() -> None:
                graph_table(found)
                print(f"\ntest accuracy and ROC-AUC, both in % ± standard deviation over {self.seeds} seeds")
                print(f"written to {out}: {', '.join(OUTPUTS)}")

            finish(out, metrics, OUTPUTS[:-1], tell)
        return 0

    def _other(self, task: object) -> str:
        from jgd.data import NodeTask

        if isinstance(task, NodeTask):
            return f"{self.dataset} is one graph: `jgd condense {self.dataset}` condenses it"
        return f"{self.dataset} holds no graphs: `jgd distill {self.dataset}` distils a teacher of it"


@dataclass(frozen=True)
class Detect:
    """Train an intrusion detector on a distilled provenance graph.

    That is GraphDART, beside a detector of the whole graph.

    Without files it records what it needs on this machine, in seconds: everyday programs of the standard
    library, and harmless scripts that behave as intrusions do, in a temporary folder. Writes metrics.json.

    Examples: `jgd detect`, `jgd detect --method herding --label-ratio 0.01`,
    `jgd detect --streamspot all.tsv --seeds 3`.

    Attributes:
      method: condenser, see `jgd methods`.
      label_ratio: condensed nodes for each node of the benign graph, in (0, 1].
      rounds: networks that are trained one after another, each on what the ones before did not explain.
      seeds: detectors of each kind.
      seed: of the first one.
      streamspot: events in the layout of StreamSpot: graphs 0 to 299 train, 450 to 599 are the benign test
        and 300 to 399 the attacks.
      out: folder for the outputs; runs/detect-METHOD-seedSEED by default.
      no_resume: replace an earlier run in the folder, whatever its settings.
      quiet: print the table only.
    """

    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "clustering"
    label_ratio: float = 0.05
    rounds: int = 1
    seeds: int = 3
    seed: int = 0
    streamspot: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    out: Out = None
    no_resume: Flag = False
    quiet: Flag = False

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax
        import numpy as np

        from jgd.apps.graphdart import GraphDART
        from jgd.cli.job import check_writable, claimed, finish, teller
        from jgd.cli.tables import show
        from jgd.data.provenance import record, streamspot, subset
        from jgd.files import digests
        from jgd.metrics import strict_scores, tolerant_scores
        from jgd.protocols.methods import preferred
        from jgd.protocols.text import spread

        say = teller(self.quiet)
        with mistakes():
            if not 0 < self.label_ratio <= 1:
                raise ValueError(f"label_ratio must be in (0, 1], got {self.label_ratio}")
            if self.seeds < 1:
                raise ValueError(f"seeds must be at least 1, got {self.seeds}")
            condenser = preferred(self.method, "provenance", self.label_ratio)
            contestants = {
                "whole graph": GraphDART(rounds=self.rounds),
                f"{self.method} {100 * self.label_ratio:g} %": GraphDART(condenser, rounds=self.rounds),
            }
        out = Path("runs") / f"detect-{self.method}-seed{self.seed}" if self.out is None else self.out
        check_writable(out)
        with mistakes():
            if self.streamspot is None:
                say("recording everyday programs and intrusions")
                log = record()
                benign = subset(log, [n for n in log.graphs if n.endswith(("-0", "-2"))])
                rest = subset(log, [n for n in log.graphs if n.endswith("-1") or n.startswith("intrusion")])
            else:
                log = streamspot(self.streamspot)
                number = {name: int(name) for name in log.graphs}
                benign = subset(log, [n for n in log.graphs if number[n] < 300])
                rest = subset(log, [n for n in log.graphs if 300 <= number[n] < 400 or number[n] >= 450])
        settings, file = _settings(self), self.streamspot
        data = "" if file is None else digests(file.parent, file.name)[file.name]
        resume = not self.no_resume
        with claimed(out, "detect", settings, data, resume=resume, say=say), mistakes():
            rows, results = [], {}
            for name, dart in contestants.items():
                scores: dict[str, list[dict[str, float]]] = {"strict": [], "tolerant": []}
                seconds, nodes = [], None
                for i in range(self.seeds):
                    say(f"training on {name}: {i + 1} of {self.seeds}")
                    start = time.perf_counter()
                    detector = dart(jax.random.key(self.seed + i), benign)
                    seconds.append(time.perf_counter() - start)
                    found = detector(rest)
                    truth = np.asarray([e in rest.malicious for e in found.found.ids])
                    scores["strict"].append(strict_scores(found.alarm, truth))
                    scores["tolerant"].append(tolerant_scores(found.alarm, truth, found.found.graph))
                    small = detector.condensed
                    nodes = None if small is None else len(small.targets)
                results[name] = {"seconds": seconds, "nodes": nodes, **scores}

                def text(kind, what, scores=scores):
                    return spread([s[what] for s in scores[kind]], 1, 3)

                rows.append(
                    [
                        name,
                        *(text("strict", what) for what in ("precision", "recall", "f1")),
                        text("tolerant", "f1"),
                        f"{np.median(seconds[1:] or seconds):.1f}",
                    ]
                )
            metrics = {"method": self.method, "label_ratio": self.label_ratio, "seed": self.seed}

            def tell() -> None:
                columns = ["trained on", "precision", "recall", "F1", "F1 within 2 hops", "seconds"]
                show(columns, rows)
                print(f"\nalarms on {len(rest.graphs)} held-out runs; ± over {self.seeds} seeds")
                print(f"written to {out}: metrics.json")

            finish(out, {**metrics, "results": results, "command": command}, (), tell)
        return 0
