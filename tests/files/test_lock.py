"""A run folder belongs to one process at a time, for as long as that process lives."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import NUMBERS, spec_of

import mip
from mip.cli.app import main
from mip.errors import FileError, MipError, MipWarning
from mip.files import LOCK, locked
from mip.model import Parts

HOLDER = """
import sys, time
from mip.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(100)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `run`."""
    script = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(script, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def refusal(folder: Path, pid: int) -> str:
    holds = f"process {pid} on {socket.gethostname()}"
    return f"{folder}: {holds} trains into this folder now; wait for it, or choose another"


def trained(table, out, **how):
    spec = spec_of("regression", NUMBERS, "[train]\nepochs = 1\n")
    return mip.run(spec, Parts(table, table.take([]), table.take([])), out=out, **how)


def test_a_folder_that_another_process_holds_is_refused_until_it_is_killed(
    holder, table, tmp_path, monkeypatch, capsys
):
    out, last = tmp_path / "run", tmp_path / "run" / "checkpoints" / "last.safetensors"
    last.parent.mkdir()
    last.write_bytes(b"its")
    with pytest.raises(FileError) as caught:
        trained(table, out)
    assert str(caught.value) == refusal(out, holder.pid)
    spec = tmp_path / "spec.toml"
    head = '[head]\nkind = "regression"\ncolumn = "price"\n'
    spec.write_text(f'[data]\ntable = "{tmp_path}/t.csv"\n{NUMBERS}{head}')
    monkeypatch.setattr(sys, "argv", ["mip", "fit", str(spec), "--out", str(out), "--force"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"mip: error: {refusal(out, holder.pid)}\n"
    assert last.read_bytes() == b"its"
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    assert (out / LOCK).exists()
    assert trained(table, out, overwrite=True).state.step == 1
    assert not (out / LOCK).exists()


def test_a_thread_may_hold_it_again_and_another_thread_may_not(tmp_path):
    with locked(tmp_path / "run"), locked(str(tmp_path / "run")):
        with pytest.raises(FileError) as caught, ThreadPoolExecutor(1) as other:
            other.submit(locked(tmp_path / "run").__enter__).result()
        assert str(caught.value) == refusal(tmp_path / "run", os.getpid())
    with locked(tmp_path / "run"):
        pass


def test_folders_made_for_nothing_are_removed_again(tmp_path):
    with pytest.raises(MipError), locked(tmp_path / "runs" / "one"):
        raise MipError("the spec is wrong")
    assert not (tmp_path / "runs").exists()
    (tmp_path / "runs").mkdir()
    with locked(tmp_path / "runs" / "one"):
        (tmp_path / "runs" / "one" / "model").write_bytes(b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["runs", "one", "model"]


def test_the_folder_is_given_back_by_a_process_that_has_moved(tmp_path, monkeypatch):
    (tmp_path / "here" / "run").mkdir(parents=True)
    (tmp_path / "here" / "run" / LOCK).write_bytes(b"of another")
    monkeypatch.chdir(tmp_path)
    with locked("run"):
        monkeypatch.chdir(tmp_path / "here")
    assert not (tmp_path / "run").exists()
    assert (tmp_path / "here" / "run" / LOCK).exists()


def test_a_hook_cannot_train_into_the_folder_from_another_thread(table, tmp_path):
    def hooks(job):
        with pytest.raises(FileError, match="trains into this folder now"):
            ThreadPoolExecutor(1).submit(trained, table, tmp_path).result()
        return ()

    assert trained(table, tmp_path, make_hooks=hooks).state.step == 1


def test_a_lock_file_that_is_exchanged_while_it_is_taken_is_taken_anew(tmp_path, monkeypatch):
    real, once = os.open, [True]

    def opened(path, *how):
        handle = real(path, *how)
        if once and str(path).endswith(LOCK):  # its holder ends just here
            once.clear()
            Path(path).unlink()
        return handle

    monkeypatch.setattr(os, "open", opened)
    with locked(tmp_path):
        monkeypatch.undo()
        assert not once
        with pytest.raises(FileError), ThreadPoolExecutor(1) as other:
            other.submit(locked(tmp_path).__enter__).result()


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "taken").write_bytes(b"")
    with pytest.raises(FileError) as caught, locked(tmp_path / "taken" / "run"):
        pass
    assert str(caught.value) == f"{tmp_path}/taken/run: cannot be written (Not a directory)"


def test_without_file_locks_a_run_says_that_it_is_not_locked(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with pytest.warns(MipWarning) as told, locked(tmp_path):
        pass
    assert str(told[0].message) == (
        f"{tmp_path}: is not locked (import of fcntl halted; None in sys.modules): "
        "let one process at a time train into it"
    )
