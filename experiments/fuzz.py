"""Damaged files: every loader and reader on thousands of mutants of small files in its format.

    python experiments/fuzz.py [--mutants 20000] [--seed 0] [--only NAME ...]

A mutant is a small valid file in which bits are flipped, blocks cut, added, doubled or swapped, numbers
replaced by extreme ones or headers overwritten, also inside of compressed members; or which is empty or has
the content of another file. It is loaded in a process of its own with 1 GB of memory above the base and ten
seconds. A loader holds where it returns data (the same or other valid data) or raises a `ValueError` of one
line; a signal, a hang, more memory, another exception or a message of several lines is a failure.

`rows` gives the counts for the table of experiments/robustness.py; tests/data/test_fuzz.py runs two
hundred mutants of each.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import logging
import multiprocessing
import os
import pickle
import re
import resource
import signal
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

import jgd
from jgd.data import artifact, import_condensed, storage
from jgd.data.arrays import read_npy, read_npz
from jgd.data.distiller import distillation_runs
from jgd.data.imported import read_torch
from jgd.data.pickles import restricted_loads
from jgd.distill.autodistiller import history
from jgd.nn import saved

SECONDS, MEMORY = 10, 10**9


class Target(NamedTuple):
    """A loader with small files that it takes.

    Attributes:
      write: makes the files under a folder, which is ``JGD_DATA_DIR``.
      load: reads them.
    """

    write: Callable[[Path], None]
    load: Callable[[Path], Any]


# --- small files in the official formats ------------------------------------------------------------


def _put(path: Path, content: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)


def _planetoid(root: Path) -> None:
    rng = np.random.default_rng(0)
    x = sp.csr_matrix((rng.random((11, 5)) < 0.5).astype(np.float32) + np.eye(11, 5, dtype=np.float32))
    y = np.eye(2, dtype=np.int32)[np.arange(11) % 2]
    tests = [8, 7, 10]
    graph = {i: [(i + 1) % 8, i, (i - 1) % 8] for i in range(8)} | {8: [0, 0], 10: [1]}
    parts = {
        "x": x[:4],
        "y": y[:4],
        "allx": x[:7],
        "ally": y[:7],
        "tx": x[tests],
        "ty": y[tests],
        "graph": graph,
    }
    for part, value in parts.items():
        _put(root / f"planetoid/ind.cora.{part}", pickle.dumps(value, protocol=2))
    _put(root / "planetoid/ind.cora.test.index", "8\n7\n10\n")


def _cpf(root: Path) -> None:
    ring = np.arange(10)
    rows, cols = np.append(ring, 10), np.append((ring + 1) % 10, 11)
    adjacency = sp.csr_matrix((np.ones(11, np.float32), (rows, cols)), shape=(12, 12))
    features = sp.csr_matrix(np.arange(36, dtype=np.float32).reshape(12, 3) % 4)
    arrays: dict[str, Any] = {"labels": np.arange(12, dtype=np.int8) % 2}
    for prefix, m in (("adj", adjacency), ("attr", features)):
        arrays |= {f"{prefix}_{k}": getattr(m, k) for k in ("data", "indices", "indptr")}
        arrays[f"{prefix}_shape"] = np.asarray(m.shape)
    file = io.BytesIO()
    np.savez(file, **arrays, node_names=np.asarray([f"paper{i}" for i in range(12)], object))
    _put(root / "cpf/cora.npz", file.getvalue())


def _tu(root: Path) -> None:
    edges, indicator, labels = [], [], []
    for g in range(20):
        first, size = len(indicator) + 1, 3 - g % 2
        edges += [(first + a, first + b) for a in range(size) for b in range(size) if a != b]
        indicator += [g + 1] * size
        labels.append((-1, 3)[g % 2])
    n, e = len(indicator), len(edges)
    texts: dict[str, list[Any]] = {
        "A": [f"{a}, {b}" for a, b in edges],
        "graph_indicator": indicator,
        "graph_labels": labels,
        "node_labels": [5 + i % 3 for i in range(n)],
        "node_attributes": [f"{i / 2}, {-i}" for i in range(n)],
        "edge_labels": [i % 2 * 4 for i in range(e)],
        "edge_attributes": [i / 4 for i in range(e)],
    }
    for part, lines in texts.items():
        _put(root / f"tu/TOY/TOY_{part}.txt", "\n".join(map(str, lines)) + "\n")


def _geom_gcn(name: str) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        edges = "".join(f"{a}\t{b}\n" for a, b in [(0, 1), (1, 2), (0, 1), (3, 3), (4, 0)])
        values = (
            ["0,2", "1", "", "3,1", "2"] if name == "film" else ["1,0,3", "0,1,0", "0,0,0", "0,2,2", "1,1,0"]
        )
        rows = "".join(f"{i}\t{values[i]}\t{i % 2}\n" for i in (4, 0, 1, 3, 2))
        _put(root / f"geom-gcn/{name}/out1_graph_edges.txt", f"node_id\tnode_id\n{edges}")
        _put(root / f"geom-gcn/{name}/out1_node_feature_label.txt", f"node_id\tfeature\tlabel\n{rows}")
        part, file = np.arange(5) % 3, io.BytesIO()
        np.savez(
            file,
            **{f"{p}_mask": (part == i).astype(np.uint8) for i, p in enumerate(("train", "val", "test"))},
        )
        _put(root / f"geom-gcn/splits/{name}_split_0.6_0.2_0.npz", file.getvalue())

    return write


def _mnist(root: Path) -> None:
    rng = np.random.default_rng(0)
    for part, n in (("train", 12), ("t10k", 10)):
        for what, array in (
            ("images-idx3", rng.integers(0, 256, (n, 28, 28))),
            ("labels-idx1", np.arange(n) % 10),
        ):
            header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
            content = header + array.astype(np.uint8).tobytes()
            _put(root / f"mnist/{part}-{what}-ubyte.gz", gzip.compress(content, mtime=0))


def _tar(path: Path, files: dict[str, bytes]) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    _put(path, gzip.compress(file.getvalue(), mtime=0))


def _cifar(binary: bool) -> Callable[[Path], None]:
    def write(root: Path) -> None:
        x = np.random.default_rng(0).integers(0, 256, (12, 3072)).astype(np.uint8)
        files = {}
        for i, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
            data, labels = x[2 * i : 2 * i + 2], np.asarray([i, (i + 1) % 10])
            if binary:
                files[f"b/{name}.bin"] = np.concatenate([labels[:, None].astype(np.uint8), data], 1).tobytes()
            else:
                files[f"b/{name}"] = pickle.dumps({"data": data, "labels": labels.tolist()}, protocol=2)
        _tar(root / f"cifar/cifar-10-{'binary' if binary else 'python'}.tar.gz", files)

    return write


def _picture(colour: tuple[int, int, int], form: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, form)
    return file.getvalue()


def _pictures() -> dict[str, bytes]:
    parts = (("train", 3), ("test", 1))
    return {
        f"{part}/{name}/{i}.{form}": _picture((80 * c, 100, 30 * i), "PNG" if form == "png" else "JPEG")
        for part, count in parts
        for c, (name, form) in enumerate((("cat", "png"), ("dog", "jpg")))
        for i in range(count)
    }


def _folder(root: Path) -> None:
    for name, content in _pictures().items():
        _put(root / "images" / name, content)


def _texts(root: Path) -> None:
    train = "".join(f'phrase {i} of "it \t{i % 2}\n' for i in range(20))
    _put(root / "sst2/train.tsv", f"sentence\tlabel\n{train}")
    _put(root / "sst2/dev.tsv", "sentence\tlabel\na fine film . \t1\nno .\t0\n")
    _put(root / "sst2/test.tsv", "index\tsentence\n0\tunknown\n1\tmore\n2\tless\n")


def _tweets(root: Path) -> None:
    header = "Text_ID,Product_Description,Product_Type,Sentiment\n"
    rows = [f'{i},"so, a ""phone"" {i}",{i % 10},{i % 4}\n' for i in range(20)]
    _put(root / "distiller/Train.csv", header + "".join(rows))
    _put(root / "distiller/Dev.csv", header + "".join(rows[:5]))


def _streamspot(root: Path) -> None:
    lines = [f"{i % 5}\ta\t{(i + 1) % 5}\tb\tread\t{i % 3}\n" for i in range(40)]
    _put(root / "all.tsv.gz", gzip.compress("".join(lines).encode(), mtime=0))


def _darpa(root: Path) -> None:
    schema = "com.bbn.tc.schema.avro.cdm18."
    records = [
        {f"{schema}Subject": {"uuid": "S", "type": "SUBJECT_PROCESS"}},
        {f"{schema}FileObject": {"uuid": "F", "type": "FILE_OBJECT_FILE"}},
        {
            f"{schema}Event": {
                "type": "EVENT_READ",
                "timestampNanos": 1523280000000000000,
                "subject": {f"{schema}UUID": "S"},
                "predicateObject": {f"{schema}UUID": "F"},
                "predicateObjectPath": {"string": "/srv/a"},
                "properties": {"map": {"exec": "cat"}},
            }
        },
    ]
    _put(root / "log.json", "".join(json.dumps({"datum": record}) + "\n" for record in records))


def _pickled(root: Path) -> None:
    value = {
        "a": np.arange(6.0).reshape(2, 3),
        "f": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "s": np.asarray(["x", "yy"]),
        "o": np.asarray(["x", None], object),
        "m": sp.csr_matrix(np.eye(3)),
        "n": [np.float32(1.5), 2, True, None, "text", (1, 2), {1, 2}, 2**80, b"b"],
    }
    for protocol in range(2, 6):
        _put(root / f"p{protocol}.pkl", pickle.dumps(value, protocol=protocol))


def _arrays(root: Path) -> None:
    file = io.BytesIO()
    np.savez_compressed(
        file,
        a=np.arange(12.0).reshape(3, 4),
        b=np.asarray(["x", "yy"]),
        c=np.asfortranarray(np.eye(2)),
        d=True,
    )
    _put(root / "a.npz", file.getvalue())
    file = io.BytesIO()
    np.save(file, np.arange(6, dtype=np.int16).reshape(2, 3))
    _put(root / "a.npy", file.getvalue())


def _text(value: str) -> bytes:
    """A string in the opcodes of a pickle."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _tensor(key: str, kind: str, size: tuple[int, ...]) -> bytes:
    """A tensor as ``torch.save`` writes it, by hand."""
    count = int(np.prod(size))
    pid = b"(" + _text("storage") + f"ctorch\n{kind}\n".encode() + _text(key) + _text("cpu")
    pid += b"K" + bytes([count]) + b"tQ"
    strides = [int(np.prod(size[i + 1 :])) for i in range(len(size))]
    shape, stride = (
        b"(" + b"".join(b"K" + bytes([n]) for n in numbers) + b"t" for numbers in (size, strides)
    )
    hooks = b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + b"K\x00" + shape + stride + hooks + b"tR"


