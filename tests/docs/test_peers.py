"""Contests with other libraries: participants, rules and the page. The libraries are not needed."""

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
from benchmarks.peers.workloads import DESCRIPTIONS, FitStats
from mip.errors import MipError

FOLDER = Path(environment.__file__).parent
RESULTS = {
    contest.name: Result(
        name=contest.name,
        work=contest.work,
        baseline=contest.peer,
        ratio=2.0,
        low=1.5,
        high=2.5,
        aim=contest.aim,
    )
    for contest in CONTESTS
}


def test_each_pair_of_a_peer_and_a_workload_has_two_contests():
    assert len(RESULTS) == len(CONTESTS) == 2 * len(TUTORIALS)
    pairs = [(contest.peer, contest.workload) for contest in CONTESTS if contest.expert]
    assert pairs == [(contest.peer, contest.workload) for contest in TUTORIALS]


@pytest.mark.parametrize("variant", ["TUTORIAL", *contest.EXPERT_VARIANTS])
def test_we_train_all_workloads_in_all_variants(variant):
    workloads = {contest.workload for contest in CONTESTS}
    assert workloads == set(DESCRIPTIONS) == set(getattr(ours, variant))


@pytest.mark.parametrize("contest", CONTESTS, ids=lambda contest: contest.name)
def test_a_peer_is_pinned_has_all_variants_and_documents_its_use(contest):
    source = ast.parse((FOLDER / contest.peer / "contenders.py").read_text())
    workloads_of = {
        node.targets[0].id: [key.value for key in node.value.keys]
        for node in source.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    }
    assert all(contest.workload in workloads_of[variant] for variant in contest.variants)
    assert "Expert setup: " in " ".join(ast.get_docstring(source).split())
    pins = (FOLDER / contest.peer / "requirements.txt").read_text().split()
    assert all("==" in pin for pin in pins)


