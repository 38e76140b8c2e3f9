"""Logs of system events: recorded on this machine, or read from the public layouts.

===================  ==========================================================================  ===========
``record``           runs scripts under a Python audit hook (PEP 578) and keeps what they did    `recording`
``darpa_e3``         DARPA Transparent Computing, engagement 3: records of the Common Data Model  `readers`
``streamspot``       StreamSpot: tab-separated edges of many graphs                              `readers`
``events_to_graph``  one graph of a log, with the text of each node                              `graphs`
``subset``           the events of some graphs of a log                                          `graphs`
===================  ==========================================================================  ===========

The first three return a `jgd.data.EventLog`. A recording of `WORKLOADS` and `INTRUSIONS` takes seconds and
stands in for logs that are not freely available: everyday programs of the standard library, and harmless
scripts that behave as intrusions do. They write in a temporary folder only, connect to this machine only, and
read nothing that any user may not read. Their sources are the files of ``scripts/``.
"""

from jgd.data.system_logs.graphs import ProvenanceGraph, events_to_graph, subset
from jgd.data.system_logs.readers import darpa_e3, streamspot
from jgd.data.system_logs.recording import INTRUSIONS, WORKLOADS, Script, record

__all__ = [
    "INTRUSIONS",
    "WORKLOADS",
    "ProvenanceGraph",
    "Script",
    "darpa_e3",
    "events_to_graph",
    "record",
    "streamspot",
    "subset",
]
