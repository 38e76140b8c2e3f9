"""Numbers about predictions, samples and graphs."""

from jgd.metrics.accuracy import accuracy
from jgd.metrics.frechet import frechet_distance, within_cluster_variance
from jgd.metrics.graph import degree_statistics, homophily, spectrum

__all__ = [
    "accuracy",
    "degree_statistics",
    "frechet_distance",
    "homophily",
    "spectrum",
    "within_cluster_variance",
]
