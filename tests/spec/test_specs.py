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
    photos = {"covid-photos", "houses-photos"}
    more = {"houses.toml", "houses-table.toml"}
    assert names >= {*demo, *more, *(f"{k}.toml" for k in tables | photos)}


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.stem)
def test_a_spec_means_itself_after_a_round_trip(path):
    if "timm/" in path.read_text():
        pytest.importorskip("timm", reason="timm is an extra")
    spec = mip.load_spec(path)
    assert mip.parse(mip.dump(spec)) == spec


@pytest.mark.parametrize("name", ["covid-photos", "houses-photos"])
def test_the_weights_that_a_spec_names_are_those_of_its_net(name):
    pytest.importorskip("timm", reason="timm is an extra")
    photos = mip.load_spec(ROOT / "specs" / f"{name}.toml").branch["photos"]
    weights = ROOT / "specs" / photos.pretrained
    if not weights.is_file():
        pytest.skip(f"{photos.pretrained} is not part of the project")
    net = mip.spec.file_net(weights, photos.pretrained)
    assert (net.backbone, net.size) == (photos.backbone, photos.size)
