"""Residual branches add what the others leave over, do no harm, and leave their training alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import BRANCHES, bits
from hypothesis import given, settings
from hypothesis import strategies as st

import mip
from mip.errors import MipWarning, SpecError
from mip.heads import Criterion, Quantile, Regression, smooth_loss
from mip.model import Parts
from mip.prediction import predictor
from mip.runs import Trial, fit_residual, prepare_job, run_stacked
from mip.runs.checks import inner_folds
from mip.runs.shrinkage import fit_correction, principal_components

ROWS, LENGTH = 80, 3

TABLE = '[branch.table]\nkind = "continuous"\ncolumns = ["x"]\n'
LOOKS = '[branch.looks]\nkind = "vector"\ncolumns = ["looks"]\n'
RESIDUAL = '[fusion]\nresidual = ["looks"]\nresidual_folds = 3\n'
TRAIN = (
    "[train]\nepochs = 4\nbatch_size = 8\nworkers = 0\noptimizer = { kind = 'adamw', lr = 0.2 }\n"
)

HEADS = {
    "regression": 'kind = "regression"\ncolumn = "number"\nloss = "mae"\nlayers = [4]\nmembers = 2',
    "quantile": 'kind = "quantile"\ncolumn = "number"',
    "count": 'kind = "count"\ncolumn = "count"',
    "binary": 'kind = "binary"\ncolumn = "sign"\nclass_weight = "balanced"',
    "multiclass": 'kind = "multiclass"\ncolumn = "third"\nclass_weight = "balanced"',
    "ordinal": 'kind = "ordinal"\ncolumn = "third"\nmembers = 2',
    "multilabel": 'kind = "multilabel"\ncolumn = "labels"',
}
JOINT = (
    'kind = "joint"\nweighting = "learned"\n'
    f"[head.head.a]\n{HEADS['regression']}\n[head.head.b]\n{HEADS['multiclass']}\n"
)


def frame_of(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows whose looks know half of every target, and whose noise knows nothing."""
    rng = np.random.default_rng(seed)
    x, looks = rng.normal(size=rows), rng.normal(size=(rows, LENGTH))
    number = x + looks[:, 0] + 0.1 * rng.normal(size=rows)
    return pd.DataFrame(
        {
            "x": x,
            "looks": [row.tolist() for row in looks],
            "noise": [row.tolist() for row in rng.normal(size=(rows, LENGTH))],
            "number": number,
            "count": np.round(np.exp(np.clip(number, -2, 2))),
            "sign": np.where(number > 0, "yes", "no"),
            "third": np.digitize(number, [-0.7, 0.7]),
            "labels": [["up"] * int(n > 0) + ["far"] * int(abs(n) > 1) for n in number],
        }
    )


def spec_of(head: str = HEADS["regression"], fusion: str = RESIDUAL, branches: str = TABLE + LOOKS):
    return mip.parse(f"{branches}{fusion}[head]\n{head}\n{TRAIN}")


@pytest.fixture(scope="module")
def both():
    """A run with a residual branch, and its rows."""
    rows = mip.from_frame(frame_of())
    return mip.run(spec_of(), (rows,)), rows


@pytest.fixture(scope="module")
def alone(both):
    """The run without the branch."""
    return mip.run(spec_of(fusion="", branches=TABLE), (both[1],))


def deal(rows: int, repeats: int = 2) -> np.ndarray:
    """Five folds of the rows for each repeat."""
    generator = np.random.default_rng(0)
    return np.stack([generator.permutation(rows) % 5 for _ in range(repeats)])


def without(state):
    """The state of the other branches alone."""
    zeroed = {
        path: leaf.zero_() if path.startswith("residual.") else leaf
        for path, leaf in ((path, leaf.clone()) for path, leaf in state.buffers.items())
    }
    return evolve(state, buffers=zeroed)


@pytest.mark.parametrize("head", [*HEADS.values(), JOINT], ids=[*HEADS, "joint"])
def test_every_head_gains_and_its_file_predicts_the_same(head, tmp_path):
    losses = []
    context = mip.Context(on_residual=lambda *found: losses.append(found))
    ended = mip.run(spec_of(head), (mip.from_frame(frame_of()),), out=tmp_path, context=context)
    rows = mip.from_frame(frame_of(200, seed=1))
    assert [(name, after < before) for name, before, after in losses] == [("looks", True)]
    before = mip.evaluate(predictor(ended.plan, without(ended.state)), rows)["loss"]
    assert mip.evaluate(ended.predict, rows)["loss"] < before
    loaded = mip.load(tmp_path / "model.safetensors")
    pd.testing.assert_frame_equal(loaded(rows), ended.predict(rows), check_exact=True)


def test_the_other_branches_train_as_they_do_alone(both, alone):
    ended, _ = both
    assert bits(ended.state.params) == bits(alone.state.params)
    assert ended.history.epochs[-1]["loss"] == alone.history.epochs[-1]["loss"]


