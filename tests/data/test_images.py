"""Images from arrays, folders, archives and the official files of MNIST and CIFAR; changed training sets."""

import dataclasses
import gzip
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jgd.data import (
    DataError,
    channel_statistics,
    digits_images,
    image_folder,
    image_task,
    load,
    long_tail,
    noisy_labels,
    standardized,
    subset,
    with_validation,
)
from jgd.data.subsets import evenly

close = np.testing.assert_allclose
RED, GREEN = (255, 0, 0), (0, 255, 0)


def counts(task, part):
    return np.bincount(task.y[getattr(task, part)], minlength=task.num_classes).tolist()


# --- official files -------------------------------------------------------------------------------


def test_mnist_format(data_root, official, network):
    official.mnist(data_root)
    task = load("mnist", val=10, seed=1)
    assert task.x.shape == (60, 28, 28, 1)
    assert task.x.dtype == np.float32
    raw = gzip.decompress((data_root / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    close(task.x[40:].ravel(), np.frombuffer(raw, np.uint8) / 255, rtol=1e-6)
    np.testing.assert_array_equal(task.y, [*(np.arange(40) % 10), *(np.arange(20) % 10)])
    assert (counts(task, "train"), counts(task, "val"), counts(task, "test")) == (
        [3] * 10,
        [1] * 10,
        [2] * 10,
    )
    assert not (task.train & task.val).any()
    assert load("mnist").val is None
    assert network == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b[:-20], "end-of-stream|cannot be read"),
        (lambda b: b"no gzip", "gzip"),
        (lambda b: gzip.compress(b"\0\0\x0d\3" + gzip.decompress(b)[4:]), "begins with 00000d03"),
        (lambda b: gzip.compress(gzip.decompress(b)[:-1]), "31359 bytes, not those of shape"),
        (lambda b: gzip.compress(b"\0"), "begins with 00"),
    ],
)
def test_damaged_idx_files(data_root, official, change, message):
    official.mnist(data_root)
    path = data_root / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        load("mnist")
    with pytest.raises(DataError, match="train-images"):
        load("mnist")


def test_idx_files_at_odds(data_root, official):
    official.mnist(data_root)
    path = data_root / "mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(official.idx(np.zeros(39)))
    with pytest.raises(DataError, match=r"\(40, 28, 28\).*\(39,\)"):
        load("mnist")
    path.write_bytes(official.idx(np.full(40, 10)))
    with pytest.raises(DataError, match=r"labels must be in 0..9"):
        load("mnist")
    path.unlink()
    with pytest.raises(DataError, match="ossci-datasets"):
        load("mnist")


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("binary", [False, True])
def test_cifar_format(data_root, official, network, classes, binary):
    x, y = official.cifar(data_root, classes, binary)
    task = load(f"cifar{classes}")
    close(task.x, x.transpose(0, 2, 3, 1) / 255, rtol=1e-6)
    np.testing.assert_array_equal(task.y, y)
    np.testing.assert_array_equal(task.train, np.arange(3 * classes) < 2 * classes)
    np.testing.assert_array_equal(task.test, ~task.train)
    if classes == 100:
        np.testing.assert_array_equal(task.extras["coarse"], y // 5)
    assert network == []


def test_damaged_cifar(data_root, official, evil):
    path = data_root / "cifar" / "cifar-10-python.tar.gz"
    with pytest.raises(DataError, match=r"cs\.toronto\.edu"):
        load("cifar10")
    official.cifar(data_root)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz cannot be read"):
        load("cifar10")
    good = pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0]}, protocol=2)
    batches = {f"b/data_batch_{i}": good for i in range(1, 6)}
    for bad, message in (
        (pickle.dumps({"data": evil[0], "labels": [0]}), "not plain data"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "labels": [0, 1]}, protocol=2), "2 labels"),
        (pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}, protocol=2), "labels"),
    ):
        official.tar(path, batches | {"b/test_batch": bad})
        with pytest.raises(DataError, match=message):
            load("cifar10")
    assert not evil[1].exists()
    official.tar(path, batches)
    with pytest.raises(DataError, match="lacks test_batch"):
        load("cifar10")
    path.unlink()
    official.tar(path.with_name("cifar-10-binary.tar.gz"), {"b/data_batch_1.bin": b"short"})
    with pytest.raises(DataError, match="no records of 3073"):
        load("cifar10")


