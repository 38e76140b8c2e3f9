"""The commands: each is a dataclass of its arguments, whose call does the work.

The heavy imports are inside the calls, so that help and mistakes in the arguments come at once.
"""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import Flag, Number, Out, OwnData, Reading

__all__ = ["Compare", "Condense", "Datasets", "Evaluate", "Export", "Import", "Methods", "RunOptions"]


_File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
_Names = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]

# --- condense and run ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Condense:
    """Distil a graph into a tiny one, and compare the two.

    Trains networks on the condensed graph, on the whole graph and on baselines of the same size, prints one
    table, and writes condensed.npz, metrics.json and report.html. An interrupted run goes on
    where it was when the same command is given again.

    Examples: `jgd condense`, `jgd condense cora --label-ratio 0.5`, `jgd condense citeseer --nodes 30`,
    `jgd condense papers/ --undirected`.

    Attributes:
      dataset: name, see `jgd datasets`, or the path of a graph of your own, see `jgd describe`.
      label_ratio: condensed nodes for each labelled node, in (0, 1]; 0.25 for digits and 0.5 else.
      nodes: number of condensed nodes, instead of the ratio.
      method: name, see `jgd methods`; its settings are the authors' where they are known (`jgd run` can
        change each of them).
      seed: of the random key.
      out: folder for the outputs; runs/DATASET-METHOD-SIZE-seedSEED by default.
      models: networks to evaluate with, of gcn, sgc, sage, gat, appnp, cheb, gin, mlp, gprgnn; gcn and mlp
        for digits, gcn else.
      seeds: networks of each kind that are trained on each graph.
      epochs: training steps of each network; 200 for digits and 600 else.
      baselines: what to compare with, of random, herding, k-center, average, average-sgc; all by default, and
        none after an empty `--baselines`.
      setting: whether the condenser sees the whole graph, or only the subgraph of the training nodes.
      no_resume: replace an earlier run in the folder instead of going on with it.
      quiet: print the table only.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = "digits"
    label_ratio: Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")] = None
    nodes: Number = None
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "clustgdd"
    seed: int = 0
    out: Out = None
    models: _Names = None
    seeds: int = 5
    epochs: Number = None
    baselines: _Names = None
    setting: Literal["transductive", "inductive"] = "transductive"
    no_resume: Flag = False
    quiet: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.job import check_writable, conduct, load_nodes
        from jgd.protocols.experiment import default_experiment

        size: dict[str, Any] = {"label_ratio": self.label_ratio, "nodes": self.nodes}
        with mistakes():  # names before data, which may be a download
            self._experiment(default_experiment(self.dataset, self.method, **size)).check()
        if self.out is not None:
            check_writable(self.out)
        options = self.reading.options(self.dataset)
        task = load_nodes(self.dataset, self.setting, options, quiet=self.quiet)
        experiment = self._experiment(default_experiment(self.dataset, self.method, **size, task=task))
        conduct(
            experiment,
            self.out,
            command=command,
            resume=not self.no_resume,
            quiet=self.quiet,
            task=task,
            source=self.reading.source(self.dataset),
        )
        return 0

    def _experiment(self, usual: Any) -> Any:
        protocol = usual.protocol
        if self.epochs is not None:
            protocol = dataclasses.replace(protocol, epochs=self.epochs)
        return dataclasses.replace(
            usual,
            setting=self.setting,
            models=usual.models if self.models is None else self.models,
            baselines=usual.baselines if self.baselines is None else self.baselines,
            seeds=self.seeds,
            seed=self.seed,
            protocol=protocol,
        )


@dataclass(frozen=True)
class RunOptions:
    """Run a config file; each of its fields can be changed.

    The file is Python and says `config = Experiment(...)`. `jgd run FILE --help` lists all fields, with what
    the file says as their defaults.

    Attributes:
      out: folder for the outputs; runs/DATASET-METHOD-SIZE-seedSEED by default.
      no_resume: replace an earlier run in the folder instead of going on with it.
      quiet: print the table only.
    """

    out: Out = None
    no_resume: Flag = False
    quiet: Flag = False
    experiment: tyro.conf.Suppress[Any] = None  # `jgd.cli.config.run_type` puts an `Experiment` here
    config: ClassVar[Any] = None  # the one in the file

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.config import one_size
        from jgd.cli.job import conduct

        experiment = one_size(self.config, self.experiment)
        conduct(experiment, self.out, command=command, resume=not self.no_resume, quiet=self.quiet)
        return 0


def _load_graph(path: Path) -> Any:
    """A condensed graph from a file."""
    import jraph

    from jgd.data import artifact

    small = artifact.load(path)
    graph = small.data
    if not isinstance(graph, jraph.GraphsTuple) or not hasattr(graph.nodes, "shape"):
        raise Mistake(f"{path} holds no graph with features")
    if len(graph.n_node) != 1:
        raise Mistake(
            f"{path} holds {len(graph.n_node)} graphs: only one graph can be evaluated and exported"
        )
    return small


# --- compare ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Compare:
    """Compare condensers at several sizes.

    Makes sets by every method at every size, trains networks on each, prints a table, and writes metrics.json
    and report.html. Every set is kept in cells as soon as it is done, so that an interrupted run goes on
    where it was when the same command is given again, with more methods, sizes or seeds if you like.

    Example: `jgd compare cora --methods random herding average-sgc clustgdd --label-ratios 0.25 0.5 1`.

    Attributes:
      dataset: name, see `jgd datasets`, or the path of a graph of your own, see `jgd describe`.
      methods: names, see `jgd methods`; their settings are the authors' where they are known.
      label_ratios: sizes, in condensed nodes for each labelled node, in (0, 1].
      seeds: sets for each method and size.
      networks: networks of each kind that are trained on each set.
      models: networks to evaluate with, of gcn, sgc, sage, gat, appnp, cheb, gin, mlp, gprgnn; gcn and mlp
        for digits, gcn else.
      epochs: training steps of each network; 200 for digits and 600 else.
      seed: of the random key.
      out: folder for the outputs; runs/compare-DATASET-seedSEED by default.
      setting: whether the condensers see the whole graph, or only the subgraph of the training nodes.
      quiet: print the table only.
    """

    dataset: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")] = "digits"
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = (
        "random",
        "herding",
        "average-sgc",
        "clustgdd",
    )
    label_ratios: Annotated[tuple[float, ...], tyro.conf.arg(metavar="FLOAT ...")] = (0.25, 0.5, 1.0)
    seeds: int = 3
    networks: int = 1
    models: _Names = None
    epochs: Number = None
    seed: int = 0
    out: Out = None
    setting: Literal["transductive", "inductive"] = "transductive"
    quiet: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax

        from jgd.cli.job import check_writable, load_nodes, short_dataset, taken, teller, write_json
        from jgd.cli.results import methods_table
        from jgd.condense.common import size_of
        from jgd.protocols.sweep import compare_methods
        from jgd.report import write_method_report

        with mistakes():  # names before data, which may be a download
            usual = self._check()
        setting = "" if self.setting == "transductive" else f"-{self.setting}"
        name = f"compare-{short_dataset(self.dataset)}{setting}-seed{self.seed}"
        out = Path("runs") / name if self.out is None else self.out
        check_writable(out)
        if (out / "experiment.json").exists() or (taken(out) and not (out / "cells").is_dir()):
            raise Mistake(f"{out} holds a run of something else: choose another folder with --out")
        options = self.reading.options(self.dataset)
        task = load_nodes(self.dataset, self.setting, options, quiet=self.quiet)
        say = teller(self.quiet)
        with mistakes():
            for ratio in self.label_ratios:
                size_of(task, ratio, None)
            found = compare_methods(
                self.methods,
                task,
                self.label_ratios,
                seeds=self.seeds,
                networks=self.networks,
                models=usual.models,
                key=jax.random.key(self.seed),
                protocol=usual.protocol,
                folder=out / "cells",
                say=say,
            )
            write_method_report(out / "report.html", found, command=command)
            write_json(out / "metrics.json", {"seed": self.seed, **found.metrics(command=command)})
        methods_table(found)
        print(f"written to {out}: report.html, metrics.json, cells")
        return 0

    def _check(self) -> Any:
        from jgd.protocols.experiment import default_experiment

        if not self.methods or not self.label_ratios:
            raise ValueError("name at least one method and one label ratio")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"a method is named twice in {', '.join(self.methods)}")
        if self.networks < 1:
            raise ValueError(f"networks must be at least 1, got {self.networks}")
        for method in self.methods:
            for ratio in self.label_ratios:
                usual = default_experiment(self.dataset, method, label_ratio=ratio)
                protocol = usual.protocol
                if self.epochs is not None:
                    protocol = dataclasses.replace(protocol, epochs=self.epochs)
                models = usual.models if self.models is None else self.models
                usual = dataclasses.replace(
                    usual, models=models, seeds=self.seeds, seed=self.seed, protocol=protocol
                )
                usual.check()
        return usual


# --- import -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Import:
    """Read a condensed graph that another library made.

    Arrays come from .npy, .npz or .pt files (tensors of torch.save, read without PyTorch). An .npz may hold
    features, labels and adjacency together. Without labels, the order in which GCond and its relatives spend
    their budget is assumed; without an adjacency every node stands for itself.

    Example: `jgd import feat.pt --adjacency adj.pt --dataset cora --out gcond.npz`.

    Attributes:
      features: file of [n, F] features.
      dataset: what it was condensed from, see `jgd datasets`.
      labels: file of [n] classes, or [n, C] probabilities or logits.
      adjacency: file of [n, n] weights.
      structure: whether the weights are to be normalised with self loops, or are so already.
      method: what to call it.
      setting: of the method that made it.
      out: file to write.
    """

    features: _File
    dataset: Annotated[str, tyro.conf.arg(metavar="NAME")]
    labels: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    adjacency: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    structure: Literal["raw", "normalized"] = "raw"
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "imported"
    setting: Literal["transductive", "inductive"] = "transductive"
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("condensed.npz")

    def __call__(self, command: str) -> int:
        """Run it."""
        from jgd.cli.job import check_writable, load_nodes
        from jgd.data import artifact, checksum
        from jgd.data.imported import import_condensed
        from jgd.protocols.compare import versions

        given = [file for file in (self.features, self.labels, self.adjacency) if file is not None]
        for file in given:
            if not file.is_file():
                raise Mistake(f"there is no file {file}")
        check_writable(self.out.parent)
        if self.out.is_dir():
            raise Mistake(f"{self.out} is a folder: name a file")
        if self.out.resolve() in [file.resolve() for file in given]:
            raise Mistake(f"{self.out} is an input itself: name another file with --out")
        task = load_nodes(self.dataset, self.setting)
        with mistakes():
            small = import_condensed(
                self.features,
                task,
                labels=self.labels,
                adjacency=self.adjacency,
                structure=self.structure,
                method=self.method,
            )
            said = {"checksum": checksum(task), "versions": versions(), "command": command}
            small = dataclasses.replace(small, provenance={**small.provenance, **said})
            artifact.save(small, self.out)
        edges = int(small.provenance["edges"])
        what = "no edges (adjacency I)" if small.train["structure"] == "identity" else f"{edges} edges"
        print(f"written to {self.out}: {len(small.targets)} nodes of {self.dataset}, {what}")
        if self.labels is None and self.features.suffix != ".npz":
            print("no labels were given: the classes are in the order of GCond's budget, the rarest first")
        print(f"try it: jgd evaluate {self.out}")
        return 0


# --- evaluate -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Evaluate:
    """Train networks on a condensed graph, test on the real one.

    Attributes:
      file: a condensed.npz.
      dataset: the original, a name or a path; by default the one that the file names.
      models: of gcn, sgc, sage, gat, appnp, cheb, gin, mlp, gprgnn.
      seeds: networks of each kind.
      epochs: training steps of each network; 200 for digits and 600 else.
      seed: of the random key.
      full: train on the whole graph, too.
      json: also write the numbers to this file.
      quiet: print the table only.
    """

    file: _File
    dataset: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    models: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("gcn",)
    seeds: int = 5
    epochs: Number = None
    seed: int = 0
    full: Flag = False
    json: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    quiet: Flag = False
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        import jax

        from jgd.cli.job import check_writable, load_nodes, write_json
        from jgd.cli.results import score_table
        from jgd.data import checksum
        from jgd.protocols import evaluate
        from jgd.protocols.compare import versions
        from jgd.protocols.experiment import default_experiment

        with mistakes():
            small = _load_graph(self.file)
        dataset, options = self._original(small)
        with mistakes():
            usual = default_experiment(dataset)
            protocol = usual.protocol
            if self.epochs is not None:
                protocol = dataclasses.replace(protocol, epochs=self.epochs)
            dataclasses.replace(
                usual, models=self.models, seeds=self.seeds, seed=self.seed, protocol=protocol
            ).check()
        if self.json is not None:
            check_writable(self.json.parent)
            if self.json.is_dir():
                raise Mistake(f"{self.json} is a folder: name a file")
        setting = small.provenance.get("setting", "transductive")
        task = load_nodes(dataset, setting, options, quiet=self.quiet)
        rows: tuple[Any, Any] = small.data.nodes, task.graph.nodes
        widths = [int(x.shape[1]) for x in rows]
        if widths[0] != widths[1]:
            raise Mistake(
                f"{self.file} was made from other data: its nodes have {widths[0]} features, "
                f"those of {dataset} {widths[1]}"
            )
        said = small.provenance.get("checksum")
        if said and said != checksum(task):
            print(f"note: {self.file} was made from other data than this {dataset}", file=sys.stderr)
        options: dict[str, Any] = {
            "seeds": self.seeds,
            "key": jax.random.key(self.seed),
            "protocol": protocol,
        }
        scores: dict[str, Any] = {"condensed": {}, **({"full": {}} if self.full else {})}
        for model in self.models:
            for name in scores:
                if not self.quiet:
                    where = "the condensed graph" if name == "condensed" else "the whole graph"
                    print(f"training {model} on {where}", file=sys.stderr, flush=True)
                with mistakes():
                    found = evaluate(small if name == "condensed" else task, task, models=(model,), **options)
                scores[name] |= found
        if self.json is not None:
            value = {
                "file": str(self.file),
                "dataset": dataset,
                "method": small.provenance.get("method"),
                "nodes": len(small.targets),
                "seed": self.seed,
                **{name: {m: s.summary() for m, s in part.items()} for name, part in scores.items()},
                "protocol": dataclasses.asdict(protocol),
                "versions": versions(),
                "command": command,
            }
            with mistakes():
                write_json(self.json, value)
        plural = "s" if self.seeds > 1 else ""
        print(
            f"{self.file}: {len(small.targets)} nodes for the {task.num_nodes} of {dataset}\n"
            f"accuracy in %, mean ± standard deviation over {self.seeds} seed{plural}\n"
        )
        score_table(scores)
        if self.json is not None:
            print(f"\nwritten to {self.json}")
        return 0

    def _original(self, small: Any) -> tuple[str, dict[str, Any]]:
        """The dataset to test on, and how to read it: as it was read then, unless it is said otherwise."""
        from jgd.data.registry import is_known, is_path

        source = dict(small.provenance.get("source") or {})
        path = source.pop("path", None)
        dataset = self.dataset or path or small.provenance.get("dataset")
        if not dataset:
            raise Mistake(f"{self.file} does not say what it was made from: give --dataset")
        given = self.reading.options(dataset)
        if (
            self.dataset is None
            and not is_known(dataset)
            and not (is_path(dataset) and Path(dataset).exists())
        ):
            raise Mistake(
                f"{self.file} was made from {dataset}, which is not here: say where with --dataset PATH"
            )
        return dataset, given or (source if path is not None else {})


# --- export -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Export:
    """Write a condensed graph for another library.

    pyg: a torch_geometric Data, written with torch.save. networkx: node-link JSON, read back with
    networkx.node_link_graph(json.load(file), edges="edges"). npz: plain arrays x, y, adj (adj[i, j] weighs
    the edge from j to i), senders, receivers, weights.

    Attributes:
      file: a condensed.npz.
      to: format.
      out: file to write; beside the input by default, ending in .pt, .json or .arrays.npz.
    """

    file: _File
    to: Literal["pyg", "networkx", "npz"]
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        import json

        import networkx as nx
        import numpy as np

        from jgd.cli.job import check_writable
        from jgd.data import to_networkx, to_pyg
        from jgd.files import atomic_write
        from jgd.graph.build import adjacency
        from jgd.graph.operator import edge_weights

        ending = {"pyg": ".pt", "networkx": ".json", "npz": ".arrays.npz"}[self.to]
        out = self.file.with_suffix(ending) if self.out is None else self.out
        with mistakes():
            small = _load_graph(self.file)
            product = to_pyg(small) if self.to == "pyg" else None
        senders = np.asarray(small.data.senders)
        check_writable(out.parent)
        if out.is_dir():
            raise Mistake(f"{out} is a folder: name a file")
        if out.resolve() == self.file.resolve():
            raise Mistake(f"{out} is the input itself: name another file with --out")
        with mistakes(), atomic_write(out, "w" if self.to == "networkx" else "wb") as file:
            if self.to == "pyg":
                import torch  # pyright: ignore[reportMissingImports]

                torch.save(product, file)
            elif self.to == "networkx":
                graph = to_networkx(small)
                json.dump(nx.node_link_data(graph, edges="edges"), file, default=lambda a: a.tolist())
            else:
                weights = edge_weights(small.data)
                np.savez_compressed(
                    file,
                    x=np.asarray(small.data.nodes),
                    y=np.asarray(small.targets),
                    adj=adjacency(small.data).toarray(),
                    senders=senders,
                    receivers=np.asarray(small.data.receivers),
                    weights=np.ones(len(senders), np.float32) if weights is None else np.asarray(weights),
                )
        print(f"written to {out}: {len(small.targets)} nodes, {len(senders)} edges")
        if small.train.get("structure") == "normalized":
            print("edge weights are normalized and hold self loops: use them as they are (normalize=False)")
        elif small.train.get("structure") == "identity":
            print("it has no edges: every node stands for itself (adjacency I)")
        return 0


# --- lists --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Datasets:
    """List the datasets that have a name.

    Any other set of TUDataset is called tu:NAME.
    """

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.cli.tables import listing
        from jgd.data import data_dir, datasets

        found = datasets()
        rows = [
            [d.name, d.kind, str(d.size), str(d.classes), "yes" if d.present else "no", d.licence]
            for d in found
        ]
        listing(["name", "kind", "size", "classes", "present", "licence"], rows, left=("kind",))
        print("\nsize is the number of nodes, graphs, images or texts. Sources:")
        for source in dict.fromkeys(d.source for d in found):
            names = [d.name for d in found if d.source == source]
            print(f"  {names[0]}{' ...' if len(names) > 1 else ''}: {source}")
        print(f"files are looked for in {data_dir()} (JGD_DATA_DIR), and downloaded where they are missing")
        return 0


def _initials(setting: str) -> str:
    return ", ".join(word[0].upper() for word in setting.split(", "))


@dataclass(frozen=True)
class Methods:
    """List condensers and objectives of distillation by name."""

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.cli.tables import listing
        from jgd.protocols.methods import GRAPH_METHODS, METHODS
        from jgd.protocols.objectives import OBJECTIVES

        def told(m) -> str:
            return m.summary + (f" ({m.paper})" if m.paper != "-" else "")

        rows = [
            [name, _initials(m.setting), m.cost, told(m)] for name, m in (METHODS | GRAPH_METHODS).items()
        ]
        listing(["name", "setting", "cost", "what it does"], rows, left=("setting", "cost"))
        print("\nsetting: T transductive (sees the whole graph), I inductive (its training part),")
        print("G sets of graphs (`jgd condense-graphs`)")
        print("cost: none is no training, seconds is one small network; of two CPU cores\n")
        listing(["objective", "what `jgd distill` compares"], [[n, told(o)] for n, o in OBJECTIVES.items()])
        return 0
