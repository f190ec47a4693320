"""Losses, metrics and nets of the user's: what is right in torch is right here, and what is not is
named."""

from functools import partial
from itertools import pairwise

import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss

import mip
from mip import MipError
from mip.hooks import reduce_lr_on_plateau, restore_best
from mip.metrics import direction

X = torch.linspace(-1, 1, 80).reshape(20, 4)
Y = (X.sum(1) + 2) ** 2 / 10
BATCHES = pipe((X, Y), mip.batch(5))


def net_of(*sizes):
    torch.manual_seed(0)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))


def trained(batches=BATCHES, net=None, loss=mse_loss, epochs=2, hooks=(), **options):
    step = mip.train_step(net or net_of(4, 1), loss, mip.sgd(0.01), **options)
    return mip.fit(step, batches, step.init(), epochs=epochs, hooks=hooks)


# Which end of a metric is better.


@pytest.mark.parametrize(
    "watching",
    [
        lambda folder, **mode: mip.early_stop("valid/mine", patience=3, **mode),
        lambda folder, **mode: restore_best("valid/mine", **mode),
        lambda folder, **mode: mip.checkpoint(folder, metric="valid/mine", **mode),
        lambda folder, **mode: reduce_lr_on_plateau("valid/mine", **mode),
    ],
    ids=["early_stop", "restore_best", "checkpoint", "plateau"],
)
def test_a_metric_without_a_known_direction_needs_a_mode(watching, tmp_path):
    steps, net = [], net_of(4, 1)
    optimizer = mip.optim.inject_lr_factor(lambda factor: mip.sgd(factor * 0.01))
    step = mip.train_step(net, mse_loss, optimizer)
    own = {"mine": lambda p, y: float(len(p))}
    scores = mip.validate(net, BATCHES, metrics=own)
    count = lambda event: steps.append(event.step) if event.name == "before_batch" else None  # noqa: E731
    fit = lambda hook: mip.fit(step, BATCHES, step.init(), epochs=1, hooks=[scores, count, hook])  # noqa: E731
    count.__dict__.update(reads=(), adds=())
    with pytest.raises(
        MipError, match=r"'valid/mine' does not say .* give mode='min' or mode='max'"
    ):
        fit(watching(tmp_path / "asked"))
    assert steps == []
    assert fit(watching(tmp_path / "said", mode="max")).step == 4


def test_what_others_call_a_metric_has_its_direction():
    higher = ["acc", "valid/AUROC", "valid/f1_score", "r2_score", "style.acc", "roc_auc"]
    lower = ["loss", "loss.1", "valid/my_loss", "mean_squared_error", "brier_score", "max_error"]
    assert {direction(name) for name in higher} == {"max"}
    assert {direction(name) for name in lower} == {"min"}
    assert {direction(name) for name in ("mine", "valid/mean_pred", "dice")} == {None}


def test_the_best_epoch_of_acc_is_the_one_with_the_highest():
    rows = [{"valid/acc": 0.5}, {"valid/acc": 0.9}, {"valid/acc": 0.7}]
    assert mip.metrics.best_epoch(rows, "valid/acc") == 1


# Shapes that a function compares.


def torch_value(function, net=None, target=Y):
    with torch.no_grad():
        return float(function((net or net_of(4, 1))(X), target))


RIGHT = {
    "target unsqueezed": lambda p, y: mse_loss(p, y.unsqueeze(1)),
    "target as column": lambda p, y: ((p - y[:, None]) ** 2).mean(),
    "predictions squeezed": lambda p, y: mse_loss(p.squeeze(1), y),
    "first column": lambda p, y: (p[:, 0] - y).abs().mean(),
    "flattened": lambda p, y: (p.flatten() - y).abs().mean(),
    "statistics": lambda p, y: (p[:, 0].std() / y.std() - p.mean() / y.mean()).abs(),
    "pairs of rows": lambda p, y: ((p - p.T) * (y[:, None] - y[None])).mean(),
    "all pairs": lambda p, y: torch.cdist(p, y[:, None]).mean(),
    "smooth l1": lambda p, y: nn.SmoothL1Loss()(p, y[:, None]),
}


