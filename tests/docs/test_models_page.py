"""The page on models: every kind and every field stands there, and every block is what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import mip
from mip.demo import draw
from mip.heads import Head
from mip.model import plan_nodes
from mip.optim import OptimizerSpec, ScheduleSpec
from mip.plots import diagram
from mip.spec import schema
from mip.spec.kinds import plays

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text()
SPECS = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, re.DOTALL | re.MULTILINE))
COMMON = {
    *("activation", "batch_norm", "column", "columns", "dropout", "layers", "members", "missing")
}
"""The fields that the page explains once, for all heads or branches."""

BRANCH = '[branch.one]\nkind = "stub"\n'
HEAD = '[head]\nkind = "regression"\ncolumn = "price"\n'

FIELDS = schema()["$defs"]
MODELS = {
    name: kind
    for name, kind in mip.KINDS.items()
    if not (plays(kind, OptimizerSpec) or plays(kind, ScheduleSpec))
}


def completed(text: str) -> str:
    return text + ("" if "[branch." in text else BRANCH) + ("" if "[head]" in text else HEAD)


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_and_every_field_is_explained(name):
    text = SECTIONS.get(name, "") or SECTIONS["tabular"]
    assert name in SECTIONS or f"`{name}`" in text
    fields = set(FIELDS[f"kind.{name}"]["properties"]) - {"kind"}
    fields -= COMMON if name in SECTIONS else set()
    assert not [each for each in sorted(fields) if f"`{each}`" not in text]


@pytest.mark.parametrize("text", SPECS, ids=[str(k) for k in range(len(SPECS))])
def test_every_fragment_is_a_spec(text):
    spec = mip.parse(completed(text))
    assert mip.parse(mip.dump(spec)) == spec


def test_every_activation_is_named():
    text = PAGE.partition("## Layers")[2].partition("\n## ")[0]
    assert set(re.findall(r'"(\w+)"', text)) >= set(mip.nn.ACTIVATIONS)


def test_the_sections_are_kinds():
    assert SECTIONS.keys() <= MODELS.keys()
    heads = PAGE.index("\n## Heads")
    for name in SECTIONS:
        assert plays(MODELS[name], Head) == (PAGE.index(f"### {name}\n") > heads)


def test_the_picture_is_that_of_the_spec(tmp_path):
    draw(tmp_path, n_rows=20)
    spec = mip.parse(SPECS[0])
    plan = mip.adapt(spec, mip.clean(spec, mip.read(tmp_path / "houses.csv"))[0])
    drawn = diagram(plan_nodes(plan, mip.build(plan)))
    assert (ROOT / "docs" / "models.svg").read_text() == drawn


OWN_HEADS = {
    "steady": ({"target 'y' missing": [0]}, ["days"], "valid/mae"),
    "gaussian": ({}, ["low", "value", "high"], "valid/deviation"),
}


@pytest.mark.parametrize("kind", OWN_HEADS)
def test_a_head_of_your_own_trains(kind, tmp_path):
    dropped, columns, metric = OWN_HEADS[kind]
    names: dict[str, object] = {"__name__": __name__}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "models.md", "exec"), names)
    text = (
        f'[branch.a]\nkind = "continuous"\ncolumns = ["x"]\n[head]\nkind = "{kind}"\ncolumn = "y"'
    )
    spec = mip.parse(text + "\n[train]\nepochs = 2\n", names["kinds"])
    rows = mip.from_columns({"x": range(20), "y": range(0, 40, 2)})
    used, report = mip.clean(spec, rows)
    assert report.dropped == dropped
    parts = mip.model.Parts(used, used, used)
    context = mip.Context(kinds=names["kinds"], device="cpu")
    ended = mip.run(spec, parts, out=tmp_path, context=context)
    assert list(ended.predict(rows).columns) == columns
    assert metric in ended.history.epochs[-1]
