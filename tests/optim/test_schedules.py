"""Schedules equal those of torch, and work for any hyper-parameter."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from conftest import known
from hypothesis import given
from hypothesis import strategies as st
from test_optim import TEXT
from torch.optim import SGD
from torch.optim import lr_scheduler as T

import mip
from mip import optim as S
from mip.errors import MipError, MipWarning, SpecError
from mip.optim import Phase, ScheduleSpec
from mip.spec.kinds import plays

STEPS = 20
PAIRS = {
    "constant": (S.constant(1.0), lambda o: T.ConstantLR(o, factor=1.0)),
    "constant, then another": (
        S.sequential(
            [(0.25, lambda n: S.constant(0.3)), (0.75, lambda n: S.constant(1.0))],
            STEPS,
        ),
        lambda o: T.ConstantLR(o, factor=0.3, total_iters=5),
    ),
    "cosine": (S.cosine(1.0, STEPS, end=0.1), lambda o: T.CosineAnnealingLR(o, STEPS, 0.1)),
    "exponential": (S.exponential(1.0, 0.9), lambda o: T.ExponentialLR(o, 0.9)),
    "linear": (S.linear(0.2, 0.7, 8), lambda o: T.LinearLR(o, 0.2, 0.7, 8)),
    "multi_step": (
        S.multi_step(1.0, [3, 9, 9, 4]),
        lambda o: T.MultiStepLR(o, [3, 9, 9, 4]),
    ),
    "multi_step factor": (
        S.multi_step(1.0, [0, 7], 0.5),
        lambda o: T.MultiStepLR(o, [0, 7], 0.5),
    ),
    "one_cycle": (S.one_cycle(1.0, STEPS), lambda o: T.OneCycleLR(o, 1.0, STEPS)),
    "polynomial": (S.polynomial(1.0, 15), lambda o: T.PolynomialLR(o, 15)),
    "polynomial power": (S.polynomial(1.0, 15, 2.5), lambda o: T.PolynomialLR(o, 15, 2.5)),
    "warm_restarts": (
        S.warm_restarts(1.0, 6, end=0.1),
        lambda o: T.CosineAnnealingWarmRestarts(o, 6, eta_min=0.1),
    ),
    "warm_restarts longer": (
        S.warm_restarts(1.0, 3, 2),
        lambda o: T.CosineAnnealingWarmRestarts(o, 3, 2),
    ),
    "warm-up, then a fall": (
        S.sequential(
            [(0.2, partial(S.linear, 0.1, 1.0)), (0.8, partial(S.cosine, 1.0))],
            STEPS,
        ),
        lambda o: T.SequentialLR(
            o, [T.LinearLR(o, 0.1, 1.0, 4), T.CosineAnnealingLR(o, 16)], milestones=[4]
        ),
    ),
}


@pytest.mark.filterwarnings("ignore:The epoch parameter")
@pytest.mark.parametrize(("ours", "make"), PAIRS.values(), ids=PAIRS)
def test_twenty_steps_equal_torchs(ours, make):
    assert [ours(step) for step in range(STEPS)] == pytest.approx(torchs(make, STEPS), abs=1e-9)


@pytest.mark.parametrize("steps", [2, 3, 11, 100])
@pytest.mark.parametrize("share", [0.1, 0.3, 1.0])
def test_one_cycle_equals_torchs(steps, share):
    rates = torchs(lambda o: T.OneCycleLR(o, 1.0, total_steps=steps, pct_start=share), steps)
    ours = mip.one_cycle(1.0, steps, share)
    assert [ours(step) for step in range(steps)] == pytest.approx(rates, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 7, 50])
def test_cosine_equals_torchs(steps):
    rates = torchs(lambda o: T.CosineAnnealingLR(o, steps, eta_min=0.1), steps)
    ours = mip.optim.cosine(1.0, steps, end=0.1)
    assert [ours(step) for step in range(steps)] == pytest.approx(rates, abs=1e-9)


def torchs(make, steps: int) -> list[float]:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for step in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step < steps - 1:
            schedule.step()
    return rates


def test_up_and_down_by_halves():
    up, down = partial(S.cosine, 0.4, end=2.0), partial(S.cosine, 2.0, end=0.4)
    both = S.sequential([(0.5, up), (0.5, down)], 10)
    golden = [0.4, 0.5528, 0.9528, 1.4472, 1.8472, 2.0, 1.8472, 1.4472, 0.9528, 0.5528]
    assert [round(both(step), 4) for step in range(10)] == golden


def test_a_schedule_behind_its_end_stays_there():
    falling = [
        S.linear(1, 0.5, 4),
        S.polynomial(1, 4, 2, 0.5),
        S.cosine(1, 4, end=0.5),
    ]
    both = S.sequential([(0.5, lambda n: S.constant(1.0)), (0.5, partial(S.linear, 1, 0.5))], 8)
    assert [each(step) for each in [*falling, both] for step in (8, 100)] == [0.5] * 8


def test_warmup_rises_in_a_line_to_the_peak():
    for rate in (
        S.cosine(1.0, steps=10, warmup_steps=4),
        S.with_warmup(S.cosine(1.0, 6), 4),
    ):
        assert [rate(step) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert rate(7) == pytest.approx(0.5)


def test_warmup_of_the_inverse_root():
    rate = S.inverse_sqrt(2.0, 10)
    assert [rate(step) for step in (0, 4, 9, 39, 999)] == pytest.approx([0.2, 1.0, 2.0, 1.0, 0.2])
    assert S.inverse_sqrt(2.0, 0)(3) == 1.0


@pytest.mark.parametrize("shares", [[0.5, 0.4], [0.7, 0.7], []])
def test_shares_that_make_no_whole_are_refused(shares):
    with pytest.raises(ValueError, match="shares must add up to 1"):
        S.sequential([(share, S.constant) for share in shares], 10)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 60))
def test_parts_follow_each_other_and_fill_the_run(sizes, steps):
    shares = [size / sum(sizes) for size in sizes]
    parts = [(share, partial(lambda k, n: lambda step: k, k)) for k, share in enumerate(shares)]
    schedule = S.sequential(parts, steps)
    values = [schedule(step) for step in range(steps)]
    assert values == sorted(values)
    for k, share in enumerate(shares):
        assert abs(values.count(k) - share * steps) <= 1


def test_a_momentum_goes_the_other_way():
    momentum = S.sequential(
        [
            (0.3, partial(S.cosine, 0.95, end=0.85)),
            (0.7, partial(S.cosine, 0.85, end=0.95)),
        ],
        10,
    )
    one = mip.chain(mip.adamw(mip.one_cycle(0.1, 10), betas=(momentum, 0.99)))
    params, state = {"w": torch.ones(2)}, one.init({"w": torch.ones(2)})
    for step in range(10):
        _, state, params = one.update({"w": params["w"]}, state, params, step)
    assert 0 < float(params["w"][0]) < 1


# As a spec names them.

KINDS = {name: kind for name, kind in mip.KINDS.items() if plays(kind, ScheduleSpec)}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (S.Constant(), [2.0] * 5),
        (S.Constant(warmup=0.5), [2 / 3, 4 / 3, 2.0, 2.0, 2.0]),
        (S.Cosine(), [2.0, 2 * 0.853553, 1.0, 2 * 0.146447, 0.0]),
        (S.Cosine(warmup=0.5), [2 / 3, 4 / 3, 2.0, 1.0, 0.0]),
        (S.Cosine(end_factor=0.5), [2.0, 1 + 0.853553, 1.5, 1 + 0.146447, 1.0]),
        (S.Exponential(end_factor=1 / 16), [2.0, 1.0, 0.5, 0.25, 0.125]),
        (S.InverseSqrt(warmup=0.5), [1.0, 2.0, 2 * (2 / 3) ** 0.5, 2**0.5, 2 * 0.4**0.5]),
        (S.Linear(), [2.0, 1.5, 1.0, 0.5, 0.0]),
        (S.Linear(1.0, 0.5, 0.5), [2 / 3, 4 / 3, 2.0, 1.5, 1.0]),
        (S.MultiStep(milestones=[0.5, 0.75]), [2.0, 2.0, 0.2, 0.02, 0.02]),
        (S.MultiStep([0.5], 0.5, warmup=0.5), [2 / 3, 4 / 3, 2.0, 1.0, 1.0]),
        (S.OneCycle(warmup=0.5), [0.08, 2.0, 1.0, 0.0, 0.0]),
        (S.Polynomial(power=2.0), [2.0, 1.125, 0.5, 0.125, 0.0]),
        (S.WarmRestarts(cycles=2), [2.0, 1.0, 2.0, 1.0, 2.0]),
        (S.WarmRestarts(cycles=2, cycle_mul=2, end_factor=0.5), [2.0, 1.5, 2.0, 1.853553, 1.5]),
        (
            S.Sequential([Phase(0.5, S.Linear(0.0, 1.0)), Phase(0.5, S.Linear(), 0.5)]),
            [0.0, 1.0, 1.0, 0.5, 0.0],
        ),
    ],
    ids=str,
)
def test_a_schedule_of_a_spec_spans_the_run(kind, expected):
    rate = kind.schedule(2.0, 4)
    assert [rate(step) for step in range(5)] == pytest.approx(expected, abs=1e-4)


SEQUENTIAL = """
[train.schedule]
kind = "sequential"
[[train.schedule.part]]
share = 0.25
schedule = { kind = "linear", start_factor = 0.1, end_factor = 1.0 }
[[train.schedule.part]]
share = 0.75
schedule = { kind = "polynomial", power = 2.0 }
"""


@pytest.mark.parametrize("name", KINDS)
def test_a_spec_names_every_schedule(name):
    text = SEQUENTIAL if name == "sequential" else f'[train]\nschedule = {{ kind = "{name}" }}\n'
    spec = mip.parse(TEXT + text)
    assert mip.parse(mip.dump(spec)) == spec
    for steps in (1, 2, 7):
        rate = spec.train.schedule.schedule(0.1, steps)
        assert all(0 <= rate(step) <= 0.1 + 1e-9 for step in range(steps + 2))
        still = spec.train.schedule.schedule(0.0, steps)
        assert [still(step) for step in range(steps)] == [0.0] * steps


MISTAKES = {
    '[train]\nschedule = { kind = "cosin" }': (
        f"train.schedule.kind = 'cosin' is not a kind; did you mean 'cosine'? {known(ScheduleSpec)}"
    ),
    '[train]\nschedule = { kind = "multi_step", milestones = [0.5, 30] }': (
        "train.schedule.milestones must be fractions of the run, from 0 to 1: [0.5, 30.0]"
    ),
    '[train]\nschedule = { kind = "sequential", part = [] }': (
        "train.schedule.part must have at least 1 entry, not 0"
    ),
    SEQUENTIAL.replace("0.75", "0.5"): (
        "train.schedule.part must have shares that add up to 1: [0.25, 0.5]"
    ),
    SEQUENTIAL.replace("power", "powr"): (
        "train.schedule.part[1].schedule.powr is not a field; did you mean 'power'? "
        "(known: end_factor, power, warmup)"
    ),
    '[train]\nschedule = { kind = "linear", warmup = 1.0 }': (
        "train.schedule.warmup must be < 1: 1.0"
    ),
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_a_spec_is_named(text):
    with pytest.raises(SpecError) as caught:
        mip.parse(TEXT + text)
    assert str(caught.value) == MISTAKES[text]


@given(
    st.lists(st.floats(0.01, 9), max_size=30),
    st.integers(0, 4),
    st.sampled_from(["min", "max"]),
    st.sampled_from([0.0, 1e-4, 0.3]),
)
def test_a_plateau_is_that_of_torch(values, patience, mode, threshold):
    one = SGD([torch.zeros(1)], lr=1.0)
    how = {"factor": 0.5, "patience": patience, "mode": mode, "threshold": threshold}
    torchs = T.ReduceLROnPlateau(one, **how, eps=0.0)
    plateau = mip.optim.Plateau(0.5, patience, mode, threshold)
    for value in values:
        torchs.step(value)
        assert plateau.update(value) == one.param_groups[0]["lr"]


OLD_NAMES = {
    'kind = "cosine", end = 0.1': 'kind = "cosine", end_factor = 0.1',
    'kind = "exponential", end = 0.1': 'kind = "exponential", end_factor = 0.1',
    'kind = "linear", start = 0.5, end = 0.1': (
        'kind = "linear", start_factor = 0.5, end_factor = 0.1'
    ),
    'kind = "multi_step", at = [0.1], factor = 0.5': (
        'kind = "multi_step", milestones = [0.1], gamma = 0.5'
    ),
    'kind = "polynomial", end = 0.1': 'kind = "polynomial", end_factor = 0.1',
    'kind = "warm_restarts", factor = 2, end = 0.1': (
        'kind = "warm_restarts", cycle_mul = 2, end_factor = 0.1'
    ),
}
PART_OF_ONES_OWN = r"sequential: a part is a share and a function of its steps: \(0.5, lambda"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: S.sequential([(S.constant, 1.0)]), PART_OF_ONES_OWN),
        (lambda: S.sequential([(1.0, 0.1)]), PART_OF_ONES_OWN),
        (lambda: S.sequential([(1.0, S.constant(0.1))], 4), "wrap a schedule that is made already"),
        (lambda: S.inject_lr_factor(S.sgd(0.1)), "takes a function that makes an optimizer"),
        (lambda: S.adam("0.1"), "lr must be a number or a schedule, .* not '0.1'"),
        (lambda: S.sgd(T.StepLR), "lr must be a number or a schedule, .* not <class"),
        (lambda: S.sgd(0.1, momentum=None), "momentum must be a number or a schedule"),
    ],
)
def test_what_is_no_rate_is_said_when_it_is_made(make, message):
    with pytest.raises(MipError, match=message):
        make()


OLD_PART = 'kind = "joined", part = [{{ share = 1.0, peak = 0.5, schedule = {{ {} }} }}]'
PART = 'kind = "sequential", part = [{{ share = 1.0, lr_scale = 0.5, schedule = {{ {} }} }}]'


@pytest.mark.parametrize("old", OLD_NAMES)
def test_a_spec_of_version_1_has_other_names(old):
    old, new, text = old, OLD_NAMES[old], TEXT + "[train]\nschedule = {{ {} }}\n"
    for _ in range(3):
        expected = mip.parse(text.format(new))
        assert mip.parse("version = 1\n" + text.format(old)) == expected
        old, new = OLD_PART.format(old), PART.format(new)


def test_an_old_name_in_a_spec_without_a_version_is_a_warning():
    old = OLD_PART.format('kind = "constant"')
    with pytest.warns(MipWarning, match="'joined' is now 'sequential'.*'peak' is now .*lr_scale"):
        mip.parse(TEXT + f"[train]\nschedule = {{ {old} }}\n")