@pytest.mark.parametrize("function", RIGHT.values(), ids=RIGHT)
@pytest.mark.parametrize("target", [Y, (Y > 0.5).long()], ids=["numbers", "whole numbers"])
def test_a_function_that_is_right_in_torch_gives_the_same_here(function, target):
    expected = torch_value(lambda p, y: function(p, y.float()), target=target)
    cast = lambda p, y: function(p, y.float())  # noqa: E731
    whole, net = [(X, target)], net_of(4, 1)
    scores = mip.evaluate(net, whole, {"m": cast, "fold": folded(cast)}, loss=cast)
    assert {name: pytest.approx(value) for name, value in scores.items()} == dict.fromkeys(
        ["loss", "m", "fold"], expected
    )
    hooks = [mip.validate(net, whole, metrics={"m": cast}, loss=cast)]
    row = trained(whole, net, cast, 1, hooks, metrics={"m": cast}).history.epochs[0]
    assert (row["loss"], row["m"]) == (pytest.approx(expected), pytest.approx(expected))
    assert row["valid/loss"] == row["valid/m"]


def folded(function):
    """A fold that keeps its batches, as some of torchmetrics do."""
    keep = lambda so_far, p, y: (*so_far, (p, y))  # noqa: E731
    whole = lambda so_far: function(*(torch.cat(part) for part in zip(*so_far, strict=True)))  # noqa: E731
    return tuple, keep, whole


@pytest.mark.parametrize(
    "function",
    [
        lambda p, y: ((p - y) ** 2).mean(),
        mse_loss,
        lambda p, y: torch.dot(p - y, p - y) / len(p),
        lambda p, y: mse_loss(p, y) + 0 * p.squeeze(-1).mean(),
        lambda p, y: mse_loss(p, y) + 0 * p[..., :1].mean(),
    ],
    ids=["difference", "mse", "dot", "squeezed too", "sliced too"],
)
@pytest.mark.parametrize("column", ["predictions", "targets"])
def test_a_function_that_would_broadcast_compares_row_by_row(function, column):
    net = net_of(4, 1) if column == "predictions" else nn.Sequential(*net_of(4, 1), nn.Flatten(0))
    target = Y if column == "predictions" else Y[:, None]
    expected = torch_value(lambda p, y: mse_loss(p.flatten(), y.flatten()))
    scores = mip.evaluate(
        net, [(X, target)], {"m": function, "fold": folded(function)}, loss=function
    )
    assert scores == pytest.approx(dict.fromkeys(["loss", "m", "fold"], expected))


def test_a_compiled_step_takes_the_same_shapes():
    for loss in (RIGHT["target as column"], mse_loss, RIGHT["predictions squeezed"]):
        engine = lambda net, objective: mip.train.compiled(net, objective, "aot_eager")  # noqa: E731
        compiled = trained(loss=loss, epochs=1, gradient_engine=engine)
        torch.testing.assert_close(compiled.params, trained(loss=loss, epochs=1).params)


class Two(nn.Module):
    """Two outputs by name or in order."""

    def __init__(self, kind):
        super().__init__()
        self.net, self.kind = net_of(4, 4), kind

    def forward(self, x):
        out = self.net(x)
        parts = out[:, :1], out[:, 1:]
        return parts if self.kind is tuple else dict(zip("rc", parts, strict=True))


@pytest.mark.parametrize("kind", [dict, tuple])
def test_outputs_in_dicts_and_tuples_do_not_broadcast(kind):
    first, second = ("r", "c") if kind is dict else (0, 1)
    classes = (Y > 0.5).long()
    target = {"r": Y, "c": classes} if kind is dict else (Y, classes)
    cross_entropy = nn.CrossEntropyLoss()
    loose = lambda p, y: ((p[first] - y[first]) ** 2).mean() + cross_entropy(p[second], y[second])  # noqa: E731
    right = lambda p, y: mse_loss(p[first][:, 0], y[first]) + cross_entropy(p[second], y[second])  # noqa: E731
    expected = torch_value(right, Two(kind), target)
    assert torch_value(loose, Two(kind), target) != pytest.approx(expected)
    for loss in (loose, right):
        scores = mip.evaluate(Two(kind), [(X, target)], {"m": loss}, loss=loss)
        assert scores == pytest.approx({"loss": expected, "m": expected})
        assert trained([(X, target)], Two(kind), loss).history.epochs[0]["loss"] == pytest.approx(
            expected
        )


