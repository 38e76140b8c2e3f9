"""Kinds of damage that loaders meet: each ends in one line that names the file, before much is made of it."""

import gzip
import io
import json
import pickle
import re
import struct
import tarfile

import numpy as np
import pytest
import scipy.sparse as sp

import jgd
from jgd.cli.main import main
from jgd.data import DataError
from jgd.data.mnist import read_idx


def refused(load, *parts):
    with pytest.raises(DataError) as error:
        load()
    message = str(error.value)
    assert "\n" not in message
    for part in parts:
        assert str(part) in message
    return message


def cora():
    return jgd.load("cora")


def repickle(path, value):
    path.write_bytes(pickle.dumps(value, protocol=2))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("ally", np.full((7, 2), 2), "row 0 names no class"),
        ("ally", np.ones((7, 2)), "row 0 names no class"),
        ("ally", np.eye(2)[[0] * 6], "allx has 7 rows, ally 6"),
        ("ty", np.eye(3)[[0, 1, 0]], "ty has 3 columns, ally 2"),
        ("x", np.full((4, 5), np.nan), "row 0 holds a number that is not finite"),
        ("x", np.asarray([["a"] * 5] * 4), "a matrix of str"),
        ("x", [1, 2], "holds a list"),
        ("allx", sp.csr_matrix((7, 2**30)), "more than"),
        ("graph", {0: [1, 99]}, "99, a neighbour of node 0, is none of 11 nodes"),
        ("graph", {-1: [1]}, "-1 is none of the 11 nodes"),
        ("graph", {0: [0.5]}, "0.5, a neighbour"),
        ("graph", {0: 5}, "no list"),
        ("graph", {0: []}, "no edges"),
        ("graph", {}, "neighbours of each node"),
        ("graph", dict.fromkeys(range(11), [1] * 200), "possible length"),  # one list, eleven times
    ],
)
def test_planetoid(data_root, official, part, value, message):
    official.planetoid(data_root)
    path = data_root / "planetoid" / f"ind.cora.{part}"
    repickle(path, value)
    refused(cora, data_root / "planetoid" / "ind.cora.", message)


@pytest.mark.parametrize("name", ["indices", "indptr", "data", "_shape"])
def test_planetoid_sparse_matrices(data_root, official, name):
    official.planetoid(data_root)
    path = data_root / "planetoid" / "ind.cora.allx"
    matrix = pickle.loads(path.read_bytes())
    wrong = {"indices": matrix.indices + 2**30, "indptr": matrix.indptr[::-1].copy(), "data": matrix.data[:3]}
    setattr(matrix, name, wrong.get(name, (7, 2)))
    repickle(path, matrix)
    refused(cora, path, "of a sparse matrix")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8\n7\n2000000000\n", "2000000000 is far beyond"),
        ("8\n7\n8\n", "different"),
        ("8\n7\n99999999999999999999\n", "99999999999999999999"),
        ("8\n7\n-3\n", "do not match"),
        ("8 1\n7 1\n10 1\n", "(3, 2)"),
    ],
)
def test_planetoid_test_nodes(data_root, official, text, message):
    official.planetoid(data_root)
    path = data_root / "planetoid" / "ind.cora.test.index"
    path.write_text(text)
    refused(cora, path, message)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("adj_indptr", lambda a: a[::-1], "do not rise"),
        ("adj_indices", lambda a: a + 100, "outside 0..11"),
        ("adj_shape", lambda a: a * 0 - 1, "shape"),
        ("attr_data", lambda a: a * np.nan, "not finite"),
        ("labels", lambda a: a.astype(np.int64) + 2_000_000_000, "label 2000000000 of node 0"),
        ("labels", lambda a: a.astype(float), "expected a vector of integers"),
        ("labels", lambda a: -a, "label -1 of node 1"),
        ("labels", None, "lacks the array 'labels'"),
        ("attr_indptr", None, "lacks the array 'attr_indptr'"),
    ],
)
def test_cpf(data_root, official, name, change, message):
    official.cpf(data_root)
    path = data_root / "cpf" / "cora.npz"
    with np.load(path, allow_pickle=True) as file:
        arrays = {key: file[key] for key in file.files if key != "node_names"}
    if change is None:
        del arrays[name]
    else:
        arrays[name] = change(arrays[name])
    np.savez(path, **arrays)
    refused(lambda: jgd.load("cpf:cora", train_per_class=1, val_per_class=1), path, message)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("out1_graph_edges.txt", "node_id\tnode_id", "a\tb", "its first line is"),
        ("out1_graph_edges.txt", "4\t0", "4\t2000000000", "line 6: an end of the edge is '2000000000'"),
        ("out1_graph_edges.txt", "4\t0", "4", "line 6 has 1 columns"),
        ("out1_graph_edges.txt", "\n", "\r\n", None),
        ("out1_node_feature_label.txt", "\t0\n", "\t2000000000\n", "the class is '2000000000'"),
        ("out1_node_feature_label.txt", "\t1,0,3\t", "\t1,0,1e999\t", "not finite"),
    ],
)
def test_geom_gcn(data_root, official, file, old, new, message):
    official.webkb(data_root)
    path = data_root / "geom-gcn" / "texas" / file
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    if message is None:
        assert len(jgd.load("texas").graph.senders) == 4
    else:
        refused(lambda: jgd.load("texas"), path, message)


