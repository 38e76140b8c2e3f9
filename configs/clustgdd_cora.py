"""ClustGDD on Cora with its official settings: 70 nodes, five networks, ten seeds.

Expected test accuracy of a GCN: 80.9 ± 1.3 % on the condensed graphs of five keys
(`experiments/results/foundation.md`, validation checks after every epoch), 81.9 ± 0.7 % on the whole graph.
"""

from jgd.condense import METHODS
from jgd.evaluation.experiment import Experiment

config = Experiment(
    dataset="cora",
    recipe=METHODS.official("clustgdd", "cora", label_ratio=0.5),
    networks=("gcn", "sgc", "sage", "appnp", "mlp"),
    seeds=10,
)
