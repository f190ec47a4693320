"""Signals: a command ends in one line that says how to go on, and its processes end with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from conftest import HEADS, NUMBERS, frame_of, set_up, spec_of, within
from toolz import pipe

import mip
import mip.demo
from mip.cli.app import main
from mip.workers import parallel_map

SPEC = (
    '[data]\ntable = "houses.csv"\nsplit = { fractions = [0.7, 0.3, 0.0] }\n'
    + "[train]\nepochs = 100_000\nbatch_size = 8\nworkers = 0\n"
    + NUMBERS
    + HEADS["regression"]
)
SWEEP = ("sweep", "houses.toml", "--set", "train.seed=1,2,3", "--out", "sweep")
PARENT, GROUP = os.kill, os.killpg


@pytest.fixture
def folder(tmp_path):
    """A folder with a table and a spec whose training takes hours."""
    frame_of(60).to_csv(tmp_path / "houses.csv", index=False)
    folds = pd.DataFrame({"row": range(60), "fold": [k % 2 for k in range(60)]})
    folds.to_csv(tmp_path / "folds.csv", index=False)
    (tmp_path / "houses.toml").write_text(SPEC)
    (tmp_path / "tmp").mkdir()
    return tmp_path


def stopped(folder: Path, number: int, whom, until: str, *words: str) -> tuple[int, str]:
    """Start a command in a process group of its own, and send a signal to it or to its group when
    files of a pattern are there; give its exit code and standard error once the group is empty.
    """
    command = [sys.executable, "-m", "mip", *words]
    env = {**os.environ, "TMPDIR": str(folder / "tmp")}
    how = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "env": env}
    process = subprocess.Popen(command, cwd=folder, start_new_session=True, **how)
    try:
        while not any(folder.glob(until)):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.05)
        whom(process.pid, number)
        _, err = process.communicate(timeout=60)
        within(60, partial(wait_for_the_end_of_group, process.pid))
    finally:
        if is_group(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, err


def wait_for_the_end_of_group(group: int) -> None:
    while is_group(group):
        time.sleep(0.05)


def is_group(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


# Processes.


def slow(seconds):
    time.sleep(seconds)
    return seconds


@pytest.mark.slow
def test_processes_end_with_the_iterator():
    before = set(multiprocessing.active_children())
    actual = parallel_map(slow, [0.0, 1000.0], workers=2)
    assert next(actual) == 0.0
    within(60, actual.close)
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.slow
def test_processes_that_end_while_they_start_are_silent(capfd):
    def items():
        yield 1000.0
        raise LookupError

    with pytest.raises(LookupError):
        within(60, partial(list, parallel_map(slow, items(), workers=2)))
    assert capfd.readouterr().err == ""


def refused(item):
    raise LookupError(f"there is no {item}")


@pytest.mark.slow
def test_what_a_process_raises_is_raised_and_ends_the_others():
    before = set(multiprocessing.active_children())
    works = parallel_map(raised_or_slow, [None, 1000.0], workers=2)
    with pytest.raises(LookupError, match="there is no None") as caught:
        within(60, partial(next, works))
    assert "in refused" in str(caught.value.__cause__)
    assert set(multiprocessing.active_children()) <= before


def raised_or_slow(item):
    return refused(item) if item is None else slow(item)


class OddError(Exception):
    """An error that pickle writes and cannot read."""

    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


def odd(_):
    raise OddError("a", "b")


@pytest.mark.slow
def test_an_error_that_cannot_be_sent_keeps_its_text():
    with pytest.raises(RuntimeError, match=r"^OddError: a b$"):
        list(parallel_map(odd, [1, 2], workers=2))


@pytest.mark.slow
def test_a_sweep_hears_ctrl_c_alone_and_goes_on(folder):
    until = "sweep/train.seed=[12]/checkpoints/last.safetensors"
    code, err = stopped(folder, signal.SIGINT, PARENT, until, *SWEEP, "--workers", "2")
    message = "finished runs are kept in sweep: the same command continues"
    assert (code, err) == (130, f"mip: stopped; {message}\n")
    changes = {"train.epochs": [1], "train.seed": [1, 2]}
    for name in ("train.seed=1", "train.seed=2"):  # as an interrupted run of the sweep would be
        if (folder / "sweep" / name).exists():
            (folder / "sweep" / name).rename(folder / "sweep" / f"train.epochs=1,{name}")
    done = mip.runs.sweep(folder / "houses.toml", changes, folder / "sweep")
    assert not [each.error for one in done for each in one.outcomes if each.error]


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(folder):
    until = "sweep/*/checkpoints/last.safetensors"
    code, err = stopped(folder, signal.SIGKILL, PARENT, until, *SWEEP, "--workers", "2")
    assert code == -signal.SIGKILL
    assert "Traceback" not in err


@pytest.mark.slow
@pytest.mark.parametrize("whom", [PARENT, GROUP])
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("workers", ["1", "2"])
def test_any_signal_ends_a_sweep_and_a_cross_validation(folder, name, code, whom, workers):
    number = getattr(signal, name)
    until = "sweep/*/checkpoints/last.safetensors"
    message = "finished runs are kept in sweep: the same command continues"
    actual = stopped(folder, number, whom, until, *SWEEP, "--workers", workers)
    assert actual == (code, f"mip: stopped; {message}\n")
    words = ("crossval", "houses.toml", "--folds", "folds.csv", "--workers", workers)
    actual = stopped(folder, number, whom, "tmp/*/checkpoints/last.safetensors", *words)
    assert actual == (code, "mip: stopped; nothing is kept: the same command starts again\n")
    assert not list((folder / "tmp").iterdir()), "litter"


@pytest.mark.slow
def test_a_cross_validation_whose_parent_is_killed_leaves_no_temporary_folder(folder):
    words = ("crossval", "houses.toml", "--folds", "folds.csv", "--workers", "2")
    until = "tmp/*/checkpoints/last.safetensors"
    assert stopped(folder, signal.SIGKILL, PARENT, until, *words)[0] == -9
    assert not list((folder / "tmp").iterdir()), "litter"


# The command line.


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_every_command_ends_in_one_line(name, code, tmp_path, monkeypatch, capsys):
    number = getattr(signal, name)

    def draw(*_, **__):
        os.kill(os.getpid(), number)
        time.sleep(60)

    monkeypatch.setattr(mip.demo, "draw", draw)
    monkeypatch.setattr(sys, "argv", ["mip", "demo-data", str(tmp_path)])
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    assert capsys.readouterr().err == (
        "mip: stopped; nothing is kept: the same command starts again\n"
    )
    assert signal.getsignal(number) == before


def test_a_signal_that_is_ignored_stays_ignored(tmp_path, monkeypatch, capsys):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    monkeypatch.setattr(mip.demo, "draw", lambda *_, **__: os.kill(os.getpid(), signal.SIGHUP))
    monkeypatch.setattr(sys, "argv", ["mip", "demo-data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    signal.signal(signal.SIGHUP, before)
    assert ended.value.code in {0, None}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("--resume", "resume with: mip fit houses.toml --out 'a run' --set train.seed=1 --resume"),
        ("--force", "nothing is kept: the same command starts again"),
    ],
)
def test_a_fit_goes_on_from_its_own_checkpoint_alone(how, message, folder, monkeypatch, capsys):
    def opened(*_):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(60)

    monkeypatch.chdir(folder)
    last = Path("a run/checkpoints/last.safetensors")
    last.parent.mkdir(parents=True)
    last.write_bytes(b"that of an earlier run")
    monkeypatch.setattr(mip.cli.train, "open_spec", opened)
    words = ["mip", "fit", "houses.toml", "--out", "a run", "--set", "train.seed=1", how]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        main()
    assert capsys.readouterr().err == f"mip: stopped; {message}\n"
    assert [each.name for each in Path("a run").iterdir()] == ["checkpoints"]


def test_ctrl_c_during_the_import_is_one_line(tmp_path):
    text = "import time\nprint('importing', flush=True)\ntime.sleep(60)\n"
    (tmp_path / "torch.py").write_text(text)
    path = os.pathsep.join([str(tmp_path), str(Path(mip.__file__).parent.parent)])
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-m", "mip", "schema"]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, **how)
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "mip: stopped while loading\n")


# Python.


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_in_a_fit_leaves_no_thread(workers, tmp_path):
    table = mip.from_frame(frame_of(60))
    setup = set_up(spec_of("regression", NUMBERS), table, workers=workers)
    before = set(threading.enumerate())

    def interrupt(event):
        if event.name == "after_batch" and event.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(60)

    hooks = [mip.checkpoint(tmp_path, every=1), interrupt]
    with pytest.raises(KeyboardInterrupt):  # whose traceback is kept, as a notebook keeps it
        mip.fit(
            setup.step, pipe(setup.batches, mip.prefetch(2)), setup.state, epochs=9, hooks=hooks
        )
    left = set(threading.enumerate()) - before
    for thread in left:  # one that has been told to end may take a moment
        thread.join(10)
    assert not [thread.name for thread in left if thread.is_alive()]
