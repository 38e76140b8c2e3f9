"""GC-SNTK on Cora, half as many nodes as there are labels, for its own kernel to read."""

from jgd.protocols.experiment import default_experiment

config = default_experiment("cora", "gc-sntk", label_ratio=0.5)
