"""The command that uses a trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import OwnData, Reading

__all__ = ["Predict"]

_FEATURES = (".npy", ".npz", ".csv")


@dataclass(frozen=True)
class Predict:
    """Predict with a network that `jgd distill` wrote.

    Writes the class and the probabilities of every row, and prints how often each class was predicted. Of
    several seeds the probabilities are averaged.

    Examples: `jgd predict runs/distill-digits-images-seed0 digits-images`,
    `jgd predict student.npz new.csv --out predictions.npz`.

    Attributes:
      network: folder of `jgd distill`, or the file of a network.
      data: a dataset (see `jgd datasets`) or data of your own (see `jgd describe`), of which all rows are
        predicted; or features alone, one row for each example: .npy, .npz (its only array, or x), or .csv
        without labels.
      model: in a folder, teacher or an objective; the first student by default.
      out: file for the predictions, .csv or .npz; predictions.csv beside the network by default.
    """

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR_OR_FILE")]
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    model: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.nn.saved import load_model, read_header

        with mistakes():
            path, name = self._chosen()
            out = path.parent / "predictions.csv" if self.out is None else self.out
            if out.suffix not in (".csv", ".npz"):
                raise Mistake(f"--out ends in .csv or .npz, got {out}")
            said = read_header(path)["provenance"]
            given, labels = self._inputs(load_model(path), said)
            probabilities = _predicted(load_model(path), given)
        classes = probabilities.argmax(1)
        names = [str(name) for name in said.get("class_names") or range(probabilities.shape[1])]
        with mistakes():
            _write(out, classes, probabilities, names)
        _show(classes, probabilities, names)
        print(f"\n{len(classes)} rows by {name}", end="")
        if labels is not None and (labels >= 0).any():
            known = labels >= 0
            share = 100 * (classes == labels)[known].mean()
            print(f", {share:.1f} % of the {known.sum()} known labels right", end="")
        print(f"\nwritten to {out}")
        return 0

    def _chosen(self) -> tuple[Path, str]:
        """The file of the network, and what it is called."""
        where = self.network
        if not where.is_dir():
            if self.model is not None:
                raise Mistake(f"--model chooses among the networks of a folder, {where} is none")
            return where, where.name
        students = sorted((where / "students").glob("*.npz"))
        found = {path.stem: path for path in students}
        if (where / "teacher.npz").is_file():
            found["teacher"] = where / "teacher.npz"
        if not found:
            raise Mistake(f"{where} holds no networks (teacher.npz, students/): `jgd distill` writes them")
        name = next(iter(self._ordered(found))) if self.model is None else self.model
        if name not in found:
            raise Mistake(f"{where} has no network {name!r}, it has {', '.join(found)}")
        return found[name], name if name == "teacher" else f"student {name}"

    def _ordered(self, found: Mapping[str, Path]) -> list[str]:
        """Names of the networks, students in the order of the run."""
        import json

        try:
            told = json.loads((self.network / "experiment.json").read_text(encoding="utf-8"))
            first = [name for name in told["experiment"]["objectives"] if name in found]
        except (OSError, ValueError, KeyError, TypeError):
            first = []
        return [*first, *found]

    def _inputs(self, net: Any, said: Mapping[str, Any]) -> tuple[Any, Any]:
        """What the network is given, and labels where they are known."""
        import numpy as np

        from jgd.cli.job import load_data
        from jgd.data import Corpus, tokenized, word_tokenizer
        from jgd.data.tasks import ArrayTask, NodeTask

        options = self.reading.options(self.data)
        if Path(self.data).suffix in _FEATURES and not options:
            if said.get("standardize"):
                raise Mistake(
                    "the network was trained on standardized numbers, whose means it does not keep: "
                    "give the data that it was trained on, with --standardize"
                )
            return _fitting(_features(Path(self.data)), net), None

        def refuse(task: object) -> str | None:
            if isinstance(task, ArrayTask | Corpus | NodeTask):
                return None
            return f"{self.data} is a set of graphs: jgd predict takes tables, images, texts and one graph"

        task = load_data(self.data, options, refuse=refuse, quiet=True)
        if isinstance(task, Corpus):
            length = said.get("length") or (net.example[0].shape[0] if net.example else 32)
            task = tokenized(task, word_tokenizer(task), length)
        labels = task.labels if isinstance(task, NodeTask) else task.y
        classes = labels is not None and task.target_kind == "classes"
        return task, np.asarray(labels) if classes else None


def _features(path: Path) -> Any:
    """Rows of numbers from a file."""
    import numpy as np

    from jgd.data import DataError
    from jgd.data.arrays import read_npy, read_npz

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    if path.suffix == ".npy":
        x = read_npy(path)
    elif path.suffix == ".npz":
        arrays = read_npz(path)
        if "x" not in arrays and len(arrays) != 1:
            raise DataError(f"{path} holds {', '.join(sorted(arrays)) or 'nothing'}: name the features x")
        x = arrays["x"] if "x" in arrays else next(iter(arrays.values()))
    else:
        x = _rows_of_csv(path)
    if x.dtype.kind not in "iufb" or x.ndim < 2 or not len(x):
        raise DataError(f"{path} must hold numbers [N, ...], got {x.dtype.name} {list(x.shape)}")
    bad = ~np.isfinite(np.asarray(x, np.float64).reshape(len(x), -1)).all(1)
    if bad.any():
        raise DataError(f"{path} holds NaN or infinity, first in row {bad.argmax()}")
    return x


def _rows_of_csv(path: Path) -> Any:
    """Numbers of a table without labels; a first line of names is left out."""
    import csv

    import numpy as np

    from jgd.data import DataError

    def number(cell: str) -> float | None:
        try:
            return float(cell)
        except ValueError:
            return None

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = [row for row in csv.reader(file) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no table of text: {error}") from None
    if table and any(number(cell) is None for cell in table[0]):
        table = table[1:]
    for i, row in enumerate(table):
        if len(row) != len(table[0]):
            raise DataError(f"{path} has {len(row)} columns in row {i}, {len(table[0])} in row 0")
        wrong = [cell for cell in row if number(cell) is None]
        if wrong:
            raise DataError(
                f"{path} has {wrong[0][:40]!r} in row {i}, which is no number: give features alone, or "
                "name the labels with --label-column"
            )
    return np.asarray(table, np.float64).astype(np.float32).reshape(len(table), -1)


def _fitting(x: Any, net: Any) -> Any:
    """Features in the shape and type of the network's inputs, where they are known."""
    import numpy as np

    if not net.example:
        return np.asarray(x, np.float32) if x.dtype.kind == "f" else x
    if len(net.example) > 1:
        raise Mistake("the network reads tokens and their mask: give the name of a dataset of texts")
    wanted = net.example[0]
    if x.shape[1:] != wanted.shape:
        if int(np.prod(x.shape[1:])) != int(np.prod(wanted.shape)):
            shapes = f"[N, {', '.join(map(str, wanted.shape))}], got {list(x.shape)}"
            raise Mistake(f"the network reads inputs of shape {shapes} (labels are told by --label-column)")
        x = x.reshape(len(x), *wanted.shape)
    if wanted.dtype == np.uint8 and x.dtype != np.uint8:
        if (x == np.floor(x)).all() and x.min() >= 0 and 1 < x.max() <= 255:
            return x.astype(np.uint8)
        if x.min() < 0 or x.max() > 1:
            raise Mistake(
                f"the network reads pixels in 0..255 or in 0..1, got numbers in {x.min()}..{x.max()}"
            )
        return x.astype(np.float32)
    return x.astype(wanted.dtype)


