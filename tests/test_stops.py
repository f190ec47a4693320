"""Runs that are stopped, by a kill, a full disk, or between any two steps, and go on as if nothing
had been.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import NUMBERS, bits, fold, lay, spec_of

import mip
from mip.errors import FileError
from mip.optim import ema
from mip.prepare import Parts
from mip.step import averaged
from mip.store import save_checkpoint, sound

TRAIN = "[train]\nepochs = {epochs}\nbatch = 4\nworkers = 0\ncheckpoint_every = 1\n"
FILES = ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors")


def ran(table: mip.Table, out: Path, epochs: int, branches: str = NUMBERS, **how) -> mip.run.Run:
    """Run into a folder; where it has a checkpoint, go on from there."""
    spec = spec_of("regression", branches, TRAIN.format(epochs=epochs))
    parts = Parts(table, table.take([]), table.take([]))
    resume = (out / "checkpoints" / "last.safetensors").exists()
    return mip.run(spec, parts, out, resume=resume, device="cpu", **how)


def assert_same(out: Path, other: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(out.rglob("*.part")), "litter"


# Killed.

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
import mip
from test_stops import ran

def tell(event):
    if event.name == "before_fit":
        print("begun", flush=True)

ran(mip.read({table!r}), Path({out!r}), {epochs}, hooks=lambda job: [tell])
"""


def killed(folder: Path, out: Path, epochs: int, pause: float) -> bool:
    """Run in a process that is killed so long after its first step; say whether it was in time."""
    names = {"tests": str(Path(__file__).parent), "table": str(folder / "houses.csv")}
    script = SCRIPT.format(out=str(out), epochs=epochs, **names)
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "begun\n"
    time.sleep(pause)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(
    ("kills", "epochs"), [(2, 60), pytest.param(10, 300, marks=pytest.mark.slow)]
)
def test_a_run_that_is_killed_at_random_ends_with_the_same_bytes(
    kills, epochs, folder, table, tmp_path
):
    draw = random.Random(kills)
    for _ in range(kills):
        assert killed(folder, tmp_path / "killed", epochs, draw.uniform(0, 0.3))
    done = sound(tmp_path / "killed" / "checkpoints")
    assert done
    assert 0 < done[-1][0] < 3 * epochs
    ran(table, tmp_path / "killed", epochs)
    ran(table, tmp_path / "whole", epochs)
    assert_same(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("at", range(1, 7))
def test_a_run_that_ends_behind_any_batch_has_every_row(at, table, tmp_path, whole):
    def killing(event):
        if event.name == "after_batch" and event.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(table, tmp_path, 2, hooks=lambda job: [killing])
    assert [step for step, _ in sound(tmp_path / "checkpoints")] == [at]
    ran(table, tmp_path, 2)
    assert_same(tmp_path, whole)


# A full disk.


class Full:
    """A function of the operating system that finds the disk full from its n-th call on."""

    def __init__(self, real, at: int) -> None:
        self.real, self.left = real, at

    def __call__(self, *arguments):
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(*arguments)


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    ran(table, out, 2)
    return out


# The spec takes two calls of fsync, for itself and its folder, and every checkpoint three.
@pytest.mark.parametrize("calls", [("fsync", at) for at in range(2, 15)] + [("replace", 4)])
def test_a_full_disk_leaves_the_checkpoint_before_and_names_the_file(
    calls, table, tmp_path, monkeypatch, whole
):
    name, at = calls
    monkeypatch.setattr(os, name, Full(getattr(os, name), at))
    with pytest.raises(FileError) as caught:
        ran(table, tmp_path, 2)
    monkeypatch.undo()
    names = ("checkpoints/last.safetensors", "history.jsonl")
    wrong = [f"{tmp_path / each}: cannot be written (No space left on device)" for each in names]
    assert str(caught.value) in wrong
    kept = list(tmp_path.glob("checkpoints/*"))
    assert [path for _, path in sound(tmp_path / "checkpoints")] == kept
    assert len(kept) == (at > 3)
    ran(table, tmp_path, 2)
    assert_same(tmp_path, whole)


def test_a_full_disk_at_the_model_leaves_a_run_to_go_on_with(table, tmp_path, monkeypatch, whole):
    real = os.replace

    def full(draft, path):
        if Path(path).name == "model.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(draft, path)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FileError) as caught:
        ran(table, tmp_path, 2)
    told = f"{tmp_path}/model.safetensors: cannot be written (No space left on device)"
    assert str(caught.value) == told
    monkeypatch.undo()
    ran(table, tmp_path, 2)
    assert_same(tmp_path, whole)


# Stopped between any two steps, with all that a state can hold: dropout, batch norm, augmentation,
# clipping, Adam's moments and averages of the weights.


def test_every_step_of_three_epochs_is_one_to_go_on_from(table, tmp_path):
    laid = lay(spec_of(), table)
    optimizer = mip.chain(mip.clip_norm(1.0), mip.adamw(mip.one_cycle(1e-2, 9)), ema(0.9))
    step, start = mip.train_step(laid.net, laid.plan.loss, optimizer), mip.init(laid.net, optimizer)
    assert any("running_mean" in path for path in start.buffers)
    made = []

    def keep(event):
        if event.name in {"before_fit", "after_batch"}:
            made.append((event.state, event.history))

    ended = mip.fit(step, laid.batches, start, epochs=3, hooks=[keep])
    assert len(made) == 10
    assert bits(ended) == bits(fold(step, laid.batches, start, 9))
    assert bits(averaged(ended).params) != bits(ended.params)
    mip.save(tmp_path / "whole", laid.plan, ended)
    for at, (state, history) in enumerate(made):
        save_checkpoint(tmp_path / "last", state, history, laid.plan)
        found = mip.load_checkpoint(tmp_path / "last", start)
        histories = []
        hook = lambda event: histories.append(event.history)  # noqa: E731, B023
        given = {"steps": 9 - at, "hooks": [hook], "history": found.history}
        again = mip.fit(step, laid.batches, found.state, **given)
        assert bits(again) == bits(ended)
        assert bits(dict(histories[-1].steps)) == bits(dict(made[-1][1].steps))
        mip.save(tmp_path / "again", laid.plan, again)
        assert (tmp_path / "again").read_bytes() == (tmp_path / "whole").read_bytes()
