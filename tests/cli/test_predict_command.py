"""``jgd predict``: what `jgd distill` and `jgd.save` have written is used; mistakes are one line."""

import csv
import json

import jax
import numpy as np
import pytest

import jgd
from jgd.cli.main import main
from jgd.core import Bound, from_linen
from jgd.nn import Perceptron
from jgd.nn.saved import read_header

SMALL = ["distill", "--objectives", "kd", "ce", "--teacher", "mlp-16", "--student", "mlp-8"]
SMALL += ["--steps", "30", "--seeds", "2", "--quiet"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("distilled") / "run"
    assert main([*SMALL, "--out", str(out)]) == 0
    return out


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def rows_of(path):
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    return header, rows


@pytest.mark.long
def test_distill_writes_the_networks_that_it_scores(run):
    task = jgd.load("digits-images")
    found = json.loads((run / "metrics.json").read_text())
    teacher = jgd.load_model(run / "teacher.npz")
    np.testing.assert_allclose(
        jgd.distill.scores.classified(teacher, task).accuracy, found["rows"][0]["accuracy"], rtol=1e-5
    )
    for row in found["rows"][1:]:
        students = jgd.load_model(run / "students" / f"{row['name']}.npz")
        scores = jgd.distill.scores.classified(students, task, teacher=teacher)
        np.testing.assert_allclose(scores.accuracy, row["accuracy"], rtol=1e-5)
        np.testing.assert_allclose(scores.nll, row["nll"], rtol=1e-4)
    said = read_header(run / "students" / "kd.npz")["provenance"]
    assert (said["objective"], said["seed"], said["dataset"]) == ("kd", 0, "digits-images")


@pytest.mark.long
def test_predict_a_dataset(run, capsys, tmp_path):
    task = jgd.load("digits-images")
    students = jgd.load_model(run / "students" / "kd.npz")
    logits = jax.vmap(lambda net: net(task.x).logits)(students)
    expected = np.asarray(jax.nn.softmax(logits)).mean(0)
    assert main(["predict", str(run), "digits-images"]) == 0  # the first objective of the run
    told = " ".join(capsys.readouterr().out.split())
    share = 100 * np.mean(expected.argmax(1) == task.y)
    assert f"1797 rows by student kd, {share:.1f} % of the 1797 known labels right" in told
    header, rows = rows_of(run / "students" / "predictions.csv")
    assert header[:3] == ["row", "class", "p(0)"]
    np.testing.assert_array_equal([int(row[1]) for row in rows], expected.argmax(1))
    np.testing.assert_allclose(np.asarray([row[2:] for row in rows], float), expected, atol=1e-5)

    out = tmp_path / "teacher.npz"
    assert main(["predict", str(run), "digits-images", "--model", "teacher", "--out", str(out)]) == 0
    with np.load(out) as file:
        teacher = jgd.load_model(run / "teacher.npz")
        np.testing.assert_array_equal(file["classes"], np.asarray(teacher(task.x).logits).argmax(1))
        np.testing.assert_allclose(file["probabilities"].sum(1), 1, rtol=1e-5)


def test_predict_features_of_every_kind(capsys, tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (7, 4)).astype(np.uint8)
    model = from_linen(Perceptron(3, (5,)))
    net = Bound(
        *model.init(jax.random.key(0), np.ones((1, 4), np.float32)), model,
        (jax.ShapeDtypeStruct((2, 2, 1), np.uint8),),
    )  # fmt: skip
    jgd.save(net, tmp_path / "net.npz", provenance={"class_names": ["red", "<b>", "blue, dark"]})
    names = np.asarray(["red", "<b>", "blue, dark"])
    expected = names[np.asarray(net(x.reshape(7, 2, 2, 1)).logits).argmax(1)]
    np.save("images.npy", x.reshape(7, 2, 2, 1))
    np.save("floats.npy", x.astype(np.float32) / 255)
    np.savez("named.npz", x=x, ids=np.arange(7))
    np.savez("only.npz", x)
    np.savetxt("rows.csv", x, "%d", ",")
    np.savetxt("named.csv", x, "%d", ",", header="a,b,c,d", comments="")
    for data in ("images.npy", "floats.npy", "named.npz", "only.npz", "rows.csv", "named.csv"):
        assert main(["predict", "net.npz", data, "--out", "found.csv"]) == 0
        _, rows = rows_of(tmp_path / "found.csv")
        assert [row[1] for row in rows] == expected.tolist(), data
    assert "blue, dark" in capsys.readouterr().out


@pytest.mark.long
def test_predict_the_nodes_of_a_graph(capsys, tmp_path):
    task = jgd.load("digits")
    net = jgd.nn.MLP(10, hidden=4)
    model = from_linen(net)
    inputs = jgd.distill.data.inputs_of(model, task)
    student = Bound(*model.init(jax.random.key(0), *inputs), model)
    jgd.save(jax.tree.map(lambda leaf: np.stack([leaf, leaf]), student), tmp_path / "two.npz")
    assert main(["predict", "two.npz", "digits", "--out", "nodes.csv"]) == 0
    _, rows = rows_of(tmp_path / "nodes.csv")
    expected = np.asarray(student(*inputs).logits).argmax(1)
    np.testing.assert_array_equal([int(row[1]) for row in rows], expected)
    assert f"{task.num_nodes} rows by two.npz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("nowhere.npz digits-images", "there is no file nowhere.npz"),
        (". digits-images", "holds no networks"),
        ("net.npz digits-images --model kd", "--model chooses among the networks of a folder"),
        ("run digits-images --model pld", "has no network 'pld', it has ce, kd, teacher"),
        ("net.npz nothing", "no dataset is called"),
        ("net.npz nothing.npy", "there is no file nothing.npy"),
        ("net.npz wide.csv", "inputs of shape [N, 4], got [2, 5]"),
        ("net.npz words.csv", "has 'x' in row 1"),
        ("net.npz ragged.csv", "has 3 columns in row 1, 4 in row 0"),
        ("net.npz nan.npy", "NaN or infinity, first in row 1"),
        ("net.npz two.npz", "holds a, b: name the features x"),
        ("net.npz rows.csv --out found.txt", "--out ends in .csv or .npz"),
        ("two.npz rows.csv", "not a saved network|has no header"),
        ("net.npz digits-images", "reads inputs of shape [B, 4]"),
        ("scaled.npz rows.csv", "trained on standardized numbers"),
    ],
)
def test_mistakes(arguments, message, tmp_path, capsys):
    model = from_linen(Perceptron(3, (5,)))
    example = (jax.ShapeDtypeStruct((4,), np.float32),)
    net = Bound(*model.init(jax.random.key(0), np.ones((1, 4), np.float32)), model, example)
    jgd.save(net, tmp_path / "net.npz")
    jgd.save(net, tmp_path / "scaled.npz", provenance={"standardize": True})
    (tmp_path / "run" / "students").mkdir(parents=True)
    for name in ("teacher", "students/kd", "students/ce"):
        jgd.save(net, tmp_path / "run" / f"{name}.npz")
    (tmp_path / "wide.csv").write_text("1,2,3,4,5\n1,2,3,4,5\n")
    (tmp_path / "rows.csv").write_text("1,2,3,4\n1,2,3,4\n")
    (tmp_path / "words.csv").write_text("a,b,c,d\n1,2,3,4\n1,x,3,4\n")
    (tmp_path / "ragged.csv").write_text("1,2,3,4\n1,2,3\n")
    np.save("nan.npy", np.where(np.eye(2, 4, 1) > 0, 1, np.where(np.eye(2, 4) > 0, [[1], [np.nan]], 0)))
    np.savez("two.npz", a=np.ones((2, 4)), b=np.ones((2, 4)))
    before = {path.name for path in tmp_path.iterdir()}
    assert main(["predict", *arguments.split()]) == 2
    told = capsys.readouterr().err
    assert any(part in told for part in message.split("|")), told
    assert told.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == before
