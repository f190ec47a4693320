"""A run from a spec: what it keeps, chooses, refuses, and how folds stay apart."""

from __future__ import annotations

import json
import re
from itertools import islice

import numpy as np
import pandas as pd
import pytest
from attrs import evolve
from conftest import bits, spec_of
from toolz import pipe

import mip
from mip.data import from_frame
from mip.errors import DataError, SpecError
from mip.hooks import early_stop
from mip.metrics import best_epoch
from mip.model import Parts, cutmix, matches_pattern, mixup, random_choice
from mip.runs import prepare_job
from mip.runs.feeding import rows_pipe, train_pipe
from mip.runs.runner import Run
from mip.train import eval_step

SPEC = """
[branch.size]
kind = "continuous"
columns = ["a", "b"]
[head]
kind = "regression"
column = "y"
layers = [8]
dropout = 0.2
[train]
epochs = 6
batch_size = 16
optimizer = { kind = "adamw", lr = 3e-2 }
"""


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 120))
    frame = pd.DataFrame({"a": a, "b": b, "y": a - 2 * b + rng.normal(size=120) / 3})
    return from_frame(frame.assign(fold=np.arange(120) % 3))


@pytest.fixture(scope="module")
def cut(table):
    return mip.parts(mip.parse(SPEC), table)


def spec(**changes: object) -> mip.spec.Spec:
    return mip.parse(SPEC, changes={f"train.{name}": value for name, value in changes.items()})


def same(one: Run, other: Run) -> bool:
    return all(
        (one.state.params[name] == other.state.params[name]).all() for name in one.state.params
    )


def test_the_best_epoch_is_the_model_and_scores_as_it_did(cut, tmp_path):
    ended = mip.run(spec(restore_best=True, epochs=12), cut, out=tmp_path)
    row = ended.history.epochs[best_epoch(ended.history.epochs, "valid/loss")]
    assert ended.state.step == row["step"]
    assert mip.evaluate(ended.predict, cut.valid)["loss"] == row["valid/loss"]
    assert row["valid/loss"] == min(each["valid/loss"] for each in ended.history.epochs)


def test_the_last_epoch_is_the_model_by_default(cut):
    ended = mip.run(spec(), cut)
    assert ended.state.step == ended.history.epochs[-1]["step"] == 6 * 6


def test_a_run_is_a_function_of_its_spec_and_rows(cut):
    assert same(mip.run(spec(), cut), mip.run(spec(workers=0), cut))
    assert not same(mip.run(spec(), cut), mip.run(spec(seed=1), cut))


