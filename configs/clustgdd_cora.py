"""ClustGDD on Cora with its official settings: 70 nodes, five networks, ten seeds."""

from jgd.condense.clustgdd import official
from jgd.protocols.experiment import Experiment

config = Experiment(
    dataset="cora",
    recipe=official("cora", label_ratio=0.5),
    models=("gcn", "sgc", "sage", "appnp", "mlp"),
    seeds=10,
)
