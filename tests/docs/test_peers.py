"""Contests with other libraries, none of which is needed here: who takes part, and what counts."""

import ast
import json
import sys
from contextlib import contextmanager
from io import StringIO
from itertools import count
from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

from benchmarks.harness import Result
from benchmarks.peers import contest, environment, workloads
from benchmarks.peers.__main__ import CONTESTS, TUTORIALS, main
from benchmarks.peers.contest import Contest, run_contest
from benchmarks.peers.ours import contenders as ours
from benchmarks.peers.page import page
from benchmarks.peers.worker import serve
from benchmarks.peers.workloads import TEXTS, Done
from mip.errors import MipError

FOLDER = Path(environment.__file__).parent
FOUND = {
    each.name: Result(each.name, each.work, each.peer, 2.0, 1.5, 2.5, each.aim) for each in CONTESTS
}


def test_each_pair_of_a_peer_and_a_workload_has_two_contests():
    assert len(FOUND) == len(CONTESTS) == 2 * len(TUTORIALS)
    pairs = [(each.peer, each.workload) for each in CONTESTS if each.expert]
    assert pairs == [(each.peer, each.workload) for each in TUTORIALS]


@pytest.mark.parametrize("form", ["WORKLOADS", *contest.FORMS])
def test_we_train_all_workloads_in_all_forms(form):
    assert {each.workload for each in CONTESTS} == set(TEXTS) == set(getattr(ours, form))


