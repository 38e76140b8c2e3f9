"""The zero-learning baseline on Cora: class means after two propagations, no edges."""

from jgd.condense import Average
from jgd.protocols.experiment import Experiment

config = Experiment(dataset="cora", recipe=Average(label_ratio=0.25, hops=2), seeds=10)
