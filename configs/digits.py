"""The embedded handwritten digits: what `jgd condense` runs.

Expected test accuracy of a GCN: 96.2 ± 0.3 % on the 50 condensed nodes, 97.7 ± 0.1 % on all 1797 nodes (five
networks, one key).
"""

from jgd.evaluation.experiment import default_experiment

config = default_experiment("digits")
