"""Contests with other libraries, none of which is needed here: who takes part, and what counts."""

import ast
import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from benchmarks.harness import Result
from benchmarks.peers import contest, environment
from benchmarks.peers.__main__ import CONTESTS, main
from benchmarks.peers.contest import Contest, held
from benchmarks.peers.ours import contenders as ours
from benchmarks.peers.page import page
from benchmarks.peers.worker import serve
from benchmarks.peers.workloads import TEXTS, Done
from mip.errors import MipError

FOLDER = Path(environment.__file__).parent
FOUND = {
    each.name: Result(each.name, each.work, each.peer, 2.0, 1.5, 2.5, 1.0) for each in CONTESTS
}


def test_contests_have_names_of_their_own_and_workloads_that_we_train():
    assert len(FOUND) == len(CONTESTS)
    assert {each.workload for each in CONTESTS} == set(TEXTS) == set(ours.WORKLOADS)


@pytest.mark.parametrize("each", CONTESTS, ids=lambda each: each.name)
def test_a_peer_is_pinned_and_says_how_it_is_used(each):
    source = ast.parse((FOLDER / each.peer / "contenders.py").read_text())
    trained = source.body[-1].value  # a dict by workload
    assert each.workload in [key.value for key in trained.keys]
    assert ast.get_docstring(source)
    pins = (FOLDER / each.peer / "requirements.txt").read_text().split()
    assert all("==" in pin for pin in pins)


def test_list_gives_a_line_for_each_and_runs_nothing(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [each.name for each in CONTESTS]


def test_an_unknown_name_is_one_line_and_exit_2(capsys):
    assert main(["fastai-mpl", "--keep"]) == 2
    assert "did you mean 'fastai-mlp'?" in capsys.readouterr().err


def test_results_are_kept_and_only_what_is_missing_is_measured(tmp_path):
    file, seen = tmp_path / "peers.json", []

    def measure(contest):
        seen.append(contest.name)
        return FOUND[contest.name]

    told = ["--keep", "--json", str(file)]
    assert main(["skorch-mlp", *told], measure=measure) == 0
    assert main(told, measure=measure) == 0
    assert sorted(seen) == sorted(FOUND)
    assert main(["skorch-mlp", *told], measure=measure) == 0
    assert seen.count("skorch-mlp") == 2
    assert {each["name"] for each in json.loads(file.read_text())} == set(FOUND)


def test_the_page_has_a_row_for_each_result(tmp_path):
    loops, out = tmp_path / "loops.json", tmp_path / "speed.md"
    about = {"name": "train-x", "work": "a fit", "low": 0.9, "high": 1.1, "aim": 1.0}
    once = {**about, "name": "fit-x", "unit": "ms", "value": 0.25}
    loops.write_text(json.dumps([{**about, "anchor": "a loop", "ratio": 1.0}, once]))
    told = ["--keep", "--loops", str(loops), "--page", str(out)]
    assert main(told, measure=lambda each: FOUND[each.name]) == 0
    text = out.read_text()
    assert "| train-x | a fit | a loop | **1.00** (0.90 to 1.10) | 1 |" in text
    assert "| fit-x | a fit | **0.25** (0.90 to 1.10) ms | 1 ms |" in text
    assert text.count("**2.00** (1.50 to 2.50)") == len(CONTESTS)


def test_a_page_can_be_written_of_nothing():
    assert page([], []).startswith("# The speed of training")


def test_a_worker_answers_each_line_by_a_fit_of_a_new_model():
    laid, answers = [], StringIO()

    def fresh():
        laid.append("new")
        return lambda: Done(len(laid), 7)

    serve(fresh, StringIO("run\nrun\n"), answers)
    told = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [(each["steps"], each["parameters"]) for each in told] == [(1, 7), (2, 7)]
    assert all(each["seconds"] >= 0 for each in told)


@pytest.mark.parametrize("other", [Done(399, 1000), Done(400, 1011)], ids=["steps", "parameters"])
def test_other_work_does_not_count(other):
    one = CONTESTS[0]
    with pytest.raises(MipError, match="not the same work"):
        contest._check(one, Done(400, 1000), other)
    contest._check(one, Done(400, 1000), Done(400, 1005))


def test_an_environment_that_is_ready_is_not_made_again(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(environment, "_run", asked.append)
    (tmp_path / "ready").write_text((FOLDER / "keras" / "requirements.txt").read_text())
    assert environment.made("keras", tmp_path) == tmp_path / "bin" / "python"
    assert not asked
    (tmp_path / "ready").write_text("keras==1.0")
    with pytest.raises(FileNotFoundError):  # nothing was made by the functions that only listen
        environment.made("keras", tmp_path)
    assert asked == [[sys.executable, "-m", "venv", str(tmp_path)]]


@pytest.mark.slow
def test_two_processes_hold_a_contest(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    found = held(Contest("ours", "table", rounds=2), Path(sys.executable))
    assert found.low <= found.ratio <= found.high


@pytest.mark.slow
def test_a_worker_that_fails_is_told_with_its_log(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    with (
        contest.worker(Path(sys.executable), "nobody", CONTESTS[0]) as asked,
        pytest.raises(MipError, match=r"No module named 'benchmarks\.peers\.nobody'"),
    ):
        asked()
