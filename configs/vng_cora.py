"""VNG on Cora, half as many nodes as there are labels, with its official settings."""

from jgd.protocols.experiment import default_experiment

config = default_experiment("cora", "vng", label_ratio=0.5)
