"""On the command line: photos to predict, the most probable classes, and devices."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import NUMBERS, draw_photos, frame_of, spec_of

import mip
from mip.cli.app import VERBS, command_name

PHOTO = '[branch.photo]\nkind = "image"\ncolumns = ["front"]\nsize = 8\nbase_channels = 2\n'

COMPUTING = {
    "lr": "houses.toml",
    "fit": "houses.toml",
    "crossval": "houses.toml --folds folds.csv",
    "sweep": "houses.toml --set train.epochs=1",
    "tune": "houses.toml --trials 2",
    "predict": "photo.safetensors houses.csv",
    "evaluate": "photo.safetensors houses.csv",
    "baseline": "houses.toml --model photo.safetensors",
    "explain": "photo.safetensors houses.csv",
    "calibrate": "photo.safetensors houses.csv --out sure.safetensors",
    "embed": "photo.safetensors houses.csv --out vectors.csv",
    "replay": "runs/houses 1",
    "demo": "demo",
}
"""What follows the verbs that compute."""


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("views")
    draw_photos(folder)
    frame_of().to_csv(folder / "houses.csv", index=False)
    frame_of().assign(value=1).to_csv(folder / "values.csv", index=False)
    table = mip.read(folder / "houses.csv")
    for name, head, branches in [
        ("photo", "multiclass", PHOTO),
        ("mixed", "multiclass", PHOTO + NUMBERS),
        ("price", "regression", PHOTO),
    ]:
        plan = mip.adapt(spec_of(head, branches), table)
        state = mip.init(mip.build(plan), mip.sgd(0.1))
        mip.save(folder / f"{name}.safetensors", plan, state)
    return folder


@pytest.fixture
def folder(drawn, monkeypatch):
    monkeypatch.chdir(drawn)
    return drawn


def frame(output):
    return pd.read_csv(StringIO(output), index_col="row")


def refused(result):
    code, out, err = result
    assert (code, out, err.count("\n")) == (2, "", 1)
    return err.removeprefix("mip: error: ").rstrip("\n")


def test_a_photo_several_and_a_folder_are_predicted(folder, run, tmp_path):
    code, out, err = run("predict", "photo.safetensors", "photos/1.png", "photos/0.jpg")
    assert (code, err) == (0, "")
    several = frame(out)
    assert several.index.tolist() == ["photos/1.png", "photos/0.jpg"]
    one = frame(run("predict", "photo.safetensors", "photos/1.png")[1])
    pd.testing.assert_frame_equal(one, several.iloc[:1], rtol=1e-4)
    guess = tmp_path / "guess.csv"
    code, out, err = run("predict", "photo.safetensors", "photos", "--out", guess)
    assert (code, out) == (0, f"wrote 22 predictions to {guess}\n")
    written = pd.read_csv(guess, index_col="row")
    assert written.index[:3].tolist() == ["0.jpg", "0.png", "1.jpg"]
    pd.testing.assert_frame_equal(written.loc[["1.png"]].set_axis(one.index), one, rtol=1e-4)


def test_a_broken_photo_costs_its_row(folder, run, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path("photos/0.png").read_bytes()[:60])
    code, out, err = run("predict", "photo.safetensors", "photos/0.png", broken)
    assert code == 3
    assert frame(out)["label"].isna().tolist() == [False, True]
    assert err.startswith("mip: 1 of 2 rows have no prediction: photos row '")
    assert err.count("\n") == 1


def test_rows_without_a_prediction_are_counted_and_an_exit_code(folder, run, tmp_path):
    rows = pd.read_csv("houses.csv").astype({"rooms": object})
    rows.loc[2:, "rooms"] = "many"
    rows.assign(front=[f"photos/{k}.png" for k in range(len(rows))]).to_csv("bad.csv", index=False)
    guess, n = tmp_path / "guess.csv", len(rows)
    code, out, err = run("predict", "mixed.safetensors", "bad.csv", "--out", guess)
    assert (code, out) == (3, f"wrote 2 predictions to {guess}\n")
    assert err == (
        f"mip: {n - 2} of {n} rows have no prediction: bad.csv row 2, column 'rooms': 'many' is "
        "not a number\n"
    )
    assert pd.read_csv(guess, index_col="row")["error"].notna().tolist() == [False] * 2 + [True] * (
        n - 2
    )
    rows.iloc[2:].to_csv("bad.csv", index=False)
    code, out, err = run("predict", "mixed.safetensors", "bad.csv", "--out", guess, "--force")
    assert (code, out) == (3, f"wrote 0 predictions to {guess}\n")
    assert err.startswith(f"mip: {n - 2} of {n - 2} rows have no prediction: bad.csv row 0, ")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_predictions_are_named_by_a_column_of_ids(suffix, folder, run, tmp_path):
    ids = [f"00{k}" for k in range(10)] + ["000"]
    pd.read_csv("houses.csv").assign(house=ids).to_csv("named.csv", index=False)
    words = ["predict", "mixed.safetensors", "named.csv", "--id", "house", "--out"]
    assert run(*words, tmp_path / f"guess.{suffix}")[0] == 0
    if suffix == "csv":
        guess = pd.read_csv(tmp_path / "guess.csv", dtype={"house": str}).set_index("house")
    else:
        guess = pd.read_parquet(tmp_path / "guess.parquet")
    assert (guess.index.name, guess.index.tolist()) == ("house", ids)
    numbered = frame(run("predict", "mixed.safetensors", "houses.csv")[1])
    assert guess["label"].tolist() == numbered["label"].tolist()


def test_predictions_lie_beside_the_photos(folder, run):
    (folder / "shots").mkdir()
    (folder / "shots" / "a.png").write_bytes(Path("photos/0.png").read_bytes())
    words = ["predict", "photo.safetensors", "shots", "--out"]
    for _ in range(2):
        assert run(*words, "shots/guess.csv", "--force")[0] == 0
    for name in ("guess.parquet", "guess"):
        code, _, err = run(*words, f"shots/{name}")
        assert code == 2
        assert err.startswith(f"mip: error: shots/{name}: ")


def test_the_most_probable_classes_are_columns(folder, run):
    top = frame(run("predict", "photo.safetensors", "photos/1.png", "--top", "2")[1])
    assert [*top] == ["label_1", "p_1", "label_2", "p_2"]
    assert top["p_1"].iloc[0] >= top["p_2"].iloc[0]
    rows = frame(run("predict", "mixed.safetensors", "houses.csv", "--top", "9")[1])
    assert (len(rows), [*rows][-1]) == (11, "p_3")


MISTAKES = {
    "predict photo.safetensors photos/1.jpeg": (
        "photos/1.jpeg: there is no such photo; did you mean '1.jpg'? (known: 0.jpg, 0.png, "
    ),
    "predict photo.safetensors photos/0.png houses.csv": (
        "houses.csv: a list of paths is one of photos (.avif, .bmp, .gif, .heic, .heif, .j2k, "
        ".jp2, .jpeg, .jpg, .png, .tif, .tiff, .webp); give one table"
    ),
    "predict mixed.safetensors photos/0.png": (
        "photos: there are no columns 'area', 'rooms', 'town' (known: front); the model reads "
        "columns 'area', 'front', 'rooms', 'town'"
    ),
    "predict price.safetensors photos/0.png --top 3": (
        "top 3: a model with head.kind = 'regression' has no classes"
    ),
    "predict mixed.safetensors houses.csv --id twon": (
        "houses.csv: there is no column 'twon'; did you mean 'town'?"
    ),
    "predict price.safetensors values.csv --id value": (
        "--id value: the predictions have a column of this name"
    ),
    "evaluate photo.safetensors photos": "photos: there is no column 'front' (known: image)",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_what_cannot_be_predicted_is_one_line(words, folder, run):
    assert refused(run(*words.split())).startswith(MISTAKES[words])


def test_verbs_that_compute_take_a_device(run):
    takers = [
        command_name(verb)
        for verbs in VERBS.values()
        for verb in verbs
        if "--device" in run(command_name(verb), "--help")[1]
    ]
    assert sorted(takers) == sorted(COMPUTING)


@pytest.mark.parametrize("device", ["cpu", "auto"])
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_device_changes_no_prediction(verb, device, folder, run):
    words = (verb, "photo.safetensors", "houses.csv")
    assert run(*words, "--device", device) == run(*words)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="this machine has an accelerator")
@pytest.mark.parametrize("verb", COMPUTING)
def test_a_device_that_is_not_there_is_one_line_before_any_work(verb, folder, run):
    text = refused(run(verb, *COMPUTING[verb].split(), "--device", "cuda"))
    assert text == "there is no device 'cuda' here; this machine has cpu (or say auto)"


def test_a_photo_that_is_not_there_says_where_it_was_looked_for(folder, run, tmp_path):
    frame_of().assign(front="gone.png").to_csv(tmp_path / "houses.csv", index=False)
    code, _, err = run("predict", "photo.safetensors", tmp_path / "houses.csv")
    assert code == 3
    assert f"column 'front': gone.png is missing, looked for in {tmp_path.resolve()}\n" in err
