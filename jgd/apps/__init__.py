"""Applications: systems built from the parts."""

from jgd.apps.graphdart import Detector, Findings, GraphDART

__all__ = ["Detector", "Findings", "GraphDART"]
