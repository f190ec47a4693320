"""The harness of the benchmarks. Speed itself is not tested: it needs an idle machine."""

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

from benchmarks import by_hand, mixed, overhead, pipe_limits, table, train
from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.harness import (
    Benchmark,
    Limit,
    measure_limit,
    measure_ratio,
    median_and_quartiles,
)

KEYS = ["name", "work", "baseline", "ratio", "low", "high", "aim"]
FAKE = Benchmark(
    name="fake-sum",
    work="add up a few numbers",
    baseline="the same",
    aim=1.0,
    pair=lambda: (lambda: sum(range(9)), lambda: sum(range(9))),
    rounds=3,
    seconds=0.001,
)


def test_names_begin_with_their_area_and_are_unique():
    names = [benchmark.name for benchmark in BENCHMARKS]
    areas = {"pipe", "train", "compile", "checkpoint", "fit", "start"}
    assert {name.split("-")[0] for name in names} <= areas
    assert len(set(names)) == len(names)


def test_list_prints_a_line_per_benchmark_and_runs_nothing(capsys):
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [benchmark.name for benchmark in BENCHMARKS]


def test_an_area_selects_all_of_its_benchmarks(capsys):
    assert main(["--list", "start"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [
        benchmark.name for benchmark in BENCHMARKS if benchmark.name.startswith("start-")
    ]
    assert len(names) > 5


def test_results_are_printed_and_written(tmp_path, capsys):
    file = tmp_path / "results.json"
    assert main(["fake-sum", "--json", str(file)], [FAKE]) == 0
    (result,) = json.loads(file.read_text())
    assert list(result) == KEYS
    assert result["low"] <= result["ratio"] <= result["high"]
    assert "fake-sum" in capsys.readouterr().out


def test_all_benchmarks_run_by_default(tmp_path):
    file = tmp_path / "results.json"
    other = evolve(FAKE, name="fake-other")
    assert main(["--json", str(file)], [FAKE, other]) == 0
    assert [result["name"] for result in json.loads(file.read_text())] == ["fake-sum", "fake-other"]


def test_an_unknown_name_is_reported_with_the_nearest_one_and_exits_with_2(capsys):
    assert main(["fake-sun"], [FAKE]) == 2
    output = capsys.readouterr()
    text = "'fake-sun' is not a benchmark; did you mean 'fake-sum'? (known: fake-sum)"
    assert (output.out, output.err) == ("", f"benchmarks: {text}\n")


@pytest.mark.slow
def test_the_process_exits_with_2_for_an_unknown_name():
    command = [sys.executable, "-m", "benchmarks", "train-mpl"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 2
    assert "did you mean 'train-mlp'?" in done.stderr


def test_the_ratio_is_above_one_if_the_baseline_is_slower():
    slower = evolve(FAKE, pair=lambda: (lambda: None, lambda: time.sleep(0.01)))
    assert measure_ratio(slower).ratio > 1


def test_contenders_take_turns():
    calls = []
    pair = (lambda: calls.append("ours"), lambda: calls.append("baseline"))
    measure_ratio(evolve(FAKE, pair=lambda: pair, rounds=2, seconds=0.0))
    warmup = ["ours", "baseline", "baseline"]
    assert calls == [*warmup, "baseline", "ours", "ours", "baseline"]


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_set_and_restored(threads):
    before, seen = torch.get_num_threads(), []
    pair = (lambda: seen.append(torch.get_num_threads()), lambda: None)
    measure_ratio(evolve(FAKE, pair=lambda: pair, threads=threads, seconds=0.0))
    assert set(seen) == {threads}
    assert torch.get_num_threads() == before


LARGE = ("pipe-photos", "pipe-shards", "start-new-", "start-check-")
"""The beginnings of the names of benchmarks whose data takes seconds to write."""


@pytest.mark.parametrize(
    "benchmark",
    [
        pytest.param(
            benchmark,
            marks=[pytest.mark.slow] if benchmark.name.startswith(LARGE) else [],
            id=benchmark.name,
        )
        for benchmark in BENCHMARKS
    ],
)
def test_every_benchmark_can_be_set_up(benchmark):
    work = benchmark.pair() if isinstance(benchmark, Benchmark) else [benchmark.set_up()]
    assert all(map(callable, work))


# Limits: numbers with a unit.

ROUNDS = [90.0, 3.0, 1.0, 2.0]
SIZE = Limit(
    "fake-size", "a list", "MB", aim=2.5, set_up=lambda: partial(next, iter(ROUNDS)), rounds=3
)


def test_a_limit_is_the_median_of_all_rounds_but_the_first():
    actual = measure_limit(SIZE)
    assert (actual.value, actual.low, actual.high, actual.aim) == (2, 1, 3, 2.5)


def test_limits_are_printed_in_a_table_after_the_ratios(tmp_path, capsys):
    file = tmp_path / "results.json"
    assert main(["--json", str(file)], [SIZE, FAKE]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        "times",
        "name",
        "fake-sum",
        "costs,",
        "name",
        "fake-size",
    ]
    assert lines[-1].split() == ["fake-size", "2.000", "1.000", "3.000", "2.500", "MB"]
    ratio, size = json.loads(file.read_text())
    assert list(ratio) == KEYS
    assert size == {"name": "fake-size", "work": "a list", "unit": "MB", **NUMBERS}


NUMBERS = {"value": 2.0, "low": 1.0, "high": 3.0, "aim": 2.5}


def test_seeking_in_a_small_pipe_takes_little_time():
    assert pipe_limits._seek(1_000)() < 50


def test_a_pipe_over_a_few_photos_takes_little_memory(monkeypatch):
    assert pipe_limits._resident_megabytes() > 1
    monkeypatch.setattr(pipe_limits, "N_PHOTOS", 1_000)
    assert -1 < pipe_limits.measure_photo_pipe() < 50


# The hand-written loops do the same work as ours.

NETWORKS = {"table": (table, 1024), "mixed": (mixed, 64)}
OPTIMIZERS = {"table": by_hand.FUSED_ADAM, "mixed": mixed.FUSED_ADAMW}


def _copy_weights(state, net):
    # Both have the same layers in the same order; ours has empty parameters for missing cells, too.
    sources = [param for param in state.params.values() if param.numel()]
    targets = list(net.parameters())
    assert [param.shape for param in sources] == [param.shape for param in targets]
    for source, target in zip(sources, targets, strict=True):
        target.data.copy_(source)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_hand_written_network_has_our_losses(name):
    module, n_rows = NETWORKS[name]
    job, net = module.make_job(n_rows), module.Network()
    state = job.start.state
    _copy_weights(state, net)
    optimizer, columns = OPTIMIZERS[name](net.parameters()), module.encoded_columns(n_rows)
    for batch, _ in zip(job.batches.iter_from(0), range(3), strict=False):
        state, metrics = job.step(state, batch)
        rows = [column[batch.row] for column in columns]
        loss = by_hand.step(net, optimizer, mse_loss, rows)
        assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-3)


def test_the_hand_written_mlp_has_our_losses():
    (step, state), net = train.make_step(), train.build_mlp()
    optimizer = by_hand.FUSED_ADAM(net.parameters())
    inputs, labels = train.random_digits(3 * train.BATCH_SIZE)
    batches = zip(inputs.split(train.BATCH_SIZE), labels.split(train.BATCH_SIZE), strict=True)
    for batch in batches:
        state, metrics = step(state, batch)
        loss = by_hand.step(net, optimizer, cross_entropy, batch)
        assert float(metrics["loss"]) == pytest.approx(loss.item(), rel=1e-5)


def test_a_hand_written_loop_runs_all_epochs_on_a_copy_of_the_network():
    sizes, nets, columns = [], [], (torch.ones(10, 2), torch.ones(10, 1))

    def loss(logits, target):
        sizes.append(len(target))
        return mse_loss(logits, target)

    net = torch.nn.Linear(2, 1)
    before = net.weight.clone()
    loop = by_hand.make_loop(
        net, by_hand.DEFAULT_ADAM, loss, columns, 4, epochs=2, after_epoch=nets.append
    )
    loop()
    assert sizes == [4, 4, 2] * 2
    assert len(nets) == 2
    assert nets[0] is not net
    assert net.weight.equal(before)


def test_the_overhead_of_a_fit_includes_its_hooks(monkeypatch, capsys):
    events = []
    monkeypatch.setattr(overhead, "FITS", 3)
    overhead._fit_overhead(lambda: [lambda event: events.append(event.name)])()
    assert events.count("after_fit") == events.count("after_batch") == 3
    overhead._hooked_fit_overhead()()
    monkeypatch.setattr(overhead, "EPOCHS", 5)
    assert overhead._long_history()() > 0
    assert capsys.readouterr().err == ""


def test_the_median_comes_before_the_quartiles():
    assert median_and_quartiles([3.0, 1.0, 2.0]) == (2.0, 1.0, 3.0)
