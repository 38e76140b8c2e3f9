"""The embedded handwritten digits: what `jgd condense` runs."""

from jgd.protocols.experiment import default_experiment

config = default_experiment("digits")
