"""The command line where something cannot be read or written: one line, and nothing by halves."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pandas as pd
import pytest
from conftest import HEADS, NUMBERS, frame_of

import mip
from mip.cli import look, start, train, use
from mip.cli.app import main

FULL = "mip: error: standard output: cannot be written (No space left on device)\n"
SPEC = (
    '[data]\ntable = "houses.csv"\nsplit = { fractions = [0.6, 0.2, 0.2] }\n'
    + "[train]\nepochs = 1\nbatch_size = 8\nworkers = 0\n"
    + NUMBERS
    + HEADS["regression"]
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, with a table, folds and a spec."""
    monkeypatch.chdir(tmp_path)
    frame_of(40).to_csv("houses.csv", index=False)
    pd.DataFrame({"row": range(40), "fold": np.arange(40) % 2}).to_csv("folds.csv", index=False)
    (tmp_path / "houses.toml").write_text(SPEC)
    return tmp_path


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["mip", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    frame_of(40).to_csv(folder / "houses.csv", index=False)
    spec = mip.parse(SPEC)
    parts = mip.parts(spec, mip.read(folder / "houses.csv"))
    mip.run(spec, parts, out=folder / "run", context=mip.Context(base=folder))
    return folder / "run"


@pytest.fixture
def model(folder, trained):
    """A copy of the trained model, in the current folder."""
    shutil.copytree(trained, folder / "run")
    return folder / "run" / "model.safetensors"


@pytest.fixture
def full():
    """Standard output on a full disk."""
    with open("/dev/full", "w") as file:
        yield file


def say_nothing_before_the_results(monkeypatch):
    for module in (start, train, use, look):
        for name in {"open_spec", "split_rows"} & vars(module).keys():
            monkeypatch.setattr(module, name, quietly(getattr(module, name)))


def quietly(function):
    def call(*given):
        with redirect_stdout(io.StringIO()):
            return function(*given)

    return call


@pytest.mark.parametrize(
    "words",
    [
        ("schema",),
        ("check", "houses.toml"),
        ("show", "houses.toml"),
        ("cache",),
        ("evaluate", "run/model.safetensors", "houses.csv"),
        ("predict", "run/model.safetensors", "houses.csv"),
        ("fit", "houses.toml"),
    ],
    ids=" ".join,
)
def test_a_full_standard_output_is_one_line(words, model, run, full, monkeypatch):
    monkeypatch.setattr(sys, "stdout", full)
    code, err = run(*words)
    assert (code, err.splitlines(keepends=True)[-1]) == (2, FULL)


LEAVE_OUT = ("--without=front", "--without=back")  # there are no photos here


@pytest.mark.parametrize(
    ("words", "file"),
    [
        (("evaluate", "run/model.safetensors", "houses.csv", "--json", "m.json"), "m.json"),
        (("predict", "run/model.safetensors", "houses.csv", "--out", "p.csv"), "p.csv"),
        (("baseline", "houses.toml", "--json", "m.json"), "m.json"),
        (("crossval", "houses.toml", "--folds", "folds.csv", "--out", "p.csv"), "p.csv"),
        (("crossval", "houses.toml", "--folds", "folds.csv", "--json", "m.json"), "m.json"),
        (("show", "houses.toml", "--svg", "t.svg"), "t.svg"),
        (("schema", "--out", "s.json"), "s.json"),
        (
            ("new", "houses.csv", "--target=price", *LEAVE_OUT, "--out", "n.toml"),
            "n.toml",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_results_are_written_before_they_are_printed(words, file, model, run, full, monkeypatch):
    say_nothing_before_the_results(monkeypatch)
    monkeypatch.setattr(sys, "stdout", full)
    code, err = run(*words)
    assert (code, err.splitlines(keepends=True)[-1]) == (2, FULL)
    assert os.path.getsize(file)


def test_a_process_with_a_full_or_closed_output_says_one_line():
    command = f"{sys.executable} -m mip --version"
    for where, code, err in (
        (">/dev/full", 2, FULL),
        (">&-", 2, "mip: error: standard output: is closed\n"),
        ("| true; exit ${PIPESTATUS[0]}", 0, ""),  # whoever reads has read enough
    ):
        how = {"stderr": subprocess.PIPE, "text": True}
        done = subprocess.run(["bash", "-c", f"{command} {where}"], check=False, **how)
        assert (done.returncode, done.stderr) == (code, err), where


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
from mip.cli.app import main
sys.argv = ["mip", "demo-data", sys.argv[1], "--rows", "3"]
main()
"""


@pytest.mark.slow
def test_the_demo_on_a_full_disk_is_one_line_and_leaves_no_half_a_file(tmp_path):
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "d")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    path = tmp_path / "d" / "images" / "000_front.jpg"
    message = f"mip: error: {path}: cannot be written (File too large)\n"
    assert (done.returncode, done.stderr) == (2, message)
    assert not [each for each in tmp_path.rglob("*") if each.is_file()]


# Odd paths.


@pytest.mark.parametrize("words", [("--out", ""), ("--out=",), ("--set", "")], ids=" ".join)
def test_an_empty_value_is_refused(words, folder, run):
    before = sorted(folder.iterdir())
    name = words[0].rstrip("=")
    message = f"mip: error: the value after '{name}' is empty\n"
    assert run("fit", "houses.toml", *words) == (2, message)
    assert sorted(folder.iterdir()) == before


def test_an_empty_path_is_refused_wherever_it_stands(folder, run):
    assert run("predict", "", "houses.csv") == (
        2,
        "mip: error: the value after 'predict' is empty\n",
    )


LONG = "n" * 300 + ".csv"


@pytest.mark.parametrize("path", [LONG, "houses.csv/x.csv", "broken.csv", "loop.csv", "loop/x.csv"])
@pytest.mark.parametrize(
    "words",
    [
        ("new", "{}", "--target", "price", "--out", "n.toml"),
        ("check", "{}"),
        ("fit", "{}", "--out", "other"),
        ("fit", "houses.toml", "--out", "{}"),
        ("lr", "houses.toml", "--steps", "3", "--out", "{}"),
        ("replay", "{}", "1"),
        ("evaluate", "{}", "houses.csv"),
        ("crossval", "houses.toml", "--folds", "{}"),
        ("ensemble", "{}", "--out", "e.safetensors"),
        ("demo", "{}"),
        ("demo-data", "{}", "--rows", "1"),
        ("check", "houses.toml", "--set", "data.table={}"),
    ],
    ids=" ".join,
)
def test_odd_paths_are_one_line_that_names_them(words, path, folder, run):
    os.symlink("nowhere.csv", "broken.csv")
    os.symlink("loop.csv", "loop.csv")
    os.symlink("loop", "loop")
    code, err = run(*(word.format(path) for word in words))
    # Whoever writes through a link that leads nowhere makes the file that it names.
    if code:
        assert code == 2
        assert err.startswith("mip: error: ")
        assert err.count("\n") == 1
        assert path in err
    else:
        assert path == "broken.csv"
        assert words[-1] in {"{}", "1"}


def test_a_name_of_any_bytes_is_printed(folder, run, capsys):
    assert run("schema", "--out", os.fsdecode(b"\xff.json"))[0] == 0


def test_an_error_of_the_system_names_its_file_and_others_keep_their_traceback(run, monkeypatch):
    def failing(error):
        def load_spec(*_, **__):
            raise error

        monkeypatch.setattr(mip, "load_spec", load_spec)

    failing(PermissionError(13, "Permission denied", "secret"))
    assert run("check", "x.toml") == (2, "mip: error: secret: Permission denied\n")
    failing(ZeroDivisionError())
    monkeypatch.setattr(sys, "argv", ["mip", "check", "x.toml"])
    with pytest.raises(ZeroDivisionError):
        main()