def test_geom_gcn_without_edges_and_with_wide_features(data_root, official):
    official.webkb(data_root, "film")
    folder = data_root / "geom-gcn" / "film"
    nodes = folder / "out1_node_feature_label.txt"
    nodes.write_text(nodes.read_text().replace("3,1", "3,1000000000"))
    refused(lambda: jgd.load("film"), nodes, "a feature is '1000000000'")
    official.webkb(data_root, "film")
    (folder / "out1_graph_edges.txt").write_text("node_id\tnode_id\n")
    refused(lambda: jgd.load("film"), "out1_graph_edges.txt", "no edges")
    (folder / "out1_graph_edges.txt").write_text("<!DOCTYPE html><html><body>404</body></html>")
    refused(lambda: jgd.load("film"), "out1_graph_edges.txt", "web page", "delete it and download it again")


def test_splits_that_are_none(data_root, official):
    official.webkb(data_root)
    path = data_root / "geom-gcn" / "splits" / "texas_split_0.6_0.2_0.npz"
    masks = {"train_mask": np.ones(5, np.uint8), "val_mask": np.zeros(5, np.uint8)}
    for test, message in (
        (None, "test_mask is no such vector"),
        (np.full(5, 7, np.uint8), "other numbers than 0 and 1"),
        (np.full(5, np.nan), "test_mask is no such vector"),
        (np.ones(5, np.uint8), "in two of its parts"),
    ):
        np.savez(path, **masks, **({} if test is None else {"test_mask": test}))
        refused(lambda: jgd.load("texas"), path, message)


@pytest.mark.parametrize(
    ("part", "text", "message"),
    [
        ("graph_indicator", "2000000000\n", "node 1 is in graph 2000000000"),
        ("A", "1, 2000000000\n", "edge 1 is [1, 2000000000]"),
        ("A", "1\n2\n", "1 columns"),
        ("node_attributes", "1e999, 2\n", "row 1 holds a number that is not finite"),
        ("graph_labels", "1, 2\n", "2 columns"),
    ],
)
def test_tu(data_root, official, part, text, message):
    official.tu(data_root)
    path = data_root / "tu" / "TOY" / f"TOY_{part}.txt"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(text * len(lines) if part in ("A", "graph_labels") else text + "".join(lines[1:]))
    refused(lambda: jgd.load("tu:TOY"), data_root / "tu" / "TOY", message)


def test_idx_files_state_what_they_hold(tmp_path):
    path = tmp_path / "x.gz"
    header = b"\0\0\x08\x03" + struct.pack(">3I", 2**31, 28, 28)
    path.write_bytes(gzip.compress(header + bytes(784)))
    refused(lambda: read_idx(path), path, "more than")
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + struct.pack(">3I", 1, 28, 28) + bytes(10**7)))
    refused(lambda: read_idx(path), path, "limit of 784 bytes")
    content = bytearray(gzip.compress(b"\0\0\x08\x01" + struct.pack(">I", 9) + bytes(9)))
    content[-6] ^= 1  # the checksum
    path.write_bytes(content)
    refused(lambda: read_idx(path), path, "CRC")


@pytest.mark.parametrize(
    "labels", [[10, 0], [-1, 0], [0.5, 0], [[0], [1]], [2_000_000_000, 0], "ab", [True, 0]]
)
def test_cifar_labels(data_root, official, labels):
    official.cifar(data_root)
    batch = pickle.dumps({"data": np.zeros((2, 3072), np.uint8), "labels": labels}, protocol=2)
    path = data_root / "cifar" / "cifar-10-python.tar.gz"
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    official.tar(path, {f"b/{name}": batch for name in names})
    refused(lambda: jgd.load("cifar10"), path, "no list of classes 0 to 9")


