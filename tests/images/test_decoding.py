"""Images: golden pixels, faults named, and never another row's picture."""

from __future__ import annotations

import io
import random
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import bits, spec_of
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

import mip
from mip.branches import Image as PhotoBranch
from mip.errors import DataError, SpecError
from mip.images import decode, guess_value_range, resolve_path
from mip.images.decoding import MAX_PIXELS, known_formats

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners() -> Image.Image:
    """Four pixels of four colours: red and green above, blue and white below."""
    return Image.fromarray(np.array([[RED, GREEN], [BLUE, WHITE]], dtype=np.uint8))


def pixels(folder: Path, name: str, size: int = 2) -> list:
    """The pixels of an image as rows of colours."""
    return decode(folder, name, size).permute(1, 2, 0).tolist()


def colours(*rows) -> list:
    return [[list(colour) for colour in row] for row in rows]


# Golden pixels.


def test_pixels_are_red_green_blue_in_rows(tmp_path):
    corners().save(tmp_path / "a.png")
    assert pixels(tmp_path, "a.png") == colours([RED, GREEN], [BLUE, WHITE])
    assert decode(tmp_path, "a.png", 2).dtype == torch.uint8
    assert decode(tmp_path, "a.png", 2).is_contiguous()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_formats_without_loss_give_the_same_pixels(kind, tmp_path):
    corners().save(tmp_path / "a", kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert pixels(tmp_path, "a") == colours([RED, GREEN], [BLUE, WHITE])


TURNED = {
    1: ([RED, GREEN], [BLUE, WHITE]),
    2: ([GREEN, RED], [WHITE, BLUE]),
    3: ([WHITE, BLUE], [GREEN, RED]),
    4: ([BLUE, WHITE], [RED, GREEN]),
    5: ([RED, BLUE], [GREEN, WHITE]),
    6: ([BLUE, RED], [WHITE, GREEN]),
    7: ([WHITE, GREEN], [BLUE, RED]),
    8: ([GREEN, WHITE], [RED, BLUE]),
}


@pytest.mark.parametrize("orientation", TURNED)
def test_the_rotation_of_the_camera_is_applied(orientation, tmp_path):
    exif = Image.Exif()
    exif[274] = orientation
    corners().save(tmp_path / "a.png", exif=exif)
    assert pixels(tmp_path, "a.png") == colours(*TURNED[orientation])


def test_a_jpeg_is_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 3
    half = Image.new("RGB", (32, 32), "black")
    half.paste((255, 255, 255), (0, 0, 32, 16))
    half.save(tmp_path / "a.jpg", exif=exif, quality=95)
    above, below = np.array(pixels(tmp_path, "a.jpg", 2))[:, 0, 0]
    assert above < 40
    assert below > 215


def test_cmyk_becomes_rgb(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    actual = np.array(pixels(tmp_path, "a.jpg", 1)[0][0])
    assert np.abs(actual - RED).max() <= 8


def test_a_grey_image_has_three_equal_channels(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert pixels(tmp_path, "a.png") == [[[0] * 3, [100] * 3], [[200] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_to_eight(kind, tmp_path):
    deep = np.array([[0, 257], [128 * 257, 65535]], dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "a", kind)
    assert pixels(tmp_path, "a") == [[[0] * 3, [1] * 3], [[128] * 3, [255] * 3]]


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_the_values_of_a_range_are_black_and_white(dtype, tmp_path):
    greys = np.array([[1000, 2000], [0, 9999]], dtype=dtype)
    Image.fromarray(greys).save(tmp_path / "a.tif")
    read = decode(tmp_path, "a.tif", 2, value_range=(0, 4000))
    assert read[0].tolist() == [[63, 127], [0, 255]]


def test_a_range_leaves_eight_bits_as_they_are(tmp_path):
    Image.fromarray(np.array([[0, 100], [200, 255]], dtype=np.uint8)).save(tmp_path / "a.png")
    assert decode(tmp_path, "a.png", 2, value_range=(0, 9))[0].tolist() == [[0, 100], [200, 255]]


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pixels_of_32_bits_need_a_range_which_the_error_names(dtype, tmp_path):
    Image.fromarray(np.array([[-1000, 1299]], dtype=dtype)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"^a\.tif has pixels of 32 bits: .* \[-1000, 1300\]$"):
        decode(tmp_path, "a.tif", 2)


@given(low=st.integers(-(10**9), 10**9), span=st.integers(1, 10**9), unit=st.sampled_from([1, 256]))
def test_a_guessed_range_holds_what_was_seen_and_a_quarter_of_it_is_used(low, span, unit):
    black, white = guess_value_range(low / unit, (low + span) / unit)
    assert black <= low / unit
    assert (low + span) / unit <= white
    assert span / unit >= 0.25 * (white - black)


def test_black_and_white_is_read(tmp_path):
    Image.fromarray(np.array([[True, False], [False, True]])).save(tmp_path / "a.png")
    assert pixels(tmp_path, "a.png") == [[[255] * 3, [0] * 3], [[0] * 3, [255] * 3]]


def test_a_palette_is_looked_up(tmp_path):
    corners().quantize(4).save(tmp_path / "a.png")
    assert Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())).mode == "P"
    assert pixels(tmp_path, "a.png") == colours([RED, GREEN], [BLUE, WHITE])


def test_transparency_is_composed_over_white(tmp_path):
    coat = np.array([[[0, 0, 0, 0], [0, 0, 0, 255]], [[255, 0, 0, 128], [0, 0, 255, 0]]])
    Image.fromarray(coat.astype(np.uint8)).save(tmp_path / "a.png")
    actual = pixels(tmp_path, "a.png")
    assert actual[0] == colours([WHITE, (0, 0, 0)])[0]
    assert actual[1][0] == pytest.approx([255, 127, 127], abs=1)
    assert actual[1][1] == list(WHITE)


def test_a_transparent_colour_of_a_palette_is_composed_over_white(tmp_path):
    grey = Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8), "P")
    grey.putpalette([*RED, *BLUE])
    grey.save(tmp_path / "a.png", transparency=0)
    assert pixels(tmp_path, "a.png") == colours([WHITE, BLUE], [BLUE, WHITE])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(kind, tmp_path):
    first, second = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    first.save(tmp_path / "a", kind, save_all=True, append_images=[second])
    assert pixels(tmp_path, "a", 1) == colours([RED])


def test_a_profile_is_converted_and_a_broken_one_ignored(tmp_path):
    grey = Image.new("RGB", (2, 2), (200, 100, 50))
    same = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, profile in {"same": same, "broken": b"no profile"}.items():
        grey.save(tmp_path / f"{name}.png", icc_profile=profile)
        actual = np.array(pixels(tmp_path, f"{name}.png", 1)[0][0])
        assert np.abs(actual - (200, 100, 50)).max() <= 1


def test_any_shape_is_resized_to_a_square(tmp_path):
    wide = np.zeros((3, 90, 3), dtype=np.uint8)
    wide[:, 45:] = 255
    Image.fromarray(wide).save(tmp_path / "a.png")
    actual = decode(tmp_path, "a.png", 8)
    assert actual.shape == (3, 8, 8)
    assert actual[:, :, 0].max() == 0
    assert actual[:, :, 7].min() == 255


# Faults are named.


def png(width: int, height: int, data: bytes = b"\0" * 100, chunks: bytes = b"") -> bytes:
    """A PNG whose header may say anything."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rest = chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + chunks + rest


def jpeg(size: int = 64) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(out, "JPEG")
    return out.getvalue()


BROKEN = {
    "empty": (b"", "is empty (0 bytes)"),
    "a text": (b"not a picture at all", f"is not an image ({', '.join(known_formats())})"),
    "a vector image": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is not an image"),
    "a postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "is not an image"),
    "half a photo": (jpeg()[: len(jpeg()) // 2], "is truncated"),
    "a head alone": (jpeg()[:20], "is not an image"),
    "half a png": (png(64, 64), "is truncated"),
    "a short chunk": (png(64, 64)[:58], "is "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_the_reason(name, tmp_path):
    data, reason = BROKEN[name]
    (tmp_path / "a.jpg").write_bytes(data)
    with pytest.raises(DataError) as caught:
        decode(tmp_path, "a.jpg", 8)
    assert str(caught.value).startswith(f"a.jpg {reason}")


@pytest.mark.parametrize("side", [9_460, 12_000, 50_000, 2**31 - 1])
def test_a_bomb_is_refused_before_it_is_decoded(side, tmp_path):
    assert side * side > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(png(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with pytest.raises(DataError, match=r"^a\.png (has more than 89,478,485 pixels|is broken)"):
            decode(tmp_path, "a.png", 8)


def test_a_bomb_is_refused_whatever_is_done_with_warnings(tmp_path):
    (tmp_path / "a.png").write_bytes(png(12_000, 12_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(DataError, match="more than"):
            decode(tmp_path, "a.png", 8)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("count", [75, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
def test_damaged_bytes_are_read_or_refused_and_nothing_else(kind, count, scaled, tmp_path):
    exif, rng, out = Image.Exif(), random.Random(0), io.BytesIO()
    exif[274], exif[271] = 6, "maker"
    corners().resize((24, 16)).save(out, kind, exif=exif)
    for _ in range(count):
        data = bytearray(out.getvalue())
        for _ in range(rng.choice([1, 2, 5])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "a").write_bytes(data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                assert decode(tmp_path, "a", 8, scaled).shape == (3, 8, 8)
            except DataError:
                continue


def test_every_truncation_of_a_photo_is_refused(tmp_path):
    data = jpeg(16)
    for length in range(0, len(data) - 2, 7):
        (tmp_path / "a.jpg").write_bytes(data[:length])
        with pytest.raises(DataError, match=r"^a\.jpg is "):
            decode(tmp_path, "a.jpg", 8)


# Paths stay inside.


@pytest.fixture
def inside(tmp_path):
    """A folder beside a secret, with ways out of it."""
    (tmp_path / "secret.png").write_bytes(png(1, 1))
    base = tmp_path / "base"
    (base / "photos").mkdir(parents=True)
    corners().save(base / "photos" / "a.png")
    (base / "link.png").symlink_to(tmp_path / "secret.png")
    (base / "out").symlink_to(tmp_path)
    (base / "within.png").symlink_to(base / "photos" / "a.png")
    (base / "loop.png").symlink_to(base / "loop.png")
    return base


OUTSIDE = ["../secret.png", "photos/../../secret.png", "link.png", "out/secret.png", "/etc/passwd"]
OUTSIDE += ["..\\secret.png", " '../secret.png'", "file:///etc/passwd"]


@pytest.mark.parametrize("cell", OUTSIDE)
def test_a_path_that_leaves_the_folder_is_refused(cell, inside):
    with pytest.raises(DataError) as caught:
        resolve_path(inside, cell)
    assert str(caught.value) == f"{cell} leaves the table's folder"


def test_an_absolute_path_inside_is_a_path_inside(inside):
    expected = (inside / "photos" / "a.png").resolve()
    assert resolve_path(inside, str(inside / "photos" / "a.png")) == expected
    assert resolve_path(inside, str(inside / "out" / "base" / "photos" / "a.png")) == expected


def test_a_nul_is_refused(inside):
    with pytest.raises(DataError) as caught:
        resolve_path(inside, "a\0.png")
    assert str(caught.value) == "'a\\x00.png' has a character that no image path may have"


@pytest.mark.parametrize("cell", ["x" * 300, "x/" * 3000, "loop.png", "loop.png/a", "\ud800.png"])
def test_a_path_that_cannot_be_looked_up_is_refused(cell, inside):
    with pytest.raises(DataError, match=r"^'.*' cannot be looked up "):
        resolve_path(inside, cell)


@pytest.mark.parametrize("cell", ["photos/b.png", "photos", ".", "photos/a.png/x"])
def test_anything_but_a_file_is_missing(cell, inside):
    with pytest.raises(DataError, match=r"is missing$"):
        resolve_path(inside, cell)


@pytest.mark.parametrize("cell", ["photos/a.png", "./photos/a.png", "photos/../photos/a.png"])
def test_paths_and_links_inside_are_found(cell, inside):
    assert resolve_path(inside, cell).samefile(inside / "photos" / "a.png")
    assert resolve_path(inside, "within.png").is_file()


def test_the_folder_itself_may_be_a_link(inside, tmp_path):
    (tmp_path / "alias").symlink_to(inside)
    assert resolve_path(tmp_path / "alias", "photos/a.png").is_file()


# What to do with a row whose photo cannot be had.


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Six rows, of which three have a photo of one colour each and three have none."""
    folder = tmp_path_factory.mktemp("shots")
    for name, colour in {"red": RED, "green": GREEN, "blue": BLUE}.items():
        Image.new("RGB", (9, 9), colour).save(folder / f"{name}.png")
    (folder / "cut.jpg").write_bytes(jpeg()[:900])
    cells = ["red.png", "gone.png", "green.png", "cut.jpg", "blue.png", ""]
    return mip.from_frame(pd.DataFrame({"photo": cells, "price": range(1, 7)}), folder, "shots.csv")


def seeing(missing):
    lines = (
        "[branch.photo]",
        'kind = "image"',
        'columns = ["photo"]',
        "size = 8",
        "base_channels = 2",
    )
    return spec_of("regression", "\n".join([*lines, f'missing = "{missing}"', ""]))


MEANS = [list(RED), [0] * 3, list(GREEN), [0] * 3, list(BLUE), [0] * 3]


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
def test_learning_keeps_all_rows_in_order(shots):
    plan = mip.adapt(seeing("learn"), shots)
    inputs = plan.encode(shots).inputs["photo"]
    assert inputs["pixels"].float().mean(dim=(-1, -2))[:, 0].tolist() == MEANS
    assert inputs["present"].flatten().tolist() == [True, False] * 3


def test_a_broken_photo_that_is_learned_is_named(shots):
    plan = mip.adapt(seeing("learn"), shots)
    expected = r"^shots.csv row 3, column 'photo': cut.jpg is truncated; it counts as missing$"
    with pytest.warns(mip.errors.MipWarning, match=expected) as warnings:
        plan.encode(shots)
    assert len(warnings) == 1


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
def test_a_missing_photo_gives_the_learned_vector(shots):
    plan = mip.adapt(seeing("learn"), shots)
    branch = mip.build(plan).eval().body.branch["photo"]
    torch.nn.init.constant_(branch.missing, 7.0)
    vectors = branch(plan.encode(shots).inputs["photo"])
    assert (vectors == 7).all(dim=1).tolist() == [False, True] * 3


def test_dropping_leaves_rows_and_photos_together(shots):
    with pytest.warns(mip.errors.MipWarning):
        kept, report = mip.clean(seeing("drop"), shots)
    assert kept.row_ids.tolist() == [0, 2, 4]
    assert report.dropped == {
        "image broken in 'photo'": [3],
        "image file missing in 'photo'": [1],
        "no image named in 'photo'": [5],
    }
    batch = mip.adapt(seeing("drop"), kept).encode(kept)
    means = batch.inputs["photo"]["pixels"].float().mean(dim=(-1, -2))[:, 0].tolist()
    assert means == [MEANS[row] for row in batch.row.tolist()]


@pytest.mark.parametrize(
    ("row", "reason"),
    [(1, "gone.png is missing"), (3, "cut.jpg is truncated"), (5, "no image is named")],
)
def test_an_error_names_file_row_and_column(row, reason, shots):
    plan = mip.adapt(seeing("error"), shots.take([0]))
    with pytest.raises(DataError) as caught:
        plan.encode(shots.take([0, row]))
    assert str(caught.value) == f"shots.csv row {row}, column 'photo': {reason}"


def test_the_error_suggests_a_cure(shots):
    cure = r"gone\.png is missing \(leave the row out, or train with branch\.photo\.missing = "
    with pytest.raises(DataError, match=cure):
        mip.clean(seeing("error"), shots)


def test_a_photo_can_be_in_many_rows(shots):
    plan = mip.adapt(seeing("learn"), shots)
    pair = plan.encode(shots.take([0, 2, 0])).inputs["photo"]["pixels"]
    assert bits(pair[0]) == bits(pair[2]) != bits(pair[1])


# Backbones.


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
def test_any_torchvision_model_is_a_backbone(shots):
    photo = PhotoBranch(["photo"], size=32, backbone="squeezenet1_1", missing="learn")
    plan = mip.adapt(mip.spec.Spec({"photo": photo}, spec_of().head), shots)
    assert mip.build(plan)(plan.encode(shots).inputs).shape == (6,)


def test_unknown_weights_list_the_known(shots):
    photo = PhotoBranch(["photo"], backbone="resnet18", pretrained="IMAGENET1K_V9")
    with pytest.raises(
        (DataError, SpecError), match="has no weights 'IMAGENET1K_V9'; did you mean"
    ):
        mip.adapt(mip.spec.Spec({"photo": photo}, spec_of().head), shots.take([0]))


def test_an_error_for_channels_first_suggests_a_cure():
    text = "not ndarray of uint8 [3, 8, 9]; colours come last: permute(1, 2, 0)"
    with pytest.raises(DataError, match=re.escape(text)):
        decode(None, np.zeros((3, 8, 9), dtype=np.uint8), 8)
