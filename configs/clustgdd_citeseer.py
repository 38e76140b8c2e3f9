"""ClustGDD on Citeseer with its official settings: 60 nodes, five networks, ten seeds.

Expected test accuracy of a GCN: 72.8 ± 1.1 % on the condensed graphs of five keys
(`experiments/results/foundation.md`, validation checks after every epoch), 71.5 ± 0.8 % on the whole graph.
"""

from jgd.condense import METHODS
from jgd.evaluation.experiment import Experiment

config = Experiment(
    dataset="citeseer",
    recipe=METHODS.official("clustgdd", "citeseer", label_ratio=0.5),
    networks=("gcn", "sgc", "sage", "appnp", "mlp"),
    seeds=10,
)