def _torch_file(path: Path, content: bytes, storages: Sequence[np.ndarray]) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("a/byteorder", "little")
        for i, array in enumerate(storages):
            archive.writestr(f"a/data/{i}", array.tobytes())
    _put(path, file.getvalue())


def _torch(root: Path) -> None:
    """A list of tensors."""
    content = b"](" + _tensor("0", "FloatStorage", (3, 4)) + _tensor("1", "LongStorage", (2, 3)) + b"e"
    _torch_file(root / "a.pt", content, [np.arange(12, dtype=np.float32), np.arange(6)])


def _pyg(root: Path) -> None:
    """A ``Data`` of PyTorch Geometric."""

    def made(kind: str, state: dict[str, bytes]) -> bytes:
        items = b"".join(_text(name) + value for name, value in state.items())
        return f"ctorch_geometric.data.{kind}\n".encode() + b")\x81}(" + items + b"ub"

    fields = {
        "x": _tensor("0", "FloatStorage", (20, 3)),
        "edge_index": _tensor("1", "LongStorage", (2, 20)),
        "y": _tensor("2", "LongStorage", (20,)),
        "train_mask": _tensor("3", "BoolStorage", (20,)),
    }
    mapping = b"}(" + b"".join(_text(name) + value for name, value in fields.items()) + b"u"
    ring, train = np.arange(20), np.arange(20) < 10
    arrays = [np.ones((20, 3), np.float32), np.stack([ring, np.roll(ring, 1)]), ring % 2, train]
    content = made("data\nData", {"_store": made("storage\nGlobalStorage", {"_mapping": mapping})})
    _torch_file(root / "own.pt", content, arrays)


