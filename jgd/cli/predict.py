"""The command that uses a trained network."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from jgd.cli.errors import Mistake, mistakes
from jgd.cli.options import Name, OwnData, Reading

__all__ = ["Predict"]


@dataclass(frozen=True)
class Predict:
    """Predict with a network that `jgd distill` wrote.

    Writes the class and the probabilities of every row, and prints how often each class was predicted. Of
    several seeds the probabilities are averaged.

    Examples: `jgd predict runs/distill-digits-images-seed0 digits-images`,
    `jgd predict student.npz new.csv --out predictions.npz`.

    Attributes:
      network: Folder of `jgd distill`, or file of a network.
      data: Dataset (see `jgd datasets`) or data of your own (see `jgd describe`), of which all rows are
        predicted; or features alone, one row for each example: .npy, .npz (its only array, or x), or .csv
        without labels.
      model: In a folder, teacher or an objective; the first student by default.
      out: File for the predictions, .csv or .npz; predictions.csv beside the network by default.
    """

    network: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR_OR_FILE")]
    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    model: Name = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")] = None
    reading: OwnData = field(default_factory=Reading)

    def __call__(self, command: str) -> int:
        """Run it."""
        del command
        from jgd.cli.job import load_inputs
        from jgd.distill.predictions import class_counts, probabilities, write_predictions
        from jgd.nn.saved import choose_saved, load_model, read_header
        from jgd.report.table import show

        with mistakes():
            path, name = choose_saved(self.network, self.model)
            out = path.parent / "predictions.csv" if self.out is None else self.out
            if out.suffix not in (".csv", ".npz"):
                raise Mistake(f"--out ends in .csv or .npz, got {out}")
            said = read_header(path)["provenance"]
            net = load_model(path)
            given, labels = load_inputs(self.data, self.reading, net, said)
            found = probabilities(net, given)
            names = [str(n) for n in said.get("class_names") or range(found.shape[1])]
            write_predictions(out, found, names)
        classes = found.argmax(1)
        show(*class_counts(classes, found, names))
        print(f"\n{len(classes)} rows by {name}", end="")
        if labels is not None and (labels >= 0).any():
            known = labels >= 0
            share = 100 * (classes == labels)[known].mean()
            print(f", {share:.1f} % of the {known.sum()} known labels right", end="")
        print(f"\nwritten to {out}")
        return 0
