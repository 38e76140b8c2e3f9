import hashlib
import io
import os
import pickle
import tarfile
import urllib.request
import zipfile
from collections import OrderedDict, defaultdict
from email.message import Message
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from jgd.core import atomic_write
from jgd.data.archives import unpack
from jgd.data.arrays import read_npz, read_table
from jgd.data.pickles import restricted_loads
from jgd.data.storage import DataError, Remote, check_sha256, data_dir, require

CONTENT = b"some data"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def serve(monkeypatch, content, length=None):
    class Response(io.BytesIO):
        headers = Message()

    def urlopen(request, **_):
        response = Response(content)
        response.headers = Message()
        response.headers["Content-Length"] = str(len(content) if length is None else length)
        return response

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)


def test_data_dir_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("JGD_DATA_DIR", str(tmp_path / "a"))
    assert data_dir() == tmp_path / "a"
    monkeypatch.delenv("JGD_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert data_dir() == tmp_path / "b" / "jgd"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_dir() == Path.home() / ".cache" / "jgd"


def test_a_present_file_needs_no_network(data_root, network):
    (data_root / "f").write_bytes(b"whatever")
    assert require(Remote("f", ("https://example.org/f",), DIGEST)) == data_root / "f"
    assert network == []


def test_a_download_is_verified_and_kept(data_root, monkeypatch):
    serve(monkeypatch, CONTENT)
    path = require(Remote("deep/f", ("https://example.org/f",), DIGEST))
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["f"]
    check_sha256(path, DIGEST)
    with pytest.raises(DataError, match="SHA-256"):
        check_sha256(path, "0" * 64)


@pytest.mark.parametrize("fault", ["digest", "truncated"])
def test_a_bad_download_leaves_nothing(data_root, monkeypatch, fault):
    serve(monkeypatch, CONTENT, length=100 if fault == "truncated" else None)
    with pytest.raises(DataError, match="SHA-256" if fault == "digest" else "ended after"):
        require(Remote("f", ("https://example.org/f",), "0" * 64))
    assert os.listdir(data_root) == []


def test_a_missing_file_says_what_to_do(data_root, network):
    with pytest.raises(DataError) as error:
        require(Remote("folder/f", ("https://example.org/f", "https://example.com/f")))
    for part in ("folder/f", "https://example.org/f", "https://example.com/f", "JGD_DATA_DIR"):
        assert part in str(error.value)
    assert len(network) == 2


def test_atomic_write_is_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "f"
    with atomic_write(path) as file:
        file.write(b"one")
    with pytest.raises(TypeError), atomic_write(path) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"one"
    assert os.listdir(path.parent) == ["f"]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_can_be_unpickled(protocol):
    value = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": [np.float32(1.5), 2, True, None, "text", (1, 2)],
        "c": OrderedDict(x={1, 2}),
        "d": defaultdict(list, {1: [2]}),
        "e": np.asarray(["x", None], object),
    }
    loaded = restricted_loads(pickle.dumps(value, protocol=protocol))
    np.testing.assert_array_equal(loaded["a"], value["a"])
    assert {k: loaded[k] for k in "bcd"} == {k: value[k] for k in "bcd"}
    assert loaded["e"].tolist() == ["x", None]


@pytest.mark.parametrize("kind", [sp.csr_matrix, sp.csc_matrix])
def test_sparse_matrices_of_the_old_path(kind, tmp_path):
    matrix = kind(np.eye(3) * 2)
    content = pickle.dumps(matrix, protocol=2).replace(b"scipy.sparse._", b"scipy.sparse.")
    (tmp_path / "m").write_bytes(content)
    np.testing.assert_array_equal(restricted_loads(tmp_path / "m").toarray(), np.eye(3) * 2)


def test_sparse_matrices_with_indices_out_of_range_are_refused():
    matrix = sp.csr_matrix(np.eye(3))
    matrix.indices[0] = 1000
    with pytest.raises(DataError, match="cannot be read"):
        restricted_loads(pickle.dumps(matrix))


def test_code_in_pickles_is_never_called(evil, tmp_path):
    attack, marker = evil
    with pytest.raises(DataError, match="system"):
        restricted_loads(pickle.dumps([attack]))
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(attack))
    with pytest.raises(DataError, match=r"f\.pkl"):
        restricted_loads(tmp_path / "f.pkl")
    with pytest.raises(DataError, match="eval"):
        restricted_loads(b"cbuiltins\neval\n(V1+1\ntR.")
    with pytest.raises(DataError, match="not allowed"):
        restricted_loads(b"c_codecs\nencode\n(Vx\nVzip\ntR.")
    assert not marker.exists()


