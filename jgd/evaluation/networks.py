"""Architectures as people write them."""

from __future__ import annotations

import flax.linen as nn

from jgd.nn import NETWORKS

__all__ = ["network_title"]


def network_title(network: str | nn.Module) -> str:
    """Return the title of an architecture: ``"sage"`` is GraphSAGE."""
    if isinstance(network, nn.Module):
        return type(network).__name__
    return NETWORKS[network].make.__name__ if network in NETWORKS else network
