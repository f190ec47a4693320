"""Any step of a past run can be taken again, with the rows and the numbers that it had."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
from attrs import evolve
from conftest import BRANCHES, NUMBERS, spec_of

import mip
from mip.errors import FileError, SpecError
from mip.files import intact_checkpoints
from mip.model import Parts
from mip.runs import replay
from mip.runs.replays import Replay

STOP = {2: mip.Stop("early")}

TRAIN = "[train]\nepochs = 3\nbatch_size = 4\nworkers = 0\nmixup = 0.3\nkeep_last = {keep}\n"


def spec(keep: int = 2, **changes: object) -> mip.spec.Spec:
    return evolve(spec_of("regression", BRANCHES, TRAIN.format(keep=keep)), **changes)


@pytest.fixture(scope="module")
def cut(table):
    return Parts(table, table.take([]), table.take([]))


@pytest.fixture(scope="module")
def ran(cut, folder, tmp_path_factory):
    """A run of 9 steps in 3 epochs, of which the last two have checkpoints; its batches' rows."""
    out, seen = tmp_path_factory.mktemp("runs") / "run", []

    def see(event):
        if event.name == "after_batch":
            seen.append((tuple(event.batch.row.tolist()), float(event.metrics["loss"])))

    mip.run(spec(), cut, out=out, make_hooks=lambda job: [see], context=mip.Context(base=folder))
    return out, seen


@pytest.mark.parametrize("step", range(1, 10))
def test_every_step_has_the_rows_and_the_loss_that_it_had(ran, cut, step):
    out, seen = ran
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    again = replay(spec(), cut, out, step)
    assert (again.rows, again.now["loss"]) == seen[step - 1]
    assert again.then == {"loss": again.now["loss"]}
    assert again.differences == {}
    assert again.now["grad_norm"] > 0
    assert (again.step, again.epoch) == (step, (step - 1) // 3)
    name = {0: None, 1: None, 2: "epoch-0001.safetensors"}[again.epoch]
    assert again.start == (6 if name else 0)
    assert again.file == (out / "checkpoints" / name if name else None)
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_step_after_the_end_of_a_run_cut_short_has_no_past(ran, cut, tmp_path):
    shutil.copytree(ran[0], tmp_path / "run")
    kept = tmp_path / "run" / "checkpoints"
    (kept / "epoch-0002.safetensors").unlink()
    (kept / "last.safetensors").write_bytes(b"torn")
    again = replay(spec(), cut, tmp_path / "run", 8)
    assert again.then == {}
    assert again.now["loss"] == ran[1][7][1]


def test_what_the_history_says_otherwise_is_shown():
    again = Replay(1, 0, 0, None, (3,), {"loss": 1.0, "grad_norm": 2.0}, {"loss": 1.5})
    assert again.differences == {"loss": 1.5}
    nan = evolve(again, now={"loss": math.nan}, then={"loss": math.nan})
    assert nan.differences == {}


@pytest.mark.parametrize("step", [-1, 0, 10])
def test_a_step_that_the_run_does_not_have_is_refused(ran, cut, step):
    with pytest.raises(mip.MipError) as caught:
        replay(spec(), cut, ran[0], step)
    assert str(caught.value) == f"{ran[0]}: there is no step {step}; its steps are 1 to 9"


def test_a_folder_without_a_run_is_refused(cut, tmp_path):
    with pytest.raises(FileError) as caught:
        replay(spec(), cut, tmp_path, 1)
    assert (
        str(caught.value) == f"{tmp_path}: there is no intact checkpoint of a run in checkpoints/"
    )


@pytest.mark.parametrize("step", [1, 9])
def test_another_spec_or_other_rows_are_refused(ran, cut, step):
    with pytest.raises(SpecError, match=r"not the same run: train\.seed was 0 and is 1"):
        replay(evolve(spec(), train=evolve(spec().train, seed=1)), cut, ran[0], step)
    fewer = cut._replace(train=cut.train.take(range(10)))
    with pytest.raises(SpecError, match="not the same run: the train rows are others"):
        replay(spec(), fewer, ran[0], step)


# Checkpoints that are damaged.


def broken(path: Path, fault: str) -> str:
    data = bytearray(path.read_bytes())
    data[-9] ^= 4
    path.write_bytes(data if fault == "flipped" else data[:100])
    wrong = {
        "flipped": "the file is damaged (its checksum does not match)",
        "truncated": "the file is truncated, or not a mip file",
    }
    return f"{path}: {wrong[fault]}"


@pytest.mark.parametrize("fault", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_refused_and_the_newest_whole_one_named(
    ran, cut, folder, tmp_path, fault
):
    out = tmp_path / "run"
    shutil.copytree(ran[0], out)
    kept, last = out / "checkpoints", out / "checkpoints" / "last.safetensors"
    message = broken(last, fault)
    broken(kept / "epoch-0002.safetensors", fault)
    (kept / "other.safetensors").write_bytes((out / "model.safetensors").read_bytes())
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(FileError) as caught:
        mip.run(spec(), cut, out=out, resume=True, context=mip.Context(base=folder))
    assert str(caught.value) == (
        f"{message}; the newest intact one is epoch-0001.safetensors, after step 6: "
        "copy it over last.safetensors to resume from there"
    )
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    shutil.copy(kept / "epoch-0001.safetensors", last)
    mip.run(spec(), cut, out=out, resume=True, context=mip.Context(base=folder))
    for name in ("model", "checkpoints/last", "checkpoints/epoch-0002"):
        here, there = (each / f"{name}.safetensors" for each in (out, ran[0]))
        assert here.read_bytes() == there.read_bytes()


def test_without_another_checkpoint_the_damage_alone_is_told(ran, cut, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    last = tmp_path / "checkpoints" / "last.safetensors"
    shutil.copy(ran[0] / "checkpoints" / "last.safetensors", last)
    message = broken(last, "flipped")
    with pytest.raises(FileError) as caught:
        mip.run(spec(), cut, out=tmp_path, resume=True)
    assert str(caught.value) == message


def test_whole_checkpoints_are_listed_by_step(ran, tmp_path):
    kept = ran[0] / "checkpoints"
    names = ["epoch-0001", "epoch-0002", "last"]
    files = [kept / f"{name}.safetensors" for name in names]
    assert intact_checkpoints(kept) == list(zip([6, 9, 9], files, strict=True))
    assert intact_checkpoints(tmp_path / "nowhere") == []


def test_a_step_behind_a_plateau_has_the_rate_that_it_had(table, tmp_path):
    cut = Parts(table.take(range(9)), table.take(range(9, 11)), table.take([]))
    text = TRAIN.format(keep=0) + "plateau = { factor = 0.1, patience = 0, threshold = 0.9 }\n"
    lowered = spec_of("regression", NUMBERS, text.replace("epochs = 3", "epochs = 4"))
    whole = mip.run(lowered, cut, out=tmp_path)
    (tmp_path / "checkpoints" / "last.safetensors").rename(tmp_path / "kept")
    stopping = lambda job: [lambda event: STOP.get(event.step)]  # noqa: E731
    mip.run(lowered, cut, out=tmp_path, overwrite=True, make_hooks=stopping)
    losses = whole.history.steps["loss"].tolist()
    assert intact_checkpoints(tmp_path / "checkpoints")[-1][0] == 2
    assert [replay(lowered, cut, tmp_path, k).now["loss"] for k in (7, 8)] == losses[6:8]