def _own_arrays(root: Path) -> None:
    ring, file = np.arange(20), io.BytesIO()
    np.savez(
        file,
        x=np.ones((20, 3), np.float32),
        edge_index=np.stack([ring, np.roll(ring, 1)]),
        y=np.asarray([("a", "b")[i % 2] for i in ring]),
        train_mask=ring < 10,
    )
    _put(root / "own.npz", file.getvalue())


def _own_tables(root: Path) -> None:
    rows = "".join(f"n{i},{i / 2},{'ab'[i % 2]},{('train', 'val', 'test')[i % 3]}\n" for i in range(20))
    _put(root / "own/nodes.csv", f"id,f0,label,split\n{rows}")
    edges = "".join(f"n{i},n{(i + 1) % 20},0.5\n" for i in range(20))
    _put(root / "own/edges.csv", f"source,target,weight\n{edges}")


def _own_table(root: Path) -> None:
    rows = "".join(f"{i / 2},{i % 3},{'red' if i % 4 else 'blue'},{'ab'[i % 2]}\n" for i in range(30))
    _put(root / "own.csv", f"width,height,colour,label\n{rows}")


def _network() -> Any:
    import networkx as nx

    graph = nx.cycle_graph(20)
    for i in graph:
        graph.nodes[i].update(f0=i / 2, f1=1.0, label="ab"[i % 2])
    return graph


