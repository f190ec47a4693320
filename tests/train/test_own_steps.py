"""Steps of one's own: two networks that play against each other, and two losses on one encoder."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from attrs import evolve
from conftest import bits, fold
from toolz import pipe
from torch import nn
from torch.func import functional_call, grad_and_value

import mip
from mip.errors import MipError
from mip.hooks import limit, restore_best, timing
from mip.optim import adam, partition
from mip.rng import generator
from mip.train import State, Step, eval_step, norms

MEAN = 3.0
"""The mean of the numbers that the generator is to make."""


class Game(NamedTuple):
    """A generative adversarial net: its step, the pipe of real numbers, the first state."""

    step: Step
    batches: mip.pipe.Pipe
    start: State


def judging():
    return nn.Sequential(nn.Linear(1, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


def game(seed=0, rows=256):
    """Lay out a game over normal numbers: a line that makes them, a small net that judges them."""
    torch.manual_seed(0)
    nets = nn.ModuleDict({"generator": nn.Linear(1, 1), "discriminator": judging()})
    optimizers = {name: adam(2e-2, (0.5, 0.9)) for name in nets}
    real = MEAN + 0.5 * torch.randn(rows, 1, generator=torch.Generator().manual_seed(0))
    batches = pipe((real,), mip.sample(shuffle=True, seed=seed), mip.batch(64))
    start = mip.init(nets, partition(optimizers, lambda path: path.split(".")[0]), seed)
    return Game(Step(alternating(nets, optimizers)), batches, start)


def alternating(nets, optimizers):
    """Make the step that moves the discriminator, and then the generator against it."""

    def called(name, params, inputs):
        own = {k.removeprefix(f"{name}."): v for k, v in params.items() if k.startswith(name)}
        return functional_call(nets[name], own, inputs)

    def descended(state, name, loss):
        mine = {path: param for path, param in state.params.items() if path.startswith(name)}
        grads, value = grad_and_value(lambda own: loss(state.params | own))(mine)
        arguments = grads, state.optimizer[name], mine, state.step
        _, tree, moved = optimizers[name].update(*arguments)
        params, trees = state.params | moved, state.optimizer | {name: tree}
        return evolve(state, params=params, optimizer=trees), value

    def step(state, batch):
        noise = torch.randn(batch[0].shape, generator=generator("noise", state.seed, state.step))

        def mistaken(params):
            made = called("generator", params, noise)
            yes, no = (called("discriminator", params, x) for x in (batch[0], made))
            return (F.softplus(-yes) + F.softplus(no)).mean()

        state, against = descended(state, "discriminator", mistaken)
        state, behind = descended(state, "generator", lambda params: -mistaken(params))
        losses = {"generator": behind, "discriminator": against}
        return evolve(state, step=state.step + 1), losses

    return step


@pytest.fixture(scope="module")
def play():
    return game()


def test_each_network_has_parameters_and_an_optimizer_of_its_own(play):
    after, losses = play.step(play.start, next(play.batches.iter_from(0)))
    owners = {path.split(".")[0] for path in after.params}
    assert owners == after.optimizer.keys() == losses.keys() == {"generator", "discriminator"}
    for owner in owners:
        mine = [path for path in after.params if path.startswith(owner)]
        assert any(not torch.equal(after.params[path], play.start.params[path]) for path in mine)


@torch.no_grad()
def mistakes(state, real, noise):
    """Score the judge of a state, as a module, on real and made numbers."""
    judge = judging()
    own = {k: v for k, v in state.params.items() if k.startswith("discriminator.")}
    judge.load_state_dict({k.removeprefix("discriminator."): v for k, v in own.items()})
    made = F.linear(noise, state.params["generator.weight"], state.params["generator.bias"])
    return float((F.softplus(-judge(real)) + F.softplus(judge(made))).mean())


def test_the_generator_meets_a_discriminator_that_has_moved(play):
    first, (real,) = play.start, next(play.batches.iter_from(0))
    after, losses = play.step(first, (real,))
    noise = torch.randn(64, 1, generator=generator("noise", 0, 0))
    moved = {k: v for k, v in after.params.items() if k.startswith("discriminator.")}
    between = evolve(first, params=first.params | moved)
    before, then = mistakes(first, real, noise), mistakes(between, real, noise)
    assert float(losses["discriminator"]) == pytest.approx(before, rel=1e-6)
    assert float(losses["generator"]) == pytest.approx(-then, rel=1e-6)
    assert then < before
    assert then < mistakes(after, real, noise)


def test_the_pure_form_touches_nothing(play):
    batch = next(play.batches.iter_from(0))
    before, world = (bits(play.start), bits(batch)), torch.get_rng_state()
    first, second = play.step(play.start, batch), play.step(play.start, batch)
    assert bits(first[0]) == bits(second[0])
    assert bits(first[1]) == bits(second[1])
    assert (bits(play.start), bits(batch)) == before
    assert torch.equal(torch.get_rng_state(), world)


def test_a_fit_is_the_plain_fold(play):
    before = bits(play.start)
    ended = mip.fit(play.step, play.batches, play.start, epochs=3)
    assert bits(ended) == bits(fold(play.step, play.batches, play.start, 12))
    assert bits(play.start) == before


@pytest.mark.parametrize("cut", [1, 4, 6])
def test_a_game_goes_on_from_its_checkpoint_with_the_same_bytes(cut, play, tmp_path):
    hooks = [mip.checkpoint(tmp_path, every=1)]
    whole = mip.fit(play.step, play.batches, play.start, epochs=3)
    mip.fit(play.step, play.batches, play.start, steps=cut, hooks=hooks)
    anew = game()
    saved = mip.load_checkpoint(tmp_path / "last.safetensors", anew.start)
    assert saved.state.step == cut
    rest = mip.fit(anew.step, anew.batches, saved.state, steps=12 - cut, hooks=hooks)
    assert bits(rest) == bits(whole)
    other = evolve(saved.state, seed=1)  # other noise
    assert bits(mip.fit(anew.step, anew.batches, other, steps=12 - cut).params) != bits(
        whole.params
    )


def test_the_hooks_are_those_of_any_fit(play, tmp_path, capsys):
    rows, history = [], []
    keep = lambda event: history.append(event.history) if event.name == "after_fit" else None  # noqa: E731
    hooks = [
        mip.progress(total=80),
        mip.hooks.console(),
        mip.log(tmp_path / "history.jsonl"),
        mip.checkpoint(tmp_path, metric="generator", mode="min", keep_last=1),
        mip.early_stop("discriminator", patience=3, mode="min"),
        mip.hooks.record(rows),
        timing(),
        limit(epochs=15),
        restore_best("generator", mode="min"),
        keep,
    ]
    ended = mip.fit(play.step, play.batches, play.start, epochs=20, hooks=hooks)
    names = {"generator", "discriminator"}
    assert all(names < row.keys() for row in rows)
    assert history[0].steps.keys() == names | {"rows", "step"}
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["generator"] for line in lines] == [row["generator"] for row in rows]
    epoch = mip.metrics.best_epoch(history[0].epochs, "generator", "min")
    assert bits(ended.params) == bits(
        fold(play.step, play.batches, play.start, 4 * epoch + 4).params
    )
    best = mip.load_checkpoint(tmp_path / "best.safetensors", play.start)
    assert bits(best.state.params) == bits(ended.params)
    last = mip.metrics.best_epoch(history[0].epochs, "discriminator", "min")
    assert len(rows) == min(15, last + 4)
    assert "generator" in capsys.readouterr().out


def test_the_generator_comes_to_make_such_numbers(play):
    state = mip.fit(play.step, play.batches, play.start, epochs=100)
    assert abs(float(play.start.params["generator.bias"]) - MEAN) > 2
    noise = torch.randn(1000, 1, generator=torch.Generator().manual_seed(1))
    own = (state.params["generator.weight"], state.params["generator.bias"])
    made = F.linear(noise, *own)
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.5)
    assert 0.05 < float(made.std()) < 1.0


def test_a_step_that_does_not_count_is_named():
    batches = pipe((torch.zeros(4, 1),), mip.batch(2))
    start = State({"w": torch.zeros(1)}, {}, ())
    with pytest.raises(mip.MipError, match=r"step must return state.step \+ 1: expected 1, got 0"):
        mip.fit(Step(lambda state, batch: (state, {})), batches, start, epochs=1)


# Two losses on one encoder.


class Both(nn.Module):
    """Rebuild the inputs and tell their class from one code."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh())
        self.rebuilt, self.label = nn.Linear(3, 4), nn.Linear(3, 2)

    def forward(self, x):
        code = self.encoder(x)
        return {"rebuilt": self.rebuilt(code), "label": self.label(code)}


