"""The page of each package that holds a contract: its example runs, and it stays one page."""

import re
from pathlib import Path

import pytest

PACKAGES = ("core", "data", "distill", "evaluation", "graph", "losses", "training")


@pytest.mark.parametrize("package", PACKAGES)
def test_page(package, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "jgd" / package / "README.md").read_text()
    assert len(text.splitlines()) <= 70
    example, *_ = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, f"{package}/README.md", "exec"), {"__name__": "example"})
