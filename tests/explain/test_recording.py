"""Looking inside: what is recorded agrees with numpy, and nothing is left behind."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torchvision
from conftest import bits, fold, set_up, spec_of
from hypothesis import given
from hypothesis import strategies as st
from mixed_model import mixed
from torch import nn

import mip
from mip.branches.categorical import Embeddings
from mip.errors import MipError
from mip.explain import (
    histograms,
    layers,
    record_activations,
    to_frame,
)
from mip.explain.recording import Record, statistics
from mip.plots import activation_histograms, activations
from mip.train import eval_step


def mlp():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Sequential(nn.Linear(4, 2), nn.ReLU()))


class Twice(nn.Module):
    """One ReLU, run twice in a pass."""

    def __init__(self):
        super().__init__()
        self.first, self.relu, self.last = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)

    def forward(self, x):
        return self.last(self.relu(self.first(self.relu(x))))


class Several(nn.Module):
    def forward(self, x):
        return {"a": x, "b": (x + 1, None), "c": 3}


class Failing(nn.Module):
    def forward(self, x):
        raise RuntimeError("no")


def calls_of(records):
    return [(record.path, record.pass_, record.call) for record in records]


def hooked(net):
    return [
        path
        for path, part in net.named_modules()
        for kept in (
            part._forward_hooks,
            part._forward_pre_hooks,
            part._forward_hooks_always_called,
            part._forward_hooks_with_kwargs,
        )
        if kept
    ]


# Which layers.


def test_the_mixed_model_has_so_many_layers_of_a_type():
    net = mip.build(mip.adapt(*mixed()))
    assert len(layers(net, nn.ReLU)) == 22
    assert len(layers(net, nn.Conv2d)) == 36
    assert layers(net, nn.Conv2d) == layers(net, nn.Conv2d)
    leaves = [path for path, _ in layers(net)]
    assert "photos.net.backbone.cut.layer1.0.conv1" in leaves
    assert len(leaves) == len(set(leaves))
    every = [path for path, _ in layers(net, containers=True)]
    assert set(leaves) < set(every)
    assert every[:2] == ["", "body"]


def test_layers_are_chosen_by_pattern_and_type():
    net, x = mlp(), torch.ones(2, 3)
    for arguments, expected in [
        ({}, ["0", "1", "2.0", "2.1"]),
        ({"match": "2.*"}, ["2.0", "2.1"]),
        ({"types": nn.ReLU}, ["1", "2.1"]),
        ({"match": "2.*", "types": (nn.ReLU, nn.Tanh)}, ["2.1"]),
        ({"types": [nn.Linear]}, ["0", "2.0"]),
        ({"types": nn.Sequential, "containers": True}, ["2", ""]),
        ({"match": "2", "containers": True}, ["2"]),
    ]:
        with record_activations(net, **arguments) as records:
            net(x)
        assert [record.path for record in records] == expected


def test_patterns_speak_of_layers_as_the_groups_of_a_spec_do(table):
    plan = mip.adapt(spec_of(), table)
    net = mip.build(plan)
    with record_activations(net, "photos.*") as records:
        net(plan.example())
    paths = {record.path for record in records}
    assert "photos.backbone.0" in paths
    assert all(path.startswith("photos.") for path in paths)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            {"match": "2.2"},
            "'2.2' matches no layer; did you mean '2.1'? (known: 0, 1, 2.0, 2.1)",
        ),
        (
            {"match": "2"},
            "'2' matches no layer; modules that hold others need "
            "containers=True; did you mean '2.1'? (known: 0, 1, 2.0, 2.1)",
        ),
        (
            {"types": nn.LeakyReLU},
            "no layer is a LeakyReLU; did you mean 'ReLU'? (known: Linear, ReLU)",
        ),
        (
            {"types": (nn.Tanh, nn.GELU)},
            "no layer is a Tanh or GELU (known: Linear, ReLU)",
        ),
        (
            {"types": nn.Sequential},
            "no layer is a Sequential; modules that hold others need "
            "containers=True (known: Linear, ReLU)",
        ),
        ({"types": "ReLU"}, "types are classes, such as types=nn.ReLU, and not 'ReLU'"),
        ({"types": [nn.ReLU()]}, "types are classes, such as types=nn.ReLU, and not 'ReLU'"),
        (
            {"match": nn.ReLU},
            f"match is a pattern of paths as text, not {nn.ReLU}: classes are given by types=",
        ),
        (
            {"match": ["0"]},
            "match is a pattern of paths as text, not ['0']: one of `layers`, or '*.relu'",
        ),
        ({"record": "mean"}, "record is a function of a layer's output, not 'mean'"),
        (
            {"bins": 0},
            "bins must be >= 1 and span low < high, not 0 and (0.0, 10.0)",
        ),
        (
            {"span": (1, 1)},
            "bins must be >= 1 and span low < high, not 40 and (1, 1)",
        ),
    ],
)
def test_what_cannot_be_probed_is_named(arguments, text):
    net = mlp()
    with pytest.raises(MipError) as caught, record_activations(net, **arguments):
        pytest.fail("the block must not run")
    assert str(caught.value) == text
    assert not hooked(net)


# What is recorded.

# Halves of 32nds are float32 numbers that lie on no edge of a bin.
numbers = st.lists(st.integers(-200, 500), min_size=2, max_size=40)


@given(st.lists(numbers, min_size=1, max_size=4), st.integers(1, 3))
def test_numbers_and_histograms_agree_with_numpy_over_uneven_batches(batches, width):
    net, seen = nn.ReLU(), []
    with record_activations(net) as records:
        for batch in batches:
            rows = np.array(batch[: len(batch) // width * width]).reshape(-1, width)
            seen.append(net(torch.tensor((rows + 0.5) / 32, dtype=torch.float32)).numpy())
    rows = to_frame(records)
    assert list(rows["pass"]) == list(range(len(batches)))
    for expected, got in zip(seen, rows.to_dict("records"), strict=True):
        if expected.size:
            np.testing.assert_allclose(got["mean"], expected.mean(dtype=float), rtol=1e-5)
            np.testing.assert_allclose(got["std"], expected.std(dtype=float), rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(got["zeros"], (expected == 0).mean(), rtol=1e-6)
            np.testing.assert_allclose(got["dead"], (expected == 0).all(axis=0).mean(), rtol=1e-6)
    columns = [np.histogram(expected, 40, (0, 10))[0] for expected in seen]
    assert np.array_equal(histograms(records)[""].numpy(), np.stack(columns, axis=1))


@given(
    st.lists(st.floats(width=32), max_size=30),
    st.integers(1, 50),
    st.floats(-20, 20),
    st.floats(0.5, 30),
)
def test_a_column_sums_to_what_lies_within_the_span(values, bins, low, wide):
    net, span = nn.Identity(), (low, low + wide)
    with record_activations(net, bins=bins, span=span) as records:
        net(torch.tensor(values, dtype=torch.float64))
    values = np.array(values)
    within = (values >= span[0]) & (values <= span[1])
    counts = histograms(records)[""]
    assert counts.shape == (bins, 1)
    assert counts.sum() == within.sum()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64, torch.bool])
def test_other_dtypes_are_summed_as_float32(dtype):
    seen = statistics(torch.tensor([[0, 1], [0, 1]]).to(dtype))
    assert (seen.mean, seen.std, seen.zeros, seen.dead) == (0.5, 0.5, 0.5, 0.5)
    assert seen.numbers.dtype is torch.float32
    assert (int(seen.counts.sum()), seen.counts.dtype) == (4, torch.int64)


def test_no_rows_and_one_number_have_statistics_too():
    none, single = statistics(torch.zeros(0, 3)), statistics(torch.tensor(2.0))
    assert np.isnan([none.mean, none.std, none.zeros, none.dead]).all()
    assert not none.counts.any()
    assert (single.mean, single.std, single.zeros, single.dead) == (2.0, 0.0, 0.0, 0.0)


def test_a_bin_counts_past_what_a_float_can(monkeypatch):
    monkeypatch.setattr("mip.explain.recording._EXACT", 3)
    assert statistics(torch.zeros(2, 5), bins=2).counts.tolist() == [10, 0]


def test_a_rule_of_deterministic_algorithms_holds_again_afterwards():
    torch.set_deterministic_debug_mode("warn")
    try:
        statistics(torch.ones(3))
        assert torch.get_deterministic_debug_mode() == 1
    finally:
        torch.set_deterministic_debug_mode("default")


def test_a_module_used_twice_gives_two_records():
    net = Twice()
    with record_activations(net) as records:
        for _ in range(2):
            net(torch.ones(2, 3))
    calls = [("relu", 0), ("first", 0), ("relu", 1), ("last", 0)]
    assert calls_of(records) == [(path, k, call) for k in range(2) for path, call in calls]
    counts = histograms(records)["relu"]
    assert counts.sum(dim=0).tolist() == [12, 12]


def test_six_batches_through_a_resnet34_give_twelve_records_of_each_shared_relu():
    net = torchvision.models.resnet34().eval()
    with torch.no_grad(), record_activations(net, types=nn.ReLU) as records:
        for _ in range(6):
            net(torch.zeros(1, 3, 32, 32))
    counts = to_frame(records).groupby("path").size()
    assert sorted(counts) == [6] + [12] * 16
    assert counts["relu"] == 6
    shared = [record for record in records if record.path == "layer3.5.relu"]
    assert [(record.pass_, record.call) for record in shared] == [
        (k // 2, k % 2) for k in range(12)
    ]
    assert {name: counts.shape for name, counts in histograms(records).items()} == dict.fromkeys(
        counts.index, (40, 6)
    )


def test_tensors_of_dicts_and_tuples_are_recorded_by_leaf():
    net = nn.Sequential(nn.Identity(), Several())
    with record_activations(net) as records:
        net(torch.zeros(2, 3))
    assert calls_of(records) == [("0", 0, 0), ("1/a", 0, 0), ("1/b/0", 0, 0)]
    assert [record.value.mean for record in records] == [0.0, 0.0, 1.0]
    with record_activations(net, "1", record=lambda output: sorted(output)) as records:
        net(torch.zeros(2, 3))
    assert [(record.path, record.value) for record in records] == [("1", ["a", "b", "c"])]


def test_a_function_of_ones_own_gives_a_value_per_call():
    net, x = mlp(), torch.ones(2, 3)
    with record_activations(net, types=nn.ReLU, record=lambda output: output.max()) as records:
        out = net(x)
    rows = to_frame(records)
    assert list(rows.columns) == ["path", "pass", "call", "training", "value"]
    assert rows["value"].iloc[-1] == out.max().item()
    assert not any(record.value.requires_grad for record in records)
    with record_activations(
        net, "1", record=lambda output: {"low": output.min(), "rows": 2}
    ) as records:
        net(x)
    assert list(to_frame(records).columns[4:]) == ["low", "rows"]


def test_a_function_that_fails_is_named_by_its_layer():
    net = mlp()
    with (
        pytest.raises(ZeroDivisionError) as caught,
        record_activations(net, "2.0", record=lambda _: 1 / 0),
    ):
        net(torch.ones(2, 3))
    assert caught.value.__notes__ == ["while recording 2.0"]
    assert not hooked(net)


def test_calls_outside_of_a_pass_are_told_apart():
    net = mlp()
    with record_activations(net, "0") as records:
        net[0](torch.ones(1, 3))
        net(torch.ones(1, 3))
        net[0](torch.ones(1, 3))
    assert calls_of(records) == [("0", -1, 0), ("0", 0, 0), ("0", -1, 1)]


def test_a_pass_that_fails_is_one_too():
    net = nn.Sequential(nn.Identity(), Failing())
    with record_activations(net, "0") as records:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="no"):
                net(torch.ones(1))
        net[0](torch.ones(1))
    assert calls_of(records) == [("0", 0, 0), ("0", 1, 0), ("0", -1, 0)]


def test_a_layer_in_evaluation_mode_is_told_apart():
    net = mlp()
    with record_activations(net, "0") as records:
        net(torch.ones(1, 3))
        net.eval()(torch.ones(1, 3))
    assert list(to_frame(records)["training"]) == [True, False]


def test_the_net_itself_may_be_a_layer():
    net = nn.Linear(2, 2)
    with record_activations(net) as records:
        net(net(torch.ones(1, 2)))
    assert calls_of(records) == [("", 0, 0), ("", 1, 0)]


def test_what_a_layer_gave_is_recorded_before_the_next_writes_into_it():
    net = nn.Sequential(nn.Identity(), nn.ReLU(inplace=True))
    with record_activations(net) as records:
        net(torch.tensor([-1.0, 1.0]))
    assert [record.value.mean for record in records] == [0.0, 0.5]


def test_records_of_nothing_are_an_empty_table():
    with record_activations(mlp()) as records:
        pass
    assert list(to_frame(records).columns[:5]) == ["path", "pass", "call", "training", "mean"]
    assert histograms(records) == {}


# Nothing is left behind.


def test_after_the_block_nothing_is_left():
    net, x = mlp(), torch.ones(2, 3)
    with record_activations(net, containers=True) as records:
        assert hooked(net)
        net(x)
    count = len(records)
    net(x)
    assert len(records) == count == 6
    assert not hooked(net)


def test_after_an_exception_nothing_is_left():
    net = mlp()
    mine = net[0].register_forward_hook(lambda *_: None)
    with pytest.raises(RuntimeError, match="no"), record_activations(net) as records:
        Failing()(net(torch.ones(2, 3)))
    assert len(records) == 4
    assert hooked(net) == ["0"]
    assert list(net[0]._forward_hooks) == [mine.id]


def test_recording_nest_and_stack():
    net, x = mlp(), torch.ones(2, 3)
    with record_activations(net, "0") as outer:
        net(x)
        with record_activations(net, "0") as inner, record_activations(net[2]) as below:
            net(x)
        net(x)
    assert calls_of(outer) == [("0", 0, 0), ("0", 1, 0), ("0", 2, 0)]
    assert calls_of(inner) == [("0", 0, 0)]
    assert calls_of(below) == [("0", 0, 0), ("1", 0, 0)]
    assert not hooked(net)


def test_a_copy_made_inside_the_block_is_not_looked_at():
    net = mlp()
    with record_activations(net) as records:
        copy.deepcopy(net)(torch.ones(2, 3))
    assert not records


def test_what_is_compiled_inside_the_block_is_not_looked_at(monkeypatch):
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    net = mlp()
    with record_activations(net) as records:
        net(torch.ones(2, 3))
    assert not records


def test_outputs_gradients_and_random_state_are_what_they_would_have_been():
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5), nn.ReLU()), torch.ones(4, 3)

    def ran():
        torch.manual_seed(1)
        out = net(x)
        grads = torch.autograd.grad(out.sum(), list(net.parameters()))
        return bits((out, grads, torch.get_rng_state()))

    plain = ran()
    with record_activations(net):
        assert ran() == plain
    with record_activations(
        net, record=lambda output: output.flatten()[torch.randperm(3)]
    ) as records:
        assert ran() == plain
        assert ran() == plain
    assert ran() == plain
    assert torch.equal(records[0].value, records[3].value)


# Inside steps and fits.


def values(records):
    return [
        (record.path, record.call, bits((record.value.numbers, record.value.counts)))
        for record in records
    ]


def test_a_pure_step_taken_twice_gives_the_same_records(table):
    setup = set_up(spec_of(), table)
    batch = next(setup.batches.iter_from(0))
    before = bits(dict(setup.net.named_parameters()))
    with record_activations(setup.net) as records:
        setup.step(setup.state, batch)
        half = len(records)
        setup.step(setup.state, batch)
    assert half
    assert values(records[:half]) == values(records[half:])
    assert {record.pass_ for record in records[half:]} == {1}
    assert bits(dict(setup.net.named_parameters())) == before


def test_a_probe_sees_the_passes_of_a_fit_and_changes_none(table):
    plain, setup = set_up(spec_of(), table), set_up(spec_of(), table)
    with record_activations(setup.net, "head.*") as records:
        after = mip.fit(setup.step, setup.batches, setup.state, steps=5)
    assert bits(after) == bits(fold(plain.step, plain.batches, plain.state, 5))
    assert {record.pass_ for record in records} == set(range(5))
    means = [record.value.mean for record in records if record.path == "head.0"]
    assert len(set(means)) == 5
    assert not hooked(setup.net)


def test_an_evaluation_is_seen_with_the_states_weights(table):
    setup = set_up(spec_of(), table)
    state = mip.fit(setup.step, setup.batches, setup.state, steps=2)
    net = mip.build(setup.plan, seed=9)
    run, inputs = eval_step(net), next(setup.batches.iter_from(0))[0]
    plain = run(state, inputs)
    with record_activations(net, "head", containers=True) as records:
        assert torch.equal(run(state, inputs), plain)
    (record,) = records
    assert not record.training
    assert record.value.mean == pytest.approx(float(plain.mean()))


# Drawings.


@pytest.fixture
def records():
    net = Twice()
    with record_activations(net) as records:
        for _ in range(3):
            net(torch.rand(5, 3))
    return records


@pytest.mark.parametrize("plot", [activations, activation_histograms])
def test_a_drawing_has_a_panel_for_each_layer(plot, records, tmp_path):
    drawn = plot(records, path=tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    shown = [axes.get_title(loc="left") for axes in drawn.axes if axes.get_visible()]
    titles = [title.split()[0] for title in shown]
    assert titles == ["relu", "first", "last"]
    assert drawn.get_supxlabel() == "pass"
    assert drawn.get_supylabel() == "activation"
    legends = [text.get_text() for legend in drawn.legends for text in legend.get_texts()]
    assert legends == (["call 0", "call 1"] if plot is activations else [])


@pytest.mark.parametrize("plot", [activations, activation_histograms])
def test_some_of_the_records_are_drawn_in_their_places(plot, records, tmp_path):
    plot([record for record in records if record.pass_ != 1], path=tmp_path / "a.png")
    plot(records[:1], path=tmp_path / "b.png")
    assert len(list(tmp_path.glob("*.png"))) == 2


@pytest.mark.parametrize("plot", [activations, activation_histograms])
def test_what_cannot_be_drawn_is_said(plot):
    with pytest.raises(MipError) as caught:
        plot([])
    assert str(caught.value) == "no records to draw: nothing ran inside the block"
    with pytest.raises(MipError) as caught:
        plot([Record("head.0", 0, 0, True, 1.0)])
    assert str(caught.value) == (
        "head.0: the record holds a value of your own (float) and no statistics: "
        "record_activations without record="
    )


@pytest.mark.parametrize("training", [False, True])
def test_tables_that_training_joins_are_recorded_one_by_one(training):
    net = Embeddings([3, 4], [2, 2], 0.0).train(training)
    codes = torch.tensor([[0, 3], [2, 1], [1, 1]])
    assert net.joined
    expected = net(codes)
    with record_activations(net, types=nn.Embedding, record=lambda output: output) as records:
        assert torch.equal(net(codes), expected)
    assert [each.path for each in records] == ["tables.0", "tables.1"]
    assert torch.equal(torch.cat([each.value for each in records], dim=1), expected)
