"""ClustGDD on Citeseer with its official settings: 60 nodes, five networks, ten seeds."""

from jgd.condense.clustgdd import official
from jgd.protocols.experiment import Experiment

config = Experiment(
    dataset="citeseer",
    recipe=official("citeseer", label_ratio=0.5),
    models=("gcn", "sgc", "sage", "appnp", "mlp"),
    seeds=10,
)