def test_cifar_jpeg(data_root, official, network):
    official.cifar10_jpeg(data_root)
    task = load("cifar10-jpeg", val=10)
    assert "JPEG copies" in task.name
    assert task.x.shape == (40, 32, 32, 3)
    assert (counts(task, "train"), counts(task, "val"), counts(task, "test")) == (
        [2] * 10,
        [1] * 10,
        [1] * 10,
    )
    close(task.x[:, 5, 5, 0] * 255, 20 * task.y, atol=6)
    assert network == []


# --- folders and archives -------------------------------------------------------------------------


def fill(folder, files):
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def test_folder_and_archive_agree(tmp_path, data_root, official, monkeypatch):
    files = {
        "train/b/2.png": official.picture(GREEN),
        "train/a/1.PNG": official.picture(RED),
        "test/b/1.jpg": official.picture(GREEN, form="JPEG"),
        "test/a/x.png": official.picture(RED),
        "valid/a/x.png": official.picture(RED),
        "valid/b/x.png": official.picture(GREEN),
        "train/a/.hidden.png": b"",
        "readme.txt": b"",
    }
    fill(tmp_path / "set", {f"root/{name}": content for name, content in files.items()})
    official.tar(
        tmp_path / "set.tar.gz", {f"root/{name}": content for name, content in reversed(files.items())}
    )
    ours, theirs = image_folder(tmp_path / "set"), image_folder(tmp_path / "set.tar.gz")
    for task in (ours, theirs):
        assert (task.x.shape, task.num_classes, task.name) == ((6, 8, 8, 3), 2, "set")
        assert task.y.tolist() == [0, 1] * 3
        assert [np.flatnonzero(m).tolist() for m in (task.test, task.train, task.val)] == [
            [0, 1],
            [2, 3],
            [4, 5],
        ]
        close(task.x[:, 0, 0], np.eye(3)[task.y], atol=0.01)
    np.testing.assert_array_equal(ours.x, theirs.x)

    def fail(*_, **__):
        raise AssertionError("decoded again")

    monkeypatch.setattr("PIL.Image.open", fail)
    np.testing.assert_array_equal(image_folder(tmp_path / "set.tar.gz").x, ours.x)
    with pytest.raises(DataError, match="decoded again"):
        image_folder(tmp_path / "set.tar.gz", grey=True)
    official.tar(tmp_path / "set.tar.gz", {f"{k}/{i}.png": b"" for k in "ab" for i in range(2)})
    with pytest.raises(DataError, match="decoded again"):  # another content, another name
        image_folder(tmp_path / "set.tar.gz")


def test_split_size_and_grey(tmp_path, official):
    files = {f"{c}/{i}.png": official.picture((20 * i,) * 3, (4 + i, 5)) for c in "abc" for i in range(10)}
    fill(tmp_path, files)
    with pytest.raises(DataError, match=r"\(5, 4\) and \(5, 13\) pixels: give a size"):
        image_folder(tmp_path)
    task = image_folder(tmp_path, size=6, grey=True, seed=3)
    assert task.x.shape == (30, 6, 6, 1)
    assert (counts(task, "train"), counts(task, "val"), counts(task, "test")) == ([8] * 3, [1] * 3, [1] * 3)
    close(task.x[:10, 0, 0, 0], np.arange(10) * 20 / 255, atol=0.01)
    assert not np.array_equal(task.train, image_folder(tmp_path, size=6, grey=True, seed=4).train)


