"""Condensed graphs as files of other libraries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import jraph
import networkx as nx
import numpy as np

from jgd.data.condensed import Condensed
from jgd.data.convert import to_networkx, to_pyg
from jgd.files import atomic_write
from jgd.graph import adjacency, edge_weights

__all__ = ["ENDINGS", "export_condensed"]

ENDINGS = {"pyg": ".pt", "networkx": ".json", "npz": ".arrays.npz"}
"""Usual ending of a file by format."""


def export_condensed(small: Condensed, path: Path, to: Literal["pyg", "networkx", "npz"]) -> None:
    """Write condensed data for another library, whole or not at all.

    Args:
      small: Condensed graph; or, as ``"npz"``, a condensed set of arrays.
      path: File to write.
      to: Format: ``"pyg"`` is a `torch_geometric.data.Data` of torch.save, ``"networkx"`` node-link JSON,
        ``"npz"`` plain arrays.

    Raises:
      ValueError: If the set is not one graph with features.
      ImportError: If the other library is not installed.
    """
    if isinstance(small.data, jraph.GraphsTuple):
        if len(small.data.n_node) != 1 or not hasattr(small.data.nodes, "shape"):
            raise ValueError(
                f"the file holds {len(small.data.n_node)} graphs: only one graph with features can be "
                "exported"
            )
        arrays = _graph_arrays(small)
    elif to == "npz" and hasattr(small.data, "ndim"):
        arrays = {"x": np.asarray(small.data), "y": np.asarray(small.targets)}
    else:
        raise ValueError(f"a condensed set of {type(small.data).__name__} cannot be exported to {to}")
    product: Any = to_pyg(small) if to == "pyg" else None
    with atomic_write(path, "w" if to == "networkx" else "wb") as file:
        if to == "pyg":
            import torch  # pyright: ignore[reportMissingImports]

            torch.save(product, file)
        elif to == "networkx":
            graph = nx.node_link_data(to_networkx(small), edges="edges")
            json.dump(graph, file, default=lambda a: a.tolist())
        else:
            np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]


def _graph_arrays(small: Condensed) -> dict[str, np.ndarray]:
    senders, weights = np.asarray(small.data.senders), edge_weights(small.data)
    return {
        "x": np.asarray(small.data.nodes),
        "y": np.asarray(small.targets),
        "adj": adjacency(small.data).toarray(),
        "senders": senders,
        "receivers": np.asarray(small.data.receivers),
        "weights": np.ones(len(senders), np.float32) if weights is None else np.asarray(weights),
    }