def _graphml(root: Path) -> None:
    import networkx as nx

    _put(root / "own.graphml", "\n".join(nx.generate_graphml(_network())))


def _node_link(root: Path) -> None:
    import networkx as nx

    _put(root / "own.json", json.dumps(nx.node_link_data(_network(), edges="links")))


def _model(root: Path) -> None:
    import jax

    net = jgd.core.as_model(jgd.nn.GCN(2, 4))
    a, x = jgd.graph.operator(_TASK.graph, **jgd.nn.GCN.adjacency), _TASK.graph.nodes
    root.mkdir(exist_ok=True)
    jgd.save(jgd.core.bind(net, *net.init(jax.random.key(0), a, x)), root / "net.npz")


def _small() -> Any:
    from jgd.graph import from_edges

    graph = from_edges(
        np.asarray([0, 1, 2]), np.asarray([1, 2, 0]), np.ones((3, 2), np.float32), np.ones(3, np.float32)
    )
    return jgd.data.Condensed(
        data=graph,
        targets=np.asarray([0, 1, 1], np.int32),
        weights=np.ones(3, np.float32),
        extras={"index": np.arange(3)},
        training=jgd.data.Training(targets="classes", learning_rate=0.01),
        provenance={"method": "toy", "dataset": "cora", "nodes": 3},
    )


def _imports(root: Path) -> None:
    for name, array in (
        ("x", np.ones((4, 3), np.float32)),
        ("y", np.asarray([0, 1, 2, 0])),
        ("a", 1 - np.eye(4, dtype=np.float32)),
    ):
        file = io.BytesIO()
        np.save(file, array)
        _put(root / f"{name}.npy", file.getvalue())


