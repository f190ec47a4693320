"""What a training can do, row by row of the capabilities that the library sets out to have.

W: batches, losses, one epoch, events and schedules; P: losses and histories of plain nets;
T: evaluation, prediction and steps of one's own; C: the loop over epochs.
"""

from __future__ import annotations

import copy
import json
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import bits
from toolz import pipe
from torch import nn
from torch.nn.functional import cross_entropy, l1_loss, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import mip
from mip.errors import DataError, MipError
from mip.hooks import console, limit, record, timing
from mip.optim import Optimizer, accumulate, cosine, linear, multi_step, sequential
from mip.train import NewBatch, Skip, Step, Stop, module, norms

X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
Y = X.sum(1)


def net_of(*sizes: int) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Linear(a, b) for a, b in pairwise(sizes)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def trained(batches, net=None, loss=mse_loss, optimizer=None, hooks=(), epochs=2, **options):
    step = mip.train_step(net or net_of(3, 1), loss, optimizer or mip.sgd(0.01), **options)
    return mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks)


BATCHES = pipe((X, Y), mip.batch(5))

# Batches.


def test_W01_two_lists_are_a_dataset():
    rows = mip.pipe.Pipe((list(range(10)), list(range(5, 15))))
    assert (len(rows), rows.row(0)) == (10, (0, 5))
    with pytest.raises(DataError, match="10 rows in '0' and 9 rows in '1'"):
        mip.pipe.Pipe((list(range(10)), list(range(9))))


def test_W06_batches_in_order_the_last_one_smaller():
    batches = pipe(list(range(10)), mip.batch(3))
    assert [rows.tolist() for rows in batches] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


def test_W07_a_new_permutation_in_every_epoch_the_same_for_the_same_seed():
    batches = pipe(list(range(10)), mip.sample(shuffle=True, seed=0), mip.batch(3))
    first, second = ([row for b in rows for row in b.tolist()] for _, rows in batches.epochs(2))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(10))
    assert [rows.tolist() for rows in batches.epoch(1)] == [[*second[:3]], *_thirds(second[3:])]


def _thirds(rows):
    return [rows[k : k + 3] for k in range(0, len(rows), 3)]


def test_W08_batches_are_stacked():
    source = ((torch.zeros(20, 3, 8, 8), torch.zeros(20, 7)), torch.zeros(20))
    (images, columns), target = pipe(source, mip.batch(16))[0]
    assert (images.shape, columns.shape, target.shape) == ((16, 3, 8, 8), (16, 7), (16,))


def test_W09_an_epoch_visits_every_row_once_again_and_again():
    batches = pipe((X, Y), mip.sample(shuffle=True), mip.batch(6))
    for _ in range(2):
        assert torch.cat([target for _, target in batches]).sort()[0].equal(Y.sort()[0])


def test_P31_mini_batches_are_shuffled_in_every_epoch():
    seen = []

    def note(event):
        if event.name == "before_batch":
            seen.append(event.batch[1].tolist())

    trained(pipe((X, Y), mip.sample(shuffle=True), mip.batch(10)), hooks=[note])
    assert seen[:2] != seen[2:]
    assert sorted(seen[0] + seen[1]) == sorted(seen[2] + seen[3])


def test_P32_one_batch_of_all_rows_is_full_batch_training():
    net = net_of(3, 1)
    expected = copy.deepcopy(net)
    for _ in range(5):
        gradients = torch.autograd.grad(
            mse_loss(expected(X).squeeze(1), Y), [*expected.parameters()]
        )
        with torch.no_grad():
            for param, grad in zip(expected.parameters(), gradients, strict=True):
                param -= 0.1 * grad
    state, _ = trained(pipe((X, Y), mip.batch(20)), net, optimizer=mip.sgd(0.1), epochs=5)
    for name, param in expected.named_parameters():
        torch.testing.assert_close(state.params[name], param.data)


def test_P33_a_table_of_batch_sizes():
    losses = {
        size: trained(pipe((X, Y), mip.batch(size)), epochs=1).history.epochs[-1]["loss"]
        for size in (4, 10, 20)
    }
    assert len(set(losses.values())) == 3