def test_two_outputs_for_one_target_do_not_broadcast():
    loss = lambda p, y: nn.functional.gaussian_nll_loss(p[0], y, p[1][:, :1].exp())  # noqa: E731
    right = lambda p, y: loss(p, y[:, None])  # noqa: E731
    expected = torch_value(right, Two(tuple))
    for each in (loss, right):
        assert mip.evaluate(Two(tuple), [(X, Y)], loss=each)["loss"] == pytest.approx(expected)


def test_weights_in_a_column_of_the_target_are_no_broadcast():
    target = torch.stack([Y, torch.rand(20)], dim=1)
    weighted = [
        lambda p, y: (y[:, 1:] * (p - y[:, :1]) ** 2).mean(),
        lambda p, y: (y[:, 1] * (p.squeeze(1) - y[:, 0]) ** 2).mean(),
        lambda p, y: mse_loss(p, y[:, :1]),
        lambda p, y: mse_loss(p[:, 0], y[:, 0]),
    ]
    for loss in weighted:
        found = mip.evaluate(net_of(4, 1), [(X, target)], loss=loss)["loss"]
        assert found == pytest.approx(torch_value(loss, target=target))


def test_a_function_is_tried_once_for_each_shape_and_draws_nothing():
    shapes = []

    def noisy(p, y):
        shapes.append((tuple(p.shape), tuple(y.shape)))
        return mse_loss(p[:, 0] + torch.rand(len(p)), y)

    step = mip.train_step(net_of(4, 1), noisy, mip.sgd(0.01))
    start = step.init()
    first, second = step(start, (X, Y)), step(start, (X, Y))
    assert torch.equal(first[1]["loss"], second[1]["loss"])
    assert len(shapes) > 2
    assert shapes[-2:] == [((20, 1), (20,))] * 2


def test_shapes_that_cannot_be_compared_are_named_without_warnings_of_torch():
    for target in (Y, torch.rand(20, 3)):
        shapes = (
            rf"predictions of shape \[5, 2\] and targets of shape \[5{', 3' * (target.dim() - 1)}\]"
        )
        with pytest.raises(MipError, match=f"step 1, rows 0, .*{shapes} cannot be compared"):
            trained(pipe((X, target), mip.batch(5)), net_of(4, 2))
        with pytest.raises(MipError, match="cannot be compared"):
            mip.evaluate(net_of(4, 2), [(X, target)], {"m": nn.L1Loss()})


# What a loss returns.


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.MSELoss(reduction="none"), r"the loss has the shape \[5\] and .* take the mean"),
        (lambda p, y: mse_loss(p, y).item(), r"the loss returned a float .* leave out item\(\)"),
        (lambda p, y: None, "the loss returned None: it must return the loss"),
        (
            lambda p, y: mse_loss(p, y).detach(),
            r"the loss has no gradient, .* out detach\(\)",
        ),
        (lambda p, y: p.detach().numpy().mean(), "the loss returned a float"),
    ],
    ids=["none", "item", "None", "detached", "numpy"],
)
def test_what_a_loss_must_not_return_is_named(loss, message):
    with pytest.raises(MipError, match=f"^step 1, rows 0, 1, 2, 3, 4: {message}"):
        trained(loss=loss)


def test_what_map_loss_and_map_logits_must_not_return_is_named():
    with pytest.raises(MipError, match=r"step 1, .*: map_loss returned None"):
        trained(map_loss=lambda loss: None)
    with pytest.raises(MipError, match=r"step 1, .*: map_logits returned None"):
        trained(map_logits=lambda logits: None)


def test_a_loss_of_one_number_in_a_dimension_is_that_number():
    one = trained(loss=lambda p, y: mse_loss(p, y[:, None])[None])
    torch.testing.assert_close(one.params, trained().params)
    rows = nn.MSELoss(reduction="none")
    torch.testing.assert_close(trained(loss=rows, map_loss=torch.mean).params, trained().params)


