"""Evaluation: one protocol for every method, on every kind of data."""

from jgd.evaluation._compare import compare, versions
from jgd.evaluation._continual import Continual, average_accuracy, average_forgetting, continual
from jgd.evaluation._evaluate import evaluate, trained
from jgd.evaluation._grid import Grid, grid
from jgd.evaluation.architectures import Architecture, Search, architecture_grid, search
from jgd.evaluation.config import EvalConfig
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
    "versions",
]