def test_P34_tensors_datasets_and_loaders_train_the_same():
    forms = [
        BATCHES,
        pipe(TensorDataset(X, Y), mip.batch(5)),
        pipe([*zip(X, Y, strict=True)], mip.batch(5)),
        DataLoader(TensorDataset(X, Y), batch_size=5),
        [(X[k : k + 5], Y[k : k + 5]) for k in range(0, 20, 5)],
    ]
    assert len({str(bits(trained(batches))) for batches in forms}) == 1


# Losses.


def test_W23_every_spelling_of_a_loss_is_the_same_and_none_broadcasts():
    spellings = [mse_loss, nn.MSELoss(), lambda p, y: ((p - y) ** 2).mean()]
    states = [trained(BATCHES, loss=loss) for loss in spellings]
    columns = trained(pipe((X, Y[:, None]), mip.batch(5)))
    for state in (*states[1:], columns):
        torch.testing.assert_close(state.params, states[0].params)
    for loss in spellings:
        for target in (torch.rand(20, 2), torch.rand(20, 5)):
            with pytest.raises(MipError, match=r"step 1, rows 0, .* would be broadcast"):
                trained(pipe((X, target), mip.batch(5)), loss=loss)
    square = nn.Linear(3, 4)
    for loss in spellings[1:]:
        with pytest.raises(
            MipError, match=r"\[4, 4\] and targets of shape \[4\] would be broadcast"
        ):
            trained(pipe((X, Y), mip.batch(4)), square, loss)
    quantiles = lambda p, y: (y[:, None] - p).abs().mean()  # noqa: E731
    assert trained(pipe((X, Y), mip.batch(4)), square, quantiles).step == 10


def test_W24_a_penalty_is_a_term_of_the_loss():
    net = net_of(3, 1)
    penalty = lambda loss: loss + 0.1 * sum(p.abs().sum() for p in net.parameters())  # noqa: E731
    plain = trained([(X, Y)], net_of(3, 1), epochs=1)
    step = mip.train_step(net, mse_loss, mip.sgd(0.01), map_loss=penalty)
    start = step.init()
    _, more = step(start, (X, Y))
    size = sum(param.abs().sum() for param in start.params.values())
    expected = plain.history.epochs[0]["loss"] + 0.1 * float(size)
    assert float(more["loss"]) == pytest.approx(expected, rel=1e-5)


def test_W25_gradients_have_the_shapes_of_the_parameters():
    seen = {}
    trained(BATCHES, map_grads=lambda grads: seen.update(grads) or grads)
    assert {name: grad.shape for name, grad in seen.items()} == {
        "0.weight": (1, 3),
        "0.bias": (1,),
    }


def test_W26_an_optimizer_of_ones_own():
    def update_(grads, state, params, step):
        return grads, state, {name: params[name] - 0.01 * grads[name] for name in params}

    mine = trained(BATCHES, optimizer=Optimizer(lambda params: (), update_))
    torch.testing.assert_close(mine.params, trained(BATCHES).params)


def test_W27_accumulated_batches_are_one_large_batch():
    small = trained(pipe((X, Y), mip.batch(5)), optimizer=accumulate(mip.sgd(0.01), 4))
    torch.testing.assert_close(small.params, trained([(X, Y)]).params)


def test_W28_an_epoch_trains_and_then_scores_the_held_out_rows():
    net, valid = net_of(3, 1), pipe((X + 1, Y), mip.batch(6))
    hooks = [mip.validate(net, valid, loss=mse_loss), limit(batches=2)]
    state, history = trained(BATCHES, net, hooks=hooks, epochs=1)
    assert history.steps["step"].tolist() == [1, 2]
    assert history.epochs[0]["valid/loss"] == pytest.approx(
        mip.evaluate(mip.module(net, state), valid, loss=mse_loss)["loss"]
    )


# Events.


def events_of(*hooks, epochs=1, batches=BATCHES):
    seen = []
    note = lambda event: seen.append(event.name)  # noqa: E731
    trained(batches, hooks=[*hooks, note], epochs=epochs)
    return seen


def test_W29_the_events_in_their_order():
    two = pipe((X, Y), mip.batch(10))
    batch = ["before_batch", "after_batch"]
    epoch = ["before_epoch", *batch, *batch, "before_validate", "validate", "after_validate"]
    assert events_of(batches=two) == ["before_fit", *epoch, "after_epoch", "after_fit"]
    within = []
    names = ("map_logits", "map_loss", "map_grads", "map_params")
    trained(two, epochs=1, **{n: lambda x, n=n: within.append(n) or x for n in names})
    assert within == [*names, *names]


