"""Metrics of predictions, samples and graphs.

`METRICS` names all of them; the name of a metric is that of its function with hyphens. Metrics of predictions
and samples are functions of arrays that can be jitted and vmapped; those of graphs (kind ``"nodes"``) run on
the host.
"""

from jgd.metrics._accuracy import accuracy
from jgd.metrics.calibration import (
    ReliabilityBins,
    adaptive_calibration_error,
    brier_score,
    calibration_error,
    classwise_calibration_error,
    negative_log_likelihood,
    reliability,
)
from jgd.metrics.detection import strict_scores, tolerant_scores
from jgd.metrics.frechet import frechet_distance, within_cluster_variance
from jgd.metrics.graph import (
    clustering_coefficient,
    davies_bouldin,
    degree_statistics,
    graph_properties,
    homophily,
    property_preservation,
    spectrum,
)
from jgd.metrics.multilabel import micro_f1, multilabel_auc
from jgd.metrics.ranking import one_vs_rest_auc, roc_auc
from jgd.metrics.regression import mean_absolute_error, mean_squared_error, r2_score
from jgd.registry import Catalog

__all__ = [
    "METRICS",
    "ReliabilityBins",
    "accuracy",
    "adaptive_calibration_error",
    "brier_score",
    "calibration_error",
    "classwise_calibration_error",
    "clustering_coefficient",
    "davies_bouldin",
    "degree_statistics",
    "frechet_distance",
    "graph_properties",
    "homophily",
    "mean_absolute_error",
    "mean_squared_error",
    "micro_f1",
    "multilabel_auc",
    "negative_log_likelihood",
    "one_vs_rest_auc",
    "property_preservation",
    "r2_score",
    "reliability",
    "roc_auc",
    "spectrum",
    "strict_scores",
    "tolerant_scores",
    "within_cluster_variance",
]

METRICS = Catalog(
    "metric",
    "jgd.metrics",
    {
        "_accuracy": ("accuracy",),
        "calibration": (
            "reliability",
            "calibration-error",
            "adaptive-calibration-error",
            "classwise-calibration-error",
            "negative-log-likelihood",
            "brier-score",
        ),
        "detection": ("strict-scores", "tolerant-scores"),
        "frechet": ("frechet-distance", "within-cluster-variance"),
        "graph": (
            "clustering-coefficient",
            "davies-bouldin",
            "degree-statistics",
            "graph-properties",
            "homophily",
            "property-preservation",
            "spectrum",
        ),
        "multilabel": ("micro-f1", "multilabel-auc"),
        "ranking": ("roc-auc", "one-vs-rest-auc"),
        "regression": ("mean-squared-error", "mean-absolute-error", "r2-score"),
    },
)
"""Metrics that can be named."""