def test_bad_folders_and_archives(tmp_path, data_root, official):
    image = official.picture(RED)
    for number, (files, message) in enumerate(
        [
            ({"a/readme.txt": b"x"}, "holds no JPEG or PNG"),
            ({"1.png": image}, "1.png is in no class folder"),
            ({"train/a/1.png": image, "b/1.png": image}, "in no folder train, val or test"),
            ({f"{p}/1.png": image for p in ("train/a", "train/b", "test/a")}, "test has no .* class 'b'"),
            ({"a/1.png": image[:-30]}, "a/1.png cannot be read"),
            ({"a/1.png": b"text"}, "a/1.png cannot be read"),
            ({"a/1.png": None}, "is a link"),
            ({"a/../../1.png": image}, "leads out of the folder"),
        ]
    ):  # fmt: skip
        archive = tmp_path / f"{number}.tar.gz"
        official.tar(archive, files)
        with pytest.raises(DataError, match=message):
            image_folder(archive)
    archive = tmp_path / "cut.tar.gz"
    official.tar(archive, {"a/1.png": image, "b/1.png": image})
    archive.write_bytes(archive.read_bytes()[:-30])
    with pytest.raises(DataError, match="cannot be read"):
        image_folder(archive)
    with pytest.raises(DataError, match="does not exist"):
        image_folder(tmp_path / "nowhere")
    assert not list((tmp_path / "cache").rglob("*.npz"))


# --- arrays ---------------------------------------------------------------------------------------


def toy(n=40, classes=4, tests=8):
    rng = np.random.default_rng(0)
    part = np.where(np.arange(n) < n - tests, 0, 2)
    return image_task(rng.random((n, 3, 3, 2)), np.arange(n) % classes, part, name="toy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.full((4, 2, 2), np.nan)}, "NaN"),
        ({"x": np.zeros((4, 2))}, r"got shape \(4, 2\)"),
        ({"x": np.zeros((4, 2, 2), int)}, "int64"),
        ({"y": np.zeros(3, int)}, "4 images need as many"),
        ({"y": np.zeros(4)}, "integer labels"),
        ({"y": np.array([0, 1, 5, 0]), "num_classes": 5}, r"0..4, got 0..5"),
        ({"y": np.array([0, 1, -2, 0])}, "got -2..1"),
        ({"part": np.full(4, 2)}, "no example is for training"),
    ],
)
def test_bad_arrays(change, message):
    good = {"x": np.zeros((4, 2, 2)), "y": np.arange(4), "part": np.array([0, 0, 2, 2])}
    assert image_task(**good).x.shape == (4, 2, 2, 1)
    with pytest.raises(DataError, match=message):
        image_task(**(good | change))


def test_standardized():
    task = toy()
    mean, std = channel_statistics(task)
    close(mean, task.x[task.train].mean((0, 1, 2)), rtol=1e-5)
    close(std, task.x[task.train].std((0, 1, 2)), rtol=1e-5)
    task = dataclasses.replace(task, tests={"other": (task.x[:2], task.y[:2])})
    scaled = standardized(task)
    close(scaled.x[task.train].mean((0, 1, 2)), 0, atol=1e-5)
    close(scaled.x[task.train].std((0, 1, 2)), 1, rtol=1e-4)
    close(scaled.tests["other"][0], scaled.x[:2])
    close(standardized(task, [0.5, 0.5], 0.25).x, (task.x - 0.5) / 0.25, rtol=1e-5, atol=1e-6)
    constant = image_task(np.ones((4, 2, 2)), np.arange(4), np.zeros(4, int))
    close(standardized(constant).x, 0)


def test_digits_images():
    task = digits_images()
    assert (task.x.shape, task.x.dtype) == ((1797, 8, 8, 1), np.float32)
    assert (task.x.min(), task.x.max()) == (0, 1)
    np.testing.assert_array_equal(task.train, np.arange(1797) < 1000)
    assert (task.test.sum(), task.val) == (797, None)
    random = digits_images(300, val=50, seed=1)
    assert (random.train.sum(), random.val.sum(), random.test.sum()) == (250, 50, 1497)
    assert not np.array_equal(random.test, digits_images(300, seed=2).test)
    np.testing.assert_array_equal(random.x, load("digits-images").x)
    for bad in (0, 1797):
        with pytest.raises(DataError, match=r"1\.\.1796"):
            digits_images(bad)