@pytest.mark.parametrize("place", ["map_logits", "map_loss"])
def test_W30_a_batch_is_cancelled_after_its_predictions_or_its_loss(place):
    state, history = trained(BATCHES, epochs=1, **{place: lambda value: Skip.BATCH})
    assert bits(state.params) == bits(dict(net_of(3, 1).named_parameters()))
    assert history.steps["skipped"].tolist() == [1, 1, 1, 1]
    first = iter([Skip.BATCH])
    state, history = trained(BATCHES, epochs=1, **{place: lambda value: next(first, value)})
    assert history.steps["skipped"].tolist() == [1, 0, 0, 0]
    assert state.step == 4


def test_W30_an_epoch_and_a_fit_are_cancelled():
    at = lambda name, step, reply: (  # noqa: E731
        lambda event: reply if (event.name, event.step) == (name, step) else None
    )
    names = events_of(at("after_batch", 3, Skip.EPOCH))
    assert names.count("after_batch") == 3
    assert names[-5:] == [
        "before_validate",
        "validate",
        "after_validate",
        "after_epoch",
        "after_fit",
    ]
    names = events_of(at("after_batch", 3, Stop("enough")))
    assert names[-2:] == ["after_cancel_fit", "after_fit"]


def test_W31_an_epoch_and_a_validation_are_skipped():
    names = events_of(lambda event: Skip.EPOCH if event.name == "before_epoch" else None)
    assert "after_batch" not in names
    names = events_of(lambda event: Skip.VALIDATION if event.name == "before_validate" else None)
    assert "validate" not in names


def test_W32_a_hook_replaces_the_batch_and_the_state():
    twice = lambda event: (  # noqa: E731
        NewBatch((2 * event.batch[0], event.batch[1])) if event.name == "before_batch" else None
    )
    changed = trained(BATCHES, hooks=[twice])
    assert bits(changed) == bits(trained(pipe((2 * X, Y), mip.batch(5))))
    start = mip.train_step(net_of(3, 1), mse_loss, mip.sgd(0.01)).init()
    before = bits(start)
    again = lambda event: start if event.name == "after_epoch" else None  # noqa: E731
    assert bits(trained(BATCHES, hooks=[again]).params) == bits(start.params)
    assert bits(start) == before


def test_W33_values_of_hooks_are_in_the_history_at_the_end():
    largest = lambda event: (  # noqa: E731
        {"largest": float(event.batch[0].max())} if event.name == "after_batch" else None
    )
    sums = lambda event: {"double": 2 * event.metrics["loss"]} if event.name == "validate" else None  # noqa: E731
    _, history = trained(BATCHES, hooks=[largest, sums])
    assert history.steps["largest"].tolist() == pytest.approx(
        [float(x.max()) for _ in range(2) for x, _ in BATCHES]
    )
    assert [row["double"] for row in history.epochs] == [2 * r["loss"] for r in history.epochs]


def test_W34_a_net_trains_in_training_mode_and_is_scored_in_evaluation_mode():
    modes = []

    class Watched(nn.Linear):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    net = Watched(3, 1)
    trained([(X, Y)], net, hooks=[mip.validate(net, [(X, Y)], loss=mse_loss)], epochs=1)
    assert modes == [True, False]


def test_W35_batches_move_to_a_device():
    moved = pipe((X, Y), mip.batch(5), mip.to("cpu"))
    assert bits(trained(moved)) == bits(trained(BATCHES))


def test_W36_a_fit_ends_by_counts_and_by_patience():
    limited = trained(BATCHES, hooks=[limit(epochs=2, batches=3)], epochs=9)
    assert len(limited.history.steps["loss"]) == 6
    worse = lambda event: {"valid/loss": event.epoch} if event.name == "validate" else None  # noqa: E731
    stopped = trained(BATCHES, hooks=[worse, mip.early_stop("valid/loss", patience=2)], epochs=9)
    assert len(stopped.history.epochs) == 3


def test_W37_and_P08_about_ten_lines_for_any_number_of_epochs():
    for epochs in (10, 200):
        lines = []
        trained([(X, Y)], hooks=[console(lines.append)], epochs=epochs)
        assert 10 <= len(lines) - 1 <= 12
        assert lines[-1].split()[0] == str(epochs)


