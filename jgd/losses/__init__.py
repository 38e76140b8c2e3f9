"""Losses: plain functions of arrays, one value for each example."""

from jgd.losses.classification import cross_entropy, mean

__all__ = ["cross_entropy", "mean"]
