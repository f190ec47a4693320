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
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from attrs import evolve
from conftest import BRANCHES, HEADS, NUMBERS, Setup, bits, set_up, spec_of

import mip
from mip.cli.train import fit
from mip.errors import FileError
from mip.files import LOCK, Checkpoint, intact_checkpoints
from mip.hooks import reduce_lr_on_plateau
from mip.model import Parts
from mip.optim import ema, inject_lr_factor
from mip.train import History, with_averaged_params

TRAIN = "[train]\nepochs = {epochs}\nbatch_size = 4\nworkers = 0\ncheckpoint_every = 1\n"
FILES = ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors")


def ran(table: mip.Table, out: Path, epochs: int, branches: str = NUMBERS, **how) -> mip.runs.Run:
    """Run into a folder; where it has a checkpoint, go on from there."""
    spec = spec_of("regression", branches, TRAIN.format(epochs=epochs))
    parts = Parts(table, table.take([]), table.take([]))
    resume = (out / "checkpoints" / "last.safetensors").exists()
    return mip.run(spec, parts, out=out, resume=resume, context=mip.Context(device="cpu"), **how)


def assert_same(out: Path, other: Path) -> None:
    for name in FILES:
        assert (out / name).read_bytes() == (other / name).read_bytes(), name
    assert not list(out.rglob("*.part")), "litter"


# Killed.

SPEC = """
[data]
table = "{table}"
split = {{ fractions = [0.7, 0.3, 0.0] }}
[train]
epochs = {epochs}
batch_size = 4
workers = 0
seed = {seed}
checkpoint_every = 1
restore_best = true
"""
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def spec_file(folder: Path, place: Path, epochs: int, seed: int) -> Path:
    place.mkdir()
    text = SPEC.format(table=folder / "houses.csv", epochs=epochs, seed=seed)
    (place / "houses.toml").write_text(text + BRANCHES + HEADS["regression"])
    return place / "houses.toml"


def killed(spec: Path, workers: int, writes: int, pause: float) -> None:
    """Fit in a fresh process, from the last checkpoint where there is one; kill it so many
    checkpoints and so long after it has taken its folder.
    """
    out = spec.parent / "killed"
    last = out / "checkpoints" / "last.safetensors"
    going = ["--resume", "--set", f"train.workers={workers}"] if last.exists() else []
    fit = [sys.executable, "-m", "mip", "fit", str(spec), "--out", str(out), *going]
    before = written(out / LOCK)
    process = subprocess.Popen(fit, stdout=subprocess.DEVNULL, env=ONE_THREAD)
    for path in [out / LOCK] + [last] * writes:
        while written(path) == before and process.poll() is None:
            time.sleep(0.001)
        before = written(last)
    time.sleep(pause)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run ended before it was killed"


def written(path: Path) -> int:
    """When a file was written: 0 where it is not."""
    return path.stat().st_mtime_ns if path.exists() else 0


def often_killed(spec: Path, kills: int) -> None:
    draw = random.Random(spec.parent.name)
    for _ in range(kills):
        killed(spec, draw.randint(0, 2), draw.randint(0, 4), draw.uniform(0, 0.05))


