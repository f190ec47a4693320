"""Every spec that the project ships is tracked, parses, and builds."""

from __future__ import annotations

from pathlib import Path

import pytest

import mip

ROOT = Path(__file__).parents[2]
SPECS = sorted((ROOT / "specs").rglob("*.toml"))


def test_the_specs_are_there():
    names = {path.relative_to(ROOT / "specs").as_posix() for path in SPECS}
    demo = {"demo/both.toml", "demo/pictures.toml", "demo/table.toml"}
    tables = {"adult", "california", "cars", "covid-cxr", "diabetes", "mnist", "titanic", "wine"}
    assert names >= {*demo, "houses.toml", "houses-table.toml", *(f"{k}.toml" for k in tables)}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_means_itself_after_a_round_trip(path):
    spec = mip.load_spec(path)
    assert mip.parse(mip.dump(spec)) == spec
