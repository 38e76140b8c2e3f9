import hashlib
import io
import os
import pickle
import subprocess
import sys
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
from jgd.data import DataError, data_dir, storage
from jgd.data.archives import archive_files, unpack
from jgd.data.arrays import checked_sparse, read_npz, read_table
from jgd.data.pickles import restricted_loads
from jgd.data.storage import Remote, check_sha256, reading, require

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


@pytest.mark.parametrize(
    ("length", "message"),
    [(None, "SHA-256"), (100, "ended after"), (5, "more than 5 bytes"), (0, "more than 8")],
)
def test_a_bad_download_leaves_nothing(data_root, monkeypatch, length, message):
    """Another digest, a connection that ends, and more than was said or than any file has."""
    serve(monkeypatch, CONTENT, length)
    monkeypatch.setattr(storage, "LARGEST", 8 if length == 0 else 100)
    with pytest.raises(DataError, match=message):
        require(Remote("f", ("https://example.org/f",), "0" * 64))
    assert os.listdir(data_root) == []


@pytest.mark.parametrize("first", ["other bytes", "<!DOCTYPE html><html>sign in</html>"])
def test_another_address_is_tried(data_root, monkeypatch, first):
    """Where the first sends a file of another digest, or a web page in place of a file that has none."""
    asked = []

    class Response(io.BytesIO):
        headers = Message()

    def urlopen(request, **_):
        asked.append(request.full_url)
        return Response(first.encode() if len(asked) == 1 else CONTENT)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    urls = ("https://example.org/f", "https://example.com/f")
    path = require(Remote("f", urls, DIGEST if first == "other bytes" else None))
    assert path.read_bytes() == CONTENT
    assert asked == list(urls)
    assert os.listdir(data_root) == ["f"]


