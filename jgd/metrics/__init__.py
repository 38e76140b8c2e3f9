"""Numbers about predictions, samples and graphs."""

from jgd.metrics.accuracy import accuracy
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

__all__ = [
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