def test_pickles_cannot_change_classes():
    """BUILD on a class sets its attributes: it reaches a class of the one load only."""
    before = sp.csr_matrix.toarray
    content = b"\x80\x02cscipy.sparse._csr\ncsr_matrix\nN}X\x07\x00\x00\x00toarrayK\x01s\x86b."
    with pytest.raises(DataError, match="sets the state of a Kind"):
        restricted_loads(content)
    assert sp.csr_matrix.toarray is before
    with pytest.raises(DataError, match="not callable"):
        restricted_loads(b"cnumpy\nndarray\n(I3\ntR.")


@pytest.mark.parametrize("content", [b"", b"\x80\x02garbage", pickle.dumps(np.ones(9))[:40]])
def test_damaged_pickles(content):
    with pytest.raises(DataError, match="download it again"):
        restricted_loads(content)


def test_npz_members_are_checked(tmp_path, evil):
    attack, marker = evil
    path = tmp_path / "f.npz"
    np.savez(path, a=np.arange(3), s=np.asarray(["x", "y"], object))
    with pytest.raises(DataError, match="delete it"):
        read_npz(path)
    assert read_npz(path, objects=True)["s"].tolist() == ["x", "y"]
    np.savez(path, a=np.asarray([attack], object))
    with pytest.raises(DataError, match="system"):
        read_npz(path, objects=True)
    assert not marker.exists()
    content = bytearray(path.read_bytes())
    for bad in (b"", b"PK garbage", bytes(content[: len(content) // 2])):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=r"f\.npz"):
            read_npz(path)
    with pytest.raises(DataError, match="absent"):
        read_npz(tmp_path / "absent.npz")


def test_flipped_bits_in_npz_are_seen(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, a=np.zeros(1000))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        read_npz(path)


def test_tables(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1, 2\n3, 4\n")
    np.testing.assert_array_equal(read_table(path, np.int64, ","), [[1, 2], [3, 4]])
    for bad in ("", "\n", "1, 2\n3\n", "a, b\n"):
        path.write_text(bad)
        with pytest.raises(DataError, match=r"t\.txt"):
            read_table(path, np.int64, ",")


# Archives


def make_zip(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


def make_tar(path, members):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpack(tmp_path, make):
    make(tmp_path / "a", [("top/x", b"1"), ("top/sub/y", b"22"), ("other", b"3")])
    unpack(tmp_path / "a", tmp_path / "all")
    unpack(tmp_path / "a", tmp_path / "top", root="top")
    assert (tmp_path / "all" / "top" / "sub" / "y").read_bytes() == b"22"
    assert sorted(os.listdir(tmp_path / "top")) == ["sub", "x"]
    with pytest.raises(DataError, match="exists already"):
        unpack(tmp_path / "a", tmp_path / "all")


@pytest.mark.parametrize("make", [make_zip, make_tar])
@pytest.mark.parametrize("name", ["../x", "a/../../x", "/abs", "a\\..\\x", "C:/x"])
def test_unpack_stays_inside(tmp_path, make, name):
    make(tmp_path / "a", [("fine", b"1"), (name, b"2")])
    with pytest.raises(DataError, match="out of the folder"):
        unpack(tmp_path / "a", tmp_path / "d")
    assert os.listdir(tmp_path) == ["a"]


def test_unpack_makes_no_links(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    make_zip(tmp_path / "a.zip", [(link, "/etc/passwd")])
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo("link")
        info.type, info.linkname = kind, "/etc/passwd"
        make_tar(tmp_path / f"a{kind.decode()}.tgz", [(info, b"")])
    for archive in list(tmp_path.iterdir()):
        with pytest.raises(DataError, match="is a link"):
            unpack(archive, tmp_path / "d")
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_unpack_limits_and_damage(tmp_path, make):
    make(tmp_path / "a", [("x", bytes(1000))])
    with pytest.raises(DataError, match="limit"):
        unpack(tmp_path / "a", tmp_path / "d", limit=999)
    content = (tmp_path / "a").read_bytes()
    for bad in (b"", b"garbage", content[: len(content) // 2]):
        (tmp_path / "a").write_bytes(bad)
        with pytest.raises(DataError, match="download it again"):
            unpack(tmp_path / "a", tmp_path / "d")
    assert os.listdir(tmp_path) == ["a"]