def parts(logits, target):
    """Both losses, by name."""
    return {
        "rebuilt": F.mse_loss(logits["rebuilt"], target["rebuilt"]),
        "label": F.cross_entropy(logits["label"], target["label"]),
    }


def both(logits, target):
    return sum(parts(logits, target).values())


@pytest.fixture
def rows():
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    return x, {"rebuilt": x, "label": (x[:, 0] > 0).long()}


def test_two_losses_train_one_encoder_and_are_measured_apart(rows, tmp_path):
    torch.manual_seed(0)
    net, optimizer, seen = Both(), adam(0.02), []
    step, start = mip.train_step(net, both, optimizer), mip.init(net, optimizer)
    batches, run = pipe(rows, mip.sample(shuffle=True), mip.batch(10)), eval_step(Both())

    def measured(event):
        if event.name == "validate":
            losses = parts(run(event.state, rows[0]), rows[1])
            return {f"valid/{name}": float(loss) for name, loss in losses.items()}
        return None

    hooks = [
        measured,
        mip.hooks.record(seen),
        mip.early_stop("valid/label", patience=9, mode="min"),
    ]
    ended = mip.fit(step, batches, start, epochs=15, hooks=hooks)
    assert bits(ended) == bits(fold(step, batches, start, ended.step))
    assert all(
        seen[-1][f"valid/{name}"] < seen[0][f"valid/{name}"] for name in ("rebuilt", "label")
    )
    both_last = seen[-1]["valid/rebuilt"] + seen[-1]["valid/label"]
    assert both_last == pytest.approx(float(both(run(ended, rows[0]), rows[1])))


