"""Laws of the code itself: imports flow downhill, the facade is whole, every name is explained."""

from __future__ import annotations

import ast
import importlib
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

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "mip").rglob("[a-z]*.py"))
WINGS = re.findall(
    r"`mip/(\w+)(?:/|\.py)`(?=.*\|$)", (ROOT / "README.md").read_text(), re.MULTILINE
)
"""The folders and files of `mip/`, in the order of the README's table."""
LINTERS = ("mypy", "pre-commit", "ruff")
"""Tools whose version no test can tell."""


def stem(path: Path) -> str:
    """A module's name in the package: `data/splits`, `branches/image`."""
    return path.relative_to(ROOT / "mip").with_suffix("").as_posix()


def wing(path: Path) -> str:
    """The folder of `mip/` that a file is in, or its own name."""
    return stem(path).split("/")[0]


def imported(path: Path) -> set[str]:
    """The modules of mip that a file imports from, inside functions too: `data`, `data/splits`."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "mip":
            modules |= {f"mip.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    inside = {name.removeprefix("mip.") for name in modules if name.startswith("mip.")}
    return {name.replace(".", "/") for name in inside}


def shown(wing: str) -> dict[str, str]:
    """The names on a wing's door, and the file that each comes from."""
    door = ROOT / "mip" / wing / "__init__.pyi"
    names = re.findall(r"^from \.([\w.]*) import (\w+) as \2$", door.read_text(), re.MULTILINE)
    return {name: module for module, name in names}


def functions(path: Path) -> list[ast.FunctionDef]:
    return [
        node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)
    ]


def lines(node: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    text = ast.get_docstring(node, clean=False)
    return node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)


def test_every_wing_has_a_line_in_the_readme():
    assert sorted(WINGS) == sorted({"__main__", *map(wing, FILES)})


@pytest.mark.parametrize("path", FILES, ids=stem)
def test_imports_flow_downhill_and_through_doors(path):
    for module in imported(path):
        other, _, file = module.partition("/")
        if other == wing(path):
            continue
        assert WINGS.index(other) < WINGS.index(wing(path)), f"{stem(path)} imports {module}"
        assert not file, f"{stem(path)} imports {module}: import it from mip.{other}"


@pytest.mark.parametrize(
    "wing", [path.parent.name for path in (ROOT / "mip").glob("*/__init__.pyi")]
)
def test_a_door_shows_names_that_are_there_and_no_module_hides_one(wing):
    names, package = shown(wing), importlib.import_module(f"mip.{wing}")
    assert package.__doc__
    assert all(hasattr(package, name) for name in names)
    assert not {path.stem for path in (ROOT / "mip" / wing).iterdir()} & {
        name for name, module in names.items() if module
    }


def test_the_facade_is_whole_and_of_a_size_to_remember():
    names = [name for name in mip.__all__ if name not in WINGS]
    assert 30 <= len(names) <= 60
    assert all(hasattr(mip, name) for name in names)


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
        "torch",
        "numpy",
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


def test_the_command_line_needs_no_torch_to_answer():
    code = "import sys, mip.cli.app as app; app.make_app(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_first_spec_needs_no_torch():
    code = """import sys, mip
rows = mip.from_columns({"x": ["1.5", "2", "4"], "sold": ["2024-12-31"] * 3, "y": ["a", "b", "a"]})
mip.spec.make_draft(rows, "y", "t.csv")
print("pandas" in sys.modules, "torch" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True False"


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
