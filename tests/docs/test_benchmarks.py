"""The harness of the benchmarks; what it measures is for machines at rest, not for tests."""

import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from attrs import evolve
from torch.nn.functional import cross_entropy, mse_loss

from benchmarks import by_hand, limits, mixed, once, table, train
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import Benchmark, Limit, gauge, measure, middle

KEYS = ["name", "work", "anchor", "ratio", "low", "high", "aim"]
FAKE = Benchmark(
    name="fake-sum",
    work="add up a few numbers",
    anchor="the same",
    aim=1.0,
    pair=lambda: (lambda: sum(range(9)), lambda: sum(range(9))),
    rounds=3,
    seconds=0.001,
)


def test_names_begin_with_their_area_and_are_unique():
    names = [each.name for each in BENCHMARKS]
    areas = {"pipe", "train", "compile", "checkpoint", "fit", "start"}
    assert {name.split("-")[0] for name in names} <= areas
    assert len(set(names)) == len(names)


def test_list_gives_a_line_for_each_and_runs_nothing(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [each.name for each in BENCHMARKS]


def test_the_name_of_an_area_is_that_of_all_in_it(capsys):
    assert main(["--list", "start"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [each.name for each in BENCHMARKS if each.name.startswith("start-")]
    assert len(names) > 5


def test_results_are_printed_and_written(tmp_path, capsys):
    file = tmp_path / "results.json"
    assert main(["fake-sum", "--json", str(file)], [FAKE]) == 0
    (result,) = json.loads(file.read_text())
    assert list(result) == KEYS
    assert result["low"] <= result["ratio"] <= result["high"]
    assert "fake-sum" in capsys.readouterr().out


def test_without_names_all_run(tmp_path):
    file = tmp_path / "results.json"
    other = evolve(FAKE, name="fake-other")
    assert main(["--json", str(file)], [FAKE, other]) == 0
    assert [each["name"] for each in json.loads(file.read_text())] == ["fake-sum", "fake-other"]


def test_an_unknown_name_is_one_line_with_the_nearest_and_exit_2(capsys):
    assert main(["fake-sun"], [FAKE]) == 2
    told = capsys.readouterr()
    text = "'fake-sun' is not a benchmark; did you mean 'fake-sum'? (known: fake-sum)"
    assert (told.out, told.err) == ("", f"benchmarks: {text}\n")


def test_the_command_line_exits_with_2():
    command = [sys.executable, "-m", "benchmarks", "train-mpl"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 2
    assert "did you mean 'train-mlp'?" in done.stderr


def test_the_ratio_is_above_one_when_the_anchor_is_slower():
    slower = evolve(FAKE, pair=lambda: (lambda: None, lambda: time.sleep(0.01)))
    assert measure(slower).ratio > 1


def test_contenders_take_turns():
    calls = []
    pair = (lambda: calls.append("ours"), lambda: calls.append("anchor"))
    measure(evolve(FAKE, pair=lambda: pair, rounds=2, seconds=0.0))
    warm = ["ours", "anchor", "anchor"]
    assert calls == [*warm, "anchor", "ours", "ours", "anchor"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_and_put_back(threads):
    before, seen = torch.get_num_threads(), []
    pair = (lambda: seen.append(torch.get_num_threads()), lambda: None)
    measure(evolve(FAKE, pair=lambda: pair, threads=threads, seconds=0.0))
    assert set(seen) == {threads}
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("benchmark", BENCHMARKS, ids=lambda each: each.name)
def test_every_benchmark_can_be_laid_out(benchmark):
    laid = benchmark.pair() if isinstance(benchmark, Benchmark) else [benchmark.lay()]
    assert all(map(callable, laid))


# Limits: numbers with a unit.

ROUNDS = [90.0, 3.0, 1.0, 2.0]
SIZE = Limit(
    "fake-size", "a list", "MB", aim=2.5, lay=lambda: partial(next, iter(ROUNDS)), rounds=3
)


def test_a_limit_is_the_median_of_its_rounds_without_the_first():
    found = gauge(SIZE)
    assert (found.value, found.low, found.high, found.aim) == (2, 1, 3, 2.5)


def test_limits_stand_in_a_table_after_the_ratios(tmp_path, capsys):
    file = tmp_path / "results.json"
    assert main(["--json", str(file)], [SIZE, FAKE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "times",
        "name",
        "fake-sum",
        "what",
        "name",
        "fake-size",
    ]
    assert lines[-1].split() == ["fake-size", "2.000", "1.000", "3.000", "2.500", "MB"]
    ratio, size = json.loads(file.read_text())
    assert list(ratio) == KEYS
    assert size == {"name": "fake-size", "work": "a list", "unit": "MB", **NUMBERS}


NUMBERS = {"value": 2.0, "low": 1.0, "high": 3.0, "aim": 2.5}


def test_the_time_before_a_step_of_a_small_pipe_is_small():
    assert limits._standing(1_000)() < 50


def test_memory_is_measured_in_a_process_of_its_own(monkeypatch):
    before = limits._resident()
    assert before > 1
    monkeypatch.setattr(limits, "MANY", 1_000)
    assert -1 < limits.photos() < 50


# By hand and ours: the same work.

NETWORKS = {"table": (table, 1024), "mixed": (mixed, 64)}
OPTIMIZERS = {"table": by_hand.FUSED, "mixed": mixed.ADAMW}


def _same_weights(net, state):
    # Both have the same layers in the same order; ours has a place for missing cells, of no size.
    own = [param for param in state.params.values() if param.numel()]
    named = list(net.named_parameters())
    assert [each.shape for each in own] == [each.shape for _, each in named]
    for each, (_, param) in zip(own, named, strict=True):
        param.data.copy_(each)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_by_hand_learns_as_ours_does(name):
    module, rows = NETWORKS[name]
    laid, net = module.laid(rows), module.Network()
    state = laid.start.state
    _same_weights(net, state)
    optimizer, columns = OPTIMIZERS[name](net.parameters()), module.columns(rows)
    for batch, _ in zip(laid.batches.iter_from(0), range(3), strict=False):
        state, metrics = laid.step(state, batch)
        own = [column[batch.row] for column in columns]
        loss = by_hand.step(net, optimizer, mse_loss, own)
        assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-3)


def test_the_mlp_by_hand_learns_as_ours_does():
    (step, state), net = train.ours(), train.mlp()
    optimizer = by_hand.FUSED(net.parameters())
    inputs, labels = train.rows(3 * train.BATCH)
    for part in zip(inputs.split(train.BATCH), labels.split(train.BATCH), strict=True):
        state, metrics = step(state, part)
        loss = by_hand.step(net, optimizer, cross_entropy, part)
        assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)


def test_a_loop_by_hand_takes_as_many_steps_and_checks_as_often_as_asked():
    seen, closed, rows = [], [], (torch.ones(10, 2), torch.ones(10, 1))

    def loss(logits, target):
        seen.append(len(target))
        return mse_loss(logits, target)

    start = torch.nn.Linear(2, 1)
    before = start.weight.clone()
    by_hand.loop(start, by_hand.DEFAULT, loss, rows, 4, epochs=2, close=closed.append)()
    assert seen == [4, 4, 2] * 2
    assert len(closed) == 2
    assert closed[0] is not start
    assert start.weight.equal(before)


def test_what_a_fit_takes_beyond_its_step_is_measured_with_its_hooks(monkeypatch, capsys):
    seen = []
    monkeypatch.setattr(once, "FITS", 3)
    once._beyond(lambda: [lambda event: seen.append(event.name)])()
    assert seen.count("after_fit") == seen.count("after_batch") == 3
    once._hooked()()
    assert capsys.readouterr().err == ""


def test_the_median_stands_between_its_quartiles():
    assert middle([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