def _runs(root: Path) -> None:
    table = (
        "Model,Teacher,task,score,ratio,baseline_score,intermediate_loss_type,alpha,intermediate_strategy,"
    )
    table += "kd_loss_type,mixup,repeated_aug,aug_p,contextual,backtranslation,random\n"
    table += "".join(f"s{i},t,sst2,0.{i}1,0.9,50,mi,0.1,skip,kd,TRUE,1,0.2,0,1,0\n" for i in range(4))
    _put(root / "distiller/auto_distiller_tabular_data.csv", table)
    _put(root / "distiller/dataset_features_50_concat.csv", "task,a,b\nsst2,0.5,3\n")
    _put(root / "distiller/student_baseline.csv", "task,Model,student_score\nsst2,s0,80\n")
    _put(root / "distiller/teacher_baseline.csv", "task,model,score\nsst2,t,90\n")


def _log(root: Path) -> None:
    pipeline = {
        "logits": "kd",
        "intermediate": "none",
        "layers": "none",
        "augmentation": [],
        "settings": [["a", 1.0]],
    }
    row = {"task": "t", "pipeline": pipeline, "score": 0.5, "budget": 3, "student": "s", "teacher": "t"}
    _put(root / "log.jsonl", "".join(json.dumps(row | {"budget": b}) + "\n" for b in (1, 2, 4)))


_TASK = jgd.data.contextual_sbm(num_nodes=60, num_classes=3, num_features=3, mean_degree=4)


def _every(reader: Callable[[Path], Any], pattern: str) -> Callable[[Path], Any]:
    return lambda root: [reader(path) for path in sorted(root.glob(pattern))]


TARGETS: dict[str, Target] = {
    "planetoid": Target(_planetoid, lambda root: jgd.load("cora")),
    "cpf": Target(_cpf, lambda root: jgd.load("cpf:cora", train_per_class=1, val_per_class=1)),
    "tu": Target(_tu, lambda root: jgd.load("tu:TOY")),
    "geom-gcn": Target(_geom_gcn("texas"), lambda root: jgd.load("texas")),
    "geom-gcn film": Target(_geom_gcn("film"), lambda root: jgd.load("film")),
    "mnist": Target(_mnist, lambda root: jgd.load("mnist")),
    "cifar, python": Target(_cifar(False), lambda root: jgd.load("cifar10")),
    "cifar, binary": Target(_cifar(True), lambda root: jgd.load("cifar10")),
    "cifar-jpeg": Target(
        lambda root: _tar(root / "cifar10-jpeg/cifar10-jpeg.tar.gz", _pictures()),
        lambda root: jgd.load("cifar10-jpeg"),
    ),
    "image folder": Target(_folder, lambda root: jgd.data.image_folder(root / "images")),
    "sst2": Target(_texts, lambda root: jgd.load("sst2", val=4)),
    "tweets": Target(_tweets, lambda root: jgd.load("tweets")),
    "streamspot": Target(_streamspot, lambda root: jgd.data.streamspot(root / "all.tsv.gz")),
    "darpa": Target(_darpa, lambda root: jgd.data.darpa_e3(root / "log.json")),
    "restricted_loads": Target(_pickled, _every(restricted_loads, "*.pkl")),
    "read_npz, read_npy": Target(_arrays, lambda root: (read_npz(root / "a.npz"), read_npy(root / "a.npy"))),
    "own arrays": Target(_own_arrays, lambda root: jgd.load(root / "own.npz")),
    "own tables": Target(_own_tables, lambda root: jgd.load(root / "own")),
    "own table": Target(_own_table, lambda root: jgd.load(root / "own.csv")),
    "own graphml": Target(_graphml, lambda root: jgd.load(root / "own.graphml")),
    "own node-link": Target(_node_link, lambda root: jgd.load(root / "own.json")),
    "own pyg": Target(_pyg, lambda root: jgd.load(root / "own.pt")),
    "network": Target(_model, lambda root: jgd.load_model(root / "net.npz")),
    "read_torch": Target(_torch, lambda root: read_torch(root / "a.pt")),
    "artifact": Target(
        lambda root: (root.mkdir(exist_ok=True), artifact.save(_small(), root / "c.npz"), None)[-1],
        lambda root: artifact.load(root / "c.npz"),
    ),
    "import_condensed": Target(
        _imports,
        lambda root: import_condensed(root / "x.npy", _TASK, labels=root / "y.npy", adjacency=root / "a.npy"),
    ),
    "distillation runs": Target(_runs, lambda root: distillation_runs()),
    "search log": Target(_log, lambda root: history(root / "log.jsonl")),
}


