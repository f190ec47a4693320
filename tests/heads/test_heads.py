"""The battery: the laws that every kind of head keeps, and the numbers of each kind."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import torchmetrics.functional as tm
from attrs import evolve
from every_head import (
    COLUMNS,
    HEADS,
    QUANTILES,
    ROWS,
    SIZES,
    known_of,
    logits_of,
    missing_of,
    rows_of,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from toolz import pipe
from torchvision.ops import sigmoid_focal_loss

import mip
from mip.branches import Continuous
from mip.data import ColumnFormat
from mip.errors import DataError, SpecError
from mip.heads import (
    Binary,
    Count,
    Joint,
    Multiclass,
    Multilabel,
    Ordinal,
    Quantile,
    Regression,
    column_heads,
    tower,
    training_loss,
)
from mip.heads.losses import (
    check_shapes,
    check_width,
    corn_loss,
    log_cosh,
    pinball_loss,
    weighted_cross_entropy,
)
from mip.heads.targets.classes import balanced_class_weights
from mip.metrics import in_target_unit, log_loss, msle, percent_close, quadratic_kappa
from mip.nn import Members

every = pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
classed = [head for head in HEADS.values() if isinstance(head, (Binary, Multiclass, Ordinal))]


def spec_of(head, **train) -> mip.spec.Spec:
    training = mip.spec.Train(epochs=2, batch_size=5, **train)
    return mip.spec.Spec({"one": Continuous(["area"])}, head, train=training)


def run(head, folder, **train):
    rows = known_of(head)
    parts = mip.model.Parts(rows, rows.take([]), rows.take([]))
    return mip.run(spec_of(head, **train), parts, out=folder, context=mip.Context(device="cpu"))


def refusal(head: str) -> str:
    """The error of a spec with this head."""
    branch = '[branch.one]\nkind = "continuous"\ncolumns = ["area"]\n'
    with pytest.raises(SpecError) as caught:
        mip.parse(f"{branch}[head]\n{head}\n")
    return str(caught.value)


def near(facts):
    """The same facts, except the last bits of moments that were merged in another order."""
    return pytest.approx(facts, rel=1e-14) if "std" in facts else facts


# Laws of every kind.


def test_the_battery_has_every_kind_of_head():
    tested = {type(head) for head in HEADS.values()}
    heads = {kind for kind in mip.KINDS.values() if hasattr(kind, "criterion")}
    assert tested == heads - {Joint}  # whose battery is test_joint


@every
def test_facts_are_json(head):
    facts = head.adapt(rows_of())
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


@every
def test_decoded_columns_turn_back_into_logits(head):
    facts = head.adapt(rows_of())
    columns = head.decode(facts, logits_of(head, facts))
    again = head.decode(facts, head.logits(facts, columns))
    assert again.keys() == columns.keys()
    for name, column in columns.items():
        if column.dtype == object:
            assert again[name].tolist() == column.tolist()
        else:
            np.testing.assert_allclose(again[name], column, rtol=1e-9)


@every
@pytest.mark.parametrize("size", [90.0, -90.0])
def test_probabilities_of_zero_give_finite_logits(head, size):
    facts = head.adapt(rows_of())
    columns = head.decode(facts, torch.full_like(logits_of(head, facts), size))
    assert head.logits(facts, columns).isfinite().all()


@every
def test_facts_do_not_see_rows_without_a_target(head):
    assert head.adapt(rows_of()) == near(head.adapt(known_of(head)))


@every
@given(st.lists(st.integers(0, ROWS - 1), max_size=14))
def test_encoding_treats_each_row_by_itself(head, indices):
    facts, index = head.adapt(rows_of()), torch.tensor(indices, dtype=torch.int64)
    whole = head.encode(facts, rows_of())[index]
    taken = head.encode(facts, rows_of(indices))
    assert taken.dtype == whole.dtype
    assert torch.equal(taken.nan_to_num(-7), whole.nan_to_num(-7))


@every
def test_a_missing_target_is_marked_and_cleaning_drops_its_row(head):
    target = head.encode(head.adapt(rows_of()), rows_of())
    assert target.shape[0] == ROWS
    marked = (target.isnan() | (target == -1)).view(ROWS, -1)
    assert marked.all(1).nonzero().flatten().tolist() == missing_of(head)
    assert marked.any(1).equal(marked.all(1))
    if missing_of(head):
        with pytest.warns(mip.errors.MipWarning) if len(missing_of(head)) > 1 else nullcontext():
            _, report = mip.clean(spec_of(head), rows_of())
        reasons = ("missing", "infinite or beyond float32")
        assert report.dropped.keys() <= {f"target '{head.column}' {why}" for why in reasons}
        assert sorted(sum(report.dropped.values(), [])) == missing_of(head)  # noqa: RUF017
        with pytest.raises(DataError, match=r"^table row 2, column .*: the target is missing$"):
            mip.clean(spec_of(evolve(head, missing="error")), rows_of())


@every
def test_a_loss_is_one_number_with_a_gradient(head):
    facts = head.adapt(rows_of())
    target = head.encode(facts, known_of(head))
    for size in (1.0, 50.0):
        logits = (size * logits_of(head, facts, len(target))).requires_grad_()
        loss = head.criterion(facts)(logits, target)
        assert loss.shape == ()
        assert loss.isfinite()
        (grad,) = torch.autograd.grad(loss, logits)
        assert grad.isfinite().all()
        assert grad.abs().sum() > 0


@every
def test_a_certain_model_has_a_finite_gradient(head):
    facts = head.adapt(rows_of())
    target = head.encode(facts, known_of(head))
    for value in (0.0, 80.0, -80.0):
        logits = torch.full_like(logits_of(head, facts, len(target)), value).requires_grad_()
        (grad,) = torch.autograd.grad(head.criterion(facts)(logits, target), logits)
        assert grad.isfinite().all()


@every
def test_a_loss_is_the_mean_of_its_rows(head):
    facts = head.adapt(rows_of())
    target = head.encode(facts, known_of(head))
    logits, loss = logits_of(head, facts, len(target)), head.criterion(facts)
    pairs = zip(logits.split(1), target.split(1), strict=True)
    per_row = torch.stack([loss(*pair) for pair in pairs])
    torch.testing.assert_close(per_row.mean(), loss(logits, target))


@every
def test_a_loss_that_would_broadcast_is_refused(head):
    facts = head.adapt(rows_of())
    target, logits = head.encode(facts, rows_of()), logits_of(head, facts)
    wrong = logits[:, None] if logits.dim() == 1 else logits.repeat(1, 2)
    with pytest.raises(DataError, match=r"shape \(12, \d+\) and a target of shape \(12,"):
        head.criterion(facts)(wrong, target)
    with pytest.raises(DataError, match=r"logits of shape \(1[,)]"):
        head.criterion(facts)(logits[:1], target)


@every
@given(st.data())
def test_any_logits_are_decoded(head, data):
    facts, count = head.adapt(rows_of()), data.draw(st.integers(0, 4))
    shape = tuple(logits_of(head, facts, count).shape)
    finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
    columns = head.decode(
        facts, torch.from_numpy(data.draw(arrays("float32", shape, elements=finite)))
    )
    assert {column.shape for column in columns.values()} == {(count,)}
    numbers = {name: column for name, column in columns.items() if name != "label"}
    assert all(np.isfinite(column).all() for column in numbers.values())
    probs = np.array([column for name, column in numbers.items() if name.startswith("p_")])
    assert ((probs >= 0) & (probs <= 1)).all()
    if not isinstance(head, Multilabel) and len(probs):
        np.testing.assert_allclose(probs.sum(0), 1, rtol=1e-12)
        assert {*map(str, columns["label"])} <= set(facts["classes"])


@every
def test_scores_are_numbers_by_name(head):
    facts = head.adapt(rows_of())
    target = head.encode(facts, known_of(head))
    logits = logits_of(head, facts, len(target))
    scores = head.metrics(facts, logits, target)
    assert {type(score) for score in scores.values()} == {float}
    undefined = {name for name, score in scores.items() if not math.isfinite(score)}
    # Beside a target of 1e30, one of 70 is 0 on the scale that is learned.
    assert undefined <= {"mape", "median_ape"} or head.column == "never"
    assert "loss" not in scores


@every
def test_a_head_round_trips_through_a_spec(head):
    assert mip.parse(mip.dump(spec_of(head))) == spec_of(head)


@every
@pytest.mark.filterwarnings("ignore:.*dropped")
def test_a_model_of_it_predicts_from_its_file_as_in_memory(head, tmp_path):
    ended = run(head, tmp_path)
    loaded = mip.load(tmp_path / "model.safetensors")
    assert loaded.plan == ended.plan
    assert loaded(rows_of()).equals(ended.predict(rows_of()))
    assert mip.evaluate(loaded, rows_of())["loss"] > -math.inf


@every
def test_a_model_of_it_learns(head):
    plan, rows = mip.adapt(spec_of(head), known_of(head)), known_of(head)
    net, optimizer, losses = mip.build(plan), mip.adamw(0.03), []
    step, state = mip.train_step(net, plan.loss, optimizer), mip.init(net, optimizer)
    batch = plan.encode(rows)
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


@every
def test_mixed_rows_train(head, tmp_path):
    ended = run(head, tmp_path, mixup=0.4)
    assert all(value.isfinite().all() for value in ended.state.params.values())


@pytest.mark.parametrize("head", classed, ids=lambda head: type(head).__name__)
def test_a_mixed_target_costs_the_mix_of_its_losses(head):
    facts = head.adapt(rows_of())
    target, loss = head.encode(facts, known_of(head)), head.criterion(facts)
    logits = logits_of(head, facts, len(target))
    soft = target if target.is_floating_point() else F.one_hot(target).float()
    torch.testing.assert_close(loss(logits, soft), loss(logits, target))
    mixed = torch.lerp(soft, soft.flip(0), 0.25)
    expected = 0.75 * loss(logits, soft) + 0.25 * loss(logits, soft.flip(0))
    torch.testing.assert_close(loss(logits, mixed), expected)


@every
def test_streamed_rows_give_the_same_facts(head, tmp_path):
    pytest.importorskip("pyarrow")
    pd.DataFrame(COLUMNS).to_parquet(tmp_path / "rows.parquet", row_group_size=5)
    streamed, read = (source(tmp_path / "rows.parquet") for source in (mip.stream, mip.read))
    assert len(list(streamed.chunks([head.column]))) > 1
    facts = head.adapt(read)
    assert facts == head.adapt(rows_of())
    assert head.adapt(streamed) == near(facts)


def test_a_loss_names_the_shapes_that_it_refuses():
    shapes = "logits of shape (3, 1) and a target of shape (3,)"
    with pytest.raises(DataError) as caught:
        check_shapes(F.mse_loss)(torch.zeros(3, 1), torch.zeros(3))
    assert str(caught.value) == f"{shapes} would broadcast"
    with pytest.raises(DataError) as caught:
        check_width(F.cross_entropy, 2)(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64))
    assert str(caught.value) == f"{shapes}: expected 2 logits per row"
    with pytest.raises(DataError, match="expected 2 logits per row"):
        check_width(F.mse_loss, 2, soft=False)(torch.zeros(3, 2), torch.zeros(3, 2))


# One number.


def test_log_cosh_is_the_logarithm_of_the_hyperbolic_cosine():
    error = torch.linspace(-9, 9, 19, dtype=torch.float64, requires_grad=True)
    loss = log_cosh(error, torch.zeros(19))
    torch.testing.assert_close(loss, error.cosh().log().mean())
    torch.testing.assert_close(*torch.autograd.grad(19 * loss, error), error.tanh())
    assert log_cosh(torch.tensor([-1e4, 1e4]), torch.zeros(2)).item() == pytest.approx(1e4 - 0.6931)


def test_a_prediction_is_close_within_a_share_of_the_truth():
    truth = torch.tensor([100.0, 100.0, 100.0, -100.0, 0.0, 0.0]).double()
    pred = torch.tensor([110.0, 111.0, 90.0, -95.0, 0.0, 0.1]).double()
    assert float(percent_close(pred, truth)) == pytest.approx(4 / 6)
    assert float(percent_close(pred, truth, tol=0.05)) == pytest.approx(2 / 6)
    assert float(percent_close(pred, truth, tol=0.2)) == pytest.approx(5 / 6)


@given(pairs=st.lists(st.tuples(*[st.floats(-2, 1e6)] * 2), min_size=1, max_size=9))
def test_msle_is_that_of_torchmetrics_or_nan(pairs):
    pred, truth = torch.tensor(pairs, dtype=torch.float64).T
    score = msle(pred, truth)
    if min(map(min, pairs)) <= -1:
        assert math.isnan(score)
    else:
        assert score == pytest.approx(float(tm.mean_squared_log_error(pred, truth)), abs=1e-9)


@pytest.mark.parametrize("scale", ["standard", "log", "none"])
def test_metrics_in_the_targets_unit_are_those_of_predictions(scale):
    rows = mip.from_columns({"area": list(range(50, 90)), "price": [3 * k for k in range(50, 90)]})
    spec = mip.parse(f"""
        branch.size = {{ kind = "continuous", columns = ["area"] }}
        head = {{ kind = "regression", column = "price", scale = "{scale}" }}
    """)
    plan, mean_pred = mip.adapt(spec, rows), lambda pred, truth: pred.mean()
    plain = {"percent_close": percent_close, "msle": msle, "mean_pred": mean_pred}
    metrics = {name: in_target_unit(plan.decode, metric) for name, metric in plain.items()}
    net, optimizer, seen = mip.build(plan), mip.adam(0.05), []
    hooks = [mip.validate(plan, [plan.encode(rows)], metrics=metrics), mip.hooks.record(seen)]
    step, start = mip.train_step(net, plan.loss, optimizer), mip.init(net, optimizer)
    state = mip.fit(step, pipe(plan.encode(rows), mip.batch(8)), start, epochs=2, hooks=hooks)
    predict = mip.predictor(plan, state)
    pred, truth = map(torch.tensor, (predict(rows)["value"], rows.numbers("price")))
    values = {name: float(metric(pred, truth)) for name, metric in plain.items()}
    expected = {name: pytest.approx(value, rel=1e-5, nan_ok=True) for name, value in values.items()}
    assert {name: seen[-1][f"valid/{name}"] for name in plain} == expected
    assert {name: mip.evaluate(predict, rows, metrics)[name] for name in plain} == expected


def test_pinball_is_least_at_the_quantile():
    target = torch.from_numpy(np.random.default_rng(0).gamma(2.0, size=401))
    grid = torch.linspace(0, 8, 1601, dtype=torch.float64)
    for q in (0.1, 0.5, 0.9):
        costs = [pinball_loss(value.expand(401, 1), target, (q,)).item() for value in grid]
        assert grid[int(np.argmin(costs))] == pytest.approx(target.quantile(q).item(), abs=0.01)


def test_pinball_by_hand():
    pred, target = torch.tensor([[1.0, 4.0], [0.0, 2.0]]), torch.tensor([3.0, 2.0])
    expected = (0.1 * 2 + 0.1 * 1 + 0.1 * 2 + 0.9 * 0) / 4
    assert pinball_loss(pred, target, (0.1, 0.9)).item() == pytest.approx(expected)
    half = pinball_loss(pred, target, (0.5, 0.5)) * 2
    torch.testing.assert_close(half, F.l1_loss(pred, target[:, None].expand(2, 2)))


@pytest.mark.parametrize("scale", ["standard", "log", "none"])
def test_quantiles_never_cross_and_value_is_the_middle_one(scale):
    head = Quantile("price", QUANTILES, scale)
    facts = {"mean": 1.0, "std": 2.0}
    columns = head.decode(facts, torch.tensor([[3.0, 1.0, 2.0, -1.0], [0.0, 0.0, 0.0, 1.0]]))
    assert list(columns) == ["q0.025", "q0.3", "q0.6", "q0.975", "value"]
    quantiles = np.stack(list(columns.values())[:4], axis=1)
    assert (np.diff(quantiles, axis=1) >= 0).all()
    assert columns["value"].tolist() == quantiles[:, 2].tolist()
    own = np.array([[-1.0, 1, 2, 3], [0, 0, 0, 1]]) * 2 + 1
    np.testing.assert_allclose(quantiles, np.exp(own) if scale == "log" else own)


def test_scores_of_quantiles_by_hand():
    head, facts = Quantile("x", [0.1, 0.5, 0.9]), {"mean": 10.0, "std": 2.0}
    logits = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0], [0.0, 0.0, 0.0]])
    target = torch.tensor([1.0, -1.5, 0.5])  # in the target's unit 12, 7, 11
    scores = head.metrics(facts, logits, target)
    costs = [0.4, 1.0, 0.0, 0.9, 1.5, 0.5, 0.1, 0.5, 0.9]
    assert scores == pytest.approx({"pinball": sum(costs) / 9, "coverage": 1 / 3, "mae": 2.0})
    assert list(evolve(head, quantiles=[0.5]).metrics(facts, logits[:, :1], target)) == [
        "pinball",
        "mae",
    ]


def test_a_count_starts_at_the_training_mean():
    head = Count("n")
    facts = head.adapt(mip.from_columns({"n": [0, 1, 8, None]}))
    assert facts == {"mean": 3.0}
    assert head.decode(facts, torch.zeros(2))["value"] == pytest.approx([3.0, 3.0])
    assert Count("never").adapt(rows_of()) == {"mean": 1.0}


def test_the_loss_of_counts_is_that_of_poisson():
    head, facts = Count("n"), {"mean": 3.0}
    logits, target = torch.tensor([0.5, -1.0, 2.0]), torch.tensor([0.0, 2.0, 9.0])
    loss = head.criterion(facts)(logits, target)
    poisson = torch.distributions.Poisson(3 * logits.exp())
    expected = -(poisson.log_prob(target) + (target + 1).lgamma()).mean()
    torch.testing.assert_close(loss, expected)


def test_scores_of_counts_agree_with_torchmetrics():
    head, facts = Count("n"), {"mean": 3.0}
    logits, target = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([0.0, 2.0, 9.0, 3.0])
    rate = 3 * logits.exp()
    assert head.metrics(facts, logits, target) == pytest.approx(
        {
            "mae": tm.mean_absolute_error(rate, target).item(),
            "rmse": tm.mean_squared_error(rate, target, squared=False).item(),
            "poisson_deviance": tm.tweedie_deviance_score(rate, target, power=1).item(),
        }
    )


# Classes.


def test_plain_classes_have_torchs_loss_to_the_bit_and_no_new_facts():
    logits, target = torch.randn(64, generator=torch.Generator().manual_seed(1)), torch.ones(64)
    facts = Binary("sold").adapt(rows_of())
    assert facts == {"classes": ["no", "yes"]}
    loss = Binary("sold").criterion(facts)(logits, target)
    assert torch.equal(loss, F.binary_cross_entropy_with_logits(logits, target))
    facts, wider = Multiclass("style").adapt(rows_of()), logits.view(16, 4)
    assert facts == {"classes": ["NA", "flat", "house", "loft"]}
    target = torch.arange(16) % 4
    for labels in (target, F.one_hot(target, 4) * 0.9 + 0.025):
        loss = Multiclass("style").criterion(facts)(wider, labels)
        assert torch.equal(loss, F.cross_entropy(wider, labels))


def test_balanced_weights_make_classes_count_alike():
    facts = Multiclass("style", class_weight="balanced").adapt(rows_of())
    assert facts["weights"] == pytest.approx([11 / 4, 11 / 32, 11 / 4, 11 / 4])
    facts = Binary("sold", "no", class_weight="balanced").adapt(rows_of())
    assert facts == {"classes": ["yes", "no"], "weights": pytest.approx([11 / 6, 11 / 16])}
    counts = mip.data.value_counts(rows_of(), "style")
    weights = balanced_class_weights(sorted(counts), counts)
    assert sum(w * counts[word] for w, word in zip(weights, sorted(counts), strict=True)) == 11


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_weights_and_smoothing_are_torchs(smoothing):
    head = Multiclass("style", class_weight="balanced", label_smoothing=smoothing)
    facts = head.adapt(rows_of())
    logits, target = logits_of(head, facts, 8), torch.arange(8) % 4
    weights = torch.tensor(facts["weights"])
    expected = F.cross_entropy(logits, target, weights, label_smoothing=smoothing, reduction="none")
    torch.testing.assert_close(head.criterion(facts)(logits, target), expected.mean())


@pytest.mark.parametrize("name", ["binary", "multiclass"])
def test_the_log_loss_is_a_metric_unless_it_is_the_loss(name):
    plain, *others = (head for title, head in HEADS.items() if title.startswith(name))
    facts = plain.adapt(rows_of())
    target = plain.encode(facts, known_of(plain))
    logits = logits_of(plain, facts, len(target))
    loss = float(plain.criterion(facts)(logits, target))
    assert log_loss(logits, target) == pytest.approx(loss, rel=1e-6)
    assert "log_loss" not in plain.metrics(facts, logits, target)
    for head in others:
        facts = head.adapt(rows_of())
        target = head.encode(facts, known_of(head))
        scores = head.metrics(facts, logits, target)
        assert scores["log_loss"] == log_loss(logits, target)


@pytest.mark.parametrize("focal", [0.5, 1.0, 2.0, 5.0])
def test_the_focal_loss_is_torchvisions(focal):
    logits, target = torch.linspace(-4, 4, 9), torch.arange(9.0) % 2
    head, facts = Binary("sold", focal_gamma=focal), {"classes": ["no", "yes"]}
    expected = sigmoid_focal_loss(logits, target, alpha=-1, gamma=focal, reduction="mean")
    torch.testing.assert_close(head.criterion(facts)(logits, target), expected)
    both = Multiclass("sold", focal_gamma=focal).criterion(facts)
    pairs = torch.stack([torch.zeros(9), logits], dim=1)
    torch.testing.assert_close(both(pairs, target.long()), expected)


def test_two_classes_of_either_head_cost_the_same():
    changes = {"class_weight": "balanced", "focal_gamma": 1.5, "label_smoothing": 0.1}
    binary, multiclass = Binary("sold", **changes), Multiclass("sold", **changes)
    facts, logits = binary.adapt(rows_of()), torch.linspace(-3, 3, 11)
    assert facts == multiclass.adapt(rows_of())
    target = binary.encode(facts, known_of(binary))
    pairs = torch.stack([-logits / 2, logits / 2], dim=1)
    expected = multiclass.criterion(facts)(pairs, target.long())
    torch.testing.assert_close(binary.criterion(facts)(logits, target), expected)


def test_the_weighted_loss_by_hand():
    probs = torch.tensor([[0.5, 0.25, 0.25]])
    target, weights = torch.tensor([[0.0, 1.0, 0.0]]), [1.0, 2.0, 3.0]
    loss = weighted_cross_entropy(probs.log(), target, weights, 1.0, 0.3)
    shares = [0.1 * 1 * 0.5, 0.8 * 2 * 0.75, 0.1 * 3 * 0.75]
    surprise = [math.log(2), math.log(4), math.log(4)]
    assert loss.item() == pytest.approx(sum(a * b for a, b in zip(shares, surprise, strict=True)))


# Classes in order.


@given(arrays("float32", (5, 3), elements=st.floats(-30, 30, width=32)))
def test_an_ordinal_loss_is_the_likelihood_of_its_probabilities(numbers):
    head, facts = Ordinal("size", order=SIZES), {"classes": SIZES}
    logits, ranks = torch.from_numpy(numbers), torch.tensor([0, 1, 2, 3, 3])
    levels = (ranks[:, None] > torch.arange(3)).float()
    columns = head.decode(facts, logits)
    probs = np.stack([columns[f"p_{word}"] for word in SIZES], axis=1)
    expected = -np.log(probs[np.arange(5), ranks.numpy()]).mean()
    assert corn_loss(logits, levels).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    below = np.pad(probs.cumsum(axis=1), ((0, 0), (1, 0)))
    labels = [SIZES.index(word) for word in columns["label"]]
    assert (below[np.arange(5), labels] <= 0.5 + 1e-9).all()  # at one half either is a median
    assert (below[np.arange(5), np.array(labels) + 1] >= 0.5 - 1e-9).all()


def test_orders_are_given_or_those_of_numbers_or_words():
    assert Ordinal("stars").adapt(rows_of()) == {"classes": ["1", "2", "10"], "dtype": "int64"}
    assert Ordinal("size").adapt(rows_of()) == {"classes": ["large", "mid", "small"]}
    assert Ordinal("size", order=SIZES).adapt(rows_of()) == {"classes": SIZES}
    mixed = mip.from_columns({"x": ["10", "9", "-1.5", "new"]})
    assert Ordinal("x").adapt(mixed) == {"classes": ["-1.5", "10", "9", "new"]}
    odd = mip.from_columns({"x": ["10", "9", "nan"]})
    assert Ordinal("x").adapt(odd) == {"classes": ["10", "9", "nan"]}


def test_scores_of_ranks_agree_with_torchmetrics():
    generator = torch.Generator().manual_seed(2)
    pred, truth = torch.randint(0, 4, (2, 50), generator=generator)
    expected = tm.cohen_kappa(pred, truth, task="multiclass", num_classes=4, weights="quadratic")
    assert quadratic_kappa(pred, truth) == pytest.approx(expected.item(), abs=1e-6)
    assert quadratic_kappa(torch.tensor([0, 2]), torch.tensor([2, 0])) == -1
    assert math.isnan(quadratic_kappa(torch.ones(3), torch.ones(3)))
    logits = torch.where(pred[:, None] > torch.arange(3), 9.0, -9.0)
    levels = (truth[:, None] > torch.arange(3)).float()
    scores = Ordinal("size").metrics({"classes": SIZES}, logits, levels)
    distance = (pred - truth).abs().double()
    expected = {"accuracy": (distance == 0).double().mean().item(), "mae": distance.mean().item()}
    assert scores == pytest.approx({**expected, "kappa": quadratic_kappa(pred, truth)})


# Labels.


def test_lists_and_words_mean_the_same_labels():
    lists, words = Multilabel("tags"), Multilabel("words")
    expected = [[0, 1, 1], [0, 0, 1], [0, 0, 0], [1, 0, 0]]
    for head in (lists, words):
        facts = head.adapt(rows_of())
        assert facts == {"classes": ["Köln", "sea", "sun"]}
        assert head.encode(facts, rows_of([0, 1, 3, 4])).tolist() == expected
    arrays_of = [np.array(["a", None, 3], dtype=object), ("b;a", 3.0), " 3 "]
    rows = mip.from_columns({"x": arrays_of})
    facts = Multilabel("x").adapt(rows)
    assert facts == {"classes": ["3", "a", "b"]}
    assert Multilabel("x").encode(facts, rows).tolist() == [[1, 1, 0], [1, 1, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("cells", "joined"),
    [
        (["a,b", "b", "a"], "a,b"),
        (["c", "b|a", "a"], "b|a"),
        (["a,b", "b; c"], ""),
        ([["a,b", "c"], ["c"]], ""),
        (["a b", "c"], ""),
    ],
)
def test_labels_that_another_separator_may_divide_are_named(cells, joined, recwarn):
    Multilabel("x").adapt(mip.from_columns({"x": cells}))
    text = f"'{joined}' is one label; set data.columns.x.sep if it is several"
    said = [str(each.message) for each in recwarn]
    assert said == ([f"table: column 'x': {text}"] if joined else [])


def test_scores_of_labels_agree_with_torchmetrics():
    head, facts = Multilabel("x"), {"classes": ["a", "b", "c"]}
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(40, 3, generator=generator)
    target = (torch.rand(40, 3, generator=generator) < 0.4).float()
    scores = head.metrics(facts, logits, target)
    probs, whole = logits.sigmoid(), target.long()
    assert scores == pytest.approx(
        {
            "accuracy": tm.classification.multilabel_exact_match(probs, whole, 3).item(),
            "f1": tm.classification.multilabel_f1_score(probs, whole, 3, average="micro").item(),
            "auc": tm.classification.multilabel_auroc(probs, whole, 3).item(),
        }
    )
    some = head.metrics(facts, logits, target * torch.tensor([1.0, 0.0, 1.0]))
    assert math.isfinite(some["auc"])
    none = head.metrics(facts, -logits.abs(), target * 0)
    assert none["accuracy"] == 1
    assert math.isnan(none["auc"])
    assert math.isnan(none["f1"])


# Texts, verbatim.


ADAPT = {
    "counts below": (
        Count("x"),
        [1, -2],
        "table row 1, column 'x': -2 is not a whole number, 0 or more",
    ),
    "counts of parts": (
        Count("x"),
        ["1", "2.5"],
        "table row 1, column 'x': 2.5 is not a whole number, 0 or more",
    ),
    "words for counts": (
        Count("x"),
        ["1", "two"],
        "table row 1, column 'x': 'two' is not a number",
    ),
    "no counts": (Count("x"), ["", "NA"], "table: column 'x' has no training target"),
    "no numbers": (Quantile("x"), ["", "NA"], "table: column 'x' has no training target"),
    "no logarithm": (
        Quantile("x", scale="log"),
        [3.0, 0.0],
        "table row 1, column 'x': 0 has no logarithm (scale = 'log')",
    ),
    "one class": (Ordinal("x"), ["a", "a", ""], "table: column 'x' has fewer than 2 classes"),
    "out of order": (
        Ordinal("x", order=["low", "high"]),
        ["low", "hihg"],
        "table: 'hihg' of column 'x' is not in 'order'; did you mean 'high'? (known: high, low)",
    ),
    "no labels": (Multilabel("x"), ["", ";"], "table: column 'x' has no label"),
    "labels of images": (
        Multilabel("x"),
        [b"GIF89a", b"GIF89a"],
        "table row 0, column 'x': an image (bytes) is not text",
    ),
}


@pytest.mark.parametrize(("head", "cells", "text"), ADAPT.values(), ids=ADAPT)
def test_a_target_that_cannot_be_learned_is_named(head, cells, text):
    with pytest.raises(DataError) as caught:
        head.adapt(mip.from_columns({"x": cells}))
    assert str(caught.value) == text


ENCODE = {
    "count": (Count("visits"), 1.5, "1.5 is not a whole number, 0 or more"),
    "ordinal": (
        Ordinal("size"),
        "smal",
        "'smal' is not a class of the training rows; did you mean 'small'? (known: large, mid, "
        "small); leave such rows out (data.columns.size.na_values), or merge the class with "
        "another (data.columns.size.merge), or train on some of them: where rows are drawn, by "
        "data.split.stratify = 'size'",
    ),
    "multilabel": (
        Multilabel("words"),
        "sun;see",
        "'see' is not a label of the training rows; did you mean 'sea'? (known: Köln, sea, sun); "
        "leave it out (data.columns.words.na_values), or merge it with another "
        "(data.columns.words.merge), or train on some of its rows: where rows are drawn, by "
        "another data.split.seed",
    ),
}


@pytest.mark.parametrize(("column", "cold"), [("tags", {3, 6, 8, 10}), ("words", {3})])
def test_labels_are_left_out_and_merged(column, cold):
    form = ColumnFormat(na_values=["Köln"], merge={"warm": ["sun", "sea"]})
    rows, head = rows_of().with_formats({column: form}), Multilabel(column)
    facts = head.adapt(rows)
    assert facts == {"classes": ["warm"]}
    missing = {2, 4}  # row 4 has Köln alone
    assert {*np.flatnonzero(~head.known(rows)).tolist()} == missing
    targets = head.encode(facts, rows)[:, 0]
    assert {*np.flatnonzero(targets.isnan()).tolist()} == missing
    assert {*np.flatnonzero(targets == 0).tolist()} == cold


@pytest.mark.parametrize(("head", "cell", "text"), ENCODE.values(), ids=ENCODE)
def test_a_target_that_training_did_not_see_is_named(head, cell, text):
    facts = head.adapt(rows_of())
    rows = mip.from_columns({head.column: [rows_of().frame[head.column][0], cell]})
    with pytest.raises(DataError) as caught:
        head.encode(facts, rows)
    assert str(caught.value) == f"table row 1, column '{head.column}': {text}"


SPECS = {
    'kind = "quantile"\nquantiles = [0.5, 0.1]': (
        "head.quantiles must increase within (0, 1): [0.5, 0.1]"
    ),
    'kind = "quantile"\nquantiles = [0.5, 0.5]': (
        "head.quantiles must increase within (0, 1): [0.5, 0.5]"
    ),
    'kind = "quantile"\nquantiles = [0, 0.5]': (
        "head.quantiles must increase within (0, 1): [0.0, 0.5]"
    ),
    'kind = "quantile"\nquantiles = [nan]': ("head.quantiles must increase within (0, 1): [nan]"),
    'kind = "quantile"\nquantiles = []': ("head.quantiles must increase within (0, 1): []"),
    'kind = "ordinal"\norder = ["a"]': "head.order must name at least 2 distinct classes: ['a']",
    'kind = "ordinal"\norder = ["a", "a"]': (
        "head.order must name at least 2 distinct classes: ['a', 'a']"
    ),
    'kind = "ordinal"\norder = [1, 2]': "head.order[0] = 1 must be text, not a whole number",
    'kind = "binary"\nfocal_gamma = -1': "head.focal_gamma must be >= 0: -1.0",
    'kind = "binary"\nlabel_smoothing = 1': "head.label_smoothing must be < 1: 1.0",
    'kind = "multiclass"\nfocal_gamma = inf': "head.focal_gamma must be < inf: inf",
    'kind = "multiclass"\nclass_weight = "balancd"': (
        "head.class_weight = 'balancd' is not allowed; did you mean 'balanced'? "
        "(known: balanced, none)"
    ),
    'kind = "regression"\nloss = "logcosh"': (
        "head.loss = 'logcosh' is not allowed; did you mean 'log_cosh'? "
        "(known: huber, log_cosh, mae, mse)"
    ),
    'kind = "count"\nmembers = 0': "head.members must be >= 1: 0",
    'kind = "count"\nscale = "log"': (
        "head.scale is not a field "
        "(known: activation, batch_norm, column, dropout, layers, members, "
        "missing)"
    ),
}


VERSION_1 = {
    'kind = "binary"\npositive = "yes"\nweights = "balanced"\nfocal = 2.0\nsmoothing = 0.1': Binary(
        "x", pos_label="yes", class_weight="balanced", focal_gamma=2.0, label_smoothing=0.1
    ),
    'kind = "multiclass"\nweights = "balanced"\nfocal = 2.0\nsmoothing = 0.1': Multiclass(
        "x", class_weight="balanced", focal_gamma=2.0, label_smoothing=0.1
    ),
    'kind = "quantile"\nlevels = [0.2, 0.7]': Quantile("x", quantiles=[0.2, 0.7]),
}


@pytest.mark.parametrize(("text", "head"), VERSION_1.items(), ids=lambda case: str(case)[:20])
def test_a_head_of_version_1_is_read(text, head):
    branch = 'version = 1\n[branch.one]\nkind = "continuous"\ncolumns = ["area"]\n'
    alone = mip.parse(f'{branch}[head]\ncolumn = "x"\n{text}\n')
    joint = mip.parse(
        f'{branch}[head]\nkind = "joint"\nweight.a = 0.5\n[head.head.a]\ncolumn = "x"\n{text}\n'
    )
    assert alone.head == head
    assert joint.head == Joint({"a": head}, loss_weights={"a": 0.5})


@pytest.mark.parametrize(("text", "error"), SPECS.items(), ids=SPECS)
def test_a_head_that_cannot_be_is_refused(text, error):
    assert refusal(f'column = "x"\n{text}') == error


# Members.


def test_each_member_has_its_own_loss_and_together_they_predict_the_mean():
    head = Multiclass("style", layers=[5], members=3)
    plan, rows = mip.adapt(spec_of(head), known_of(head)), known_of(head)
    net, batch = mip.build(plan), plan.encode(rows)
    members, mean = net(batch.inputs), net.eval()(batch.inputs)
    assert members.shape == (len(rows), 3, 4)
    torch.testing.assert_close(members.mean(dim=1), mean)
    losses = [F.cross_entropy(logits, batch.target) for logits in members.unbind(1)]
    torch.testing.assert_close(plan.loss(members, batch.target), torch.stack(losses).mean())
    torch.testing.assert_close(plan.loss(mean, batch.target), F.cross_entropy(mean, batch.target))
    assert not torch.allclose(members[:, 0], members[:, 1])


def test_a_member_is_the_network_that_its_adapters_make():
    net = Members(3, (4,), 0.0, None, members=2)
    layer, x = net.layers[0], torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    for k, logits in enumerate(net(x).unbind(1)):
        weight = layer.after[k, :, None] * layer.shared.weight * layer.before[k]
        hidden = F.linear(x, weight, layer.bias[k]).relu()
        torch.testing.assert_close(
            logits, F.linear(hidden, net.weight[k].T, net.bias[k]).squeeze(1)
        )


def test_logits_of_too_few_members_are_refused():
    head = Regression("price", members=3)
    loss = training_loss(head, head.adapt(rows_of()))
    assert loss(torch.zeros(4, 3), torch.zeros(4)) == 0
    for wrong in (torch.zeros(4, 2), torch.zeros(4, 1), torch.zeros(3, 3)):
        with pytest.raises(DataError, match="would broadcast"):
            loss(wrong, torch.zeros(4))


# Optional verbs and fields.


def test_a_head_has_layers_or_builds_its_tower():
    class Bare:
        pass

    class Layered:
        layers, dropout = (4,), 0.0

        def outputs(self, facts):
            return 2

    class Building(Layered):
        def tower(self, facts, width):
            return torch.nn.Identity()

    assert tower(Layered(), {}, 3)(torch.zeros(5, 3)).shape == (5, 2)
    assert isinstance(tower(Building(), {}, 3), torch.nn.Identity)
    with pytest.raises(SpecError) as caught:
        tower(Bare(), {}, 3)
    text = "Bare has neither the fields 'layers' and 'dropout' nor a verb 'tower'"
    assert str(caught.value) == text


def test_a_joint_head_is_walked_to_its_columns():
    head = Joint({"a": Count("x"), "b": Joint({"c": Count("y")})})
    columns = {path: child.column for path, child in column_heads(head)}
    assert columns == {"head.head.a": "x", "head.head.b.head.c": "y"}


def test_a_weighted_loss_is_that_of_torch_over_all_rows_and_a_mean_in_each_batch():
    rows = mip.from_columns({"y": ["a"] * 6 + ["b"] * 2})
    head = mip.heads.Multiclass("y", class_weight="balanced")
    facts = head.adapt(rows)
    loss, target = mip.heads.training_loss(head, facts), head.encode(facts, rows)
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0))
    weight = torch.tensor(facts["weights"])
    whole = loss(logits, target)
    torch.testing.assert_close(whole, F.cross_entropy(logits, target, weight))
    halves = [loss(logits[part], target[part]) for part in (slice(4), slice(4, 8))]
    torch.testing.assert_close(sum(halves) / 2, whole)
