"""Types of options that several commands have."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jgd.cli.errors import Mistake

__all__ = ["Flag", "Names", "Number", "Out", "OwnData", "Reading", "check_seed"]

Out = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def check_seed(seed: int) -> None:
    """See that a seed is one of the random keys of JAX, which have 32 bits.

    Raises:
      Mistake: where it is not.
    """
    if seed < 0:
        raise Mistake(f"seed must not be negative, got {seed}")
    if seed >= 2**32:
        raise Mistake(f"seed must be less than 2**32 = {2**32}, got {seed}")


@dataclass(frozen=True)
class Reading:
    """How data of your own are read.

    Attributes:
      label_column: column, attribute or array of the labels; the one called label, y, class or target by
        default.
      split: fractions of training, validation and test rows, instead of the split in the file; what a file
        lacks is made of 60, 20 and 20 % of each class by default.
      split_seed: of a split that is made; 0 by default.
      undirected: add the reverse of every edge.
      missing: refuse missing values, or impute them (mean of the training rows).
      standardize: subtract the mean of each number and divide by its deviation, over the training rows.
      ignore: columns or attributes to leave out.
      image_size: pixels that images are resized to, in each direction.
      grey: one channel of images instead of three.
    """

    label_column: Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = None
    split: Annotated[
        tuple[float, float, float] | None, tyro.conf.arg(metavar="TRAIN VAL TEST", help_behavior_hint="")
    ] = None
    split_seed: Number = None
    undirected: Flag = False
    missing: Annotated[Literal["refuse", "impute"], tyro.conf.arg(help_behavior_hint="")] = "refuse"
    standardize: Flag = False
    ignore: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")] = ()
    image_size: Number = None
    grey: Flag = False

    def options(self, data: str) -> dict[str, Any]:
        """Those that were given, as `jgd.load` takes them.

        Raises:
          Mistake: where ``data`` is a name, whose splits and labels are known.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) != f.default}
        if not given:
            return {}
        from jgd.data.registry import is_path

        if not is_path(data):
            option = f"--{next(iter(given)).replace('_', '-')}"
            raise Mistake(f"{option} is for data of your own, but {data} is the name of a dataset")
        renamed = {"label_column": "label", "split_seed": "seed", "image_size": "size"}
        return {renamed.get(name, name): value for name, value in given.items()}

    def source(self, data: str) -> dict[str, Any]:
        """The path of data of your own and how they are read, for the record; nothing for a name."""
        from jgd.data.registry import is_path

        return {"path": data, **self.options(data)} if is_path(data) else {}


OwnData = tyro.conf.OmitArgPrefixes[Reading]
"""`Reading` as options of a command, beside its others."""
