"""What an earlier version wrote still means what it meant: specs, models, checkpoints."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import HEADS, NUMBERS

import mip
from mip.errors import FileError, SpecError
from mip.files import read_file
from mip.files.format import FORMAT_VERSION, pack, unpack
from mip.spec.versions import VERSION

FILES = Path(__file__).parents[1] / "saved"
FOLDERS = sorted(path for path in FILES.iterdir() if path.is_dir())


@pytest.fixture(params=FOLDERS, ids=lambda path: path.name)
def old(request):
    """A folder of files that a version wrote."""
    return request.param


def assert_recorded(frame, old):
    expected = pd.read_csv(old / "predictions.csv", index_col="row")
    pd.testing.assert_frame_equal(frame.rename_axis("row"), expected, rtol=1e-5)


def lacking(tree, *paths):
    """A tree of plain values without those at dotted paths, each of which must have been there."""
    tree = json.loads(json.dumps(tree))
    for path in paths:
        *above, name = path.split(".")
        place = tree
        for each in above:
            place = place[each]
        del place[name]
    return tree


def rewritten(source, out, change):
    """Copy a file with other metadata."""
    tensors, meta = read_file(source)
    meta = {name: value for name, value in change(meta).items() if name != "sha256"}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(pack(tensors, meta))


LATER = {
    "1": (
        "spec.version",
        "spec.init",
        "spec.graft",
        "spec.fusion",
        "spec.head.members",
        "spec.head.scale",
        "spec.data.stream",
        "spec.train.group",
        "spec.train.cutmix",
        "spec.branch.place.encoding",
        "spec.branch.rooms.drop",
    ),
    "2": ("spec.warm_start", "spec.head.members", "spec.train.cutmix"),
}
"""By folder, fields that its files may lack: as if they had been added after they were written."""

UNVERSIONED = pytest.mark.filterwarnings("ignore:this spec has names of version 1")


def test_there_is_a_folder_for_every_version_of_specs():
    assert [path.name for path in FOLDERS] == [str(k + 1) for k in range(VERSION)]
    assert sum(path.stat().st_size for path in FILES.rglob("*")) < 100_000


def test_an_old_model_predicts_what_it_did(old):
    assert_recorded(mip.load(old / "model.safetensors")(old / "rows.csv"), old)


@UNVERSIONED
def test_an_old_spec_is_read(old):
    spec = mip.load_spec(old / "spec.toml")
    assert spec == mip.load_spec(old / "houses.toml")
    assert mip.load(old / "model.safetensors").plan.spec == spec


def resumed(old, folder, name="spec.toml"):
    spec = mip.load_spec(old / name)
    parts = mip.parts(spec, mip.read(old / "rows.csv"))
    return mip.run(
        spec,
        parts,
        out=folder,
        context=mip.Context(base=old, device="cpu"),
        resume=True,
    )


@UNVERSIONED
@pytest.mark.parametrize("name", ["spec.toml", "houses.toml"])
def test_an_old_checkpoint_goes_on_to_where_it_went(name, old, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(old / "last.safetensors", tmp_path / "checkpoints")
    before = mip.load(old / "last.safetensors")(old / "rows.csv")
    ended = resumed(old, tmp_path, name)
    assert ended.state.step == 9
    assert not before.equals(ended.predict(old / "rows.csv"))
    assert_recorded(ended.predict(old / "rows.csv"), old)


@UNVERSIONED
def test_a_model_without_later_fields_predicts_the_same(old, tmp_path):
    def change(meta):
        return {**meta, "plan": lacking(meta["plan"], *LATER[old.name])}

    rewritten(old / "model.safetensors", tmp_path / "model", change)
    assert_recorded(mip.load(tmp_path / "model")(old / "rows.csv"), old)
    assert mip.load(tmp_path / "model").plan == mip.load(old / "model.safetensors").plan


@UNVERSIONED
def test_a_checkpoint_without_later_fields_goes_on(old, tmp_path):
    def change(meta):
        without = {part: lacking(meta[part], *LATER[old.name]) for part in ("plan", "extra")}
        return {**meta, **without}

    last = tmp_path / "checkpoints" / "last.safetensors"
    rewritten(old / "last.safetensors", last, change)
    assert_recorded(resumed(old, tmp_path).predict(old / "rows.csv"), old)


def test_a_checkpoint_of_another_spec_is_still_told_apart(old, tmp_path):
    last = tmp_path / "checkpoints" / "last.safetensors"

    def change(meta):
        meta["extra"]["spec"]["train"]["seed"] = 5
        return meta

    rewritten(old / "last.safetensors", last, change)
    with pytest.raises(SpecError, match=r"not the same run: train\.seed was 5 and is 0"):
        resumed(old, tmp_path)


# What is yet to come.

TEXT = NUMBERS + HEADS["regression"]
TOO_NEW = "version = 3: this mip reads specs up to version 2; upgrade mip"


def test_a_spec_says_its_version_first():
    assert mip.dump(mip.parse(TEXT)).startswith("version = 2\n")
    assert mip.parse("version = 1\n" + TEXT) == mip.parse("version = 2\n" + TEXT) == mip.parse(TEXT)
    assert (VERSION, FORMAT_VERSION) == (2, 1)


@pytest.mark.parametrize("more", ["", "field_to_come = 1\n"])
def test_a_later_spec_is_refused(more, tmp_path):
    with pytest.raises(SpecError) as caught:
        mip.parse("version = 3\n" + more + TEXT)
    assert str(caught.value) == TOO_NEW
    (tmp_path / "a.toml").write_text("version = 3\n" + TEXT)
    with pytest.raises(SpecError) as caught:
        mip.load_spec(tmp_path / "a.toml")
    assert str(caught.value) == f"{tmp_path}/a.toml: {TOO_NEW}"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("0", "version must be >= 1: 0"),
        ('"1"', "version = '1' must be a whole number, not text"),
        ("1.0", "version = 1.0 must be a whole number, not a number with a fraction"),
        ("true", "version = true must be a whole number, not true or false"),
    ],
)
def test_a_version_is_a_whole_number(given, error):
    with pytest.raises(SpecError) as caught:
        mip.parse(f"version = {given}\n{TEXT}")
    assert str(caught.value) == error


def test_a_later_file_is_refused():
    data = pack({"w": torch.ones(1)}, {"format": 2})
    for each in (data, data[:-1] + b"x"):  # whose checksum need not be taken as today
        with pytest.raises(FileError) as caught:
            unpack(each, "model.safetensors")
        assert str(caught.value) == (
            "model.safetensors: format = 2: this mip reads files up to format 1; upgrade mip"
        )


def test_a_file_with_a_later_spec_is_refused(tmp_path):
    def change(meta):
        for part in ("plan", "extra"):
            meta[part]["spec"]["version"] = 3
        return meta

    last = tmp_path / "checkpoints" / "last.safetensors"
    rewritten(FILES / "1" / "last.safetensors", last, change)
    with pytest.raises(FileError) as caught:
        mip.load(last)
    assert str(caught.value) == f"{last}: {TOO_NEW}"
    with pytest.raises(SpecError) as caught:
        resumed(FILES / "1", tmp_path)
    assert str(caught.value) == f"{last}: {TOO_NEW}"
