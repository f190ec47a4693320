"""Several heads: the laws of one head hold for all of them together."""

from __future__ import annotations

import json
from functools import cache

import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import known
from every_head import HEADS, ROWS, known_of, logits_of, rows_of
from test_heads import refusal, spec_of

import mip
from mip.errors import DataError, MipWarning, SpecError
from mip.heads import Head, Joint
from mip.heads.joint import LOG_VARIANCE
from mip.tree import map_tree, take

ALL = {type(head).__name__: head for head in HEADS.values()}
"""One head of each kind, the last of them."""

PAIR = {"price": HEADS["regression"], "style": HEADS["multiclass"]}
JOINTS = {
    "all": Joint(ALL),
    "learned": Joint(ALL, weighting="learned"),
    "nested": Joint({"one": HEADS["count"], "two": Joint(PAIR, loss_weights={"style": 0.5})}),
    "weighted": Joint(PAIR, loss_weights={"price": 2.0, "style": 0.0}),
}

every = pytest.mark.parametrize("head", JOINTS.values(), ids=JOINTS)


@cache
def whole() -> mip.Table:
    """The rows that have every target."""
    rows = rows_of()
    for head in HEADS.values():
        rows = rows.take([k for k, row in enumerate(rows.row_ids.tolist()) if row in kept(head)])
    return rows


def kept(head) -> list[int]:
    return known_of(head).row_ids.tolist()


def logits(head, facts, rows: int):
    if not hasattr(head, "head"):
        return logits_of(head, facts, rows)
    by_head = {name: logits(child, facts[name], rows) for name, child in head.head.items()}
    if head.weighting == "fixed":
        return by_head
    return {**by_head, LOG_VARIANCE: torch.linspace(-1, 1, len(by_head)).expand(rows, -1)}


@every
def test_facts_are_json_and_those_of_each_head(head):
    facts = head.adapt(whole())
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    assert all(facts[name] == child.adapt(whole()) for name, child in head.head.items())


@every
def test_encoding_treats_each_row_by_itself(head):
    facts, places = head.adapt(rows_of()), [3, 0, 2, 2]
    apart = head.encode(facts, rows_of(places))
    together = take(head.encode(facts, rows_of()), torch.tensor(places))
    same = map_tree(lambda leaf: leaf.nan_to_num(-7), [apart, together])
    assert json.dumps(map_tree(torch.Tensor.tolist, same[0])) == json.dumps(
        map_tree(torch.Tensor.tolist, same[1])
    )


@every
def test_the_loss_is_the_weighted_sum_and_the_mean_of_its_rows(head):
    facts, rows = head.adapt(whole()), whole()
    target, pred = head.encode(facts, rows), logits(head, facts, len(rows))
    loss = head.criterion(facts)
    losses = [
        child.criterion(facts[name])(pred[name], target[name]) for name, child in head.head.items()
    ]
    if head.weighting == "learned":
        pairs = zip(torch.linspace(-1, 1, len(losses)), losses, strict=True)
        expected = sum(
            (-log_variance).exp() * value + log_variance for log_variance, value in pairs
        )
    else:
        weights = [head.loss_weights.get(name, 1.0) for name in head.head]
        expected = sum(weight * value for weight, value in zip(weights, losses, strict=True))
    torch.testing.assert_close(loss(pred, target), expected)
    per_row = [
        loss(take(pred, torch.tensor([k])), take(target, torch.tensor([k])))
        for k in range(len(rows))
    ]
    torch.testing.assert_close(torch.stack(per_row).mean(), expected)


@every
def test_columns_and_scores_are_prefixed_with_the_name_of_their_head(head):
    facts, rows = head.adapt(whole()), whole()
    target, pred = head.encode(facts, rows), logits(head, facts, len(rows))
    columns, scores = head.decode(facts, pred), head.metrics(facts, pred, target)
    for name, child in head.head.items():
        decoded = child.decode(facts[name], pred[name])
        assert all((columns[f"{name}.{key}"] == values).all() for key, values in decoded.items())
        metrics = child.metrics(facts[name], pred[name], target[name])
        assert {key: scores[f"{name}.{key}"] for key in metrics} == pytest.approx(
            metrics, nan_ok=True
        )
        assert scores[f"{name}.loss"] == pytest.approx(
            float(child.criterion(facts[name])(pred[name], target[name]))
        )


@every
def test_it_round_trips_through_a_spec_in_any_order(head):
    spec = spec_of(head)
    assert mip.parse(mip.dump(spec)) == spec
    turned = Joint(dict(reversed(head.head.items())), head.weighting, head.loss_weights)
    assert list(turned.head) == list(head.head)


@every
def test_a_model_of_it_predicts_from_its_file_as_in_memory(head, tmp_path):
    parts = mip.model.Parts(whole(), whole(), whole().take([]))
    ended = mip.run(spec_of(head), parts, out=tmp_path, context=mip.Context(device="cpu"))
    loaded = mip.load(tmp_path / "model.safetensors")
    predicted = loaded(rows_of())
    assert predicted.equals(ended.predict(rows_of()))
    assert len(predicted) == ROWS
    assert len(loaded(rows_of([]))) == 0
    scores = mip.evaluate(loaded, whole())
    row = ended.history.epochs[-1]
    assert {f"valid/{name}" for name in scores} <= row.keys()
    assert scores["loss"] == pytest.approx(row["valid/loss"], rel=1e-5)


