"""What happens to damaged files, hostile files and runs that are killed.

    python experiments/robustness.py            # all; about an hour on two cores
    python experiments/robustness.py --only hostile

Three parts, of which every row is written when it is there: experiments/fuzz.py loads thousands of damaged
files, `hostile` loads files that are made to run code, to take memory or time, or to write elsewhere, and
experiments/kills.py kills small runs at every file operation. Results: ``results/robustness.md``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import pickle
import re
import signal
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
import fuzz
import kills
import measure
from forks import forked
from fuzz import TARGETS, Target

import jgd
from jgd.data.archives import unpack
from jgd.data.arrays import read_npz
from jgd.data.imported import read_torch
from jgd.data.pickles import restricted_loads

NAME = "robustness"
PARTS = ("damaged", "hostile", "killed")
SECONDS = 120
SECRET = "secret"
"""Content beside the folder of the files, which no file may reach."""


# --- hostile files ----------------------------------------------------------------------------------


class _Calls:
    """Pickled, it runs a command when it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _marked(root: Path) -> Path:
    return root / "executed"


def _made(target: str, change: Callable[[Path], None]) -> Target:
    """Whole files of a format, of which some are replaced."""

    def write(root: Path) -> None:
        TARGETS[target].write(root)
        change(root)

    return Target(write, TARGETS[target].load)


def _written(name: str, content: Callable[[Path], bytes], load: Callable[[Path], Any]) -> Target:
    """One file, whose path is given to a reader."""

    def write(root: Path) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(root))

    return Target(write, lambda root: load(root / name))


def _put(name: str, content: bytes | Callable[[Path], bytes]) -> Callable[[Path], None]:
    return lambda root: fuzz._put(root / name, content if isinstance(content, bytes) else content(root))


def _executing(root: Path) -> bytes:
    return pickle.dumps(_Calls(os.system, f"touch {_marked(root)}"), protocol=2)


def _npz(**arrays: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _repacked(path: str, name: str, array: Any) -> Callable[[Path], None]:
    """Replace one array of an ``.npz``, by its key or by the name that a header gives it."""

    def change(root: Path) -> None:
        with np.load(root / path, allow_pickle=True) as file:
            arrays = {key: file[key] for key in file.files}
        key = name
        if name not in arrays:
            said = re.search(rf'"array": "(\w+)", "name": "{name}"', arrays["header"].tobytes().decode())
            assert said, name
            key = said[1]
        fuzz._put(root / path, _npz(**{**arrays, key: array}))

    return change


def _promising(shape: tuple[int, ...], descr: str = "<f4") -> bytes:
    """An ``.npz`` whose header promises more than it holds."""
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)
    return _zip({"x.npy": content, "y.npy": content})


def _zip(files: dict[str, bytes], **options: Any) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def _nothing(gigabytes: float, head: bytes = b"", line: bytes = bytes(64)) -> bytes:
    """A gzip of the same line again and again: a thousandth of what it unpacks to."""
    file, block = io.BytesIO(), line * (2**24 // len(line))
    with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=9, mtime=0) as out:
        out.write(head)
        for _ in range(int(64 * gigabytes)):
            out.write(block)
    return file.getvalue()


def _tar(*entries: tuple[str, bytes | None, str]) -> bytes:
    """A ``.tar.gz`` of files, or of links where there is a target."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, content, target in entries:
            entry = tarfile.TarInfo(name)
            if content is None:
                entry.type, entry.linkname = (tarfile.SYMTYPE, target) if target else (tarfile.CHRTYPE, "")
                archive.addfile(entry)
            else:
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _tar_bomb() -> bytes:
    """A ``.tar.gz`` whose only file has two gigabytes of zeros."""
    entry = tarfile.TarInfo("b/data_batch_1.bin")
    entry.size = 2**31
    return _nothing(2, entry.tobuf())


def _unpacked(path: Path) -> Any:
    return unpack(path, path.parent / "folder" / "inner")


def _entities(depth: int) -> bytes:
    names = "".join(f'<!ENTITY e{i + 1} "{f"&e{i};" * 10}">' for i in range(depth))
    text = f'<!DOCTYPE g [<!ENTITY e0 "lol">{names}]><graphml><graph edgedefault="directed">'
    return f"{text}<node id='&e{depth};'/></graph></graphml>".encode()


def _external(root: Path) -> bytes:
    text = f'<!DOCTYPE g [<!ENTITY x SYSTEM "{root.parent / SECRET}">]><graphml><graph>'
    return f"{text}<node id='&x;'/></graph></graphml>".encode()


def _picture() -> bytes:
    """A PNG of 60 000 times 60 000 pixels in some hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) * 2