# --- changed training sets ------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.data())
def test_evenly(labels, data):
    """As even as it can be: no class has two more than another that has examples left."""
    labels = np.asarray(labels)
    n = data.draw(st.integers(0, len(labels)))
    chosen = evenly(labels, n, seed=data.draw(st.integers(0, 5)))
    assert len(set(chosen.tolist())) == n
    have, all_ = np.bincount(labels[chosen], minlength=5), np.bincount(labels, minlength=5)
    assert np.all(have <= all_)
    left = have < all_
    assert not left.any() or have.max() <= have[left].min() + 1


def test_subset():
    task = toy()
    assert np.flatnonzero(subset(task, 5).train).tolist() == [0, 1, 2, 3, 4]
    drawn = subset(task, 8, seed=1)
    assert counts(drawn, "train") == [2] * 4
    assert not np.any(drawn.train & ~task.train)
    assert not np.array_equal(drawn.train, subset(task, 8, seed=2).train)
    np.testing.assert_array_equal(drawn.test, task.test)
    for bad in (0, 33):
        with pytest.raises(ValueError, match="32 training examples"):
            subset(task, bad)
    with pytest.raises(ValueError, match="no training examples with classes"):
        subset(dataclasses.replace(task, y=None), 1)


def test_with_validation():
    split = with_validation(toy(), 12, seed=1)
    assert (counts(split, "train"), counts(split, "val")) == ([5] * 4, [3] * 4)
    assert not np.any(split.train & split.val)
    with pytest.raises(ValueError, match="already"):
        with_validation(split, 1)
    with pytest.raises(ValueError, match="32 of 32"):
        with_validation(toy(), 32)


def test_noisy_labels():
    task = toy(4008)
    noisy = noisy_labels(task, 0.3, seed=1)
    wrong = noisy.y != task.y
    assert wrong[task.train].sum() == 1200
    assert not wrong[task.test].any()
    np.testing.assert_array_equal(noisy.extras["clean"], task.y)
    shift = (noisy.y - task.y)[wrong] % 4  # each other class is as likely
    assert np.all(np.abs(np.bincount(shift, minlength=4)[1:] - 400) < 4 * np.sqrt(1200 * 2 / 9))
    np.testing.assert_array_equal(noisy_labels(task, 0.0).y, task.y)
    assert (noisy_labels(task, 1.0).y != task.y)[task.train].all()
    with pytest.raises(ValueError, match=r"0\.\.1"):
        noisy_labels(task, 1.5)


def test_long_tail():
    tail = long_tail(toy(408), 20.0)
    assert counts(tail, "train") == [100, 36, 13, 5]  # 100 * 20^(-c/3), rounded down
    assert counts(tail, "test") == [2] * 4
    assert np.flatnonzero(tail.train & (tail.y == 3)).tolist() == [3, 7, 11, 15, 19]
    drawn = long_tail(toy(408), 20.0, seed=1)
    assert counts(drawn, "train") == [100, 36, 13, 5]
    assert not np.array_equal(drawn.train, tail.train)
    np.testing.assert_array_equal(long_tail(toy(), 1.0).train, toy().train)
    with pytest.raises(ValueError, match="at least 1"):
        long_tail(toy(), 0.5)


# --- real files -----------------------------------------------------------------------------------


def test_real_mnist(real):
    real("mnist/train-images-idx3-ubyte.gz")
    task = load("mnist")
    assert (task.train.sum(), task.test.sum()) == (60_000, 10_000)
    assert counts(task, "train") == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert task.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    mean, std = channel_statistics(task)
    close([mean[0], std[0]], [0.1307, 0.3081], atol=1e-4)


@pytest.mark.slow
def test_real_cifar_jpeg(real):
    real("cifar10-jpeg/cifar10-jpeg.tar.gz")
    task = load("cifar10-jpeg")
    assert (counts(task, "train"), counts(task, "test")) == ([5000] * 10, [1000] * 10)
    mean, std = channel_statistics(task)
    close(mean, (0.4914, 0.4822, 0.4465), atol=0.01)
    close(std, (0.2470, 0.2435, 0.2616), atol=0.01)