def test_what_is_interrupted_ends_with_the_same_model(both, tmp_path):
    whole, rows = both

    def stop(event):
        if event.name == "after_epoch" and event.epoch == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mip.run(spec_of(), (rows,), out=tmp_path, hooks=[stop])
    mip.run(spec_of(), (rows,), out=tmp_path, resume=True)
    mip.save(tmp_path / "whole.safetensors", whole.plan, whole.state)
    cut = tmp_path / "model.safetensors"
    assert cut.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_branch_of_noise_changes_little_and_a_warning_says_so():
    spec = spec_of()
    rows = frame_of().assign(looks=frame_of()["noise"])
    with pytest.warns(MipWarning, match=r"fusion\.residual: 'looks' adds next to nothing"):
        ended = mip.run(spec, (mip.from_frame(rows),))
    test = mip.from_frame(frame_of(50, seed=1))
    alone = predictor(ended.plan, without(ended.state))(test)
    # The target's standard deviation is about 1.4.
    assert (ended.predict(test)["value"] - alone["value"]).abs().max() < 0.2


def test_noise_beside_a_branch_that_knows_something_takes_nothing_away(both):
    noise = LOOKS.replace("looks", "noise")
    fusion = RESIDUAL.replace('["looks', '["noise", "looks')
    without_noise, rows = both
    with pytest.warns(MipWarning, match="'noise'"):
        ended = mip.run(spec_of(fusion=fusion, branches=TABLE + LOOKS + noise), (rows,))
    test = mip.from_frame(frame_of(200, seed=1))
    losses = [mip.evaluate(run.predict, test)["loss"] for run in (ended, without_noise)]
    assert losses[0] < 1.05 * losses[1]