@pytest.mark.parametrize("loss", [nn.MSELoss(reduction="sum"), partial(mse_loss, reduction="sum")])
def test_a_sum_over_rows_is_no_loss(loss):
    for use in (
        lambda: trained(loss=loss),
        lambda: mip.validate(net_of(4, 1), BATCHES, loss=loss),
        lambda: mip.evaluate(net_of(4, 1), BATCHES, loss=loss),
    ):
        with pytest.raises(MipError, match=r"a sum over rows .*: take reduction='mean'"):
            use()


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.2])),
        nn.CrossEntropyLoss(ignore_index=1, label_smoothing=0.1),
        partial(nn.functional.cross_entropy, weight=torch.tensor([1.0, 5.0, 0.2]), ignore_index=0),
        nn.functional.cross_entropy,
    ],
)
def test_cross_entropy_of_batches_is_that_of_all_rows(loss):
    classes = torch.tensor([1] * 7 + [0, 2, 1, 0, 0, 2, 2, 0, 1, 1, 2, 0, 2])
    batches, net = pipe((X, classes), mip.batch(7)), net_of(4, 3)
    expected = torch_value(loss, net, classes)  # a batch of ignored rows alone would be NaN
    assert mip.evaluate(net, batches, loss=loss)["loss"] == pytest.approx(expected)
    hook = mip.validate(net, batches, loss=loss)
    frozen = mip.train_step(net, lambda p, y: 0 * p.sum(), mip.sgd(0.01))
    row = mip.fit(frozen, batches, frozen.init(), epochs=1, hooks=[hook]).history.epochs[0]
    assert row["valid/loss"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("loss", "target", "cure"),
    [
        (
            nn.BCEWithLogitsLoss(),
            (Y > 0.5).long(),
            r'floating-point .* y.float\(\) or y.astype\("float32',
        ),
        (nn.BCEWithLogitsLoss(), Y > 0.5, r"floating-point .* y.float\(\)"),
        (nn.CrossEntropyLoss(), (Y > 0.5).float(), r"int64 .* y.long\(\)"),
    ],
    ids=["bce of int", "bce of bool", "cross entropy of float"],
)
@pytest.mark.parametrize("column", [False, True])
def test_targets_of_another_dtype_are_named_with_the_cure(loss, target, cure, column):
    if isinstance(loss, nn.CrossEntropyLoss):
        net = net_of(4, 3)
    else:
        net, target = net_of(4, 1), target[:, None] if column else target
    with pytest.raises(MipError, match=f"^step 1, rows .* and targets .*; it takes {cure}"):
        trained(pipe((X, target), mip.batch(5)), net, loss)


# Nets without parameters to train.


class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = [nn.Linear(4, 1)]

    def forward(self, x):
        return self.layers[0](x)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Flatten(0), "the net has no parameters that require a gradient$"),
        (net_of(4, 1).requires_grad_(False), "no parameters that require a gradient$"),
        (
            Hidden(),
            "no parameters .*: torch finds no layers in a list, make 'layers' an",
        ),
        (
            nn.Sequential(nn.LazyLinear(1)),
            r"'0.weight' of the net has no shape yet: run the net",
        ),
    ],
    ids=["none", "frozen", "in a list", "lazy"],
)
def test_a_net_that_cannot_be_trained_is_named(net, message):
    with pytest.raises(MipError, match=message):
        mip.train_step(net, mse_loss, mip.sgd(0.1))


# What a metric is and returns.


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            lambda p, y: (p - y[:, None]).abs().flatten(),
            r"'m' returned float32 \[\d+\] and not one number",
        ),
        (lambda p, y: {"a": 1.0}, "'m' returned {a: 1.0} and not one number: make each number a"),
        (lambda p, y: (p - y[:, None]).numpy(), "'m' returned a ndarray and not one number"),
        (lambda p, y: None, "'m' returned None and not one number"),
    ],
    ids=["tensor", "dict", "array", "None"],
)
def test_what_a_metric_must_not_return_is_named(metric, message):
    net = net_of(4, 1)
    for use in (
        lambda: mip.evaluate(net, BATCHES, {"m": metric}),
        lambda: mip.evaluate(net, BATCHES, {"m": folded(metric)}),
        lambda: trained(metrics={"m": metric}),
        lambda: trained(hooks=[mip.validate(net, BATCHES, metrics={"m": metric})]),
    ):
        with pytest.raises(MipError, match=message):
            use()