@every
def test_every_parameter_is_reached_and_learns(head):
    spec, rows = spec_of(head), whole()
    plan = mip.adapt(spec, rows)
    net, optimizer, losses = mip.build(plan), mip.adamw(0.03), []
    step, state = mip.train_step(net, plan.loss, optimizer), mip.init(net, optimizer)
    batch = plan.encode(rows)
    loss = plan.loss(net(batch.inputs), batch.target)
    params = [param for param in net.parameters() if param.numel()]
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    assert all(grad is not None for grad in grads)
    for _ in range(30):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0]


@every
def test_mixed_rows_train(head, tmp_path):
    parts = mip.model.Parts(whole(), whole().take([]), whole().take([]))
    ended = mip.run(
        spec_of(head, mixup=0.4), parts, out=tmp_path, context=mip.Context(device="cpu")
    )
    assert all(value.isfinite().all() for value in ended.state.params.values())


def test_one_head_alone_is_that_head_to_the_bit():
    head = HEADS["multiclass"]
    rows = known_of(head)
    parts = mip.model.Parts(rows, rows.take([]), rows.take([]))
    alone = mip.run(spec_of(head), parts, context=mip.Context(device="cpu"))
    joint = mip.run(spec_of(Joint({"it": head})), parts, context=mip.Context(device="cpu"))
    assert torch.equal(
        alone.state.params["head.0.weight"], joint.state.params["head.head.it.0.weight"]
    )
    columns = joint.predict(rows_of())
    assert columns.rename(columns=lambda name: name.removeprefix("it.")).equals(
        alone.predict(rows_of())
    )


@pytest.mark.slow
def test_learned_weights_follow_the_noise():
    # One target is exact and the other noise: training trusts the first more.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, generator=generator)
    noise = torch.randn(256, generator=generator)
    frame = pd.DataFrame({"area": x, "exact": 2 * x, "noise": noise})
    heads = {name: evolve(HEADS["regression"], column=name) for name in ("exact", "noise")}
    rows = mip.from_frame(frame)
    spec = spec_of(Joint(heads, weighting="learned"))
    parts = mip.model.Parts(rows, rows.take([]), rows.take([]))
    train = evolve(spec.train, epochs=20, optimizer=mip.optim.AdamW(0.03, weight_decay=0.0))
    log_variance = mip.run(evolve(spec, train=train), parts).state.params["head.doubt"]
    assert log_variance[0] < -1 < -0.3 < log_variance[1] < 0.3


def test_rows_lack_a_target_by_their_own_heads_policy():
    head = Joint({"price": HEADS["regression"], "style": HEADS["multiclass"]})
    with pytest.warns(MipWarning):
        _, report = mip.clean(spec_of(head), rows_of())
    assert report.dropped == {
        "target 'price' infinite or beyond float32": [3],
        "target 'price' missing": [4],
        "target 'style' missing": [2],
    }
    strict = Joint({**head.head, "style": evolve(HEADS["multiclass"], missing="error")})
    with pytest.raises(DataError, match=r"row 2, column 'style': the target is missing$"):
        mip.clean(spec_of(strict), rows_of())
    plan = mip.adapt(spec_of(head), whole())
    with pytest.raises(DataError, match=r"row 2, column 'price': the target is missing; mip.clean"):
        plan.encode(rows_of())
    assert plan.encode(mip.from_columns({"area": [1.0], "price": [2.0]})).target is None


ERRORS = {
    '[head.head.a]\nkind = "regresion"\ncolumn = "x"': (
        f"head.head.a.kind = 'regresion' is not a kind; did you mean 'regression'? {known(Head)}"
    ),
    "[head.head]": "head.head must have at least 1 entry, not 0",
    '[head.head.a]\nkind = "count"\ncolumn = "x"\n[head.loss_weights]\nb = 1.0': (
        "head.loss_weights names 'b', which is not a head (known: a)"
    ),
    '[head.head.a]\nkind = "count"\ncolumn = "x"\n[head.loss_weights]\na = -1': (
        "head.loss_weights of 'a' must be finite and >= 0: -1.0"
    ),
    'weighting = "learned"\nloss_weights.a = 1\n[head.head.a]\nkind = "count"\ncolumn = "x"': (
        "head.loss_weights must be omitted: the weighting is learned"
    ),
}


@pytest.mark.parametrize(("text", "error"), ERRORS.items(), ids=ERRORS)
def test_a_joint_head_that_cannot_be_is_refused(text, error):
    assert refusal(f'kind = "joint"\n{text}') == error


def test_a_column_that_is_not_there_is_named_by_its_head():
    head = Joint({"price": evolve(HEADS["regression"], column="prize")})
    text = r"head\.head\.price\.column = 'prize' is not a column of table"
    with pytest.raises(SpecError, match=text):
        mip.clean(spec_of(head), rows_of())
    head = Joint({"price": evolve(HEADS["regression"], column="area")})
    with pytest.raises(SpecError, match=r"branch\.one\.columns: 'area' is the target"):
        mip.clean(spec_of(head), rows_of())
