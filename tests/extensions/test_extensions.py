"""A method, an objective and a kind of data in one file and one line each are picked up everywhere."""

import jax
import numpy as np
import pytest
import toy_kind
from toy_method import ClassMedians

import jgd
from jgd.cli.main import main
from jgd.condense import METHODS
from jgd.data import contextual_sbm
from jgd.distill import OBJECTIVES
from jgd.evaluation import KINDS, EvalConfig, compare, evaluate, grid, kind_of
from jgd.evaluation.students import teach
from jgd.registry import Catalog


@pytest.fixture(scope="module", autouse=True)
def _named():
    """One line for each; the names are gone afterwards, because other tests list the catalogues."""
    METHODS.add("toy_method", "class-medians")
    OBJECTIVES.add("toy_objective", "toy-mse")
    KINDS.add("toy_kind", "bags")
    METHODS.add("toy_kind", "few-bags")
    yield
    METHODS.remove("class-medians", "few-bags")
    OBJECTIVES.remove("toy-mse")
    KINDS.remove("bags")


KEY = jax.random.key(0)
NODES = contextual_sbm(num_nodes=60, num_classes=3, num_features=5, mean_degree=6, signal=2.0)
QUICK = EvalConfig(steps=10, hidden=8, select_every=5)


@pytest.fixture
def bags(rng):
    labels = np.arange(90) % 3
    x = np.eye(3, 4)[labels][:, None] * 2 + rng.standard_normal((90, 5, 4))
    i = np.arange(90)
    masks = {"train": i < 45, "val": (i >= 45) & (i < 60), "test": i >= 60}
    return toy_kind.BagTask(x.astype(np.float32), labels.astype(np.int32), num_classes=3, **masks)


@pytest.mark.long
def test_a_method_is_found_by_its_name():
    small = jgd.condense.class_medians()(KEY, NODES)
    assert small.provenance["method"] == "class-medians"
    first = NODES.graph.nodes[NODES.train & (NODES.labels == 0)]
    np.testing.assert_allclose(small.data.nodes[0], np.median(first, axis=0), rtol=1e-6)
    options = {"networks": ("sgc",), "seeds": 2, "config": QUICK}
    found = compare(ClassMedians(), NODES, key=KEY, method="class-medians", baselines=("random",), **options)
    assert "class-medians" in found.html()
    assert "class-medians" in found.markdown()
    cells = grid(["class-medians", "random"], NODES, (0.5,), **options).cells
    assert {c.method for c in cells} == {"class-medians", "random"}


def test_the_command_line_lists_all_of_them(capsys):
    assert main(["methods"]) == 0
    printed = capsys.readouterr().out
    for text in ("class-medians", "few-bags", "toy-mse", "Squared distance of the logits."):
        assert text in printed
    assert main(["methods", "class-medians"]) == 0
    assert "label_ratio" in capsys.readouterr().out


@pytest.mark.long
def test_an_objective_is_compared():
    task = jgd.load("digits-images")
    options = {"objectives": ("ce", "toy-mse"), "steps": 12, "batch": 32, "seeds": 2, "examples": 100}
    found = teach(task, "mlp-16", "mlp-8", **options)()
    assert [row["name"] for row in found.rows] == ["teacher", "ce", "toy-mse"]


@pytest.mark.long
def test_a_kind_of_data_is_evaluated_and_compared(bags):
    assert kind_of(bags) is toy_kind.BAGS
    config = EvalConfig(steps=80, batch_size=16, learning_rate=0.02, select_every=40)
    scores = evaluate({"full": bags, "few": toy_kind.FewBags()(KEY, bags)}, bags, seeds=2, config=config)
    assert scores["full"].test_mean > 0.8
    assert scores["few"].test_mean > 0.5
    options = {"seeds": 2, "config": config}
    found = compare(toy_kind.FewBags(), bags, key=KEY, method="few-bags", **options)
    assert [column.key for column in found.columns][:2] == ["bags", "bytes"]
    cells = grid(["few-bags"], bags, (0.2,), **options).cells
    assert [c.sizes["bags"] for c in cells] == [9, 9]
    with pytest.raises(ValueError, match="a BagTask cannot be evaluated on a NodeTask"):
        evaluate(bags, NODES)


def test_names_belong_to_one_module():
    with pytest.raises(ValueError, match="two modules declare the method 'class-medians'"):
        METHODS.add("elsewhere", "class-medians")
    with pytest.raises(ValueError, match="no method is called 'class-median': did you mean class-medians"):
        METHODS["class-median"]
    lying = Catalog("method", "", {"toy_method": ("class-means",)})
    with pytest.raises(ValueError, match=r"declares \['class-medians'\], the catalogue names"):
        lying["class-means"]