def _predicted(net: Any, given: Any) -> Any:
    """Probabilities ``[N, C]``, the mean over several networks."""
    import jax
    import numpy as np

    from jgd.core import stacked
    from jgd.data.tasks import NodeTask
    from jgd.distill import predict
    from jgd.distill.data import inputs_of

    inputs = inputs_of(net.model, given) if isinstance(given, NodeTask) else ()
    try:
        count = stacked(net, *inputs)
        nets = (
            [net] if count is None else [jax.tree.map(lambda leaf, i=i: leaf[i], net) for i in range(count)]
        )
        each = [np.asarray(jax.nn.softmax(predict(one, given).logits)) for one in nets]
    except (ValueError, OSError):
        raise
    except Exception as error:  # networks refuse inputs in ways of their own
        raise Mistake(f"the network cannot read these data: {' '.join(str(error).split())[:200]}") from error
    return np.mean(each, axis=0)


def _write(out: Path, classes: Any, probabilities: Any, names: list[str]) -> None:
    """A row for each example: its number, its class, and the probability of each class."""
    import csv

    import numpy as np

    from jgd.files import atomic_write

    if out.suffix == ".npz":
        with atomic_write(out) as file:
            np.savez_compressed(
                file, classes=classes, probabilities=probabilities, class_names=np.asarray(names)
            )
        return
    with atomic_write(out, "w") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["row", "class", *(f"p({name})" for name in names)])
        for i, (chosen, values) in enumerate(zip(classes, probabilities, strict=True)):
            rows.writerow([i, names[chosen], *(f"{value:.6g}" for value in values)])


def _show(classes: Any, probabilities: Any, names: list[str]) -> None:
    """How often each class was predicted, and how sure the network was."""
    from jgd.cli.tables import show

    rows = []
    for number, name in enumerate(names):
        chosen = classes == number
        sure = f"{100 * probabilities[chosen, number].mean():.1f}" if chosen.any() else "-"
        rows.append([name, str(chosen.sum()), f"{100 * chosen.mean():.1f}", sure])
    show(["class", "rows", "share %", "mean confidence %"], rows)