def assert_it_ends_like_a_whole_one(spec: Path) -> None:
    out, whole = spec.parent / "killed", spec.parent / "whole"
    done = intact_checkpoints(out / "checkpoints")[-1][0]
    fit(spec, out=out, resume=True)
    fit(spec, out=whole)
    assert 0 < done < intact_checkpoints(whole / "checkpoints")[-1][0]
    for name in (*FILES, "checkpoints/best.safetensors"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert not list(out.rglob("*.part")), "litter"


def test_a_run_that_is_killed_ends_with_the_same_bytes(folder, tmp_path, sketched):
    spec = spec_file(folder, tmp_path / "0", epochs=12, seed=0)
    killed(spec, workers=1, writes=4, pause=0.01)
    assert_it_ends_like_a_whole_one(spec)


@pytest.mark.slow
def test_a_hundred_kills_at_random_change_nothing(folder, tmp_path):
    runs = [spec_file(folder, tmp_path / str(seed), epochs=150, seed=seed) for seed in range(1, 5)]
    with ThreadPoolExecutor(2) as pool:
        deque(pool.map(partial(often_killed, kills=25), runs), maxlen=0)
    for spec in runs:
        assert_it_ends_like_a_whole_one(spec)


@pytest.mark.parametrize("at", range(1, 7))
def test_a_run_that_ends_behind_any_batch_has_every_row(at, table, tmp_path, whole):
    def killing(event):
        if event.name == "after_batch" and event.step == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ran(table, tmp_path, 2, make_hooks=lambda job: [killing])
    assert [step for step, _ in intact_checkpoints(tmp_path / "checkpoints")] == [at]
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
    assert [path for _, path in intact_checkpoints(tmp_path / "checkpoints")] == kept
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
    message = f"{tmp_path}/model.safetensors: cannot be written (No space left on device)"
    assert str(caught.value) == message
    monkeypatch.undo()
    ran(table, tmp_path, 2)
    assert_same(tmp_path, whole)


# Stopped between any two steps, with all that a state can hold: dropout, batch norm, augmentation,
# clipping, Adam's moments, averages of the weights and a rate that a plateau lowers.

STEPS = 9


def optimizer(factor: float = 1.0) -> mip.optim.Optimizer:
    return mip.chain(mip.clip_norm(1.0), mip.adamw(mip.one_cycle(factor * 1e-2, STEPS)), ema(0.9))


def laid_out(table: mip.Table, workers: int) -> Setup:
    setup, one = set_up(spec_of(), table, workers=workers), inject_lr_factor(optimizer)
    step = mip.train_step(setup.net, setup.plan.loss, one)
    return setup._replace(step=step, state=mip.init(setup.net, one))


def went_on(setup: Setup, folder: Path, start: Checkpoint, steps: int) -> mip.State:
    """Fit so many steps with a checkpoint after each, and leave the model beside it."""
    # An epoch that is not far better lowers the rate: two of the three do.
    lower = reduce_lr_on_plateau("loss", factor=0.5, patience=0, threshold=0.9)
    hooks = [lower, mip.checkpoint(folder, setup.plan, every=1)]
    given = {"steps": steps, "hooks": hooks, "history": start.history}
    ended = mip.fit(setup.step, setup.batches, start.state, **given)
    mip.save(folder / "model.safetensors", setup.plan, ended, overwrite=True)
    return ended


def resumed(table: Path, folder: Path) -> None:
    """Go on from each of the folders of runs that were stopped, to the end."""
    setup = laid_out(mip.read(table), workers=2)
    for at in range(1, STEPS):
        actual = mip.load_checkpoint(folder / str(at) / "last.safetensors", setup.state)
        assert actual.state.step == at
        went_on(setup, folder / str(at), actual, STEPS - at)


RESUME = """
import sys, warnings
sys.path[:0] = [{tests!r}, {tests!r} + "/.."]
from pathlib import Path
from mip.errors import MipWarning
warnings.simplefilter("error", MipWarning)
from test_stops import resumed
resumed(Path({table!r}), Path({folder!r}))
"""


@pytest.mark.slow
def test_every_step_of_three_epochs_is_one_to_go_on_from_in_a_fresh_process(
    folder, table, tmp_path
):
    setup = laid_out(table, workers=0)
    start = Checkpoint(setup.state, History(), {})
    ended = went_on(setup, tmp_path / "whole", start, STEPS)
    assert float(ended.optimizer["factor"].value) == 0.5
    assert any("running_mean" in path for path in ended.buffers)
    assert bits(with_averaged_params(ended).params) != bits(ended.params)
    for at in range(1, STEPS):
        went_on(setup, tmp_path / str(at), start, at)
    names = {"tests": str(Path(__file__).parent), "table": str(folder / "houses.csv")}
    script = RESUME.format(folder=str(tmp_path), **names)
    subprocess.run([sys.executable, "-c", script], check=True, env=ONE_THREAD)
    for at, name in product(range(1, STEPS), ("last.safetensors", "model.safetensors")):
        same = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / str(at) / name).read_bytes() == same, (at, name)


def test_with_another_seed_it_goes_elsewhere(table):
    setup = laid_out(table, workers=0)
    half = mip.fit(setup.step, setup.batches, setup.state, steps=4)
    seeded = [evolve(half, seed=seed) for seed in (0, 0, 1)]
    ends = [mip.fit(setup.step, setup.batches, state, steps=STEPS - 4) for state in seeded]
    same, again, other = (bits(end.params) for end in ends)
    assert same == again != other
