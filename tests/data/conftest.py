"""Small files in the official formats, real data where it is at hand, and no network."""

import os
import pickle
import types
import urllib.error
import urllib.request
import zipfile
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """Addresses that were asked for; every request fails."""
    asked = []

    def refuse(request, *_, **__):
        asked.append(request.full_url)
        raise urllib.error.URLError("offline in tests")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.fixture
def data_root(tmp_path, monkeypatch):
    """An empty data directory."""
    root = tmp_path / "data"
    root.mkdir()
    monkeypatch.setenv("JGD_DATA_DIR", str(root))
    return root


@pytest.fixture
def real():
    """Skips the test unless the data directory has a file."""

    def need(path):
        root = os.environ.get("JGD_DATA_DIR")
        if not root or not (Path(root) / path).exists():
            pytest.skip(f"{path} is not under JGD_DATA_DIR")

    return need


def write_planetoid(root, name="cora"):
    """Ten nodes of two classes: 4 train, 7 known, tests 8, 7 and 9... with node 10 missing from tx."""
    folder = root / "planetoid"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    x = sp.csr_matrix((rng.random((11, 5)) < 0.5).astype(np.float32) + np.eye(11, 5, dtype=np.float32))
    y = np.eye(2, dtype=np.int32)[np.arange(11) % 2]
    tests = [8, 7, 10]  # 9 is missing
    graph = defaultdict(list, {i: [(i + 1) % 8, i, (i - 1) % 8] for i in range(8)})
    graph[8] = [0, 0]
    graph[10] = [1]
    parts = {
        "x": x[:4], "y": y[:4], "allx": x[:7], "ally": y[:7], "tx": x[tests], "ty": y[tests], "graph": graph,
    }  # fmt: skip
    for part, value in parts.items():
        (folder / f"ind.{name}.{part}").write_bytes(pickle.dumps(value, protocol=2))
    (folder / f"ind.{name}.test.index").write_text("\n".join(map(str, tests)) + "\n")
    return x.toarray(), y.argmax(1)


def write_split(root, name, size, number=0):
    folder = root / "geom-gcn" / "splits"
    folder.mkdir(parents=True, exist_ok=True)
    part = np.arange(size) % 3
    arrays = {f"{p}_mask": (part == i).astype(np.uint8) for i, p in enumerate(("train", "val", "test"))}
    np.savez(folder / f"{name}_split_0.6_0.2_{number}.npz", **arrays)


def write_geom_gcn(root, name="texas"):
    folder = root / "geom-gcn" / name
    folder.mkdir(parents=True, exist_ok=True)
    edges = [(0, 1), (1, 2), (0, 1), (3, 3), (4, 0)]
    (folder / "out1_graph_edges.txt").write_text(
        "node_id\tnode_id\n" + "".join(f"{a}\t{b}\n" for a, b in edges)
    )
    values = ["0,2", "1", "", "3,1", "2"] if name == "film" else ["1,0,3", "0,1,0", "0,0,0", "0,2,2", "1,1,0"]
    rows = [f"{i}\t{values[i]}\t{i % 2}\n" for i in (4, 0, 1, 3, 2)]
    (folder / "out1_node_feature_label.txt").write_text("node_id\tfeature\tlabel\n" + "".join(rows))
    write_split(root, name, 5)


def write_tu(root, name="TOY", zipped=False):
    """Two classes (-1, 3) of triangles and edges, ten graphs each, with all optional files."""
    edges, indicator, labels = [], [], []
    for g in range(20):
        first, size = len(indicator) + 1, 3 - g % 2
        edges += [(first + a, first + b) for a in range(size) for b in range(size) if a != b]
        indicator += [g + 1] * size
        labels.append((-1, 3)[g % 2])
    n, e = len(indicator), len(edges)
    texts = {
        "A": [f"{a}, {b}" for a, b in edges],
        "graph_indicator": indicator,
        "graph_labels": labels,
        "node_labels": [5 + i % 3 for i in range(n)],
        "node_attributes": [f"{i / 2}, {-i}" for i in range(n)],
        "edge_labels": [i % 2 * 4 for i in range(e)],
        "edge_attributes": [i / 4 for i in range(e)],
    }
    folder = root / "tu" / name
    if zipped:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(root / "tu" / f"{name}.zip", "w") as archive:
            archive.writestr(f"{name}/README.txt", "toy")
            for part, lines in texts.items():
                archive.writestr(f"{name}/{name}_{part}.txt", "\n".join(map(str, lines)))
        return
    folder.mkdir(parents=True)
    for part, lines in texts.items():
        (folder / f"{name}_{part}.txt").write_text("\n".join(map(str, lines)) + "\n")


def write_cpf(root, name="cora", names=None):
    """Two classes; a ring of 10 and a separate pair."""
    (root / "cpf").mkdir(exist_ok=True)
    ring = np.arange(10)
    rows, cols = np.append(ring, 10), np.append((ring + 1) % 10, 11)
    adjacency = sp.csr_matrix((np.ones(11, np.float32), (rows, cols)), shape=(12, 12))
    features = sp.csr_matrix(np.arange(36, dtype=np.float32).reshape(12, 3) % 4)
    arrays = {"labels": np.arange(12, dtype=np.int8) % 2}
    for prefix, m in (("adj", adjacency), ("attr", features)):
        arrays |= {f"{prefix}_{k}": getattr(m, k) for k in ("data", "indices", "indptr")}
        arrays[f"{prefix}_shape"] = np.asarray(m.shape)
    strings = np.asarray([f"paper{i}" for i in range(12)], object) if names is None else names
    np.savez(root / "cpf" / f"{name}.npz", **arrays, node_names=strings)


@pytest.fixture
def official():
    """Writers of small files in the official formats."""
    return types.SimpleNamespace(
        planetoid=write_planetoid, split=write_split, geom_gcn=write_geom_gcn, tu=write_tu, cpf=write_cpf
    )


class Evil:
    """Makes a file when unpickled carelessly."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def evil(tmp_path):
    """An object whose pickle runs a command, and the file that shows it ran."""
    return Evil(tmp_path / "owned"), tmp_path / "owned"
