"""Evaluation protocols: the same question asked of every method."""

from jgd.protocols.compare import BASELINES, Comparison, compare
from jgd.protocols.evaluate import NETWORKS, PUBLISHED, Protocol, Score, evaluate

__all__ = ["BASELINES", "NETWORKS", "PUBLISHED", "Comparison", "Protocol", "Score", "compare", "evaluate"]
