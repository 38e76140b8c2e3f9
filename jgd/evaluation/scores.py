"""Scores as arrays with named axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jgd.metrics.spread import spread
from jgd.registry import choose

__all__ = ["Curve", "Scores", "cross_architecture"]


@dataclass(frozen=True, eq=False)
class Curve:
    """Training curves of one architecture on one set, means over seeds.

    Attributes:
      score: ``[steps]`` validation metric that selects the state; NaN between validation checks.
      loss: ``[steps]`` training loss.
      seconds: Wall time of the run, compilation included; sets that were trained at once share theirs.
    """

    score: Float[np.ndarray, " steps"]
    loss: Float[np.ndarray, " steps"]
    seconds: float


@dataclass(frozen=True, eq=False, repr=False)
class Scores:
    """Scores of networks on validation and test examples, as arrays with named axes.

    A label selects along the axis that has it, which is then gone::

        scores = jgd.evaluate({"random": a, "gcond": b}, task, networks=["gcn", "mlp"], seeds=5)
        scores.axes                            # {"set": ..., "network": ..., "seed": ..., "metric": ...}
        scores["gcond"]["gcn"]["accuracy"].test        # [seed]
        scores["gcond"]["gcn"].test_mean               # mean accuracy, the first metric
        print(scores)                                  # a table

    Attributes:
      test: Scores on the test examples, of the states that were best on the validation examples.
      val: Scores of the same states on the validation examples.
      axes: Labels by axis, in the order of the axes of both arrays: ``"set"``, ``"network"``, ``"seed"`` and
        ``"metric"``, less those that were selected.
      curves: `Curve` by set and network; none of sets in ``once``.
      once: Sets that were scored by a predictor of their own, without seeds: numbers of the first one count,
        and NaN stands for the others.
      chosen: Labels that were selected, by axis.
    """

    test: Float[np.ndarray, "..."]
    val: Float[np.ndarray, "..."]
    axes: Mapping[str, tuple[Any, ...]]
    curves: Mapping[tuple[str, Any], Curve] = field(default_factory=dict)
    once: tuple[str, ...] = ()
    chosen: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, label: Any) -> Scores:
        """Select a set, a network or a metric by its label.

        Raises:
          ValueError: For an unknown label.
        """
        for axis, labels in self.axes.items():
            if axis != "seed" and label in labels:
                return self._at(axis, labels.index(label))
        labels = [x for axis, labels in self.axes.items() if axis != "seed" for x in labels]
        choose("set, network or metric", label, map(str, labels))
        raise ValueError(f"no set, network or metric is called {label!r}")

    def _at(self, axis: str, index: int) -> Scores:
        place = list(self.axes).index(axis)
        return replace(
            self,
            test=self.test.take(index, place),
            val=self.val.take(index, place),
            axes={name: labels for name, labels in self.axes.items() if name != axis},
            chosen={**self.chosen, axis: self.axes[axis][index]},
        )

    def items(self) -> list[tuple[Any, Scores]]:
        """Return pairs of label and scores along the first axis that is not the seeds'."""
        axis = next(name for name in self.axes if name != "seed")
        return [(label, self._at(axis, i)) for i, label in enumerate(self.axes[axis])]

    def _one(self, axis: str) -> tuple[Any, Scores]:
        """Return the only label of an axis, and the scores there."""
        if axis not in self.axes:
            return self.chosen[axis], self
        if len(self.axes[axis]) > 1:
            raise ValueError(f"several {axis}s are left ({', '.join(map(str, self.axes[axis]))}): select one")
        return self.axes[axis][0], self._at(axis, 0)

    @property
    def curve(self) -> Curve | None:
        """The `Curve` of the one set and network that are left; None of a set in ``once``."""
        (name, one) = self._one("set")
        return self.curves.get((name, one._one("network")[0]))

    def seeds(self, split: str = "test") -> Float[np.ndarray, " seeds"]:
        """Return the numbers of the one set and network that are left, one for each seed.

        Args:
          split: ``"test"`` or ``"val"``.

        Raises:
          ValueError: Where several sets or networks are left. Of several metrics the first counts.
        """
        name, one = self._one("set")
        one = one._one("network")[1]
        one = one._at("metric", 0) if "metric" in one.axes else one
        values = getattr(one, split)
        return values[:1] if name in self.once else values

    @property
    def test_mean(self) -> float:
        """Mean over seeds on the test examples, of the first metric that is left."""
        return float(self.seeds().mean())

    @property
    def test_std(self) -> float:
        """Standard deviation over seeds on the test examples (divided by their number)."""
        return float(self.seeds().std())

    @property
    def val_mean(self) -> float:
        """Mean over seeds on the validation examples."""
        return float(self.seeds("val").mean())

    def summary(self) -> dict[str, float | int]:
        """Return plain numbers for JSON: of the first metric by itself, of others under their names."""
        found: dict[str, float | int] = {
            "test_mean": self.test_mean,
            "test_std": self.test_std,
            "val_mean": self.val_mean,
            "seeds": len(self.seeds()),
        }
        for name in self.axes.get("metric", ())[1:]:
            one = self[name]
            found |= {
                f"{name}_mean": one.test_mean,
                f"{name}_std": one.test_std,
                f"val_{name}_mean": one.val_mean,
            }
        return found

    def records(self) -> list[dict[str, Any]]:
        """Return one row for each number: labels of the axes, ``"test"`` and ``"val"``."""
        rows = []
        for index in np.ndindex(*self.test.shape):
            where = {a: labels[i] for (a, labels), i in zip(self.axes.items(), index, strict=True)}
            where = {**self.chosen, **where}
            if where["set"] not in self.once or where["seed"] == 0:
                rows.append({**where, "test": float(self.test[index]), "val": float(self.val[index])})
        return rows

    def to_pandas(self) -> Any:
        """Return a pandas DataFrame of `records`.

        Raises:
          ImportError: Where pandas is not installed.
        """
        from pandas import DataFrame  # pyright: ignore[reportMissingImports] - an extra of users

        return DataFrame(self.records())

    def __str__(self) -> str:
        """Return mean ± standard deviation in %, as a table where several labels are left."""
        several = [axis for axis in ("set", "network", "metric") if axis in self.axes]
        if not any(len(self.axes[axis]) > 1 for axis in several):
            return f"{spread(self.seeds())} %"
        columns, rows = self._table()
        widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [columns, *rows]
        return "\n".join(
            "  ".join(
                cell.ljust(w) if i == 0 else cell.rjust(w)
                for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )

    def _table(self) -> tuple[list[str], list[list[str]]]:
        """Return headings and rows: sets (networks where there is one set) in rows, the rest in columns."""
        down = next((a for a in ("set", "network", "metric") if a in self.axes), None)
        assert down is not None
        rows, columns = [], [""]
        for label, part in self.items():
            cells = [part]
            names = [""]
            for axis in ("network", "metric"):
                if axis in part.axes:
                    pairs = [
                        (f"{n} {x}".strip(), c[x])
                        for n, c in zip(names, cells, strict=True)
                        for x in c.axes[axis]
                    ]
                    names, cells = [n for n, _ in pairs], [c for _, c in pairs]
            columns = ["", *(f"{name or 'score'} %" for name in names)]
            rows.append([str(label), *(spread(c.seeds()) for c in cells)])
        return columns, rows

    def __repr__(self) -> str:
        """Return the table and the number of seeds."""
        count = len(self.axes.get("seed", ()))
        text = str(self)
        joint = "\n" if "\n" in text else ", "
        return f"Scores({text}{joint}{count} seed{'s' if count != 1 else ''})"


def cross_architecture(scores: Scores) -> tuple[float, float]:
    """Return mean and standard deviation over architectures of the mean test score, one number for each.

    The mean says how well a set serves networks that it was not made for; the deviation, how evenly.

    Args:
      scores: Scores of one set on several architectures.
    """
    means = np.asarray([one.test_mean for _, one in scores.items()])
    return float(means.mean()), float(means.std())
