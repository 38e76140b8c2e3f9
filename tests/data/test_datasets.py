import re
from pathlib import Path

import pytest

import jgd
from jgd.data import DataError, datasets, load, tasks


def test_archives_count_as_present(data_root, official):
    official.tu(data_root, "MUTAG", zipped=True)
    assert next(row.present for row in datasets() if row.name == "tu:MUTAG")
    assert load("tu:MUTAG", seed=1).num_graphs == 20


@pytest.mark.parametrize(
    ("name", "close"),
    [
        ("corra", "cora"),
        ("Cora", "cora"),
        ("digit", "digits"),
        ("mutag", "tu:MUTAG"),
        ("powerlaw", "power-law"),
    ],
)
def test_unknown_names_have_suggestions(name, close):
    with pytest.raises(DataError, match=close):
        load(name)
    with pytest.raises(DataError, match=r"known are .*cora"):
        load("????????")


def test_the_readme_of_the_package(capsys):
    """Its example runs, and its table has every task."""
    text = Path(jgd.data.__file__).with_name("README.md").read_text()
    example = re.search(r"```python\n(import jgd.*?)```", text, re.DOTALL)
    exec(example.group(1), {})
    assert "10 classes" in capsys.readouterr().out
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == {*tasks.__all__} - {"DenseGraphs"}
