"""Types of options that several commands have."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from jgd.cli.errors import Mistake

__all__ = [
    "Data",
    "File",
    "Flag",
    "Float",
    "Folder",
    "FolderOptions",
    "Name",
    "Names",
    "NetworkOptions",
    "Networks",
    "Number",
    "Out",
    "OwnData",
    "Reading",
    "Settings",
    "Sizes",
    "SomeNames",
    "check_seed",
]

Data = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATASET")]
File = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
Float = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
Name = Annotated[str | None, tyro.conf.arg(metavar="NAME", help_behavior_hint="")]
Out = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
SomeNames = Annotated[tuple[str, ...] | None, tyro.conf.arg(metavar="NAME ...", help_behavior_hint="")]
Sizes = Annotated[tuple[float, ...] | None, tyro.conf.arg(metavar="FLOAT ...", help_behavior_hint="")]
Settings = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME=VALUE ...", help_behavior_hint="")]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


def check_seed(seed: int) -> None:
    """Check that a seed is one of the random keys of JAX, which have 32 bits.

    Raises:
      Mistake: For another seed.
    """
    if seed < 0:
        raise Mistake(f"seed must not be negative, got {seed}")
    if seed >= 2**32:
        raise Mistake(f"seed must be less than 2**32 = {2**32}, got {seed}")


@dataclass(frozen=True)
class Reading:
    """Reading of data of your own.

    Attributes:
      label_column: Column, attribute or array of the labels; by default the one called label, y, class or
        target.
      split: Fractions of training, validation and test rows, in place of the split in the file. A file
        without a split gets 60, 20 and 20 % of each class by default.
      split_seed: Random seed of a split that is made; 0 by default.
      undirected: Add the reverse of every edge.
      missing: Refuse missing values, or impute them by the mean of the training rows.
      standardize: Subtract the mean of each number and divide by its deviation, over the training rows.
      ignore: Columns or attributes to leave out.
      image_size: Pixels in each direction that images are resized to.
      grey: Read images with one channel in place of three.
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
        """Return the options that were given, as arguments of `jgd.load`.

        Raises:
          Mistake: For the name of a dataset, whose splits and labels are known.
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
        """Return the path of your own data and how they are read, for the record; nothing for a name."""
        from jgd.data.registry import is_path

        return {"path": data, **self.options(data)} if is_path(data) else {}


OwnData = tyro.conf.OmitArgPrefixes[Reading]
"""`Reading` as options of a command, beside its others."""


@dataclass(frozen=True)
class Folder:
    """Output of a run.

    Attributes:
      out: Folder for the outputs; a folder under runs/ that is named after the run by default.
      no_resume: Replace an earlier run in the folder in place of continuing it.
      quiet: Print the table only.
    """

    out: Out = None
    no_resume: Flag = False
    quiet: Flag = False

    def check(self) -> None:
        """Check that the folder can be written, where one is given.

        Raises:
          Mistake: For a folder that cannot be written.
        """
        if self.out is not None:
            from jgd.cli.folders import check_writable

            check_writable(self.out)


FolderOptions = tyro.conf.OmitArgPrefixes[Folder]
"""`Folder` as options of a command."""


@dataclass(frozen=True)
class Networks:
    """Networks that are trained on each set.

    Attributes:
      networks: Architectures, see `jgd methods`; by default the usual one of the kind of data.
      steps: Training steps of each network; by default as usual for the kind of data.
    """

    networks: SomeNames = None
    steps: Number = None

    def applied(self, networks: tuple[str, ...], config: Any) -> tuple[tuple[str, ...], Any]:
        """Return networks and configuration, with what was given in place of the usual ones.

        Args:
          networks: Usual networks.
          config: Usual configuration.
        """
        if self.steps is not None:  # the last step is a validation check at the latest
            every = min(config.select_every, max(1, self.steps))
            config = replace(config, steps=self.steps, select_every=every)
        return networks if self.networks is None else self.networks, config


NetworkOptions = tyro.conf.OmitArgPrefixes[Networks]
"""`Networks` as options of a command."""
