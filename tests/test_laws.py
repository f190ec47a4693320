"""Laws of the code itself: imports flow downhill, the facade is whole, every name is explained."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
import warnings
from itertools import chain
from pathlib import Path
from statistics import median

import pytest

import mip
from mip.errors import MipWarning

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "mip").rglob("[a-z]*.py"))
PATH = re.findall(r"`mip/([\w/]+)\.py`", (ROOT / "README.md").read_text())
LINTERS = ("mypy", "pre-commit", "ruff")
"""Tools whose version no test can tell."""
EDGES = {"new", "schema", "baseline", "report", "drift", "diagram", "demo", "cli"}


def stem(path: Path) -> str:
    """A module's place in the package: `split`, `branches/image`."""
    return path.relative_to(ROOT / "mip").with_suffix("").as_posix()


def imported(path: Path) -> set[str]:
    """The modules of mip that a file imports, inside functions too."""
    nodes = ast.walk(ast.parse(path.read_text()))
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mip."):
            names.add(node.module.removeprefix("mip."))
        elif isinstance(node, ast.ImportFrom) and node.module == "mip":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found = {alias.name for alias in node.names if alias.name.startswith("mip.")}
            names |= {name.removeprefix("mip.") for name in found}
    return {name.replace(".", "/") for name in names}


def functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]


def lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    text = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)


def test_every_file_has_a_place_on_the_path():
    assert sorted(PATH) == sorted(map(stem, FILES))


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_imports_flow_downhill(path):
    place = PATH.index(stem(path))
    below = {name for name in imported(path) if PATH.index(name) >= place}
    assert not below, f"{path.name} imports {below}, which stand at or after it"


def test_the_edges_are_imported_by_nothing_in_the_core():
    core = [path for path in FILES if stem(path) not in EDGES]
    assert all(not imported(path) & EDGES for path in core)


def test_all_is_sorted_whole_and_of_a_size_to_remember():
    assert mip.__all__ == sorted(mip.__all__)
    assert 30 <= len(mip.__all__) <= 50
    assert all(hasattr(mip, name) for name in mip.__all__)


def test_every_public_name_is_explained():
    for path in FILES:
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{path.name}: {node.name} has no docstring"
    objects = [getattr(mip, name) for name in mip.__all__ if name != "KINDS"]
    assert all(inspect.getdoc(each) for each in objects)


def test_functions_are_short():
    sizes = sorted(lines(node) for path in FILES for node in functions(path))
    assert median(sizes) <= 10
    assert sizes[int(0.9 * len(sizes))] < 30


def test_no_public_function_swallows_unknown_names():
    swallowing = [node.name for path in FILES for node in functions(path) if node.args.kwarg]
    assert all(name.startswith("_") for name in swallowing)


def test_import_is_light():
    heavy = (
        "pandas",
        "torchvision",
        "torchdata",
        "torchmetrics",
        "rich",
        "typer",
        "matplotlib",
        "PIL",
        "timm",
        "sklearn",
    )
    code = f"import sys, mip; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_oldest_environment_has_the_lowest_versions_that_are_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *chain(*project["optional-dependencies"].values())]
    lowest = {need.replace(">=", "==") for need in needs if ">=" in need}
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    oldest = {line for line in lines if not line.startswith("#")}
    assert oldest == {version for version in lowest if not version.startswith(LINTERS)}


def warn(category, module):
    """Warn as a line of a module does."""
    names = {"__name__": module, "warn": warnings.warn, "category": category}
    exec("warn('old', category)", names)


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, RuntimeWarning])
def test_a_warning_fails_a_test_where_it_concerns_our_code(category):
    for module in ["mip", "mip.branches.image", "benchmarks.loops", "conftest", "test_read"]:
        with pytest.raises(category):
            warn(category, module)
    with pytest.raises(MipWarning):
        warn(MipWarning, "torch.utils.data")
    with warnings.catch_warnings(record=True) as shown:
        for module in ["torch.utils.data", "mipmap", "typer"]:
            warn(category, module)
    assert len(shown) == 3