def _header(change: Callable[[dict], None]) -> Callable[[Path], None]:
    """Change what the header of a network says, with a right checksum."""

    def changed(root: Path) -> None:
        with np.load(root / "net.npz") as file:
            arrays = {key: file[key] for key in file.files}
        header = json.loads(arrays.pop("header").tobytes())
        change(header)
        text = np.frombuffer(json.dumps(header).encode(), np.uint8)
        fuzz._put(root / "net.npz", _npz(header=text, **arrays))

    return changed


def _relabel(root: Path) -> None:
    path = root / "geom-gcn/texas/out1_node_feature_label.txt"
    path.write_text(path.read_text().replace("\t1\n", "\t2000000000\n"))


_PAGE = b"<!DOCTYPE html><html><head><title>404</title></head><body>gone</body></html>"

HOSTILE: dict[str, Target] = {
    # code
    "a pickle that runs a command": _written("a.pkl", _executing, restricted_loads),
    "a planetoid part that runs a command": _made("planetoid", _put("planetoid/ind.cora.x", _executing)),
    "a torch file that runs a command": _written(
        "a.pt", lambda root: _zip({"a/data.pkl": _executing(root)}), read_torch
    ),
    "an npz whose objects run a command": _written(
        "a.npz",
        lambda root: _npz(x=np.asarray([_Calls(os.system, f"touch {_marked(root)}")], object)),
        read_npz,
    ),
    "a PyG file that runs a command": _written(
        "a.pt", lambda root: _zip({"a/data.pkl": _executing(root)}), jgd.load
    ),
    "a network whose class is a module": _made("network", _header(lambda h: h["network"].update({"class": "os"}))),
    # memory
    "a memo number of two billion": _written(
        "a.pkl", lambda root: b"\x80\x02]r\xff\xff\xff\x7f" + b"h\x00.", restricted_loads
    ),
    "a string that promises a terabyte": _written(
        "a.pkl", lambda root: b"\x80\x04\x8d\x00\x00\x00\x00\x00\x01\x00\x00x.", restricted_loads
    ),
    "an array of a shape of 10^12": _written("a.npz", lambda root: _promising((10**12,)), read_npz),
    "an array of no bytes and 10^18 rows": _written("a.npz", lambda root: _promising((10**18, 0)), read_npz),
    "a shape whose product overflows": _written("a.npz", lambda root: _promising((2**33, 2**31)), read_npz),
    "a negative shape": _written("a.npz", lambda root: _promising((-4, -4)), read_npz),
    "an item of two gigabytes": _written("a.npz", lambda root: _promising((1,), "|V2147483647"), read_npz),
    "own arrays that promise 10^12 rows": _written("a.npz", lambda root: _promising((10**12,)), jgd.load),
    "MNIST images of two gigabytes of zeros": _made(
        "mnist",
        _put("mnist/train-images-idx3-ubyte.gz", lambda root: _nothing(2, b"\0\0\x08\x03" + b"\x7f" * 12)),
    ),
    "CIFAR of two gigabytes in one member": _made(
        "cifar, binary", _put("cifar/cifar-10-binary.tar.gz", lambda root: _tar_bomb())
    ),
    "StreamSpot of half a gigabyte of one edge": _made(
        "streamspot", _put("all.tsv.gz", lambda root: _nothing(0.5, line=b"0\ta\t1\tb\tread\t0\n"))
    ),
    "StreamSpot of one line of two gigabytes": _made(
        "streamspot", _put("all.tsv.gz", lambda root: _nothing(2, line=b"0" * 64))
    ),
    "an npz with a gigabyte of zeros": _written(
        "a.npz", lambda root: _zip({"x.npy": bytes(2**30)}), read_npz
    ),
    "a torch file with a gigabyte of zeros": _made(
        "read_torch", _put("a.pt", lambda root: _zip({"a/data.pkl": b"\x80\x02N.", "a/data/0": bytes(2**30)}))
    ),
    "a node id of GraphML of 10^9 letters": _written("a.graphml", lambda root: _entities(9), jgd.load),
    "a picture of 60 000 x 60 000 pixels": _made(
        "image folder", _put("images/train/cat/9.png", lambda root: _picture())
    ),
    "a network that is a terabyte wide": _made(
        "network", _header(lambda h: h["network"]["settings"].update(hidden=2**38))
    ),
    # time
    "lists a hundred thousand deep": _written(
        "a.pkl", lambda root: b"})" + b"\x85" * 10**5 + b"Ns.", restricted_loads
    ),
    "JSON a million deep": _written("a.json", lambda root: b"[" * 10**6, jgd.load),
    "a number of a million digits in JSON": _written(
        "a.json", lambda root: b'{"nodes": [{"id": ' + b"9" * 10**6 + b'}], "links": []}', jgd.load
    ),
    "GraphML a million deep": _written("a.graphml", lambda root: b"<graphml>" * 10**6, jgd.load),
    "a table of one row and a million columns": _written(
        "a.csv", lambda root: b",".join(b"c%d" % i for i in range(10**6)) + b"\n" + b"1," * 10**6, jgd.load
    ),
    "a network of a billion layers": _made(
        "network", _header(lambda h: h["network"]["settings"].update(layers=10**9))
    ),
    "a label of two billion": _made("geom-gcn", _relabel),
    # memory of others
    "row pointers that fall": _made("cpf", _repacked("cpf/cora.npz", "adj_indptr", np.asarray([0, 9, 2] + [11] * 10))),
    "columns outside a sparse matrix": _made("cpf", _repacked("cpf/cora.npz", "adj_indices", np.full(11, 10**6))),
    "a sparse matrix of 2^62 rows": _made("cpf", _repacked("cpf/cora.npz", "adj_shape", np.asarray([2**62, 3], np.int64))),
    "an artefact whose senders lead outside": _made(
        "artifact", _repacked("c.npz", "data/senders", np.asarray([0, 10**9, -5], np.int32))
    ),
    "an artefact of two billion nodes": _made(
        "artifact", _repacked("c.npz", "data/n_node", np.asarray([2**31 - 1], np.int32))
    ),
    "an artefact with pickled features": _made(
        "artifact", _repacked("c.npz", "data/nodes", np.asarray([[1], [2], [3]], object))
    ),
    "own edges that lead outside": _made(
        "own arrays", _repacked("own.npz", "edge_index", np.full((2, 20), 2**40))
    ),
    # files of others
    "a tar that leads out of its folder": _written(
        "a.tar.gz", lambda root: _tar((f"../../{SECRET}", b"changed", "")), _unpacked
    ),
    "a tar with an absolute path": _written(
        "a.tar.gz", lambda root: _tar((str(root.parent / SECRET), b"changed", "")), _unpacked
    ),
    "a tar that writes through a link": _written(
        "a.tar.gz", lambda root: _tar(("link", None, "../.."), (f"link/{SECRET}", b"changed", "")), _unpacked
    ),
    "a tar with a device": _written("a.tar.gz", lambda root: _tar(("device", None, "")), _unpacked),
    "a zip that leads out of its folder": _written(
        "a.zip", lambda root: _zip({f"../../{SECRET}": b"changed"}), _unpacked
    ),
    "GraphML that names another file": _written("a.graphml", _external, jgd.load),
    # what is something else
    "a web page as a planetoid part": _made("planetoid", _put("planetoid/ind.cora.graph", _PAGE)),
    "a web page as an edge list": _made("geom-gcn", _put("geom-gcn/texas/out1_graph_edges.txt", _PAGE)),
    "a web page as an archive": _made("cifar, binary", _put("cifar/cifar-10-binary.tar.gz", _PAGE)),
    "a web page as a table": _written("a.csv", lambda root: _PAGE, jgd.load),
    "a web page as a network": _made("network", _put("net.npz", _PAGE)),
}  # fmt: skip