def test_W38_predictions_are_squeezed_by_a_function():
    squeezed = trained(BATCHES, map_logits=lambda logits: logits.squeeze(1))
    assert bits(squeezed) == bits(trained(BATCHES))


def test_W39_means_of_an_epoch_are_those_of_all_rows():
    uneven, net = pipe((X, Y), mip.batch(8)), net_of(3, 1)
    still = mip.sgd(0.0)
    mean = lambda p, y: (p - y).abs().mean()  # noqa: E731
    worst = (
        lambda: torch.zeros(()),
        lambda so_far, p, y: torch.maximum(so_far, (p - y).abs().max()),
        lambda so_far: so_far,
    )
    metrics = {"mae": mean, "worst": worst}
    hooks = [mip.validate(net, uneven, loss=mse_loss, metrics=metrics)]
    _, history = trained(uneven, net, optimizer=still, hooks=hooks, metrics=metrics)
    errors = (net(X).squeeze(1) - Y).detach().abs()
    for row in history.epochs:
        for part in ("", "valid/"):
            assert row[f"{part}mae"] == pytest.approx(float(errors.mean()), rel=1e-5)
            assert row[f"{part}worst"] == pytest.approx(float(errors.max()), rel=1e-5)
            assert row[f"{part}loss"] == pytest.approx(float((errors**2).mean()), rel=1e-5)


def test_a_metric_of_ones_own_is_not_called_before_the_first_epoch():
    rows = mip.from_columns({"x": [*range(20)], "y": [*range(20)]})
    text = 'branch.x = { kind = "continuous", columns = ["x"] }\nhead = { kind = "regression", '
    plan = mip.adapt(mip.parse(text + 'column = "y" }'), rows)
    steps = []
    own = {"own": lambda logits, target: steps.append(len(target)) or 0.0}
    valid = [plan.encode(rows)]
    hooks = [
        mip.validate(plan, valid, metrics=own),
        mip.early_stop("valid/own", patience=9, mode="min"),
    ]
    step = mip.train_step(mip.build(plan), plan.loss, mip.sgd(0.01))
    mip.fit(step, valid, step.init(), epochs=2, hooks=hooks)
    assert steps == [20, 20]
    misspelled = mip.early_stop("valid/mea", patience=9)
    with pytest.raises(MipError, match="did you mean 'valid/mae'"):
        mip.fit(step, valid, step.init(), epochs=2, hooks=[hooks[0], misspelled])


# Schedules.


def test_W41_and_W42_annealers_and_their_combination():
    up, down = (lambda n: cosine(0.4, n, end=2.0)), (lambda n: cosine(2.0, n, end=0.4))
    both = sequential([(0.5, up), (0.5, down)], steps=10)
    expected = [0.4, 0.5528, 0.9528, 1.4472, 1.8472, 2.0, 1.8472, 1.4472, 0.9528, 0.5528]
    assert [both(step) for step in range(10)] == pytest.approx(expected, abs=1e-4)
    assert [cosine(0.4, 2, end=2.0)(step) for step in range(3)] == pytest.approx([0.4, 1.2, 2.0])
    assert mip.optim.exponential(2.0, 0.2**0.5)(1) == pytest.approx(0.894427, abs=1e-6)


def test_W43_the_rates_of_every_step_are_in_the_history():
    lr, momentum = mip.one_cycle(0.1, 8), linear(0.9, 0.5, 8)
    optimizer = mip.sgd(lr, momentum, weight_decay=0.01)
    _, history = trained(BATCHES, optimizer=optimizer)
    assert history.steps["lr"].tolist() == [lr(step) for step in range(8)]
    assert history.steps["momentum"].tolist() == [momentum(step) for step in range(8)]
    assert history.steps["weight_decay"].tolist() == [0.01] * 8
    assert [row["lr"] for row in history.epochs] == [lr(3), lr(7)]
    groups = mip.optim.partition({"weight": mip.sgd(0.1), "bias": mip.sgd(lr)}, lambda p: p[2:])
    _, history = trained(BATCHES, optimizer=groups)
    assert history.steps["lr.weight"].tolist() == [0.1] * 8
    assert history.steps["lr.bias"].tolist() == [lr(step) for step in range(8)]