@pytest.mark.filterwarnings("ignore:the net has 2 parameters that the loss does not depend on")
def test_the_encoder_gets_the_gradients_of_both(rows):
    torch.manual_seed(0)
    net, opt = Both(), mip.sgd(1.0)
    start = mip.init(net, opt)
    moved = {}
    for name, loss in {
        "both": both,
        "rebuilt": lambda logits, target: parts(logits, target)["rebuilt"],
        "label": lambda logits, target: parts(logits, target)["label"],
    }.items():
        after, _ = mip.train_step(net, loss, opt)(start, rows)
        moved[name] = {path: param - start.params[path] for path, param in after.params.items()}
    for path, whole in moved["both"].items():
        torch.testing.assert_close(whole, moved["rebuilt"][path] + moved["label"][path])
    assert all(float(moved[name]["encoder.0.weight"].abs().sum()) > 0 for name in moved)


def test_logits_may_be_a_tuple(rows):
    class Pair(Both):
        def forward(self, x):
            return tuple(super().forward(x).values())

    torch.manual_seed(0)
    net, opt = Pair(), mip.sgd(0.1)
    as_dict = Both()
    as_dict.load_state_dict(net.state_dict())
    loss = lambda logits, target: both(dict(zip(target, logits, strict=True)), target)  # noqa: E731
    after, _ = mip.train_step(net, loss, opt)(mip.init(net, opt), rows)
    expected, _ = mip.train_step(as_dict, both, opt)(mip.init(as_dict, opt), rows)
    assert bits(after) == bits(expected)


@pytest.mark.parametrize("names", [["loss", "mae"], [], ["mae"]])
def test_metrics_that_change_between_steps_are_named(names):
    # The second epoch is compared with the first, too.
    def changing(state, batch):
        measured = ["loss"] if state.step < 3 else names
        return evolve(state, step=state.step + 1), dict.fromkeys(measured, 1.0)

    message = rf"every time: {', '.join(names)} in step 4, loss before it"
    with pytest.raises(MipError, match=message):
        mip.fit(Step(changing), [torch.ones(1)] * 2, State({}, {}, ()), epochs=2)


def test_a_first_step_that_is_skipped_does_not_say_what_the_others_measure():
    net = nn.Linear(2, 1)
    large = lambda loss: mip.Skip.BATCH if loss > 100 else loss  # noqa: E731
    step = mip.train_step(net, F.mse_loss, mip.sgd(0.1), measure=norms, map_loss=large)
    batches = [(torch.ones(3, 2), torch.full((3,), y)) for y in (1e3, 1.0)]
    _, history = mip.fit(step, batches, step.init(), epochs=2)
    assert history.steps["grad_norm"].isnan().tolist() == [True, False] * 2