def _look(target: Target, root: Path) -> str:
    fuzz.prepare(target, str(root))
    signal.alarm(SECONDS)
    return fuzz.outcome(target, root)


def look(name: str) -> str:
    """What becomes of a hostile file, read in a process with bounded memory: "refused", or what is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        root, secret = Path(folder) / "data", Path(folder) / SECRET
        root.mkdir()
        secret.write_text(SECRET)
        found, code = forked(_look, HOSTILE[name], root)
        if found is None:
            return f"ended with {code}"
        if _marked(root).exists():
            return "its command was run"
        if secret.read_text() != SECRET:
            return "a file elsewhere was written"
        return found


def hostile() -> dict[str, Any]:
    """A row for all hostile files: each must be refused in one line."""
    found = {name: look(name) for name in HOSTILE}
    wrong = {name: text for name, text in found.items() if text != "refused"}
    return {
        "what": "files that run code, take memory or time, write elsewhere or are something else",
        "tried": len(found),
        "held": len(found) - len(wrong),
        "failed": len(wrong),
        "failures": [f"{name}: {text}" for name, text in wrong.items()],
        "names": list(found),
    }


# --- results ----------------------------------------------------------------------------------------

DAMAGED = """
Small valid files, damaged: bits flipped, blocks cut, added, doubled or swapped, numbers and header words replaced, also
inside of what is compressed; or empty, or with the content of others. Each is loaded with one gigabyte of memory and ten
seconds. A reader holds where it gives data or refuses in one line; it fails by a signal, a hang, more memory, another
exception or several lines.
"""
HOSTILE_FILES = """
Each must be refused in one line, with one gigabyte of memory and two minutes; a command in it must not run, and no file
outside of its folder may change.
"""
KILLED = """
A run of two loops and plain work between them is ended by SIGKILL at its k-th file operation, for every k, and at ten
times between, and started again: it must give the product and the log of a run that was never interrupted, to the bit.
The same where the folder holds the finished run of another key and the run starts over.
"""


def page(record: dict[str, Any]) -> str:
    """Results in Markdown."""

    def table(rows: dict[str, dict[str, Any]], *extra: str) -> str:
        lines = [
            [what, *(str(row[name]) for name in ("tried", *extra, "held", "failed"))]
            for what, row in rows.items()
        ]
        return measure.table(["what", "tried", *extra, "held", "failed"], lines)

    lines = ["# Damaged files, hostile files, killed runs\n", measure.described(record["provenance"])]
    if damaged := record.get("damaged"):
        total = sum(row["tried"] for row in damaged.values())
        lines += [f"\n## {total} damaged files for {len(damaged)} readers", DAMAGED]
        lines.append(table(damaged, "refused", "loaded"))
    if rows := record.get("hostile"):
        names = "; ".join(name for row in rows.values() for name in row["names"])
        lines += ["\n## Hostile files", HOSTILE_FILES, table(rows), f"\nThey are: {names}."]
    if rows := record.get("killed"):
        lines += ["\n## Killed runs", KILLED, table(rows)]
    wrong = [
        f"- {what}: {text}"
        for part in PARTS
        for what, row in record.get(part, {}).items()
        for text in row["failures"]
    ]
    return "\n".join([*lines, *(["\n## What failed\n", *wrong] if wrong else [])]) + "\n"


def main() -> int:
    """Run what was asked for, and write after every row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="Parts to run.")
    parser.add_argument("--mutants", type=int, default=20_000, help="Damaged files, of all readers together.")
    parser.add_argument("--every", type=int, default=1, help="Kill at every nth file operation.")
    options = parser.parse_args()
    file = measure.RESULTS / f"{NAME}.json"
    record = json.loads(file.read_text()) if file.exists() else {"provenance": {}, "stamps": {}}
    about, _ = forked(measure.provenance)  # it asks JAX for its devices, which does not survive a fork
    failed = 0
    for part in options.only:
        record["stamps"] = {k: v for k, v in record["stamps"].items() if not k.startswith(f"{part}/")}
        record[part] = {}
        for row in rows_of(part, options):
            what = row.pop("what")
            record[part][what] = row
            failed += row["failed"]
            print(
                "\n    ".join([f"{what}: {row['held']} of {row['tried']} held", *row["failures"]]), flush=True
            )
            measure.note(record, f"{part}/{what}", about)
            measure.save(NAME, record, page(record))
    return 1 if failed else 0


def rows_of(part: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows of a part, one after the other."""
    if part == "damaged":
        for name in TARGETS:
            yield from fuzz.rows(options.mutants // len(TARGETS), only=[name])
    elif part == "hostile":
        yield hostile()
    else:
        yield from kills.rows(options.every)


if __name__ == "__main__":
    sys.exit(main())
