"""Nothing that is there already is written over: no input ever, no other file unless forced."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import NUMBERS, ROWS, draw_photos, frame_of, spec_of
from PIL import Image
from toolz import pipe

import mip
from mip.cli.app import main
from mip.demo import draw
from mip.errors import FileError, MipError
from mip.explain import record_activations
from mip.files import save_checkpoint, save_models
from mip.files.format import write_packed
from mip.files.run_folder import MARK
from mip.hooks import plot_history, plot_metrics
from mip.model import Parts
from mip.output import check_output, write
from mip.plots import figure, save_figure
from mip.runs import run
from mip.train import History, LRCurve

EXISTS = (
    "exists already; choose another name, or replace it with --force (overwrite=True in Python)"
)
INPUT = "is an input and is not written over; choose another name"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Every path below a folder, with the bytes of files."""
    paths = sorted(folder.rglob("*"))
    return {str(path): path.read_bytes() if path.is_file() else None for path in paths}


# The one place that decides.


def test_an_address_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in ("s3://bucket/m.safetensors", "memory://m", Path("gs://bucket/m")):
        with pytest.raises(FileError, match="is an address; give a path on this machine"):
            write(path, b"")
    write("C:/m", b"")  # a drive's letter is no scheme
    assert snapshot(tmp_path).keys() == {str(tmp_path / "C:"), str(tmp_path / "C:" / "m")}


@pytest.mark.parametrize("overwrite", [False, True])
def test_only_regular_files_are_replaced(tmp_path, overwrite):
    os.mkfifo(tmp_path / "fifo")
    os.symlink("loop", tmp_path / "loop")
    reasons = {
        tmp_path: "is a folder; give the name of a file",
        "/dev/null": "is not a regular file",
        tmp_path / "fifo": "is not a regular file",
        tmp_path / ("n" * 300): "File name too long",
        tmp_path / "nul\0": "null",
    }
    for path, reason in reasons.items():
        with pytest.raises(FileError, match=reason):
            write(path, b"new", overwrite=overwrite)
    assert Path("/dev/null").is_char_device()


def test_equal_bytes_are_no_loss(tmp_path):
    path = tmp_path / "schema.json"
    write(path, b"{}")
    before = path.stat().st_mtime_ns
    write(path, b"{}")
    assert path.stat().st_mtime_ns == before
    with pytest.raises(FileError, match="exists already"):
        write(path, b"[]")
    write(path, b"[]", overwrite=True)
    assert path.read_bytes() == b"[]"


