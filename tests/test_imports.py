"""Modules import each other in one direction, and each can be reached by its name."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import jgd

ROOT = Path(jgd.__file__).parent
FILES = {
    ".".join(("jgd", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in ROOT.rglob("*.py")
}
PACKAGES = {name for name, path in FILES.items() if path.name == "__init__.py"}


def statements(nodes, inside):
    """All statements that run when a module is imported; with ``inside`` also those of functions."""
    for node in nodes:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from statements(node.orelse, inside)
            continue
        yield node
        if inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for part in ("body", "orelse", "finalbody", "handlers"):
                yield from statements(getattr(node, part, ()), inside)


def imported(source, modules, *, inside=False):
    """Names of the modules that a module imports."""
    found = set()
    for node in statements(ast.parse(source).body, inside):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(modules)


def circle(edges):
    """Return the names along one circle of a graph; none where there is no circle."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_circles_are_found():
    sources = {
        "a": "from b import c",
        "b": "import d",
        "b.c": "",
        "d": "try:\n    from a import x\nexcept ImportError:\n    pass",
        "e": "def late():\n    import f",
        "f": "import e\nif TYPE_CHECKING:\n    import a",
    }
    edges = {name: imported(source, sources) for name, source in sources.items()}
    assert edges == {"a": {"b", "b.c"}, "b": {"d"}, "b.c": set(), "d": {"a"}, "e": set(), "f": {"e"}}
    assert set(circle(edges)) == {"a", "b", "d"}
    assert circle({"f": {"e"}, "e": set()}) == []
    assert imported(sources["e"], sources, inside=True) == {"f"}


def test_modules_import_in_one_direction():
    edges = {name: imported(path.read_text(), FILES) - {name} for name, path in FILES.items()}
    assert " imports ".join(circle(edges)) == ""


def test_packages_import_in_one_direction():
    """Also where a function imports: what stands above is never needed below."""
    edges = {}
    for name, path in FILES.items():
        part = ".".join(name.split(".")[:2])
        above = {".".join(other.split(".")[:2]) for other in imported(path.read_text(), FILES, inside=True)}
        edges[part] = edges.get(part, set()) | above - {part, "jgd"}
    del edges["jgd"]  # its names are imported from the parts when they are first used
    assert " imports ".join(circle(edges)) == ""


def bound(source, package):
    """Names that a package's own file binds to something else than its modules."""
    found = set()
    for node in statements(ast.parse(source).body, inside=False):
        if isinstance(node, ast.ImportFrom) and node.module != package:
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def test_bound_names_are_found():
    source = "from p import a\nfrom p.b import b, x as c\nd = e = 1\ndef f(): pass\nclass G: h = 1"
    assert bound(source, "p") >= {"b", "c", "d", "e", "f", "G"}
    assert "a" not in bound(source, "p")


@pytest.mark.parametrize("package", sorted(PACKAGES))
def test_no_module_is_hidden(package):
    """The name of a module leads to the module, and not to a function that the package exports."""
    modules = {name.rpartition(".")[2] for name in FILES if name.rpartition(".")[0] == package}
    assert sorted(modules & bound(FILES[package].read_text(), package)) == []


def test_files_of_tests_have_names_of_their_own():
    """Pytest imports them as modules without a package: a second one of a name is an error."""
    names = [path.name for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
