"""Photos of every form: paths, bytes, images, pixels, lists of them; decoded whole or scaled."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import spec_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import mip
from mip.branches.photo_net import PhotoNet
from mip.errors import DataError, MipWarning
from mip.images import decode


def photo_net(backbone: torch.nn.Module, features: int, pool: str) -> PhotoNet:
    """Pool the vectors of a backbone, without layers."""
    layers = torch.nn.Sequential()
    return PhotoNet(backbone, (features,), pool, "avg", layers, [0.5] * 3, [0.25] * 3)


def photo(width=90, height=60, seed=0, mode="RGB", **options) -> bytes:
    """A smooth JPEG with something in every corner."""
    few = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(few).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    out = io.BytesIO()
    image.save(out, "JPEG", **{"quality": 90, **options})
    return out.getvalue()


# Decoding.


@pytest.fixture
def no_simplejpeg(monkeypatch):
    return lambda: monkeypatch.setitem(sys.modules, "simplejpeg", None)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("sides", [(90, 60), (257, 131), (64, 64), (33, 400), (1, 1)])
def test_pixels_do_not_depend_on_the_extra(sides, mode, scaled, no_simplejpeg):
    data = photo(*sides, mode=mode)
    quick = decode(None, data, 16, scaled)
    no_simplejpeg()
    assert torch.equal(quick, decode(None, data, 16, scaled))


@pytest.mark.parametrize("options", [{"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_pixels_do_not_depend_on_the_encoding(options, no_simplejpeg):
    data = photo(200, 150, **options)
    quick = decode(None, data, 32)
    no_simplejpeg()
    assert torch.equal(quick, decode(None, data, 32))


def test_pixels_are_those_of_a_full_decode_by_pillow():
    data = photo(640, 427)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.array(image.resize((128, 128), Image.Resampling.BILINEAR)).astype(int)
    actual = decode(None, data, 128).permute(1, 2, 0).numpy()
    assert np.abs(actual - expected).mean() < 0.02
    assert np.abs(actual - expected).max() <= 1


def test_scaled_pixels_are_close_but_not_equal():
    data = photo(640, 427)
    whole, scaled = decode(None, data, 64).float(), decode(None, data, 64, scaled=True).float()
    assert 0 < (whole - scaled).abs().mean() < 3


def test_scaling_stops_before_the_image_is_too_small():
    data = photo(90, 60)
    assert torch.equal(decode(None, data, 31), decode(None, data, 31, scaled=True))
    assert not torch.equal(decode(None, data, 30), decode(None, data, 30, scaled=True))


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_jpeg_is_put_upright(orientation, scaled):
    exif = Image.Exif()
    exif[274] = orientation
    stored = photo(96, 64, exif=exif)
    with Image.open(io.BytesIO(stored)) as image:
        from PIL import ImageOps

        upright = np.array(ImageOps.exif_transpose(image).resize((16, 16), Image.Resampling.BOX))
    actual = decode(None, stored, 16, scaled).permute(1, 2, 0).numpy()
    assert np.abs(actual.astype(int) - upright).mean() < 6


def test_the_plan_stores_how_the_spec_decodes_photos(tmp_path):
    frame = pd.DataFrame({"photo": [photo(200, 150)] * 4, "price": range(4)})
    lines = '[branch.photo]\nkind = "image"\ncolumns = ["photo"]\nsize = 16\nbase_channels = 2\n'
    spec = spec_of("regression", lines + 'decoding = "scaled"\n')
    plan = mip.model.plan_from_dict(mip.model.plan_to_dict(mip.adapt(spec, mip.from_frame(frame))))
    actual = plan.encode(mip.from_frame(frame)).inputs["photo"]["pixels"]
    assert torch.equal(actual[0, 0], decode(None, photo(200, 150), 16, scaled=True))


# Cells.


def test_a_photo_is_the_same_in_every_form(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8))
    image.save(tmp_path / "a.png")
    pixels, data = np.array(image), (tmp_path / "a.png").read_bytes()
    hugging_face = [{"bytes": data, "path": None}, {"bytes": None, "path": "a.png"}]
    files = ["a.png", Path("a.png"), tmp_path / "a.png", data, bytearray(data), memoryview(data)]
    forms = [*files, *hugging_face, image, pixels, torch.from_numpy(pixels)]
    actual = [decode(tmp_path, form, 8) for form in forms]
    assert all(torch.equal(actual[0], other) for other in actual[1:])


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (np.zeros((4, 4)), "not ndarray of float64 [4, 4]"),
        (
            np.zeros((3, 4, 4), dtype=np.uint8),
            "not ndarray of uint8 [3, 4, 4]; colours come last: permute(1, 2, 0)",
        ),
        (torch.zeros(4, dtype=torch.uint8), "not Tensor of uint8 [4]"),
        (7, "not int of int64 []"),
    ],
)
def test_cells_that_are_no_images_are_named(cell, reason):
    with pytest.raises(DataError) as caught:
        decode(None, cell, 8)
    expected = f"an image is a path, bytes, a PIL image, or uint8 [h, w] or [h, w, 3], {reason}"
    assert str(caught.value) == expected


@pytest.mark.parametrize(
    ("cell", "reason"), [(b"GIF89a", "not an image"), (photo()[:500], "trunc")]
)
def test_broken_bytes_are_named(cell, reason):
    with pytest.raises(DataError, match=f"^the image is {reason}"):
        decode(None, cell, 8)


# Lists of photos.

LISTED = '[branch.photo]\nkind = "image"\ncolumns = ["photo"]\nsize = 8\nbase_channels = 2\n'


def album(*lists):
    return mip.from_frame(pd.DataFrame({"photo": list(lists), "price": range(len(lists))}))


A, B, C = photo(seed=1), photo(seed=2), photo(seed=3)


def adapted(table, **fields):
    more = "".join(f'{name} = "{value}"\n' for name, value in fields.items())
    return mip.adapt(spec_of("regression", LISTED + more), table)


def test_a_row_has_as_many_photos_as_its_list(tmp_path):
    table = album([A, B, C], [A], [], [C, B])
    actual = adapted(table, missing="learn").encode(table).inputs["photo"]
    assert actual["present"].tolist() == [[1, 1, 1], [1, -1, -1], [0, -1, -1], [1, 1, -1]]
    assert torch.equal(actual["pixels"][0, 1], actual["pixels"][3, 1])


@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
def test_only_photos_that_are_present_count(pool):
    plan = adapted(album([A, B, C], [A]), pool=pool)
    branch = mip.build(plan).eval().body.branch["photo"]
    vectors = branch(plan.encode(album([A], [A, A, A], [B, A], [A, B], [B])).inputs["photo"])
    assert torch.allclose(vectors[0], vectors[1], atol=1e-6)
    assert torch.allclose(vectors[2], vectors[3], atol=1e-6)
    assert not torch.allclose(vectors[0], vectors[4], atol=1e-4)


def test_more_photos_than_in_training_are_left_out_and_named():
    plan = adapted(album([A, B], [A]))
    with pytest.warns(MipWarning, match=r"row 0, column 'photo': 3 photos, of which the first 2"):
        actual = plan.encode(album([A, B, C])).inputs["photo"]
    assert actual["present"].tolist() == [[1, 1]]


def test_an_empty_list_is_a_missing_photo():
    with pytest.raises(DataError, match=r"^table row 1, column 'photo': no image is named"):
        mip.clean(spec_of("regression", LISTED), album([A], []))


def test_lists_cannot_be_concatenated():
    with pytest.raises(mip.MipError, match="pool 'concat' needs the same photos in every row"):
        adapted(album([A, B], [A]), pool="concat")


@given(
    present=st.lists(
        st.lists(st.sampled_from([0, 1]), min_size=1, max_size=4), min_size=1, max_size=4
    ),
    pool=st.sampled_from(["mean", "max", "attention"]),
)
def test_pooling_over_a_list_is_pooling_over_its_photos_alone(present, pool):
    torch.manual_seed(0)
    layer = photo_net(torch.nn.Identity(), 3, pool)
    vectors = torch.randn(len(present), 4, 3)
    over = torch.tensor([[k >= len(row) for k in range(4)] for row in present]).unsqueeze(-1)
    actual = layer.pooled(vectors, over)
    for row, states in enumerate(present):
        alone = vectors[row : row + 1, : len(states)]
        kept = torch.zeros(1, len(states), 1, dtype=torch.bool)
        assert torch.allclose(actual[row], layer.pooled(alone, kept)[0], atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_pixels_are_normalized_in_a_copy(dtype):
    pixels = torch.arange(24).view(2, 1, 3, 2, 2).to(dtype)
    layer = photo_net(torch.nn.Flatten(), 12, "mean")
    actual = layer({"pixels": pixels, "present": torch.ones(2, 1, dtype=torch.int8)})
    assert torch.equal(actual, (torch.arange(24.0).view(2, 12) - 127.5) / 63.75)
    assert torch.equal(pixels, torch.arange(24).view(2, 1, 3, 2, 2).to(dtype))
