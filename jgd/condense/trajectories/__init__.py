"""Trajectories of experts: networks that learn from the real data, for trajectory matching.

A *trajectory* is a few snapshots of an expert's parameters, at the step numbers that some matching step needs
(`Span`): where a segment starts and where it ends, ``length`` steps later. Nothing else is kept. For GCN-256
on Cora and 200 experts that are 2.4 GB for SFGC in place of 74 GB for a snapshot every ten steps.

There are two ways to feed a matching loop, which sees a `Segment` in each step as its batch::

    expert ──► trajectory ──┬── streamed   a group is trained inside the loop, used and dropped: one group is
                            │              held, and nothing goes to disk but the checkpoints of the loop
                            └── store      experts are trained in groups and written to a folder, one file
                                           each, where later runs find them; a stream of segments reads them

Experts are any `Algorithm`, on any data: a GCN on a graph or a ConvNet on batches of images. `curriculum`
trains on easy examples first.
"""

from jgd.condense.trajectories._curriculum import Pace, RankedExamples, curriculum, difficulty, pace, ranks
from jgd.condense.trajectories._expert import Segment, Span, expert, train_several, trajectory, uniform
from jgd.condense.trajectories._store import Store, store
from jgd.condense.trajectories._stream import streamed

__all__ = [
    "Pace",
    "RankedExamples",
    "Segment",
    "Span",
    "Store",
    "curriculum",
    "difficulty",
    "expert",
    "pace",
    "ranks",
    "store",
    "streamed",
    "train_several",
    "trajectory",
    "uniform",
]