def test_a_schedule_spans_the_run_that_is_fitted():
    spanning, stated = (mip.sgd(mip.one_cycle(0.1, steps)) for steps in (None, 8))
    assert bits(trained(BATCHES, optimizer=spanning)) == bits(trained(BATCHES, optimizer=stated))
    loader = DataLoader(TensorDataset(X, Y), batch_size=5)
    assert bits(trained(loader, optimizer=spanning)) == bits(trained(BATCHES, optimizer=stated))
    step = mip.train_step(net_of(3, 1), mse_loss, spanning)
    half = mip.fit(step, BATCHES, step.init(), epochs=2, hooks=[limit(epochs=1)])
    whole = mip.fit(step, BATCHES, half, epochs=1)
    assert bits(whole) == bits(trained(BATCHES, optimizer=stated))
    stream = (lambda: (yield from BATCHES))()
    with pytest.raises(MipError, match="one_cycle: how long the run is was not said: give steps="):
        trained(stream, optimizer=spanning, epochs=1)


def test_T08_and_C08_the_rate_drops_before_the_epochs():
    drops = multi_step(0.001, [30 * 4, 60 * 4, 90 * 4])
    _, history = trained(BATCHES, optimizer=mip.adam(drops), epochs=120)
    rates = [row["lr"] for row in history.epochs]
    assert rates == pytest.approx([1e-3] * 30 + [1e-4] * 30 + [1e-5] * 30 + [1e-6] * 30)


# Histories, and what is done with a net.


def test_P16_P27_and_T19_the_history_is_data():
    net = net_of(3, 2)
    accuracy = lambda p, y: (p.argmax(1) == y).float().mean()  # noqa: E731
    batches = pipe((X, (Y > 0).long()), mip.batch(5))
    hooks = [
        mip.validate(net, batches, loss=cross_entropy, metrics={"accuracy": accuracy}),
        timing(),
    ]
    _, history = trained(batches, net, cross_entropy, hooks=hooks, metrics={"accuracy": accuracy})
    frame = pd.DataFrame(history.epochs)
    assert {"loss", "accuracy", "valid/loss", "valid/accuracy", "seconds", "lr"} <= {*frame}
    assert json.loads(json.dumps([dict(row) for row in history.epochs])) == [*history.epochs]
    assert "<table" in history._repr_html_()
    assert "tensor" not in repr(history)


def test_P18_the_best_state_scores_as_it_did():
    net, valid = net_of(3, 8, 1), pipe((X + 0.5, Y), mip.batch(7))
    hooks = [mip.validate(net, valid, loss=mse_loss), mip.hooks.restore_best("valid/loss")]
    state, history = trained(BATCHES, net, optimizer=mip.sgd(0.3), hooks=hooks, epochs=8)
    best = min(row["valid/loss"] for row in history.epochs)
    assert mip.evaluate(mip.module(net, state), valid, loss=mse_loss)["loss"] == best


def test_a_fit_returns_a_state_with_its_history():
    fitted = trained(BATCHES)
    state, history = fitted
    assert bits(fitted) == bits(state)
    assert fitted.history is history
    assert "tensor" not in repr(fitted)
    assert "<table" in fitted._repr_html_()
    step = mip.train_step(net_of(3, 1), mse_loss, mip.sgd(0.01))
    assert bits(mip.fit(step, BATCHES, fitted, epochs=1)) == bits(trained(BATCHES, epochs=3))


def test_the_net_holds_the_last_state_after_a_fit():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    state, _ = trained(BATCHES, net, optimizer=mip.adamw(0.1))
    held = dict(net.state_dict())
    assert all(held[name].equal(tensor) for name, tensor in (state.params | state.buffers).items())
    copied = module(net, state)
    assert copied is not net
    assert not copied.training
    assert bits(copied.state_dict()) == bits(net.state_dict())


def test_C06_losses_of_train_and_valid_rows_by_epoch():
    net, rows = net_of(3, 1), []
    trained(BATCHES, net, hooks=[mip.validate(net, BATCHES, loss=mse_loss), record(rows)])
    assert [sorted({"loss", "valid/loss"} & {*row}) for row in rows] == [["loss", "valid/loss"]] * 2