def test_list_prints_a_line_per_contest_and_runs_nothing(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [contest.name for contest in CONTESTS]


def test_an_unknown_name_is_reported_and_exits_with_2(capsys):
    assert main(["fastai-mpl", "--keep"]) == 2
    assert "did you mean 'fastai-mlp'?" in capsys.readouterr().err


def test_results_are_kept_and_only_missing_ones_are_measured(tmp_path):
    file, measured = tmp_path / "peers.json", []

    def measure(contest):
        measured.append(contest.name)
        return RESULTS[contest.name]

    arguments = ["--keep", "--json", str(file)]
    assert main(["skorch-mlp", *arguments], measure=measure) == 0
    assert main(arguments, measure=measure) == 0
    assert sorted(measured) == sorted(RESULTS)
    assert main(["skorch-mlp", *arguments], measure=measure) == 0
    assert measured.count("skorch-mlp") == 2
    assert {result["name"] for result in json.loads(file.read_text())} == set(RESULTS)


def test_the_page_has_a_row_for_each_result(tmp_path):
    loops, out = tmp_path / "loops.json", tmp_path / "speed.md"
    common = {"work": "a fit", "low": 0.9, "high": 1.1, "aim": 1.0}
    ratio = {**common, "name": "train-x", "baseline": "a loop", "ratio": 1.0}
    limit = {**common, "name": "fit-x", "unit": "ms", "value": 0.25}
    loops.write_text(json.dumps([ratio, limit]))
    arguments = ["--keep", "--loops", str(loops), "--page", str(out)]
    assert main(arguments, measure=lambda contest: RESULTS[contest.name]) == 0
    text = out.read_text()
    assert "| train-x | a fit | a loop | **1.00** (0.90 to 1.10) | 1 |" in text
    assert "| fit-x | a fit | **0.25** (0.90 to 1.10) ms | ≤ 1 ms |" in text
    assert text.count("**2.00** (1.50 to 2.50)") == len(CONTESTS)
    assert "It is reached in all contests." in text


def test_the_page_names_contests_that_miss_the_aim():
    common = {"work": "mlp, compiled", "low": 1.0, "high": 1.3, "aim": 1.2}
    reached = {**common, "name": "a-mlp-expert", "baseline": "a, eager", "ratio": 1.2}
    missed = {**common, "name": "b-mlp-expert", "baseline": "b, compiled", "ratio": 1.1}
    text = page([], [], [reached, missed])
    assert "It is missed in `b-mlp-expert` (1.10)." in text
    row = "| b-mlp-expert | mlp, compiled | b, compiled | **1.10** (1.00 to 1.30) | 1.2 |"
    assert row in text


def test_a_page_can_be_written_without_results():
    assert page([], [], []).startswith("# Training speed\n")


def test_a_worker_fits_a_new_model_for_each_line():
    prepared, output = [], StringIO()

    def prepare_fit():
        prepared.append("model")
        return lambda: FitStats(len(prepared), 7)

    serve(prepare_fit, StringIO("fit\nfit\n"), output)
    responses = [json.loads(line) for line in output.getvalue().splitlines()]
    stats = [(response["steps"], response["parameters"]) for response in responses]
    assert stats == [(1, 7), (2, 7)]
    assert all(response["seconds"] >= 0 for response in responses)


def test_the_faster_variant_of_each_contender_counts(monkeypatch):
    seconds = {
        ("ours", "EXPERT"): 2.0,
        ("ours", "COMPILED"): 1.0,
        ("keras", "EXPERT"): 3.0,
        ("keras", "COMPILED"): 4.0,
    }

    @contextmanager
    def worker(python, contender, variant, contest):
        # The first fit compiles: it is slow and must not count.
        fits = count()
        yield lambda: (
            seconds[contender, variant] if next(fits) else 100 / seconds[contender, variant],
            FitStats(400, 1000),
        )

    monkeypatch.setattr(contest, "worker", worker)
    actual = run_contest(Contest("keras", "mlp", expert=True), Path("python"))
    assert actual == Result(
        name="keras-mlp-expert",
        work="mlp, compiled",
        baseline="keras, eager",
        ratio=3.0,
        low=3.0,
        high=3.0,
        aim=1.2,
    )


@pytest.mark.parametrize(
    "other", [FitStats(399, 1000), FitStats(400, 1011)], ids=["steps", "parameters"]
)
def test_different_work_is_rejected(other):
    with pytest.raises(MipError, match="not the same work"):
        contest._check_same_work(CONTESTS[0], FitStats(400, 1000), other)
    contest._check_same_work(CONTESTS[0], FitStats(400, 1000), FitStats(400, 1005))


def test_a_variant_with_different_work_is_rejected(monkeypatch):
    @contextmanager
    def worker(python, contender, variant, contest):
        steps = 399 if (contender, variant) == ("keras", "COMPILED") else 400
        yield lambda: (1.0, FitStats(steps, 1000))

    monkeypatch.setattr(contest, "worker", worker)
    with pytest.raises(MipError, match="keras-mlp-expert: not the same work"):
        run_contest(Contest("keras", "mlp", expert=True), Path("python"))


def test_a_batch_is_indexed_at_once_and_every_row_occurs_once():
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


def test_every_expert_fit_starts_with_the_same_weights():
    net = torch.nn.Linear(2, 1)
    initial = net.weight.detach().clone()
    reset = workloads.make_reset(net, compiled=False)
    net(torch.ones(3, 2)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=1.0).step()
    assert not torch.equal(net.weight, initial)
    assert reset() is net
    assert torch.equal(net.weight, initial)
    assert net.weight.grad is None


def test_an_existing_environment_is_reused(tmp_path, monkeypatch):
    commands = []
    monkeypatch.setattr(environment, "_run", commands.append)
    (tmp_path / "ready").write_text((FOLDER / "keras" / "requirements.txt").read_text())
    assert environment.make_environment("keras", tmp_path) == tmp_path / "bin" / "python"
    assert not commands
    (tmp_path / "ready").write_text("keras==1.0")
    with pytest.raises(FileNotFoundError):  # the fake command has created nothing
        environment.make_environment("keras", tmp_path)
    assert commands == [[sys.executable, "-m", "venv", str(tmp_path)]]


@pytest.mark.slow
@pytest.mark.parametrize("expert", [False, True], ids=["tutorial", "expert"])
def test_a_contest_runs_in_processes(monkeypatch, tmp_path, expert):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    monkeypatch.setattr(contest, "TRIALS", 1)
    actual = run_contest(Contest("ours", "table", rounds=2, expert=expert), Path(sys.executable))
    assert actual.low <= actual.ratio <= actual.high


@pytest.mark.slow
def test_a_worker_that_fails_is_reported_with_its_log(monkeypatch, tmp_path):
    monkeypatch.setattr(contest, "LOGS", tmp_path)
    with (
        contest.worker(Path(sys.executable), "nobody", "TUTORIAL", CONTESTS[0]) as request,
        pytest.raises(MipError, match=r"No module named 'benchmarks\.peers\.nobody'"),
    ):
        request()
