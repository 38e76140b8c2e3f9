"""Types of options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

__all__ = ["Flag", "Names", "Number", "Out"]

Out = Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]
