"""Broken photos are found before training, in every part, and named once."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from conftest import PHOTO, draw_photos, frame_of, spec_of
from PIL import Image

import mip
from mip.errors import DataError, MipWarning, warnings_shown_once
from mip.images import check_photo
from mip.images.decoding import known_formats

POLICY = PHOTO + 'missing = "{}"\n'
TRAIN = "[train]\nepochs = 3\nbatch_size = 4\n"


def coded(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def rows(tmp_path):
    """Twelve rows with photos, of which the last is truncated."""
    draw_photos(tmp_path)
    cut = (tmp_path / "photos" / "1.jpg").read_bytes()[:200]
    (tmp_path / "photos" / "cut.jpg").write_bytes(cut)
    names = [f"photos/{k}.png" for k in range(11)] + ["photos/cut.jpg"]
    return mip.from_frame(frame_of(12).assign(front=names), tmp_path, "shots.csv")


@pytest.mark.parametrize("kind", sorted({*known_formats()} - {"AVIF", "HEIF"}))
def test_a_whole_photo_is_not_decoded_to_be_checked(kind, tmp_path, monkeypatch):
    data = coded(kind)
    (tmp_path / "a").write_bytes(data)
    monkeypatch.setattr("mip.images.decoding.decode", None)
    for cell in (data, "a", {"bytes": data}, Image.open(io.BytesIO(data)), np.zeros((2, 2, 3))):
        check_photo(tmp_path, cell)


@pytest.mark.parametrize("kind", sorted({*known_formats()} - {"TIFF"}))
def test_a_photo_that_ends_too_early_is_found(kind, tmp_path):
    data = coded(kind)
    (tmp_path / "a").write_bytes(data)
    for share in (0.01, 0.1, 0.5, 0.9, 0.98):
        cut = data[: int(share * len(data))]
        (tmp_path / "a").write_bytes(cut)
        for cell in (cut, "a"):
            with pytest.raises(DataError):
                check_photo(tmp_path, cell)


def test_a_photo_with_something_behind_it_is_whole(tmp_path):
    check_photo(tmp_path, coded("JPEG") + b"a film" * 99)
    check_photo(tmp_path, coded("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]))


@pytest.mark.parametrize("part", ["train", "valid", "test"])
def test_a_truncated_photo_of_any_part_is_found_before_training(part, rows):
    places = {"train": range(6), "valid": range(6, 8), "test": range(8, 11)}
    parts = {name: rows.take(positions) for name, positions in places.items()}
    parts[part] = rows.take([*places[part], 11])
    jobs = []
    with pytest.raises(DataError, match=r"^shots\.csv row 11, column 'front': photos/cut\.jpg"):
        mip.run(
            spec_of("regression", POLICY.format("error"), TRAIN),
            **parts,
            make_hooks=lambda job: jobs.append(job) or (),
        )
    assert not jobs


def test_a_truncated_photo_that_is_learned_is_counted(rows):
    _, report = mip.clean(spec_of("regression", POLICY.format("learn"), TRAIN), rows)
    assert report.filled == {"image broken in 'front'": [11]}


@pytest.mark.parametrize("streamed", [False, True])
def test_a_broken_photo_is_named_once_in_a_run(streamed, rows):
    rows.frame.to_parquet(rows.root / "shots.parquet")
    path = rows.root / "shots.parquet"
    table = mip.stream(path) if streamed else mip.read(path)
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        mip.run(spec_of("regression", POLICY.format("learn"), TRAIN), (table,))
    texts = [str(each.message) for each in shown if each.category is MipWarning]
    assert texts == [
        "shots.parquet row 11, column 'front': photos/cut.jpg is truncated; it counts as missing"
    ]


def test_other_warnings_are_shown_as_often_as_they_come_and_afterwards_all():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        for _ in range(2):
            with warnings_shown_once():
                for text in "aab":
                    warnings.warn(text, MipWarning, stacklevel=1)
                    warnings.warn(text, UserWarning, stacklevel=1)
    mine = [str(each.message) for each in shown if each.category is MipWarning]
    others = [str(each.message) for each in shown if each.category is UserWarning]
    assert (mine, others) == (["a", "b"] * 2, ["a", "a", "b"] * 2)