def test_a_link_is_followed_and_stays_one(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(FileError, match="exists already"):
        write(tmp_path / "link", b"new")
    write(tmp_path / "link", b"new", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"


def test_an_input_is_known_by_any_name(tmp_path):
    table = tmp_path / "t.csv"
    table.write_bytes(b"a\n1\n")
    (tmp_path / "link.csv").symlink_to(table)
    os.link(table, tmp_path / "hard.csv")
    for path in (table, tmp_path / "link.csv", tmp_path / "hard.csv", tmp_path / "." / "t.csv"):
        with pytest.raises(FileError, match=INPUT):
            check_output(path, overwrite=True, inputs=[table])


# Functions that write.

pytestmark = pytest.mark.usefixtures("sketched")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    table = mip.from_frame(frame_of())
    return run(spec_of("regression", NUMBERS, "[train]\nepochs = 1\n"), Parts(table, table, table))


def records(trained):
    net = mip.build(trained.plan)
    with record_activations(net) as actual:
        net(trained.plan.example(2))
    return actual


WRITERS = {
    "save": lambda path, t, **k: mip.save(path, t.plan, t.state, **k),
    "save_models": lambda path, t, **k: save_models(path, [(t.plan, t.state)] * 2, **k),
    "save_checkpoint": lambda path, t, **k: save_checkpoint(path, t.state, History(), **k),
    "write_packed": lambda path, t, **k: write_packed(path, {"a": torch.ones(1)}, {}, **k),
    "many.save": lambda path, t, **k: mip.prediction.save_ensemble(
        path, mip.prediction.ensemble([t.predict, t.predict]), **k
    ),
    "write_json": lambda path, t, **k: mip.runs.write_json(path, {"mae": 1.0}, **k),
    "write_table": lambda path, t, **k: mip.runs.write_table(path, pd.DataFrame({"a": [1]}), **k),
    "figure.png": lambda path, t, **k: save_figure(figure(1, 1), path, **k),
    "lr.png": lambda path, t, **k: mip.plots.lr_range(
        LRCurve((0.1, 1.0), (2.0, 1.0)), path=path, **k
    ),
    "layers.png": lambda path, t, **k: mip.plots.activations(records(t), path=path, **k),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_function_replaces_a_file_only_when_told_to(name, trained, tmp_path):
    path = tmp_path / name
    path.write_bytes(b"mine")
    with pytest.raises(FileError) as caught:
        WRITERS[name](path, trained)
    assert str(caught.value) == f"{path}: {EXISTS}"
    assert snapshot(tmp_path) == {str(path): b"mine"}
    WRITERS[name](path, trained, overwrite=True)
    assert path.read_bytes() != b"mine"


def line():
    """A step, batches and a state of a line through points."""
    net, optimizer = torch.nn.Linear(2, 1), mip.sgd(0.1)
    step = mip.train_step(net, torch.nn.functional.mse_loss, optimizer)
    batches = pipe((torch.ones(8, 2), torch.ones(8, 1)), mip.batch(4))
    return step, batches, mip.init(net, optimizer)


HOOKS = {
    "log.jsonl": mip.log,
    "log.csv": mip.log,
    "history.png": plot_history,
    "loss.png": lambda path, **k: plot_metrics(Path(path).parent, **k),
    "checkpoints/last.safetensors": lambda path, **k: mip.checkpoint(Path(path).parent, **k),
    "checkpoints/best.safetensors": lambda path, **k: mip.checkpoint(
        Path(path).parent, metric="loss", **k
    ),
    "checkpoints/epoch-0000.safetensors": lambda path, **k: mip.checkpoint(
        Path(path).parent, keep_last=-1, **k
    ),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_replaces_a_file_only_when_told_to(name, tmp_path):
    path, (step, batches, state) = tmp_path / name, line()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match="exists already"):
        mip.fit(step, batches, state, epochs=1, hooks=[HOOKS[name](path)])
    assert path.read_bytes() == b"mine"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]
    mip.fit(step, batches, state, epochs=1, hooks=[HOOKS[name](path, overwrite=True)])
    assert path.read_bytes() != b"mine"


@pytest.mark.parametrize("name", HOOKS)
def test_a_fit_that_goes_on_replaces_what_it_left(name, tmp_path):
    path, (step, batches, state) = tmp_path / name, line()
    last = mip.checkpoint(tmp_path / "beside")
    mip.fit(step, batches, state, epochs=1, hooks=[HOOKS[name](path), last])
    before, start = (
        path.read_bytes(),
        mip.load_checkpoint(tmp_path / "beside" / "last.safetensors", state),
    )
    again = {"epochs": 1, "history": start.history}
    mip.fit(step, batches, start.state, **again, hooks=[HOOKS[name](path)])
    assert path.read_bytes() != before or name.endswith("epoch-0000.safetensors")
    before = path.read_bytes()
    with pytest.raises(FileError, match="exists already"):  # begun anew: another fit's files
        mip.fit(step, batches, state, epochs=1, hooks=[HOOKS[name](path)])
    assert path.read_bytes() == before


def test_a_log_that_goes_on_takes_no_other_file_for_its_own(tmp_path):
    step, batches, state = line()
    seen = []
    state = mip.fit(step, batches, state, epochs=1, hooks=[lambda e: seen.append(e.name)])
    history = History(({"epoch": 0, "step": 2, "loss": 1.0},))
    for hook, name in (
        (mip.log(tmp_path / "t.csv"), "t.csv"),
        (plot_history(tmp_path / "t.png"), "t.png"),
        (plot_metrics(tmp_path), "t.png"),
    ):
        (tmp_path / name).write_bytes(b"area,price\n1,2\n")
        with pytest.raises(FileError, match="exists already"):
            mip.fit(step, batches, state, epochs=1, history=history, hooks=[hook])
        assert (tmp_path / name).read_bytes() == b"area,price\n1,2\n"


def test_the_demo_draws_over_nothing_of_others(tmp_path):
    (tmp_path / "houses.csv").write_bytes(b"mine")
    with pytest.raises(FileError, match=r"houses\.csv: exists already"):
        draw(tmp_path, n_rows=2)
    assert snapshot(tmp_path) == {str(tmp_path / "houses.csv"): b"mine"}
    draw(tmp_path, n_rows=2, overwrite=True)
    before = snapshot(tmp_path)
    draw(tmp_path, n_rows=2)  # the same again is no loss
    assert snapshot(tmp_path) == before


# A run's folder.


@pytest.fixture
def parts(table):
    return Parts(table, table.take([]), table.take([]))


def spec(**train):
    lines = "".join(f"{name} = {value}\n" for name, value in {"epochs": 1, **train}.items())
    return spec_of("regression", NUMBERS, f"[train]\n{lines}")


def test_a_run_is_replaced_only_when_told_to(parts, tmp_path):
    run(spec(), parts, out=tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(FileError, match="holds a run already"):
        run(spec(epochs=2), parts, out=tmp_path)
    assert snapshot(tmp_path) == before
    (tmp_path / "notes.txt").write_bytes(b"mine")
    (tmp_path / "checkpoints" / "mine.safetensors").write_bytes(b"mine")
    run(spec(epochs=0), parts, out=tmp_path, overwrite=True)
    assert (tmp_path / "notes.txt").exists()
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["mine.safetensors"]
    assert not (tmp_path / "history.jsonl").exists()


@pytest.mark.parametrize(
    "name",
    ["spec.toml", "history.jsonl", "history.png", "metrics.json", "model.safetensors"]
    + [f"checkpoints/{name}.safetensors" for name in ("last", "best", "epoch-0003")],
)
def test_a_run_writes_over_no_file_of_another_program(name, parts, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    with pytest.raises(FileError, match=f"{name}: exists already"):
        run(spec(), parts, out=tmp_path)
    assert path.read_bytes() == b"mine"
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]


def test_what_a_run_left_before_its_first_checkpoint_is_in_nobodys_way(parts, tmp_path):
    (tmp_path / "spec.toml").write_text(MARK + mip.dump(spec()))
    (tmp_path / "history.jsonl").write_text("")
    assert run(spec(epochs=2), parts, out=tmp_path).state.step > 0


def test_a_table_in_the_folder_is_not_removed_with_the_run(parts, tmp_path):
    frame_of().to_json(tmp_path / "history.jsonl", orient="records", lines=True)
    named = mip.parse(
        '[data]\ntable = "history.jsonl"\n' + NUMBERS + '[head]\nkind="regression"\ncolumn="price"'
    )
    before = snapshot(tmp_path)
    with pytest.raises(FileError, match=f"history.jsonl: {INPUT}"):
        run(named, parts, out=tmp_path, context=mip.Context(base=tmp_path), overwrite=True)
    assert snapshot(tmp_path) == before


def test_resume_and_overwrite_exclude_each_other(parts, tmp_path):
    run(spec(), parts, out=tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(MipError, match="choose one"):
        run(spec(), parts, out=tmp_path, resume=True, overwrite=True)
    assert snapshot(tmp_path) == before


def test_a_resumed_run_keeps_the_comments_of_its_spec(parts, tmp_path):
    run(spec(), parts, out=tmp_path)
    path = tmp_path / "spec.toml"
    path.write_text("# tried on Monday\n" + path.read_text())
    before = path.read_bytes()
    run(spec(), parts, out=tmp_path, resume=True)
    assert path.read_bytes() == before


# The command line.

SPEC = (
    '[data]\ntable = "houses.csv"\nsplit = { fractions = [0.6, 0.2, 0.2] }\n'
    + NUMBERS
    + '[head]\nkind = "regression"\ncolumn = "price"\n[train]\nepochs = 1\nbatch_size = 8\n'
)


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("outputs")
    frame_of(40).to_csv(folder / "houses.csv", index=False)
    (folder / "houses.toml").write_text(SPEC)
    folds = pd.DataFrame({"row": range(40), "fold": [k % 2 for k in range(40)]})
    folds.to_csv(folder / "folds.csv", index=False)
    spec = mip.load_spec(folder / "houses.toml")
    parts = mip.parts(spec, mip.read(folder / "houses.csv"))
    for name in ("a", "b"):
        run(spec, parts, out=folder / name, context=mip.Context(base=folder))
    (folder / "notes.csv").write_bytes(b"mine")
    (folder / "link.csv").symlink_to("houses.csv")
    return folder


@pytest.fixture
def here(laid_out, tmp_path, monkeypatch):
    shutil.copytree(laid_out, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.fixture
def command(monkeypatch, capsys):
    def call(words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mip", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return call


MODEL = "a/model.safetensors"
VERBS = {
    "new houses.csv --target price --without front --without back --out {}": ["houses.csv"],
    "show houses.toml --svg {}": ["houses.toml", "houses.csv"],
    "schema --out {}": [],
    "lr houses.toml --steps 3 --out {}": ["houses.toml", "houses.csv"],
    f"evaluate {MODEL} houses.csv --json {{}}": [MODEL, "houses.csv"],
    f"predict {MODEL} houses.csv --out {{}}": ["houses.csv"],
    f"baseline houses.toml --model {MODEL} --json {{}}": [MODEL, "houses.toml", "houses.csv"],
    "crossval houses.toml --folds folds.csv --out {}": ["folds.csv", "houses.toml", "houses.csv"],
    "crossval houses.toml --folds folds.csv --json {}": ["folds.csv", "houses.toml", "houses.csv"],
    "ensemble a b --out {}": [MODEL, "b/model.safetensors"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_no_verb_writes_over_a_file_that_is_there(verb, here, command):
    mine = Path("notes.png" if verb.startswith("lr") else "notes.csv")
    mine.write_bytes(b"mine")
    before = snapshot(here)
    for name in VERBS[verb]:
        for force in ("", " --force"):
            code, err = command(verb.format(name) + force)
            assert (code, err.count("\n")) == (2, 1), err
            wrong = name.endswith((".toml", ".safetensors")) and "predict" in verb
            assert wrong or err == f"mip: error: {name}: {INPUT}\n"
            assert snapshot(here) == before, name
    for name in (mine, "link.csv"):
        code, err = command(verb.format(name))
        assert (code, err.count("\n")) == (2, 1), err
        assert err in (f"mip: error: {name}: {EXISTS}\n", f"mip: error: {name}: {INPUT}\n")
        assert snapshot(here) == before, name
    code, err = command(verb.format(mine) + " --force")
    assert code == 0, err
    assert mine.read_bytes() != b"mine"
    mine.write_bytes(b"mine")
    assert snapshot(here) == before


def test_two_outputs_are_two_files(here, command):
    words = "crossval houses.toml --folds folds.csv --out x.csv --json ./x.csv"
    assert command(words) == (
        2,
        "mip: error: x.csv: is the name of two outputs; choose another for one of them\n",
    )


def test_predictions_do_not_become_a_part_of_the_table(here, command):
    pytest.importorskip("pyarrow")
    Path("shards").mkdir()
    frame_of(40).to_parquet("shards/part-0.parquet")
    before = snapshot(here)
    for table in ("shards", "shards/part-*.parquet"):
        code, err = command(f"predict {MODEL} {table} --out shards/part-1.parquet")
        assert code == 2
        assert err == (
            f"mip: error: shards/part-1.parquet: would be read as a part of {table}; "
            "choose another folder\n"
        )
    assert snapshot(here) == before
    assert command(f"predict {MODEL} shards --out shards/guess.csv")[0] == 0


def test_fit_keeps_the_spec_that_it_reads(here, command):
    Path("spec.toml").write_text("# mine\n" + SPEC)
    before = snapshot(here)
    for words in ("", " --force"):
        code, err = command(f"fit spec.toml --out .{words}")
        assert code == 2
        assert err.startswith("mip: error: spec.toml: "), err
        assert snapshot(here) == before
    code, err = command("fit a/spec.toml --out a --force")
    assert (code, err) == (2, f"mip: error: a/spec.toml: {INPUT}\n")
    assert snapshot(here) == before
    assert command("fit a/spec.toml --out a --resume")[0] == 0
    assert Path("a/spec.toml").read_bytes() == before[str(here / "a/spec.toml")]


def test_fit_goes_on_or_begins_anew_and_not_both(here, command):
    before = snapshot(here)
    code, err = command("fit houses.toml --out a --resume --force")
    assert (code, snapshot(here)) == (2, before)
    assert err == ("mip: error: a: resume continues a run and overwrite replaces it; choose one\n")


def test_a_sweep_keeps_the_tables_of_the_one_before(here, command):
    words = "sweep houses.toml --out s --set train.batch_size="
    assert command(f"{words}8")[0] == 0
    before = snapshot(here)
    code, err = command(f"{words}16")
    assert (code, snapshot(here)) == (2, before)
    assert err == f"mip: error: s/sweep.json: {EXISTS}\n"
    assert command(f"{words}8,16 --force")[0] == 0


def test_cache_removes_caches_alone(here, command):
    Path("kept").mkdir()
    Path("kept/mine.rows").write_bytes(b"mine")
    Path("kept/houses-0123456789abcdef.rows").write_bytes(b"")
    assert command("cache --clear --folder kept")[0] == 0
    assert [path.name for path in Path("kept").iterdir()] == ["mine.rows"]


@pytest.mark.parametrize("verb", VERBS)
def test_an_address_is_refused(verb, here, command):
    before = snapshot(here)
    code, err = command(verb.format("s3://bucket/a.csv"))
    assert (code, snapshot(here)) == (2, before)
    assert err == "mip: error: s3:/bucket/a.csv: is an address; give a path on this machine\n"
    code, err = command("fit houses.toml --out memory://run")
    assert (code, snapshot(here)) == (2, before)
    assert err == "mip: error: memory:/run: is an address; give a path on this machine\n"


def test_a_photo_of_the_table_is_an_input(here, command):
    draw_photos(here)
    before = snapshot(here)
    photo = "photos/3.png"
    for verb in VERBS:
        if "schema" in verb or "ensemble" in verb:  # which read no table
            continue
        code, err = command(verb.format(photo) + " --force")
        wrong = "predictions are written to a .csv or .parquet file"
        text = wrong if "predict" in verb else INPUT
        assert (code, err) == (2, f"mip: error: {photo}: {text}\n"), verb
        assert snapshot(here) == before, verb
    frame_of(40).assign(front=[k % ROWS for k in range(40)]).to_csv("houses.csv", index=False)
    Path("houses.toml").write_text(SPEC + '[data.columns.front]\npath = "photos/{}.png"\n')
    code, err = command(f"lr houses.toml --steps 3 --force --out {photo}")
    assert (code, err) == (2, f"mip: error: {photo}: {INPUT}\n")


def test_a_folder_of_photos_of_the_table_is_no_run(here, command):
    draw_photos(here)
    branch = '[branch.photo]\nkind = "image"\ncolumns = ["front"]\nsize = 8\n'
    Path("houses.toml").write_text(SPEC + branch)
    before = snapshot(here)
    code, err = command("fit houses.toml --out photos")
    text = "has photos of the table, such as photos/0.png; choose another folder"
    assert (code, err) == (2, f"mip: error: photos: {text}\n")
    assert snapshot(here) == before


def test_the_files_of_a_run_are_inputs_with_its_model(here, command):
    before = snapshot(here)
    for words in (
        f"evaluate {MODEL} houses.csv --json a/spec.toml --force",
        "ensemble a b --out b/checkpoints/last.safetensors --force",
    ):
        code, err = command(words)
        assert (code, snapshot(here)) == (2, before)
        assert err.endswith(f": {INPUT}\n"), err


def test_no_output_lies_in_a_class_folder_that_is_read(here, command):
    for k in range(8):
        (here / "pets" / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (30 * k, 9, 9)).save(here / "pets" / "ab"[k % 2] / f"{k}.png")
    assert command("new pets --target label")[0] == 0
    before = snapshot(here)
    for words in ("fit pets.toml --out pets/run", "lr pets.toml --steps 3 --out pets/lr.png"):
        code, err = command(words)
        assert (code, snapshot(here)) == (2, before)
        assert "would be read as a part of pets; choose another folder" in err


def test_a_row_that_is_left_out_of_a_score_is_told(here, command):
    frame = frame_of(40)
    frame["price"] = frame["price"].astype(object)
    frame.loc[3, "price"] = "1e308"
    frame.to_csv("large.csv", index=False)
    code, err = command(f"evaluate {MODEL} large.csv")
    assert code == 0
    assert "dropped, target 'price' infinite or beyond float32: 1 row (3)" in err