# --- mutants ----------------------------------------------------------------------------------------

_WORDS = [
    b"-1",
    b"0",
    b"1e999",
    b"nan",
    b"2147483648",
    b"99999999999999999999",
    b"-9223372036854775809",
    b"0.5",
    b"\xc3\xa9",
]
_BYTES = [
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\0\0\0\0",
    b"\xff" * 8,
    b"\xff" * 7 + b"\x7f",
]


def mutate(content: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    """One damage, drawn at random."""
    data, size = bytearray(content), len(content)
    if not size:
        return bytes(rng.integers(0, 256, 8, np.uint8))
    at, to = sorted(rng.integers(0, size + 1, 2).tolist())
    short = slice(at, min(size, at + int(rng.integers(1, 40))))
    match int(rng.integers(0, 12)):
        case 0 | 1:
            for i in rng.integers(0, size, int(rng.integers(1, 9))):
                data[i] ^= 1 << int(rng.integers(0, 8))
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.integers(0, 256, int(rng.integers(1, 40)), np.uint8).tobytes()
        case 4:
            del data[short]
        case 5:
            data[at:at] = data[short] * int(rng.integers(1, 4))
        case 6 | 7:
            numbers = [m.span() for m in re.finditer(rb"\d+", content)]
            if numbers:
                start, end = numbers[int(rng.integers(len(numbers)))]
                data[start:end] = _WORDS[int(rng.integers(len(_WORDS)))]
        case 8:
            word = _BYTES[int(rng.integers(len(_BYTES)))]
            data[at : at + len(word)] = word
        case 9:
            i = int(rng.integers(0, min(size, 64)))
            data[i] = int(rng.integers(0, 256))
        case 10:
            middle = (at + to) // 2
            data[at:to] = data[middle:to] + data[at:middle]
        case _:
            return [b"", other, b"<!DOCTYPE html><html><body>gone</body></html>"][int(rng.integers(3))]
    return bytes(data)


def _inside(path: Path, rng: np.random.Generator, other: bytes) -> bytes:
    """A damage within what is compressed, so that no checksum tells."""
    content = path.read_bytes()
    if path.suffix in (".npz", ".pt", ".zip"):
        file = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
            entries = old.infolist()
            chosen = entries[int(rng.integers(len(entries)))].filename
            for entry in entries:
                inner = old.read(entry)
                new.writestr(entry.filename, mutate(inner, rng, other) if entry.filename == chosen else inner)
        return file.getvalue()
    if path.suffix == ".gz":
        return gzip.compress(mutate(gzip.decompress(content), rng, other), 1, mtime=0)
    return mutate(content, rng, other)


def outcome(target: Target, root: Path) -> str:
    """``"loaded"``, ``"refused"``, or what is wrong."""
    try:
        target.load(root)
    except ValueError as error:
        message = str(error)
        if "\n" in message or len(message) > 2000:
            return f"a message of several lines: {message[:200]!r}"
        if "MemoryError" in message or "Unable to allocate" in message or "annot allocate" in message:
            return f"more than {MEMORY} bytes: {message[:300]}"
        return "refused"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return "loaded"


def mutants(target: Target, root: Path, seed: int, count: int, start: int = 0) -> Iterator[tuple[int, str]]:
    """Load one mutant after the other; the files are whole again in between."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    for number in range(start, count):
        rng = np.random.default_rng((seed, number))
        path = files[int(rng.integers(len(files)))]
        whole, other = path.read_bytes(), files[int(rng.integers(len(files)))].read_bytes()
        path.write_bytes(_inside(path, rng, other) if rng.random() < 0.7 else mutate(whole, rng, other))
        try:
            yield number, outcome(target, root)
        finally:
            path.write_bytes(whole)


# --- processes --------------------------------------------------------------------------------------


def _quiet() -> None:
    """Digests of official files are not those of small ones, and are no defence; notes are not printed."""
    storage._compare = lambda path, expected: None
    saved.digest = lambda header, arrays: header.get("checksum")  # anyone can make one
    logging.disable()


def prepare(target: Target, root: str) -> None:
    """Write the files of a target in this process, and bound what it may take from then on."""
    os.environ["JGD_DATA_DIR"], os.environ["XDG_CACHE_HOME"] = root, f"{root}-cache"
    _quiet()
    target.write(Path(root))  # here, because JAX does not survive a fork
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a hang ends the process


def _work(name: str, root: str, seed: int, count: int, start: int, pipe: Any) -> None:
    prepare(TARGETS[name], root)
    if (whole := outcome(TARGETS[name], Path(root))) != "loaded":
        pipe.send((start, "not whole"))
        raise RuntimeError(f"{name}: the files that are whole are not loaded ({whole})")
    signal.alarm(SECONDS)
    for number, found in mutants(TARGETS[name], Path(root), seed, count, start):
        pipe.send((number, found))
        signal.alarm(SECONDS)
    pipe.send((count, "done"))


def run(name: str, *, mutants: int, seed: int = 0) -> dict[str, Any]:
    """Mutants of one target in processes of their own.

    Returns:
      ``what``, ``tried``, ``held`` and ``failed``, how many were ``loaded`` and ``refused``, and the first
      ``failures``.
    """
    counts = {"loaded": 0, "refused": 0}
    failures: list[str] = []
    start, context = 0, multiprocessing.get_context("fork")
    while start < mutants:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "data"
            root.mkdir()
            mine, theirs = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(name, str(root), seed, mutants, start, theirs))
            process.start()
            theirs.close()
            while True:
                try:
                    number, found = mine.recv()
                except EOFError:
                    process.join()
                    failures.append(f"mutant {start}: ended with {process.exitcode}")
                    start += 1
                    break
                if found == "done":
                    process.join()
                    start = mutants
                    break
                if found == "not whole":
                    process.join()
                    raise RuntimeError(f"{name}: its loader refuses the files that are whole")
                start = number + 1
                if found in counts:
                    counts[found] += 1
                else:
                    failures.append(f"mutant {number}: {found}")
    held = sum(counts.values())
    return {
        "what": name,
        "tried": mutants,
        "held": held,
        "failed": mutants - held,
        **counts,
        "failures": failures[:20],
    }


def rows(mutants: int = 20_000, seed: int = 0, only: list[str] | None = None) -> list[dict[str, Any]]:
    """A row for each loader; ``mutants`` are those of all together."""
    names = only or list(TARGETS)
    return [run(name, mutants=mutants // len(names), seed=seed) for name in names]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    names, failed, found = args.only or list(TARGETS), 0, []
    for name in names:
        start = time.perf_counter()
        (row,) = rows(args.mutants // len(names), args.seed, [name])
        failed += row["failed"]
        found.append(row)
        print(
            f"{name:20} tried {row['tried']:6} refused {row['refused']:6} loaded {row['loaded']:6} "
            f"failed {row['failed']:4}  {time.perf_counter() - start:.0f} s",
            flush=True,
        )
        for failure in row["failures"]:
            print(f"    {failure}", flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
