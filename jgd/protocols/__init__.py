"""Evaluation protocols: the same question asked of every method."""

from jgd.protocols.classifiers import Classified, Multilabelled, Regressed, classified, scores
from jgd.protocols.compare import Comparison, compare
from jgd.protocols.compare_graphs import GraphComparison, compare_graphs
from jgd.protocols.compare_students import StudentComparison, compare_students
from jgd.protocols.continual import Continual, average_accuracy, average_forgetting, continual
from jgd.protocols.evaluate import (
    NETWORKS,
    PUBLISHED,
    Protocol,
    Score,
    cross_architecture,
    evaluate,
    trained,
)
from jgd.protocols.graphs import GraphProtocol, GraphScore, evaluate_graphs
from jgd.protocols.methods import BASELINES, GRAPH_BASELINES, GRAPH_METHODS, METHODS, method_name
from jgd.protocols.robustness import CORRUPTIONS, attack_edges, evasion, poisoning
from jgd.protocols.search import Architecture, Search, grid, search
from jgd.protocols.sweep import MethodComparison, compare_methods

__all__ = [
    "Architecture",
    "BASELINES",
    "CORRUPTIONS",
    "Classified",
    "Comparison",
    "Continual",
    "GRAPH_BASELINES",
    "GRAPH_METHODS",
    "GraphComparison",
    "GraphProtocol",
    "GraphScore",
    "METHODS",
    "MethodComparison",
    "Multilabelled",
    "NETWORKS",
    "PUBLISHED",
    "Protocol",
    "Regressed",
    "Score",
    "Search",
    "StudentComparison",
    "attack_edges",
    "average_accuracy",
    "average_forgetting",
    "classified",
    "compare",
    "compare_graphs",
    "compare_methods",
    "compare_students",
    "continual",
    "cross_architecture",
    "evaluate",
    "evaluate_graphs",
    "evasion",
    "grid",
    "method_name",
    "poisoning",
    "scores",
    "search",
    "trained",
]