# After step 12 and 36 an epoch's batches are over, and its row is still to come.
@pytest.mark.parametrize(
    ("at", "more"),
    [(10, {}), (10, {"mixup": 0.4}), (12, {"restore_best": True}), (36, {"restore_best": True})],
)
def test_checkpoints_between_epochs_resume_to_the_same_bytes(cut, tmp_path, at, more):
    class CutError(Exception): ...

    def cutting(event):
        if event.step == at and event.name == "after_batch":
            raise CutError

    asked = spec(checkpoint_every=4, **more)
    with pytest.raises(CutError):
        mip.run(asked, cut, out=tmp_path / "cut", make_hooks=lambda job: [cutting])
    mip.run(asked, cut, out=tmp_path / "cut", resume=True)
    mip.run(asked, cut, out=tmp_path / "whole")
    for name in ("model.safetensors", "history.jsonl", "checkpoints/last.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize(("keep", "left"), [(0, []), (2, [4, 5]), (-1, [0, 1, 2, 3, 4, 5])])
def test_checkpoints_of_epochs_are_kept_as_the_spec_says(cut, tmp_path, keep, left):
    mip.run(spec(keep_last=keep, restore_best=True), cut, out=tmp_path)
    names = {path.stem for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"last", "best", *(f"epoch-{epoch:04}" for epoch in left)}
    with pytest.raises(mip.MipError, match=r"^train\.keep_last must be >= -1: -2$"):
        spec(keep_last=-2)


@pytest.mark.parametrize("keep", [0, -1])
def test_a_damaged_best_checkpoint_is_told_before_the_training(cut, tmp_path, keep):
    asked = spec(keep_last=keep, restore_best=True)
    ended, path = mip.run(asked, cut, out=tmp_path), tmp_path / "checkpoints" / "best.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 4]) + whole[-8:])
    with pytest.raises(mip.MipError) as caught:
        mip.run(asked, cut, out=tmp_path, resume=True)
    name = f"epoch-{best_epoch(ended.history.epochs, 'valid/loss'):04}.safetensors"
    cure = (
        f"{name} is the same: copy it over best.safetensors"
        if keep
        else "start again without resume"
    )
    wrong = "the file is damaged (its checksum does not match)"
    assert str(caught.value) == f"{path}: {wrong}; {cure}"
    path.unlink()
    with pytest.raises(mip.MipError, match=r"best\.safetensors: cannot be read \(No such file"):
        mip.run(asked, cut, out=tmp_path, resume=True)
    assert not keep or (tmp_path / "checkpoints" / name).read_bytes() == whole


def test_a_run_that_begins_anew_leaves_no_checkpoint_of_an_earlier_one(cut, tmp_path):
    mip.run(spec(keep_last=-1, restore_best=True), cut, out=tmp_path)
    ended = mip.run(spec(epochs=0, restore_best=True), cut, out=tmp_path, overwrite=True)
    assert ended.state.step == 0
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_resume_of_a_finished_run_changes_nothing(cut, tmp_path):
    mip.run(spec(), cut, out=tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    mip.run(spec(), cut, out=tmp_path, resume=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_resume_names_what_has_changed(cut, tmp_path):
    mip.run(spec(), cut, out=tmp_path)
    with pytest.raises(mip.MipError, match=r"run: train\.mixup was 0.0 and is 0.5"):
        mip.run(spec(mixup=0.5), cut, out=tmp_path, resume=True)
    frame = cut.train.frame.copy()
    frame.iloc[0, 0] += 1
    other = cut._replace(train=evolve(cut.train, frame=frame))
    with pytest.raises(mip.MipError, match="the train rows are others, column 'a' differs"):
        mip.run(spec(), other, out=tmp_path, resume=True)


def test_choosing_needs_valid_rows(cut):
    none = Parts(cut.train, cut.valid.take([]), cut.test)
    for change in ({"patience": 2}, {"restore_best": True}):
        with pytest.raises(mip.MipError, match="needs a valid part in data"):
            mip.run(spec(**change), none)
    names = {"epoch", "step", "loss", "lr", "weight_decay"}
    assert mip.run(spec(), none).history.epochs[0].keys() == names


def test_patience_stops_a_run_that_gets_no_better(cut, tmp_path):
    ended = mip.run(spec(epochs=200, patience=3), cut, out=tmp_path)
    at = best_epoch(ended.history.epochs, "valid/loss")
    assert len(ended.history.epochs) == at + 1 + 3 < 200
    lines = (tmp_path / "history.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dict(row) for row in ended.history.epochs]


def test_a_run_that_was_stopped_stays_so_when_resumed(cut, tmp_path):
    ended = mip.run(spec(epochs=200, patience=3), cut, out=tmp_path)
    again = mip.run(spec(epochs=200, patience=3), cut, out=tmp_path, resume=True)
    assert again.state.step == ended.state.step
    assert same(again, ended)


def test_no_epochs_give_the_untrained_model_even_in_an_old_folder(cut, tmp_path):
    mip.run(spec(), cut, out=tmp_path)
    assert mip.run(spec(epochs=0), cut, out=tmp_path, overwrite=True).state.step == 0


def test_the_best_epoch_is_the_first_of_equals_and_never_nan():
    rows = tuple({"valid/loss": loss} for loss in (3.0, 1.0, float("nan"), 2.0))
    assert best_epoch(rows, "valid/loss") == 1
    assert best_epoch(rows, "valid/loss", mode="max") == 0
    assert best_epoch((), "valid/loss") == -1


def test_early_stop_counts_epochs_without_a_better_one(cut):
    losses = iter([3.0, 1.0, 2.0, float("nan"), 0.5])

    def message(event):
        return {"valid/loss": next(losses)} if event.name == "after_epoch" else None

    none = Parts(cut.train, cut.valid.take([]), cut.test)
    hooks = [message, early_stop("valid/loss", patience=2)]
    ended = mip.run(spec(epochs=5), none, make_hooks=lambda job: hooks)
    assert len(ended.history.epochs) == 4


def test_folds_are_predicted_by_models_that_never_saw_them(table):
    done = mip.crossval(spec(epochs=2), table, "fold")
    assert done.predictions.index.tolist() == table.row_ids.tolist()
    assert len(done.scores) == 3
    own = table.texts("fold") == "0"
    rest = Parts(table.take(np.flatnonzero(~own)), table.take([]), table.take([]))
    alone = mip.run(spec(epochs=2), rest).predict(table.take(np.flatnonzero(own)))
    assert done.predictions.loc[alone.index, "value"].tolist() == alone["value"].tolist()


@pytest.mark.parametrize(
    ("names", "error"), [("00", "column 'k' has 1 fold"), (["0", ""], "row 1, column 'k': no fold")]
)
def test_folds_are_named_in_every_row_and_two_at_least(names, error, table):
    frame = table.frame.assign(k=[names[row % 2] for row in range(len(table))])
    with pytest.raises(mip.MipError, match=error):
        mip.crossval(spec(), evolve(table, frame=frame), "k")


def test_rows_past_the_memory_limit_are_read_anew_and_train_the_same(cut, monkeypatch):
    kept = mip.run(spec(epochs=2), cut)
    monkeypatch.setattr("mip.runs.feeding.MEMORY_BYTES", 0)
    assert same(kept, mip.run(spec(epochs=2), cut))


def test_a_last_batch_of_one_row_is_left_out_of_training_alone(cut):
    plan = mip.adapt(spec(batch_size=83), cut.train)
    assert len(cut.train) == 84
    assert len(train_pipe(plan, cut.train)) == 1
    assert len(rows_pipe(plan, cut.train, 83)) == 2


def test_rows_in_memory_pass_no_stage_that_changes_nothing(cut, houses):
    assert train_pipe(mip.adapt(spec(), cut.train), cut.train).stages == ()
    assert len(train_pipe(planned("regression", houses), houses).stages) == 1
    assert len(train_pipe(planned("regression", houses, "mixup = 0.4"), houses).stages) == 2


# Mixing, on the small table with photos and every head.


@pytest.fixture(scope="module")
def houses(folder):
    return mip.read(folder / "houses.csv")


MIXED = {
    "": [],
    "mixup = 0.4": [mixup(0.4)],
    "cutmix = 1": [cutmix(1.0)],
    "mixup = 0.4\ncutmix = 1": [mixup(0.4), cutmix(1.0)],
}


def planned(head, table, asked="", seed=3):
    train = f"[train]\nepochs = 2\nbatch_size = 4\nseed = {seed}\nworkers = 0\n{asked}"
    return mip.adapt(spec_of(head, train=train), table)


@pytest.mark.parametrize("asked", MIXED)
def test_the_pipe_that_trains_mixes_behind_the_augmentation(head, houses, asked):
    plan = planned(head, houses, asked)
    classes = 3 if head == "multiclass" else None
    ways = [evolve(way, classes=classes) for way in MIXED[asked]]
    encoded = mip.collect(pipe(houses, mip.batch(64), mip.transform(plan.encode)))
    plain = [mip.sample(shuffle=True, seed=3), mip.batch(4), mip.augment(plan.augment, 3)]
    byhand = pipe(encoded, *plain, *([mip.augment(random_choice(*ways), 3)] if ways else []))
    batches = train_pipe(plan, houses)
    assert bits(list(islice(batches.iter_from(0), 6))) == bits(list(islice(byhand.iter_from(0), 6)))
    assert bits(next(batches.iter_from(4))) == bits(list(islice(batches.iter_from(0), 5))[4])


def test_a_mixed_run_goes_on_from_any_step_with_the_same_bits(head, houses):
    plan = planned(head, houses, "mixup = 0.4\ncutmix = 1")
    setup = prepare_job(plan.spec, Parts(houses, houses.take([]), houses.take([])))
    whole = mip.fit(setup.step, setup.batches, setup.start.state, steps=setup.steps)
    assert all(value.isfinite().all() for value in whole.params.values())
    for step in range(setup.steps + 1):
        half = mip.fit(setup.step, setup.batches, setup.start.state, steps=step)
        ended = mip.fit(setup.step, setup.batches, half, steps=setup.steps - step)
        assert bits(ended) == bits(whole)


def test_every_way_of_mixing_trains_another_model(houses):
    parts = Parts(houses, houses.take([]), houses.take([]))
    models = [mip.run(planned("multiclass", houses, asked).spec, parts) for asked in MIXED]
    assert len({str(bits(model.state)) for model in models}) == len(MIXED)


def test_mixing_does_not_touch_rows_that_are_scored(cut):
    ended = mip.run(spec(mixup=0.4, epochs=2), cut)
    assert mip.evaluate(ended.predict, cut.valid)["loss"] == ended.history.epochs[-1]["valid/loss"]


def test_cutmix_without_photos_is_refused(cut, tmp_path):
    for change in ({"cutmix": 1.0}, {"cutmix": 1.0, "mixup": 0.2}):
        with pytest.raises(mip.MipError) as caught:
            mip.run(spec(**change), cut, out=tmp_path / "run")
        assert str(caught.value) == (
            "train.cutmix = 1 pastes photos, but no branch reads any; use train.mixup for numbers"
        )
    assert not (tmp_path / "run").exists()


def test_scores_of_a_state_are_those_of_its_model(cut):
    ended = mip.run(spec(epochs=1), cut)
    run = eval_step(mip.build(ended.plan))
    logits = run(ended.state, ended.plan.encode(cut.test).inputs)
    target = ended.plan.encode(cut.test).target
    assert ended.plan.score(logits, target) == mip.evaluate(ended.predict, cut.test)


def test_mixup_of_words_alone_is_refused(table):
    frame = table.frame.assign(w="x")
    words = SPEC.replace('"continuous"', '"categorical"').replace('["a", "b"]', '["w"]')
    spec = mip.parse(words + "mixup = 0.2\n")
    with pytest.raises(mip.MipError) as caught:
        prepare_job(spec, mip.parts(spec, from_frame(frame)))
    assert str(caught.value) == (
        "train.mixup = 0.2 mixes photos and numbers, but no branch reads any: "
        "only the targets would be mixed"
    )


@pytest.mark.parametrize("kind", ["regression", "binary", "multiclass", "ordinal", "multilabel"])
def test_a_row_without_a_target_is_not_encoded_to_train(kind):
    cells = {"a": [1.0, 2.0, 3.0], "y": ["1", "", "2"]}
    rows = mip.from_columns(cells)
    spec = mip.parse(
        f'''
        branch.size = {{ kind = "continuous", columns = ["a"] }}
        head = {{ kind = "{kind}", column = "y" }}
        '''
    )
    plan = mip.adapt(spec, rows)
    with pytest.raises(mip.MipError) as caught:
        plan.encode(rows)
    message = "table row 1, column 'y': the target is missing; mip.clean leaves such rows out"
    assert str(caught.value) == message
    assert plan.encode(rows.select(["a"])).target is None
    assert len(plan.encode(rows.take([0, 2])).target) == 2


def test_a_run_that_diverged_saves_no_model_and_says_where(cut, tmp_path):
    wild = mip.parse(SPEC, changes={"train.optimizer.lr": 1e30, "train.clip_norm": 0.0})
    with pytest.raises(DataError) as caught:
        mip.run(wild, cut, out=tmp_path / "wild")
    assert re.match(
        r"(the loss is (inf|nan)|a gradient is not finite) at step \d+, rows [\d, ]+, in epoch \d+ "
        r"\(try a smaller train.optimizer.lr, or train.on_nan = 'skip'\)$",
        str(caught.value),
    )
    assert not (tmp_path / "wild" / "model.safetensors").exists()


def test_weights_that_are_not_finite_are_not_saved(cut, tmp_path):
    # A rate beyond float32 spoils them in the last step, whose loss was fine.
    once = {"train.epochs": 1, "train.batch_size": 84, "train.schedule.kind": "constant"}
    wild = mip.parse(SPEC, changes=once | {"train.optimizer.lr": 1e41})
    with pytest.raises(DataError, match=r"wild: no model is saved: .* is not finite"):
        mip.run(wild, cut, out=tmp_path / "wild")
    assert not (tmp_path / "wild" / "model.safetensors").exists()


def test_a_group_that_never_starts_is_refused(cut):
    text = SPEC + '\n[[train.group]]\nmatch = "*"\nstart_epoch = 99\n'
    late = r"\.group\[0\]\.start_epoch = 99 is never reached in \d+ epochs$"
    with pytest.raises(SpecError, match=late):
        mip.run(mip.parse(text), cut)


@pytest.mark.parametrize("match", ["numbers.*", "branch.numbers.*", "body.branch.numbers.*"])
def test_a_pattern_may_name_what_holds_a_parameter(match):
    assert matches_pattern("body.branch.numbers.fill.value", match)
    assert not matches_pattern("body.branch.others.fill.value", match)
    assert not matches_pattern("head.numbers.weight", match)


# Longer runs.


FLAT = {"schedule": {"kind": "constant"}}


@pytest.mark.parametrize(
    "more", [{}, {"ema": 0.9}, {"accumulate": 2}, {"restore_best": True}, {"swa": 0.75}]
)
def test_a_run_with_more_epochs_is_the_run_that_had_them_at_once(cut, tmp_path, more):
    mip.run(spec(**FLAT, **more), cut, out=tmp_path / "run")
    longer = spec(**FLAT, **more, epochs=12)
    mip.run(longer, cut, out=tmp_path / "run", resume=True)
    mip.run(longer, cut, out=tmp_path / "whole")
    # Until it was resumed the shorter run had averaged other epochs, and was validated with them.
    others = () if "swa" in more else ("history.jsonl", "checkpoints/last.safetensors")
    for name in ("model.safetensors", *others):
        one, two = (tmp_path / run / name for run in ("run", "whole"))
        assert one.read_bytes() == two.read_bytes()
    assert mip.load_spec(tmp_path / "run" / "spec.toml").train.epochs == 12


def test_a_schedule_that_spans_the_run_spans_the_longer_one(cut, tmp_path):
    short = mip.run(spec(), cut, out=tmp_path)
    with pytest.warns(mip.errors.MipWarning) as warned:
        ended = mip.run(spec(epochs=12), cut, out=tmp_path, resume=True)
    rate = ended.history.steps["lr"][36]
    assert str(warned[0].message).startswith(
        f"{tmp_path}: train.epochs was 6 and is 12: schedules span the run, so that the learning "
        f"rate goes on at {rate:.3g} instead of "
    )
    assert rate > 1000 * short.history.steps["lr"][-1]
    rates = mip.run(spec(epochs=12), cut).history.steps["lr"]
    assert ended.history.steps["lr"][36:].equal(rates[36:])


def test_fewer_epochs_than_a_run_has_taken_are_refused(cut, tmp_path):
    mip.run(spec(), cut, out=tmp_path)
    before = (tmp_path / "spec.toml").read_bytes()
    with pytest.raises(SpecError) as caught:
        mip.run(spec(epochs=5), cut, out=tmp_path, resume=True)
    assert str(caught.value) == (
        f"{tmp_path}: train.epochs = 5: the run has taken 36 steps, and 5 epochs are 30"
    )
    assert (tmp_path / "spec.toml").read_bytes() == before


def test_another_window_of_shards_is_another_run(cut, tmp_path):
    cut.train.frame.to_parquet(tmp_path / "rows.parquet", row_group_size=10, index=False)
    rows, other = (mip.stream(tmp_path / "rows.parquet", window) for window in (20, 40))
    mip.run(spec(epochs=1), rows, out=tmp_path / "run")
    again = mip.run(spec(epochs=1), rows, out=tmp_path / "run", resume=True)
    assert len(again.history.epochs) == 1
    for another, window in ((other, "40"), (mip.read(tmp_path / "rows.parquet"), "None")):
        with pytest.raises(SpecError, match=f"window of the train rows was 20 and is {window};"):
            mip.run(spec(epochs=1), another, out=tmp_path / "run", resume=True)