@pytest.mark.parametrize("each", CONTESTS, ids=lambda each: each.name)
def test_a_peer_is_pinned_has_all_forms_and_says_how_it_is_used(each):
    source = ast.parse((FOLDER / each.peer / "contenders.py").read_text())
    workloads_of = {
        node.targets[0].id: [key.value for key in node.value.keys]
        for node in source.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    assert all(each.workload in workloads_of[form] for form in each.forms)
    assert "As an expert runs it: " in " ".join(ast.get_docstring(source).split())
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

    arguments = ["--keep", "--json", str(file)]
    assert main(["skorch-mlp", *arguments], measure=measure) == 0
    assert main(arguments, measure=measure) == 0
    assert sorted(seen) == sorted(FOUND)
    assert main(["skorch-mlp", *arguments], measure=measure) == 0
    assert seen.count("skorch-mlp") == 2
    assert {each["name"] for each in json.loads(file.read_text())} == set(FOUND)


def test_the_page_has_a_row_for_each_result(tmp_path):
    loops, out = tmp_path / "loops.json", tmp_path / "speed.md"
    about = {"name": "train-x", "work": "a fit", "low": 0.9, "high": 1.1, "aim": 1.0}
    once = {**about, "name": "fit-x", "unit": "ms", "value": 0.25}
    loops.write_text(json.dumps([{**about, "anchor": "a loop", "ratio": 1.0}, once]))
    arguments = ["--keep", "--loops", str(loops), "--page", str(out)]
    assert main(arguments, measure=lambda each: FOUND[each.name]) == 0
    text = out.read_text()
    assert "| train-x | a fit | a loop | **1.00** (0.90 to 1.10) | 1 |" in text
    assert "| fit-x | a fit | **0.25** (0.90 to 1.10) ms | 1 ms |" in text
    assert text.count("**2.00** (1.50 to 2.50)") == len(CONTESTS)
    assert "We reach it in all." in text


def test_the_page_says_where_we_are_behind_the_aim():
    about = {"work": "mlp, compiled", "low": 1.0, "high": 1.3, "aim": 1.2}
    ahead = {**about, "name": "a-mlp-expert", "anchor": "a, eager", "ratio": 1.2}
    behind = {**about, "name": "b-mlp-expert", "anchor": "b, compiled", "ratio": 1.1}
    text = page([], [], [ahead, behind])
    assert "We miss it in `b-mlp-expert` (1.10)." in text
    row = "| b-mlp-expert | mlp, compiled | b, compiled | **1.10** (1.00 to 1.30) | 1.2 |"
    assert row in text


def test_a_page_can_be_written_of_nothing():
    assert page([], [], []).startswith("# The speed of training")


def test_a_worker_answers_each_line_by_a_fit_of_a_new_model():
    prepared, answers = [], StringIO()

    def fresh():
        prepared.append("new")
        return lambda: Done(len(prepared), 7)

    serve(fresh, StringIO("run\nrun\n"), answers)
    lines = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [(each["steps"], each["parameters"]) for each in lines] == [(1, 7), (2, 7)]
    assert all(each["seconds"] >= 0 for each in lines)


def test_the_faster_form_of_each_contender_counts(monkeypatch):
    seconds = {
        ("ours", "EXPERT"): 2.0,
        ("ours", "COMPILED"): 1.0,
        ("keras", "EXPERT"): 3.0,
        ("keras", "COMPILED"): 4.0,
    }

    @contextmanager
    def worker(python, peer, form, contest):
        # The first fit, which compiles, takes long and does not count.
        compiling = count(start=0)
        yield lambda: (
            seconds[peer, form] if next(compiling) else 100 / seconds[peer, form],
            Done(400, 1000),
        )

    monkeypatch.setattr(contest, "worker", worker)
    found = run_contest(Contest("keras", "mlp", expert=True), Path("python"))
    assert found == Result("keras-mlp-expert", "mlp, compiled", "keras, eager", 3.0, 3.0, 3.0, 1.2)


@pytest.mark.parametrize("other", [Done(399, 1000), Done(400, 1011)], ids=["steps", "parameters"])
def test_other_work_does_not_count(other):
    one = CONTESTS[0]
    with pytest.raises(MipError, match="not the same work"):
        contest._check(one, Done(400, 1000), other)
    contest._check(one, Done(400, 1000), Done(400, 1005))


def test_a_form_that_does_other_work_does_not_count(monkeypatch):
    @contextmanager
    def worker(python, peer, form, contest):
        done = Done(399 if (peer, form) == ("keras", "COMPILED") else 400, 1000)
        yield lambda: (1.0, done)

    monkeypatch.setattr(contest, "worker", worker)
    with pytest.raises(MipError, match="keras-mlp-expert: not the same work"):
        run_contest(Contest("keras", "mlp", expert=True), Path("python"))


def test_a_batch_is_indexed_at_once_and_each_row_is_met_once():
    class Rows(TensorDataset):
        def __getitem__(self, index):
            sizes.append(len(index))
            return super().__getitem__(index)

    sizes, numbers = [], torch.arange(10)
    loader = workloads.batch_loader(Rows(numbers, -numbers), 4)
    batches = list(loader)
    assert sizes == [4, 4, 2]
    assert len(loader) == 3
    first, second = map(torch.cat, zip(*batches, strict=True))
    assert torch.equal(first.sort().values, numbers)
    assert torch.equal(first, -second)


def test_a_fit_of_an_expert_starts_at_the_same_weights():
    net = torch.nn.Linear(2, 1)
    start = net.weight.detach().clone()
    restart = workloads.restarting(net, compiled=False)
    net(torch.ones(3, 2)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    assert not torch.equal(net.weight, start)
    assert restart() is net
    assert torch.equal(net.weight, start)
    assert net.weight.grad is None


def test_an_environment_that_is_ready_is_not_made_again(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(environment, "_run", commands.append)
    (tmp_path / "ready").write_text((FOLDER / "keras" / "requirements.txt").read_text())
    assert environment.make_environment("keras", tmp_path) == tmp_path / "bin" / "python"
    assert not commands
    (tmp_path / "ready").write_text("keras==1.0")
    with pytest.raises(FileNotFoundError):  # the fake command has made nothing
        environment.make_environment("keras", tmp_path)
    assert commands == [[sys.executable, "-m", "venv", str(tmp_path)]]


@pytest.mark.slow
@pytest.mark.parametrize("expert", [False, True], ids=["tutorial", "expert"])
def test_processes_hold_a_contest(monkeypatch, tmp_path, expert):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    monkeypatch.setattr(contest, "TRIALS", 1)
    found = run_contest(Contest("ours", "table", rounds=2, expert=expert), Path(sys.executable))
    assert found.low <= found.ratio <= found.high


@pytest.mark.slow
def test_a_worker_that_fails_is_reported_with_its_log(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    with (
        contest.worker(Path(sys.executable), "nobody", "WORKLOADS", CONTESTS[0]) as request,
        pytest.raises(MipError, match=r"No module named 'benchmarks\.peers\.nobody'"),
    ):
        request()