def test_a_metric_of_one_number_in_any_form_is_that_number():
    for one in (
        2,
        2.0,
        torch.tensor([2.0]),
        torch.tensor(2),
        X.new_tensor(2).numpy(),
        Y.sum().numpy() * 0 + 2,
    ):
        assert mip.evaluate(net_of(4, 1), BATCHES, {"m": lambda p, y, one=one: one}) == {"m": 2.0}
        assert trained(metrics={"m": lambda p, y, one=one: one}).history.epochs[0]["m"] == 2.0


def test_a_class_of_torchmetrics_is_refused():
    torchmetrics = pytest.importorskip("torchmetrics")
    with pytest.raises(MipError, match=r"MeanSquaredError is a class: make a metric of it"):
        mip.metrics.from_torchmetrics(torchmetrics.MeanSquaredError)
    with pytest.raises(MipError, match="a function is no metric, it has no update and compute"):
        mip.metrics.from_torchmetrics(mse_loss)


def test_a_name_is_measured_once():
    net, own = net_of(4, 1), {"loss": mse_loss}
    for use in (
        lambda: mip.evaluate(net, BATCHES, own, loss=mse_loss),
        lambda: mip.validate(net, BATCHES, metrics=own, loss=mse_loss),
        *(
            lambda name=name: trained(metrics={name: mse_loss})
            for name in ("loss", "lr", "rows", "step")
        ),
    ):
        with pytest.raises(MipError, match=r"a metric cannot be called '.*', which is"):
            use()
    assert mip.evaluate(net, BATCHES, own).keys() == {"loss"}
    twice = [mip.validate(net, BATCHES, loss=mse_loss) for _ in range(2)]
    with pytest.raises(MipError, match="2 hooks add 'valid/loss' to the epochs: give"):
        trained(net=net, hooks=twice)
    halves = [
        mip.validate(net, BATCHES, loss=mse_loss),
        mip.validate(net, BATCHES, metrics=["mae"]),
    ]
    row = trained(
        net=net, hooks=[*halves, mip.validate(net, BATCHES, "test", loss=mse_loss)]
    ).history.epochs[0]
    assert {"valid/loss", "valid/mae", "test/loss"} <= row.keys()


def test_named_metrics_score_every_position_of_a_row():
    scores, classes = torch.randn(6, 3, 4, 5), torch.randint(0, 3, (6, 4, 5))
    flat = scores.movedim(1, -1).reshape(-1, 3)
    names = ["accuracy", "f1", "log_loss", "auc", "top2"]
    batches = [(scores[:4], classes[:4]), (scores[4:], classes[4:])]
    found = mip.evaluate(nn.Identity(), batches, names)
    assert found == pytest.approx(mip.evaluate(nn.Identity(), [(flat, classes.flatten())], names))
    last = [(inputs.movedim(1, -1), target) for inputs, target in batches]
    assert mip.evaluate(nn.Identity(), last, names) == pytest.approx(found)
    with pytest.raises(MipError, match=r"\[2, 3, 3\] and targets \[2, 3\] the classes can be dim"):
        mip.metrics.accuracy(torch.zeros(2, 3, 3), torch.zeros(2, 3))


def test_named_metrics_of_several_labels_say_what_to_do():
    scores, labels = torch.randn(6, 3), torch.randint(0, 2, (6, 3))
    with pytest.raises(MipError, match=r"if a row has several labels, give flatten\(\) of both"):
        mip.evaluate(nn.Identity(), [(scores, labels)], ["accuracy"])
    own = {"accuracy": lambda p, y: mip.metrics.accuracy(p.flatten(), y.flatten())}
    right = ((scores > 0) == labels).float().mean()
    assert mip.evaluate(nn.Identity(), [(scores, labels)], own)["accuracy"] == pytest.approx(right)