def test_cifar_twice_and_a_bomb_beside(data_root, official):
    path = data_root / "cifar" / "cifar-10-binary.tar.gz"
    record = bytes(3073)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    files = {f"b/{name}.bin": record for name in names}
    official.tar(path, {"c/test_batch.bin": record, **files})
    refused(lambda: jgd.load("cifar10"), path, "two files test_batch.bin")
    official.tar(path, {"beside": bytes(10**6), **files})
    assert len(jgd.load("cifar10").y) == 6
    bomb = tarfile.TarInfo("bomb")
    bomb.size = 2**29  # stated in a header without content: refused before anything is read
    with tarfile.open(path, "w:gz") as archive:
        archive.fileobj.write(bomb.tobuf())
    refused(lambda: jgd.load("cifar10"), path, f"limit of {2**28} bytes")


def test_logs_are_bounded(tmp_path):
    path = tmp_path / "all.tsv.gz"
    line = "1\ta\t2\tb\tread\t0\n"
    path.write_bytes(gzip.compress((line * 1000).encode()))
    assert len(jgd.data.streamspot(path).actor) == 1000
    refused(lambda: jgd.data.streamspot(path, limit=1000), path, "more than 1000 bytes of text", "limit=")
    path.write_bytes(gzip.compress(line.encode() * 10 + b"x" * (2**24 + 9)))
    refused(lambda: jgd.data.streamspot(path), path, "line 11 is longer")
    (tmp_path / "plain").write_text(line + line.replace("0\n", "²\n"), encoding="utf-8")
    refused(lambda: jgd.data.streamspot(tmp_path / "plain"), "plain, line 2")


@pytest.mark.parametrize("time", [10**30, 1e999, "x", None, [1]])
def test_records_of_the_common_data_model(tmp_path, time):
    path = tmp_path / "log.json"
    event = {"type": "E", "subject": "S", "predicateObject": "F", "timestampNanos": 1}
    name = "com.bbn.tc.schema.avro.cdm18.Event"
    good = json.dumps({"datum": {name: event}}) + "\n"
    path.write_text(good + json.dumps({"datum": {name: event | {"timestampNanos": time}}}))
    refused(lambda: jgd.data.darpa_e3(path), path, "line 2: no record")
    path.write_text(good + json.dumps({"datum": {name: event | {"subject": ["S", "T"]}}}))
    refused(lambda: jgd.data.darpa_e3(path), path, "line 2: no record")
    path.write_text(good + "[" * 100_000)
    refused(lambda: jgd.data.darpa_e3(path), path, "line 2: no record", "RecursionError")


def test_images(tmp_path, official):
    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "PNG")
    for name, content in (("a", official.picture((1, 2, 3))), ("b", file.getvalue())):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").write_bytes(content)
    refused(lambda: jgd.data.image_folder(tmp_path / "images", size=8), "b/0.png", "5000 x 5000 pixels")


def test_a_damaged_cache_of_images_is_made_again(data_root, official, tmp_path):
    official.cifar10_jpeg(data_root)
    x = jgd.load("cifar10-jpeg").x
    (cached,) = (tmp_path / "cache" / "jgd" / "decoded").iterdir()
    for bad in (b"", cached.read_bytes()[:-900]):
        cached.write_bytes(bad)
        np.testing.assert_array_equal(jgd.load("cifar10-jpeg").x, x)
    np.savez(cached, x=np.zeros((2, 8), np.uint8), y=np.zeros(2), part=np.zeros(2))
    np.testing.assert_array_equal(jgd.load("cifar10-jpeg").x, x)


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x" * 5000, "no dataset is called"),
        ("tu:" + "A" * 5000, "no name of TUDataset"),
        ("tu:a\nb", "no name of TUDataset"),
        ("darpa_e3", "jgd.data.darpa_e3"),
    ],
)
def test_names(data_root, capsys, name, message):
    assert len(refused(lambda: jgd.load(name), message)) < 800
    assert main(["condense", name, "--out", str(data_root / "out")]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert len(line) < 800


def test_what_is_no_name(data_root):
    for value in (np.float32(1), 5, None, ["cora"]):
        with pytest.raises(
            (DataError, TypeError), match=re.compile("text|path|named|dataset", re.IGNORECASE)
        ):
            jgd.load(value)