def test_digests_of_present_files_are_compared_once(data_root, monkeypatch, caplog):
    path = data_root / "f"
    path.write_bytes(CONTENT)
    computed = []
    digest = hashlib.file_digest

    def counted(file, name):
        computed.append(Path(file.name))
        return digest(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    for _ in range(3):
        require(Remote("f", (), DIGEST))
    assert computed == [path]
    assert caplog.messages == []
    path.write_bytes(b"other data")
    for _ in range(3):
        assert require(Remote("f", (), DIGEST)) == path  # one's own file in the official format
    assert computed == [path, path]
    (message,) = caplog.messages
    assert str(path) in message
    assert "is not the official file" in message
    (storage.cache_dir() / "digests.json").write_text("{damaged")
    require(Remote("f", (), DIGEST))
    assert computed == [path] * 3


def test_a_cache_that_cannot_be_written_costs_time_only(data_root, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (data_root / "f").write_bytes(CONTENT)
    assert require(Remote("f", (), DIGEST)) == data_root / "f"


@pytest.mark.parametrize("start", ["<!DOCTYPE html>", "\n <html lang='en'>", "\ufeff<!doctype HTML public>"])
def test_a_web_page_is_no_data(data_root, start):
    (data_root / "f").write_text(f"{start}<body>404</body>")
    with pytest.raises(DataError, match=r"is a web page.*delete it and download it again"):
        require(Remote("f", ()))
    with pytest.raises(DataError, match="is a web page"):
        read_table(data_root / "f", np.int64)


def test_errors_are_one_line_of_bounded_length():
    error = DataError("a\nb\x1b[31m" + "x" * 9000)
    assert str(error).startswith("a b [31mx")
    assert len(str(error)) < 1600
    with pytest.raises(DataError, match=r"^f cannot be read \(two lines\): ask$"), reading("f", "ask"):
        raise RuntimeError("two\nlines")


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


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["?", "<i2", ">f8", "<c8", "S3", "<U2"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_plain_types(order, dtype, protocol):
    array = np.asarray([[0, 1, 2], [3, 4, 5]]).astype(dtype, order=order)
    loaded = restricted_loads(pickle.dumps([array, array[0, 1], array[:0]], protocol=protocol))
    np.testing.assert_array_equal(loaded[0], array)
    assert loaded[0].dtype == array.dtype
    assert loaded[0].flags.writeable
    assert loaded[1] == array[0, 1]
    assert loaded[2].shape == (0, 3)


def array_pickle(
    shape="K\x02\x85", code=b"i4", state=b"U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00", data=b"\0" * 8
):
    """A pickle of an array as Python 2 wrote it, whose every part may be wrong."""
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01"
        + shape.encode("latin1")
        + b"cnumpy\ndtype\nU"
        + bytes([len(code)])
        + code
        + b"K\x00K\x01\x87R(K\x03"
        + state
        + b"tb\x89U"
        + bytes([len(data)])
        + data
        + b"tb."
    )


def test_states_of_arrays_are_compared_with_their_bytes():
    np.testing.assert_array_equal(restricted_loads(array_pickle()), [0, 0])
    long = b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"
    for changes, message in (
        ({"shape": "K\x03\x85"}, "but holds 8 bytes"),
        ({"shape": "J\xff\xff\xff\xff\x85"}, "cannot have -1"),
        ({"shape": "J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86"}, "but holds 8 bytes"),
        ({"shape": "N\x85"}, "cannot have None"),
        ({"code": b"V4"}, "no plain type"),
        ({"code": b"O8"}, "content of an array of objects"),
        ({"code": b"M8"}, "no plain type"),
        ({"code": b"b1"}, "but holds 8 bytes"),
        ({"code": b"b1", "shape": "K\x08\x85", "data": b"\2" * 8}, "neither 0 nor 1"),
        ({"code": b"U1", "state": b"U\x01<NNNK\x04K\x04K\x08", "data": b"\xff" * 8}, "no Unicode"),
        ({"state": b"U\x01<NU\x01a\x85}" + long}, "with fields"),
        ({"state": b"U\x01<U\x01a\x85NN" + long}, "with fields"),
        ({"state": b"U\x01<NNNJ\xff\xff\xff\x7fJ\xff\xff\xff\xffK\x00"}, "a size of its own"),
        ({"state": b"U\x01xNNN" + long}, "byte order"),
    ):
        with pytest.raises(DataError, match=message):
            restricted_loads(array_pickle(**changes))


def peak(code, limit=2**29):
    """Run code in a process whose memory is bounded; what it prints."""
    script = f"""
import resource
from jgd.data.pickles import restricted_loads
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + {limit}, used + {limit}))
try:
    {code}
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
def test_small_pickles_take_little_memory():
    """Memo numbers, sizes that are promised, and parts that are used again and again."""
    assert restricted_loads(b"\x80\x02Nr\xff\xff\xff\xff0]q\x00.") == []
    found = peak(
        r"""for content in (
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"\x80\x04\x8d\xff\xff\xff\xff\x0f\x00\x00\x00x.",
        b"\x80\x04\x95\xff\xff\xff\xff\x0f\x00\x00\x00N.",
        b"\x80\x02\x8b\xff\xff\xff\x7fx.",
    ):
        try:
            print(restricted_loads(content))
        except ValueError as error:
            print(error)"""
    )
    assert "Memory" not in found
    assert found.count("cut off") == 2
    many = b"\x80\x02](U\xff" + b"x" * 255 + b"q\x00" + b"c_codecs\nencode\nh\x00\x85R" * 9000 + b"e."
    with pytest.raises(DataError, match="more data than it holds"):
        restricted_loads(
            many.replace(b"c_codecs\nencode\n", b"c_codecs\nencode\nq\x01", 1).replace(
                b"c_codecs\nencode\nh", b"h\x01h"
            )
        )


@pytest.mark.long
def test_deep_pickles_do_not_recurse():
    """The hash of a tuple in a tuple in a tuple ... ends the process."""
    for content in (b"]" * 10**5 + b"a" * (10**5 - 1) + b".", b")" + b"\x85" * 10**5 + b"."):
        restricted_loads(content)
    with pytest.raises(DataError, match="cannot be a key"):
        restricted_loads(b"})" + b"\x85" * 10**5 + b"Ns.")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": [0, 3, 2, 3]}, "do not rise"),
        ({"indptr": [1, 1, 2, 3]}, "do not rise"),
        ({"indptr": [0, 1, 2, 9]}, "end at 9"),
        ({"indptr": [0, 1, 3]}, "3 row pointers, not 4"),
        ({"indptr": [0.0, 1, 2, 3]}, "cannot be float64"),
        ({"indices": [0, 1, 4]}, "index 2 of a sparse matrix is 4, outside 0..3"),
        ({"indices": [0, -1, 2]}, "index 1 of a sparse matrix is -1"),
        ({"indices": [0, 1]}, "2 indices"),
        ({"indices": [[0], [1], [2]]}, "must be a vector"),
        ({"data": [1j, 2, 3]}, "cannot be complex128"),
        ({"shape": (3, -4)}, "shape .3, -4."),
        ({"shape": (3, 2**40)}, "shape"),
        ({"shape": (2, 4)}, "row pointers"),
        ({"shape": (3,)}, "shape"),
    ],
)
def test_sparse_matrices_are_checked_before_they_are_made(change, message):
    parts = {"data": [1.0, 2, 3], "indices": [0, 1, 2], "indptr": [0, 1, 2, 3], "shape": (3, 4)} | change
    shape = parts.pop("shape")
    arrays = {name: np.asarray(value) for name, value in parts.items()}
    with pytest.raises(ValueError, match=message):
        checked_sparse(**arrays, shape=shape)


def test_sparse_matrices_of_either_form():
    dense = np.asarray([[0, 2.0, 0], [1, 0, 3]])
    for make in (sp.csr_array, sp.csc_array, sp.csr_matrix):
        m = make(dense)
        again = checked_sparse(m.data, m.indices.astype(np.uint64), m.indptr, m.shape, make)
        np.testing.assert_array_equal(again.toarray(), dense)
        assert type(again) is make


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


def npy(header, data=bytes(24)):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }", "but holds 24 bytes"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99999999999), }", "but holds 24"),
        ("{'descr': '|V2147483647', 'fortran_order': False, 'shape': (3,), }", "no plain type"),
        ("{'descr': '<U536870911', 'fortran_order': False, 'shape': (0,), }", "no plain type"),
        ("{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,), }", "no plain type"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (3,), }", "Python objects"),
        ("{'descr': '<f8', 'fortran_order': __import__('os'), 'shape': (3,), }", "no shape"),
    ],
)
def test_headers_of_arrays_are_compared_with_their_bytes(tmp_path, header, message):
    good = "{'descr': '<f8', 'fortran_order': True, 'shape': (3L,), }"  # as Python 2 wrote it
    make_zip(tmp_path / "f.npz", [("a.npy", npy(good)), ("b.npy", npy(header))])
    with pytest.raises(DataError, match=message) as error:
        read_npz(tmp_path / "f.npz")
    assert "f.npz" in str(error.value)
    assert "'b'" in str(error.value)
    make_zip(tmp_path / "f.npz", [("a.npy", npy(good))])
    np.testing.assert_array_equal(read_npz(tmp_path / "f.npz")["a"], np.zeros(3))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_members_of_one_name_and_other_compressions_are_refused(tmp_path):
    content = npy("{'descr': '<f8', 'fortran_order': False, 'shape': (3,), }")
    for members in ([("a.npy", content)] * 2, [("a.npy", content), ("a", content)]):
        make_zip(tmp_path / "f.npz", members)
        with pytest.raises(DataError, match="two"):
            read_npz(tmp_path / "f.npz")
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", content)
    with pytest.raises(DataError, match="other than deflate"):
        read_npz(tmp_path / "f.npz")


def test_tables(tmp_path):
    path = tmp_path / "t.txt"
    path.write_text("1, 2\n3, 4\n")
    np.testing.assert_array_equal(read_table(path, np.int64, ","), [[1, 2], [3, 4]])
    for bad in ("", "\n", "1, 2\n3\n", "a, b\n"):
        path.write_text(bad)
        with pytest.raises(DataError, match=r"t\.txt"):
            read_table(path, np.int64, ",")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1, 2\n3, \xff\n", "after line 0 it is no text in UTF-8"),
        (b"1, 2\n3, 4\0\n", "line 2 holds a NUL byte"),
        (b"1, 2\n3, 99999999999999999999\n", "99999999999999999999"),
        (b"1, 2\n3\n", "row 2"),
        (b"1, 2\n3, 4 # 5\n", "4 # 5"),
    ],
)
def test_damaged_tables_say_where(tmp_path, content, message):
    path = tmp_path / "t.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(path, np.int64, ",")


def test_tables_of_windows_and_numbers_that_are_not_finite(tmp_path):
    path = tmp_path / "t.txt"
    path.write_bytes(b"\xef\xbb\xbf1, 2\r\n3, 4")
    np.testing.assert_array_equal(read_table(path, np.int64, ","), [[1, 2], [3, 4]])
    path.write_text("1\n2\n1e999\n")
    with pytest.raises(DataError, match="row 3 holds a number that is not finite"):
        read_table(path, np.float32)


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
def test_unpack_limits_and_damage(tmp_path, make, monkeypatch):
    make(tmp_path / "a", [("x", bytes(1000))])
    with pytest.raises(DataError, match="limit"):
        unpack(tmp_path / "a", tmp_path / "d", limit=999)
    monkeypatch.setenv("JGD_UNPACK_LIMIT", "999")
    with pytest.raises(DataError, match=r"more than the limit of 999 bytes.*JGD_UNPACK_LIMIT"):
        unpack(tmp_path / "a", tmp_path / "d")
    monkeypatch.delenv("JGD_UNPACK_LIMIT")
    content = (tmp_path / "a").read_bytes()
    for bad in (b"", b"garbage", content[: len(content) // 2]):
        (tmp_path / "a").write_bytes(bad)
        with pytest.raises(DataError, match="download it again"):
            unpack(tmp_path / "a", tmp_path / "d")
    assert os.listdir(tmp_path) == ["a"]


def test_the_checksum_of_a_compressed_tar_is_read(tmp_path):
    """It stands at the very end of the file, behind all that tarfile reads."""
    path = tmp_path / "a.tar.gz"
    make_tar(path, [("x", b"data")])
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="CRC"):
        list(archive_files(path))
    with pytest.raises(DataError, match="CRC"):
        unpack(path, tmp_path / "d")


def test_a_damaged_header_is_not_the_end_of_a_tar(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("x", "y"):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
    content = bytearray((tmp_path / "a.tar").read_bytes())
    assert [path.name for path, _ in archive_files(tmp_path / "a.tar")] == ["x", "y"]
    damaged = content.copy()
    damaged[1024 + 150] ^= 1  # of the checksum of y's header
    for bad in (damaged, content[:1024]):
        (tmp_path / "a.tar").write_bytes(bad)
        with pytest.raises(DataError, match="cut off, or an entry"):
            list(archive_files(tmp_path / "a.tar"))


def test_what_is_not_wanted_counts(tmp_path):
    """A tar is unpacked to be passed over."""
    make_tar(tmp_path / "a", [("bomb", bytes(5000)), ("x", b"1")])
    with pytest.raises(DataError, match="limit"):
        list(archive_files(tmp_path / "a", wanted=lambda path: path.name == "x", limit=4000))
    found = list(archive_files(tmp_path / "a", wanted=lambda path: path.name == "x", limit=6000))
    assert [content for _, content in found] == [b"1"]