@settings(max_examples=3)
@given(st.integers(0, 10_000))
def test_a_correction_by_noise_does_no_harm(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, target = (
        torch.randn(100, 10, generator=generator),
        torch.randn(100, generator=generator),
    )
    fitted = fit_correction(
        scores / 10**0.5, torch.zeros(100), target, torch.nn.functional.mse_loss, deal(100)
    )
    # The excess risk over new rows, whose scores have the same distribution; that of the target
    # is 1.
    assert fitted.weight.square().sum() / 10 < 0.15


@settings(max_examples=3)
@given(st.integers(0, 10_000))
def test_a_correction_finds_what_is_there(seed):
    generator = torch.Generator().manual_seed(seed)
    scores, noise = (torch.randn(100, k, generator=generator) for k in (10, 1))
    target = 2 * scores[:, 0] + 0.1 * noise[:, 0]
    mse = torch.nn.functional.mse_loss
    fitted = fit_correction(scores, torch.zeros(100), target, mse, deal(100))
    truth = torch.zeros(10, 1).index_fill(0, torch.tensor(0), 2.0)
    torch.testing.assert_close(fitted.weight, truth, atol=0.1, rtol=0)


@given(st.integers(0, 10_000), st.integers(20, 60), st.integers(1, 80))
def test_components_are_those_of_the_standardized_vectors(seed, rows, length):
    vectors = torch.randn(rows, length, generator=torch.Generator().manual_seed(seed)) * 7 + 3
    components = principal_components(torch.cat([vectors, torch.ones(rows, 1)], dim=1))
    scores = components.scores(torch.cat([vectors, torch.full((rows, 1), 5.0)], dim=1)).double()
    standardized = (vectors - vectors.mean(0)) / vectors.std(0, correction=0)
    singular = torch.linalg.svdvals(standardized.double())[: scores.shape[1]]
    assert scores.shape[1] == min(rows // 3, length)
    torch.testing.assert_close(
        torch.linalg.svdvals(scores), singular / singular.norm() * rows**0.5, rtol=1e-4, atol=1e-4
    )


def test_constant_vectors_have_no_components():
    assert principal_components(torch.ones(30, 4)).directions.shape == (4, 0)


@pytest.mark.parametrize("head", [Regression("y", loss="mae"), Quantile("y")], ids=["mae", "q"])
def test_a_smooth_loss_has_a_slope_everywhere(head):
    loss: Criterion = smooth_loss(head, {})
    outputs = head.outputs({})
    logits = torch.zeros(3, *([outputs] if outputs else []), requires_grad=True)
    slope = torch.autograd.grad(loss(logits, torch.zeros(3)), logits)[0]
    closely = torch.autograd.grad(loss(logits + 1e-4, torch.zeros(3)), logits)[0]
    torch.testing.assert_close(slope, closely, atol=1e-3, rtol=0)


def test_a_row_without_the_branch_is_predicted_by_the_others():
    rows = frame_of()
    rows["looks"] = rows["looks"].where(np.arange(ROWS) % 3 > 0, None)
    ended = mip.run(spec_of(), (mip.from_frame(rows),))
    test = mip.from_frame(rows.iloc[:6])
    alone = predictor(ended.plan, without(ended.state))(test)["value"]
    changed = (ended.predict(test)["value"] != alone).tolist()
    assert changed == [False, True, True, False, True, True]


def test_rows_of_a_group_are_in_one_fold():
    split = '[data]\nsplit = { fractions = [1, 0, 0], group = "place" }\n'
    spec = mip.parse(split + TABLE + LOOKS + RESIDUAL + f"[head]\n{HEADS['count']}\n")
    places = np.arange(ROWS) // 7
    folds = inner_folds(spec, mip.from_frame(frame_of().assign(place=places)))
    assert all(np.ptp(folds[:, places == place], axis=1).max() == 0 for place in set(places))
    assert [set(fold) for fold in folds] == [{0, 1, 2}] * 4


def test_as_many_groups_as_folds_are_enough():
    split = '[data]\nsplit = { fractions = [1, 0, 0], group = "place" }\n'
    text = f"{split}{TABLE}{LOOKS}{RESIDUAL}[head]\n{HEADS['regression']}\n{TRAIN}"
    rows = mip.from_frame(frame_of().assign(place=np.arange(ROWS) % 3))
    ended = mip.run(mip.parse(text), (rows,))
    assert ended.state.buffers["residual.branch.looks.linear.weight"].any()


@pytest.mark.filterwarnings("ignore:fusion.residual")
def test_photos_keep_their_features_and_batch_norms(table):
    fusion = '[fusion]\nresidual = ["photos"]\nresidual_folds = 2\n'
    head = '[head]\nkind = "regression"\ncolumn = "price"\n'
    train = "[train]\nepochs = 1\nbatch_size = 4\nema = 0.5\nworkers = 0\n"
    spec = mip.parse(BRANCHES + fusion + head + train)
    job = prepare_job(spec, Parts(table, table.take([]), table.take([])))
    assert "photos" not in next(iter(job.batches)).inputs
    ended = mip.run(spec, (table,))
    before, after = job.start.state.buffers, ended.state.buffers
    photos = [path for path in before if path.startswith("body.branch.photos.")]
    assert photos
    assert bits([before[k] for k in photos]) == bits([after[k] for k in photos])


def test_a_state_is_completed_by_hand_as_by_a_run(both, alone):
    ended, rows = both
    again = fit_residual(ended.plan, without(ended.state), rows)
    assert bits(again.buffers) == bits(ended.state.buffers)
    assert fit_residual(alone.plan, alone.state, rows) is alone.state


@pytest.mark.filterwarnings("ignore:fusion.residual", "ignore:train.epochs")
def test_a_run_without_epochs_is_completed_too():
    spec = evolve(spec_of(), train=evolve(spec_of().train, epochs=0))
    ended = mip.run(spec, (mip.from_frame(frame_of()),))
    assert ended.state.step == 0
    assert ended.state.buffers["residual.branch.looks.linear.weight"].any()


def test_a_spec_with_residual_branches_round_trips():
    spec = spec_of()
    assert mip.parse(mip.dump(spec)) == spec
    assert spec.fusion.residual == ("looks",)


FUSE = '[branch.both]\nkind = "fuse"\nresidual = ["looks"]\n'
MISTAKES = {
    '[fusion]\nresidual = ["look"]\n': (
        "fusion.residual names 'look', which is not a branch; did you mean 'looks'? "
        "(known: looks, table)"
    ),
    '[fusion]\nresidual = ["looks", "looks"]\n': "fusion.residual names 'looks' twice",
    '[fusion]\nresidual = ["looks", "table"]\n': (
        "fusion.residual must leave at least one other branch"
    ),
    '[fusion]\nresidual = ["looks"]\nresidual_folds = 1\n': "fusion.residual_folds must be >= 2: 1",
    FUSE + LOOKS.replace("[branch", "[branch.both.branch"): (
        "branch.both.residual must be left out: only [fusion] has logits to add to"
    ),
}


@pytest.mark.parametrize(("fusion", "message"), MISTAKES.items())
def test_mistakes_in_specs(fusion, message):
    with pytest.raises(SpecError) as caught:
        spec_of(fusion=fusion)
    assert str(caught.value) == message


def test_rows_that_cannot_be_fitted_are_refused_before_training(tmp_path):
    with pytest.raises(SpecError, match=r"fusion\.residual_folds = 3: .*give the training"):
        mip.run(spec_of(), (mip.from_frame(frame_of(1)),))
    path = tmp_path / "rows.parquet"
    frame_of(40).drop(columns="labels").to_parquet(path)
    with pytest.raises(SpecError, match=r"fusion\.residual needs a table in memory"):
        mip.run(spec_of(), (mip.stream(path),))


def test_a_stack_is_refused():
    rows = mip.from_frame(frame_of())
    trial = Trial("one", spec_of(), Parts(rows, rows.take([]), rows.take([])))
    with pytest.raises(SpecError, match=r"fusion\.residual needs a model that is trained alone"):
        run_stacked([trial])


def test_a_residual_branch_is_not_fine_tuned():
    photo = '[branch.looks]\nkind = "image"\ncolumns = ["a"]\nfinetune = { lr_scale = 0.1 }\n'
    with pytest.raises(SpecError, match=r"branch\.looks\.finetune must be left out: residual"):
        spec_of(branches=TABLE + photo)
