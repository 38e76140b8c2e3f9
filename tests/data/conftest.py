"""Small files in the official formats, real data where it is at hand, and no network."""

import gzip
import io
import os
import pickle
import tarfile
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
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
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


def idx(array):
    """The content of an idx file."""
    array = np.asarray(array, np.uint8)
    header = bytes([0, 0, 8, array.ndim]) + np.asarray(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes())


def write_mnist(root, train=40, test=20):
    folder = root / "mnist"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for part, n in (("train", train), ("t10k", test)):
        x, y = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(x))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(y))


def write_tar(path, files):
    """An archive of ``{name: content}``; content None is a link out of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))


def write_cifar(root, classes=10, binary=False):
    """Two images of each class in training, one in testing; returns them, channels first, and labels."""
    names = ["train", "test"] if classes == 100 else [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    rng = np.random.default_rng(0)
    y = np.arange(3 * classes) % classes
    x = rng.integers(0, 256, (3 * classes, 3, 32, 32)).astype(np.uint8)
    cuts = [*np.array_split(np.arange(2 * classes), len(names) - 1), np.arange(2 * classes, 3 * classes)]
    files = {}
    for name, cut in zip(names, cuts, strict=True):
        data, fine, coarse = x[cut].reshape(len(cut), -1), y[cut], y[cut] // 5
        labels = [coarse, fine] if classes == 100 else [fine]
        if binary:
            rows = np.concatenate([np.stack(labels, 1).astype(np.uint8), data], 1)
            files[f"cifar-{classes}-binary/{name}.bin"] = rows.tobytes()
        else:
            keys = ["coarse_labels", "fine_labels"] if classes == 100 else ["labels"]
            batch = {"data": data, **{k: v.tolist() for k, v in zip(keys, labels, strict=True)}}
            files[f"cifar-{classes}-batches-py/{name}"] = pickle.dumps(batch, protocol=2)
    files["readme.html"] = b"text"
    write_tar(root / "cifar" / f"cifar-{classes}-{'binary' if binary else 'python'}.tar.gz", files)
    return x, y


def picture(colour, size=(8, 8), form="PNG"):
    """The content of an image file of one colour."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, form)
    return file.getvalue()


def write_jpegs(root):
    classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    files = {
        f"{part}/{name}/{i:04}.jpg": picture((20 * c, 100, 10 * i), (32, 32), "JPEG")
        for part, count in (("test", 1), ("train", 3))
        for c, name in enumerate(classes)
        for i in range(count)
    }
    write_tar(root / "cifar10-jpeg" / "cifar10-jpeg.tar.gz", files)


def write_sst2(root, zipped=False):
    train = "".join(f'phrase {i} of "it \t{i % 2}\n' for i in range(20))
    texts = {
        "train": "sentence\tlabel\n" + train,
        "dev": "sentence\tlabel\na fine film . \t1\nno .\t0\n",
        "test": "index\tsentence\n0\tunknown\n1\tmore\n2\tless\n",
    }
    if zipped:
        with zipfile.ZipFile(root / "sst2.zip", "w") as archive:
            for part, text in texts.items():
                archive.writestr(f"SST-2/{part}.tsv", text)
                archive.writestr(f"SST-2/original/{part}.txt", "other")
        return
    (root / "sst2").mkdir()
    for part, text in texts.items():
        (root / "sst2" / f"{part}.tsv").write_text(text)


def write_tweets(root):
    (root / "distiller").mkdir()
    header = "Text_ID,Product_Description,Product_Type,Sentiment\n"
    rows = [f'{i},"so, a ""phone"" {i}",{i % 10},{i % 4}\n' for i in range(20)]
    (root / "distiller" / "Train.csv").write_text(header + "".join(rows))
    (root / "distiller" / "Dev.csv").write_text(header + "".join(rows[:5]))


@pytest.fixture
def official():
    """Writers of small files in the official formats."""
    return types.SimpleNamespace(
        planetoid=write_planetoid,
        split=write_split,
        webkb=write_geom_gcn,
        tu=write_tu,
        cpf=write_cpf,
        idx=idx,
        mnist=write_mnist,
        tar=write_tar,
        cifar=write_cifar,
        picture=picture,
        cifar10_jpeg=write_jpegs,
        sst2=write_sst2,
        tweets=write_tweets,
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
