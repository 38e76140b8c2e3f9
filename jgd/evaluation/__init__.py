"""Evaluation: the same question asked of every method, on every kind of data."""

from jgd.evaluation.architectures import Architecture, Search, architecture_grid, search
from jgd.evaluation.compare import compare
from jgd.evaluation.config import EvalConfig
from jgd.evaluation.continual import Continual, average_accuracy, average_forgetting, continual
from jgd.evaluation.evaluate import evaluate, trained
from jgd.evaluation.grid import Grid, grid
from jgd.evaluation.kinds import KINDS, Kind, kind_of
from jgd.evaluation.predictors import PREDICTORS
from jgd.evaluation.robustness import CORRUPTIONS, attack_edges, evasion, poisoning
from jgd.evaluation.scores import Scores, cross_architecture
from jgd.evaluation.students import compare_students

__all__ = [
    "Architecture",
    "CORRUPTIONS",
    "Continual",
    "EvalConfig",
    "Grid",
    "KINDS",
    "Kind",
    "PREDICTORS",
    "Scores",
    "Search",
    "architecture_grid",
    "attack_edges",
    "average_accuracy",
    "average_forgetting",
    "compare",
    "compare_students",
    "continual",
    "cross_architecture",
    "evaluate",
    "evasion",
    "grid",
    "kind_of",
    "poisoning",
    "search",
    "trained",
]