def test_C07_an_optimizer_class_of_torch():
    adamax = mip.optim.from_torch(torch.optim.Adamax, {"lr": 0.01})
    net = net_of(3, 1)
    theirs = torch.optim.Adamax(net.parameters(), lr=0.01)
    for x, y in BATCHES:
        theirs.zero_grad()
        mse_loss(net(x).squeeze(1), y).backward()
        theirs.step()
    torch.testing.assert_close(
        trained(BATCHES, optimizer=adamax, epochs=1).params, dict(net.named_parameters())
    )


def test_T01_one_call_for_regression_and_classification():
    classes = pipe((X, (Y > 0).long()), mip.batch(5))
    assert trained(BATCHES).step == trained(classes, net_of(3, 2), cross_entropy).step == 8


def test_T02_several_sets_each_with_metrics_of_its_own():
    net = net_of(3, 1)
    hooks = [
        mip.validate(net, BATCHES, "valid", loss=mse_loss),
        mip.validate(net, BATCHES, "test", metrics={"mae": lambda p, y: l1_loss(p, y)}),
    ]
    row = trained(BATCHES, net, hooks=hooks).history.epochs[-1]
    assert {"valid/loss", "test/mae"} <= {*row}
    assert not {"valid/mae", "test/loss"} & {*row}


def test_T13_a_step_of_ones_own_goes_through_the_same_fit():
    def halve(state, batch):
        params = {path: param / 2 for path, param in state.params.items()}
        return mip.train.State(params, {}, (), state.step + 1), {"size": params["w"].abs().sum()}

    rows = []
    start = mip.train.State({"w": torch.ones(2)}, {}, ())
    mip.fit(Step(halve), [torch.ones(1)] * 2, start, epochs=2, hooks=[record(rows)])
    assert [row["size"] for row in rows] == pytest.approx([0.75, 0.1875])


def test_T14_evaluation_changes_nothing():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1))
    before = bits(net.state_dict())
    scores = mip.evaluate(net, BATCHES, {"mae": lambda p, y: l1_loss(p, y)}, loss=mse_loss)
    assert {*scores} == {"loss", "mae"}
    assert bits(net.state_dict()) == before
    assert net.training
    assert net[1].training


def test_T15_predictions_keep_the_order_of_the_rows():
    net = net_of(3, 4, 2)
    together = mip.predict(net, X)
    assert together.shape == (20, 2)
    for batches in (BATCHES, pipe(X, mip.batch(1)), DataLoader(TensorDataset(X, Y), batch_size=7)):
        torch.testing.assert_close(mip.predict(net, batches), together)


def test_T17_the_fields_of_events():
    seen = {}
    note = lambda event: seen.update({event.name: event})  # noqa: E731
    trained(BATCHES, hooks=[timing(), note])
    assert {"loss", "lr"} <= {*seen["after_batch"].metrics}
    assert {"loss", "seconds"} <= {*seen["after_epoch"].metrics}
    assert (seen["after_epoch"].epoch, seen["after_epoch"].step) == (1, 8)


def test_T18_a_function_of_the_inputs():
    doubled = pipe((X, Y), mip.batch(5), mip.transform(lambda batch: (2 * batch[0], batch[1])))
    assert bits(trained(doubled)) == bits(trained(pipe((2 * X, Y), mip.batch(5))))


def test_T24_gradients_are_clipped():
    clipped = mip.chain(mip.clip_norm(1e-3), mip.sgd(1.0))
    state, _ = trained([(X, 100 * Y)], optimizer=clipped, epochs=1)
    start = dict(net_of(3, 1).named_parameters())
    moved = torch.cat([(state.params[k] - start[k]).flatten() for k in start])
    assert float(moved.detach().norm()) <= 1.001e-3
    assert "grad_norm" in trained(BATCHES, measure=norms).history.epochs[0]


# Regressions on known data.


def test_P04_to_P07_a_line_is_found_by_any_step():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(50, 1))
    y = 3 * x[:, 0] - 2
    rows = pipe((x, y), mip.batch(50))
    for optimizer in (mip.sgd(0.3), mip.adam(mip.one_cycle(0.2))):
        net = nn.Linear(1, 1)
        trained(rows, net, optimizer=optimizer, epochs=200)
        assert [net.weight.item(), net.bias.item()] == pytest.approx([3, -2], abs=0.05)
