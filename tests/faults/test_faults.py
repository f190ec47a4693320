"""Faults in the data, injected for real, beyond what the tests of the other parts cover.

Each fault is followed to where a user meets it: an error names file, row, column and cure, or the
row is dropped with a report, or a learned value replaces what is missing.
"""

from __future__ import annotations

import io
import os
import re
import signal
import struct
import zlib
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from attrs import evolve
from conftest import NUMBERS, draw_photos, frame_of, set_up, spec_of, within
from PIL import Image, ImageCms
from toolz import concat, pipe
from torch.utils.data import DataLoader

import mip
from mip.errors import DataError, MipWarning
from mip.images import decode, photo_conversions
from mip.images.decoding import known_formats
from mip.model import Parts, conversions
from mip.pipe import Datapipe
from mip.prediction import prediction_warnings

NO_IMAGE = f"is not an image ({', '.join(known_formats())})"


# Files of every fault, among photos of one colour each.


def square(k: int, size: int = 16) -> Image.Image:
    """A photo that is recognised by its colour, which no grey and no other row has."""
    return Image.new("RGB", (size, size), (10 * k, 255 - 10 * k, 40))


def coded(image: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(side: int = 64, kind: str = "JPEG", **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return coded(Image.fromarray(pixels), kind, **options)


def half(data: bytes, end: bytes = b"") -> bytes:
    return data[: len(data) // 2] + end


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + chunk(b"IDAT", zlib.compress(b"\0" * 99))
        + chunk(b"IEND", b"")
    )


def changed(data: bytes, position: int, new: bytes) -> bytes:
    return data[:position] + new + data[position + len(new) :]


def sized(kind: str, side: int) -> bytes:
    """A small file whose header says that it is large."""
    data, short = coded(square(0), kind), struct.pack("<HH", side, side)
    if kind == "JPEG":
        return changed(data, data.index(b"\xff\xc0") + 5, struct.pack(">HH", side, side))
    if kind == "GIF":
        return changed(changed(data, 6, short), data.index(b"\x2c", 13) + 5, short)
    if kind == "BMP":
        return changed(data, 18, struct.pack("<ii", side, side))
    if kind == "TIFF":
        old, new = (struct.pack("<HHIHH", 256, 4, 1, n, 0) for n in (16, side))
        return data.replace(old, new).replace(b"\x01" + old[1:], b"\x01" + new[1:])
    return png(side, side)


TURNED = Image.Exif()
TURNED[274] = 6

GOOD = {
    "a.png": lambda k: coded(square(k), "PNG"),
    "a.bmp": lambda k: coded(square(k), "BMP"),
    "a.tif": lambda k: coded(square(k), "TIFF"),
    "a.webp": lambda k: coded(square(k), "WEBP", lossless=True),
    "a.jpg": lambda k: coded(square(k), "JPEG", quality=95),
    "progressive.jpg": lambda k: coded(square(k), "JPEG", quality=95, progressive=True),
    "turned.jpg": lambda k: coded(square(k), "JPEG", quality=95, exif=TURNED),
    "cmyk.jpg": lambda k: coded(square(k).convert("CMYK"), "JPEG", quality=95),
    "palette.png": lambda k: coded(square(k).quantize(2), "PNG"),
    "alpha.png": lambda k: coded(square(k).convert("RGBA"), "PNG"),
    "moving.gif": lambda k: coded(square(k), "GIF", save_all=True, append_images=[square(25 - k)]),
}

PROFILES = (
    {},
    {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()},
    {"icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()},
)
"""No profile, the usual one, and one that changes the colours."""

NUMBERS_ONLY = """
branch.size = { kind = "continuous", columns = ["area"] }
head = { kind = "regression", column = "price" }
"""

BAD = {
    "gone.jpg": (None, "is missing"),
    "folder": ("folder", "is missing"),
    "empty.jpg": (b"", "is empty (0 bytes)"),
    "text.jpg": (b"not a picture at all", NO_IMAGE),
    "web page.jpg": (b"<!DOCTYPE html><title>404</title>", NO_IMAGE),
    "vectors.png": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", NO_IMAGE),
    "eps.jpg": (coded(square(1), "EPS"), NO_IMAGE),
    "head.jpg": (noise()[:20], NO_IMAGE),
    "half.jpg": (half(noise()), "is truncated"),
    "half and zeros.jpg": (half(noise(), bytes(5000)), "is truncated"),
    "half and an end.jpg": (half(noise(), b"\xff\xd9"), "is truncated"),
    "flipped bits.jpg": (changed(noise(), 2000, b"\xff\x01"), "is truncated"),
    "half.png": (half(noise(kind="PNG")), "is truncated"),
    "half.gif": (half(noise(kind="GIF")), "is truncated"),
    "half.bmp": (half(noise(kind="BMP")), "is truncated"),
    "half.tif": (half(noise(kind="TIFF")), "is truncated"),
    "half.webp": (half(noise(kind="WEBP")), "is broken (could not create decoder object)"),
    "flipped bits.png": (changed(noise(kind="PNG"), 5000, b"\x00"), "is broken ("),
    "float.tif": (coded(Image.new("F", (4, 4)), "TIFF"), "has pixels of 32 bits: value_range says"),
    "bomb.png": (png(20_000, 20_000), "has more than 89,478,485 pixels"),
    "../secret.png": (None, "leaves the table's folder"),
    "/secret.png": (None, "leaves the table's folder"),
    "link.png": ("link", "leaves the table's folder"),
    "nul\0.png": (None, "has a character that no image path may have"),
    "..\\secret.png": (None, "leaves the table's folder"),
    "": (None, "no image is named"),
}
"""By cell: what the file holds, and what the error says."""

QUIET = {"gone.jpg": "image file missing", "folder": "image file missing", "": "no image named"}
"""What even a good table can lack; everything else is damage."""


def write(folder: Path, cell: str, content) -> None:
    if content == "folder":
        (folder / cell).mkdir()
    elif content == "link":
        (folder / cell).symlink_to(folder.parent / "secret.png")
    elif content is not None:
        (folder / cell).write_bytes(content)


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Good photos and bad cells in turns, in a folder beside a secret."""
    folder = tmp_path_factory.mktemp("outside") / "shots"
    folder.mkdir()
    square(9).save(folder.parent / "secret.png")
    cells = [*concat(zip(cycle(GOOD), BAD, strict=False))]
    for k, name in enumerate(GOOD):
        write(folder, name, GOOD[name](k))
    for cell, (content, _) in BAD.items():
        write(folder, cell, content)
    frame = pd.DataFrame({"front": "a.png", "photo": cells, "price": range(len(cells))})
    return mip.from_frame(frame, folder, "shots.csv")


def seeing(missing: str, columns: str = '"front", "photo"') -> mip.spec.Spec:
    lines = [
        "[branch.views]",
        'kind = "image"',
        f"columns = [{columns}]",
        "size = 8",
        "base_channels = 2",
    ]
    return spec_of("regression", "\n".join([*lines, f'missing = "{missing}"', ""]))


def place_of(shots, cell):
    return shots.texts("photo").tolist().index(cell)


def message_for(cell: str) -> str:
    """What the error says of a cell; a name that cannot be printed is quoted."""
    reason = BAD[cell][1]
    name = repr(cell) if "character" in reason else cell
    return f"{name} {reason}" if cell else reason


def matches(batch, shots) -> list[bool]:
    """Whether each row shows the photo that its cell names, in whatever order."""
    colours = {cell: square(k).getpixel((0, 0)) for k, cell in enumerate(GOOD)}
    cells = shots.texts("photo")[batch.row.numpy()]
    expected = torch.tensor([colours.get(cell, (0, 0, 0)) for cell in cells])
    pixels = batch.inputs["views"]["pixels"][:, -1].float()
    return ((pixels - expected[:, :, None, None]).abs() < 6).all(dim=(1, 2, 3)).tolist()


KINDS_OF_PHOTOS = {
    "turned.jpg": "turned or mirrored by its camera",
    "cmyk.jpg": "CMYK",
    "palette.png": "with a palette",
    "alpha.png": "transparent",
    "moving.gif": "an animation",
}


def test_photos_that_are_put_right_are_counted_with_their_rows(shots):
    seen = conversions(seeing("learn", '"photo"'), shots)
    for cell, trait in KINDS_OF_PHOTOS.items():
        rows = [row for row, name in enumerate(shots.cells("photo")) if name == cell]
        assert rows
        assert set(rows) <= set(seen[f"'photo' {trait}"])
    plain = [row for row, name in enumerate(shots.cells("photo")) if name in {"a.png", "a.jpg"}]
    assert not set(plain) & {row for rows in seen.values() for row in rows}


@pytest.mark.parametrize(("mode", "trait"), [("I;16", "16-bit grey"), ("CMYK", "CMYK")])
def test_the_traits_of_pixels_in_memory_are_told_too(mode, trait):
    assert photo_conversions(None, Image.new(mode, (2, 2))) == [trait]


def test_a_profile_is_told_unless_it_is_srgb():
    plain, known, foreign = (coded(square(1), "PNG", **options) for options in PROFILES)
    assert [photo_conversions(None, image) for image in (plain, known)] == [[], []]
    assert photo_conversions(None, foreign) == ["with a colour profile"]


def test_numbers_that_count_as_missing_are_counted_with_their_rows():
    spec = mip.parse(NUMBERS_ONLY)
    cells = {"area": ["1", "inf", "1e39", "", "nan"], "price": ["1", "2", "3", "4", "5"]}
    text = "'area' infinite or beyond float32, treated as missing"
    assert conversions(spec, mip.from_columns(cells)) == {text: [1, 2]}


INSIDE = {
    "half and an end.jpg",
    "flipped bits.jpg",
    "half.tif",
    "flipped bits.png",
    "float.tif",
    "bomb.png",
}
"""Cells whose damage is between the ends of a file, which only decoding finds."""


@pytest.mark.parametrize("cell", BAD, ids=lambda cell: repr(cell)[1:-1] or "blank")
def test_policy_error_names_file_row_column_and_cure(cell, shots):
    row = place_of(shots, cell)
    cure = ' (leave the row out, or train with branch.views.missing = "drop" or "learn")'
    early = cell not in INSIDE
    plan = mip.adapt(seeing("error"), shots.take([0]))
    with pytest.raises(DataError) as caught:
        plan.encode(mip.clean(plan.spec, shots.take([0, row, 2]))[0])
    assert str(caught.value).startswith(f"shots.csv row {row}, column 'photo': {message_for(cell)}")
    assert str(caught.value).endswith(cure) == early


def stream(plan, table, workers):
    """Two epochs in batches of odd sizes, shuffled, encoded in threads."""
    stages = mip.sample(shuffle=True, seed=3), mip.batch(5), mip.transform(plan.encode, workers)
    batches = pipe(table, *stages)
    return islice(batches.iter_from(0), 2 * len(batches))


def test_policy_drop_reports_every_bad_row_and_no_other(shots):
    with pytest.warns(MipWarning, match=r"^shots\.csv: 52 rows, 26 used; dropped, "):
        kept, report = mip.clean(seeing("drop"), shots)
    states = {cell: f"{QUIET.get(cell, 'image broken')} in 'photo'" for cell in BAD}
    expected = {
        why: [place_of(shots, c) for c in BAD if states[c] == why] for why in states.values()
    }
    assert report.dropped == expected
    assert kept.row_ids.tolist() == list(range(0, 52, 2))


@pytest.mark.parametrize("workers", [0, 2])
def test_policy_drop_shows_every_row_its_own_photo(workers, shots):
    with pytest.warns(MipWarning):
        kept, _ = mip.clean(seeing("drop"), shots)
    for batch in stream(mip.adapt(seeing("drop"), kept), kept, workers):
        assert all(matches(batch, shots))
        assert batch.inputs["views"]["present"].all()


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
@pytest.mark.parametrize("workers", [0, 2])
def test_policy_learn_shows_every_row_its_own_photo_or_none(workers, shots):
    plan = mip.adapt(seeing("learn"), shots)
    for batch in stream(plan, shots, workers):
        assert all(matches(batch, shots))
        there = [shots.texts("photo")[row] in GOOD for row in batch.row.tolist()]
        assert batch.inputs["views"]["present"][:, 1].bool().tolist() == there


def test_policy_learn_names_every_photo_that_is_damaged(shots):
    plan = mip.adapt(seeing("learn"), shots)
    with pytest.warns(MipWarning, match="it counts as missing") as recorded:
        plan.encode(shots)
    damaged = [cell for cell in BAD if cell not in QUIET]
    # A thread of an earlier test's stream may end its batch meanwhile, and say the same again.
    messages = {str(warning.message) for warning in recorded if warning.category is MipWarning}
    assert len(messages) == len(damaged)
    for cell in damaged:
        where = f"shots.csv row {place_of(shots, cell)}, column 'photo'"
        assert [text for text in messages if text.startswith(f"{where}: {message_for(cell)}")]


@pytest.mark.filterwarnings("ignore:.*it counts as missing")
def test_policy_learn_puts_one_vector_for_every_bad_photo(shots):
    plan = mip.adapt(seeing("learn", '"photo"'), shots)
    branch = mip.build(plan).eval().body.branch["views"]
    torch.nn.init.constant_(branch.missing, 7.0)
    vectors = branch(plan.encode(shots).inputs["views"])
    assert (vectors == 7).all(dim=1).tolist() == [False, True] * (len(shots) // 2)


def test_a_fault_within_a_list_of_photos_is_its_rows_alone(shots):
    lists = [["a.png", "a.bmp"], ["a.tif", "half.jpg"], ["a.webp"]]
    table = mip.from_frame(pd.DataFrame({"photo": lists, "price": range(3)}), shots.root, "lists")
    with pytest.warns(MipWarning, match=r"^lists row 1, column 'photo': half\.jpg is truncated"):
        inputs = mip.adapt(seeing("learn", '"photo"'), table).encode(table).inputs["views"]
    assert inputs["present"].tolist() == [[1, 1], [1, 0], [1, -1]]
    with pytest.warns(MipWarning, match="1 row"):
        kept, report = mip.clean(seeing("drop", '"photo"'), table)
    assert report.dropped == {"image broken in 'photo'": [1]}
    assert kept.row_ids.tolist() == [0, 2]


# Photographs that libjpeg would finish in grey.

JPEGS = {
    "colour": {},
    "grey": {"mode": "L"},
    "cmyk": {"mode": "CMYK"},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "profile": {"icc_profile": b"no profile"},
}


def photo(mode="RGB", fill=None, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (61, 67, 3), dtype=np.uint8)
    pixels[:] = pixels if fill is None else fill
    return coded(Image.fromarray(pixels).convert(mode), "JPEG", **options)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("name", sorted(JPEGS.keys() - {"progressive"}))
def test_a_photo_that_is_cut_and_closed_is_not_filled_with_grey(name, share, scaled):
    data = photo(**JPEGS[name])
    begin = data.index(b"\xff\xda") + 14
    cut = begin + int(share * (len(data) - begin))
    with pytest.raises(DataError, match=r"^the image is truncated$"):
        decode(None, data[:cut] + b"\xff\xd9", 8, scaled)


@pytest.mark.parametrize("fill", [None, 0, 127, 128, 255])
@pytest.mark.parametrize("name", JPEGS)
def test_a_whole_photo_is_read_whatever_its_colour_and_what_follows_it(name, fill):
    data = photo(**JPEGS[name], fill=fill)
    whole = decode(None, data, 8)
    assert torch.equal(decode(None, data + b"\xff\xda\xff\x01 more", 8), whole)


# Formats and bombs.


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PPM", "TGA", "PCX", "PDF", "SGI", "DDS"])
def test_a_format_that_is_not_of_the_six_is_refused(kind, tmp_path):
    (tmp_path / "a.jpg").write_bytes(coded(square(3), kind))
    with pytest.raises(DataError, match=f"^a.jpg {re.escape(NO_IMAGE)}$"):
        decode(tmp_path, "a.jpg", 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF"])
def test_a_header_that_promises_too_many_pixels_is_refused_before_decoding(kind, tmp_path):
    (tmp_path / "a.png").write_bytes(sized(kind, 12_000))
    table = mip.from_frame(pd.DataFrame({"photo": ["a.png"], "price": [1]}), tmp_path, "a.csv")
    plan = mip.adapt(seeing("error", '"photo"'), table)
    with pytest.raises(DataError) as caught:
        plan.encode(table)
    expected = "a.csv row 0, column 'photo': a.png has more than 89,478,485 pixels"
    assert str(caught.value) == expected


# Numbers.

ODD = {
    "NaN": "nan",
    "infinity": "inf",
    "minus infinity": "-inf",
    "past float32": "1e39",
    "below float32": "-1e39",
    "past float64": "1e400",
    "NA": "NA",
    "blank": "",
}
FORMS = {
    "text": lambda cells: cells,
    "floats": lambda cells: pd.to_numeric(pd.Series(cells), errors="coerce"),
    "objects": lambda cells: pd.Series(
        [float(c) if c != "NA" and c else None for c in cells], dtype=object
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ODD)
def test_an_odd_number_is_counted_flagged_and_filled_like_a_blank(name, form):
    frame = frame_of(8).assign(area=FORMS[form](["50", "60", ODD[name], "70"] * 2))
    plan = mip.adapt(spec_of("regression", NUMBERS), mip.from_frame(frame))
    blank = plan.encode(mip.from_frame(frame.assign(area=""))).inputs
    encoded = plan.encode(mip.from_frame(frame)).inputs
    assert plan.facts["branch"]["sizes"] == {**plan.facts["branch"]["sizes"], "missing": [2, 0]}
    fill = mip.build(plan).eval().body.branch["sizes"]
    torch.nn.init.constant_(fill.value, 3.0)
    assert encoded["sizes"][:, 0].isnan().tolist() == [False, False, True, False] * 2
    assert torch.equal(fill(encoded["sizes"])[2], fill(blank["sizes"])[2])
    assert fill(encoded["sizes"])[2, [0, 2]].tolist() == [3.0, 1.0]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_number_in_the_target_leaves_with_a_report(name):
    frame = frame_of(20).astype({"price": object})
    frame.loc[7, "price"] = ODD[name]
    kept, report = mip.clean(spec_of("regression", NUMBERS), mip.from_frame(frame))
    reason = "missing" if name in {"NaN", "NA", "blank"} else "infinite or beyond float32"
    assert report.dropped == {f"target 'price' {reason}": [7]}
    assert 7 not in kept.row_ids.tolist()


# Words.


def codes(tmp_path, text, words="code"):
    (tmp_path / "zips.csv").write_text(text)
    spec = mip.parse(
        f'[branch.zip]\nkind = "categorical"\ncolumns = ["{words}"]\n'
        '[head]\nkind = "regression"\ncolumn = "price"\n'
    )
    table = mip.read(tmp_path / "zips.csv")
    return mip.adapt(spec, table), table


def test_leading_zeros_and_na_are_categories_of_their_own(tmp_path):
    plan, table = codes(tmp_path, "code,price\n00123,1\n123,2\nNA,3\nnull,4\n,5\n")
    assert plan.facts["branch"]["zip"] == {"words": [["00123", "123", "NA", "null"]]}
    assert plan.encode(table).inputs["zip"].flatten().tolist() == [1, 2, 3, 4, 0]


def test_a_category_that_has_lost_its_zeros_is_unseen_and_told(tmp_path):
    plan, _ = codes(tmp_path, "code,price\n00123,1\n00456,2\n")
    drifted = mip.from_frame(pd.DataFrame({"code": [123, 456]}), name="new.csv")
    assert plan.encode(drifted).inputs["zip"].flatten().tolist() == [0, 0]
    assert prediction_warnings(plan, drifted) == [
        "new.csv: unseen categories in 'code', '123', '456': 2 rows (0, 1)"
    ]


@pytest.mark.parametrize("word", ["12 m", "1,5", "1.000,00", "2020-01-01", "yes", "00:30"])
def test_a_number_column_that_turns_to_text_is_named_with_its_file(word, tmp_path):
    setup = set_up(spec_of("regression", NUMBERS), mip.from_frame(frame_of()))
    frame_of(3).assign(rooms=word).to_csv(tmp_path / "new.csv", index=False)
    with pytest.raises(DataError) as caught:
        mip.predictor(setup.plan, setup.state)(tmp_path / "new.csv", errors="raise")
    assert str(caught.value) == f"new.csv row 0, column 'rooms': {word!r} is not a number"


# Classes and sizes, before the first step.


def trained(head, train, valid=(), branches=NUMBERS, **options):
    """Run from a spec; a hook records the steps that were taken."""
    table, steps = mip.from_frame(options.get("frame", frame_of()), name="houses.csv"), []
    rows = Parts(*(table.take(list(rows_of_part)) for rows_of_part in (train, valid, ())))
    spec = spec_of(head, branches, "[train]\nepochs = 1\nbatch_size = 4\n")

    def hook(event):
        if event.name == "before_batch":
            steps.append(event.step)

    return (lambda: mip.run(spec, rows, make_hooks=lambda job: [hook])), steps


def test_a_class_that_is_missing_from_train_is_an_error_before_training():
    run, steps = trained("multiclass", [0, 1, 3, 4, 6, 7], [2, 5, 8, 9])
    with pytest.raises(DataError, match="'loft' is not a class of the training rows") as caught:
        run()
    message = str(caught.value)
    assert message.startswith("houses.csv row 2, column 'style': 'loft' ")
    assert "(3 rows: 2, 5, 8); did you mean 'flat'?" in message
    assert steps == []


@pytest.mark.parametrize("head", ["binary", "multiclass"])
def test_one_class_alone_is_an_error_before_training(head):
    run, steps = trained(head, [0, 6])
    with pytest.raises(DataError, match=r"^houses\.csv: column '(sold|style)' has (1|fewer)"):
        run()
    assert steps == []


def test_constant_columns_train():
    frame = frame_of().assign(area=5, rooms="", town="Ulm", price=3.0)
    run, steps = trained("regression", range(11), frame=frame)
    values = run().predict(frame)["value"]
    assert len(steps) == 3
    assert np.isfinite(values).all()


def test_one_row_trains():
    run, steps = trained("regression", [0])
    assert np.isfinite(run().predict(frame_of())["value"]).all()
    assert len(steps) == 1


def test_no_row_is_an_error_before_training():
    run, steps = trained("regression", [])
    with pytest.raises(DataError, match=r"^houses\.csv: there are no training rows$"):
        run()
    assert steps == []


def test_no_row_cannot_be_cleaned_or_scored():
    setup = set_up(spec_of("regression", NUMBERS), mip.from_frame(frame_of()))
    predict, empty = mip.predictor(setup.plan, setup.state), mip.from_frame(frame_of().iloc[:0])
    for use in (lambda: mip.clean(setup.plan.spec, empty), lambda: mip.evaluate(predict, empty)):
        with pytest.raises(DataError, match=r"^table: no row is left \(0 rows, 0 used\)$"):
            use()


# Bad rows among good ones.


@pytest.fixture(scope="module")
def predict(tmp_path_factory):
    """A predictor in batches of four, and rows for it in a folder with a broken photo."""
    folder = tmp_path_factory.mktemp("mixed")
    draw_photos(folder)
    (folder / "photos" / "cut.jpg").write_bytes(half(noise(), b"\xff\xd9"))
    table = mip.from_frame(frame_of(), folder, "mixed.csv")
    lines = '[branch.photo]\nkind = "image"\ncolumns = ["front"]\nsize = 8\nbase_channels = 2\n'
    setup = set_up(spec_of("multiclass", lines + NUMBERS), table)
    predictor = mip.predictor(setup.plan, mip.fit(setup.step, setup.batches, setup.state, steps=3))
    return evolve(predictor, batch_size=4), table


WRONG = {
    "broken": ("front", "photos/cut.jpg", "photos/cut.jpg is truncated"),
    "gone": ("front", "photos/gone.jpg", "photos/gone.jpg is missing"),
    "outside": ("front", "/etc/hosts", "/etc/hosts leaves the table's folder"),
    "blank": ("front", "", "no image is named"),
    "word": ("rooms", "many", "'many' is not a number"),
    "bytes": ("front", b"GIF89a", f"the image {NO_IMAGE}"),
}
MIXED = {
    "one": {5: "word"},
    "a whole batch": {0: "broken", 1: "gone", 2: "outside", 3: "word"},
    "one in every batch": {3: "blank", 4: "bytes", 10: "gone"},
    "all but one": dict(zip(range(10), [*WRONG, *WRONG], strict=False)),
    "each kind": dict(zip([1, 2, 4, 6, 7, 9], WRONG, strict=True)),
}


@pytest.mark.parametrize("name", MIXED)
def test_bad_rows_get_errors_and_the_others_their_bits(name, predict):
    model, table = predict
    frame = table.frame.astype({"rooms": object, "front": object})
    for row, fault in MIXED[name].items():
        column, cell, _ = WRONG[fault]
        frame.at[row, column] = cell
    predictions, expected = model(mip.from_frame(frame, table.root, "mixed.csv")), model(table)
    assert predictions["error"].dropna().to_dict() == {
        row: f"mixed.csv row {row}, column '{WRONG[fault][0]}': {WRONG[fault][2]}"
        for row, fault in MIXED[name].items()
    }
    good = [row for row in range(len(table)) if row not in MIXED[name]]
    pd.testing.assert_frame_equal(
        predictions.loc[good, expected.columns], expected.loc[good], check_exact=True
    )
    assert predictions.loc[list(MIXED[name]), expected.columns].isna().all(axis=None)


# Workers.

RAISED = [RuntimeError, MemoryError, KeyError, SystemExit, KeyboardInterrupt, GeneratorExit]


def failing(kind, at=4):
    def stage(rows):
        if int(rows[0]) >= at:
            raise kind("no such thing")
        return rows

    return stage


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("ahead", [0, 2])
@pytest.mark.parametrize("kind", RAISED)
def test_whatever_a_worker_raises_comes_at_its_batch_with_its_rows(kind, ahead, workers):
    batches, seen = pipe(torch.arange(12), mip.batch(2), mip.transform(failing(kind), workers)), []
    batches = mip.prefetch(ahead)(batches) if ahead else batches

    def run():
        seen.extend(batch.tolist() for batch in batches.iter_from(0))

    with pytest.raises(kind, match="no such thing") as caught:
        within(5, run)
    assert seen == [[0, 1], [2, 3]]
    assert caught.value.__notes__ == ["in rows 4, 5 of epoch 0"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", [RuntimeError, SystemExit, StopIteration])
def test_fit_stops_at_once_with_what_a_worker_raised(kind, workers):
    def broken(rows):
        if rows[0][0, 0] >= 4:
            raise kind("no such thing")
        return rows

    inputs = torch.arange(12.0)[:, None]
    batches = pipe((inputs, inputs[:, 0]), mip.batch(2), mip.transform(broken, workers))
    net, optimizer, steps = (
        torch.nn.Sequential(torch.nn.Linear(1, 1), torch.nn.Flatten(0)),
        mip.sgd(0.0),
        [],
    )
    step = mip.train_step(net, torch.nn.functional.mse_loss, optimizer)

    def hook(event):
        if event.name == "after_batch":
            steps.append(event.step)

    expected = DataError if kind is StopIteration else kind
    with pytest.raises(expected) as caught:
        within(5, lambda: mip.fit(step, batches, mip.init(net, optimizer), epochs=2, hooks=[hook]))
    assert len(steps) == 2
    texts = [str(caught.value), *getattr(caught.value, "__notes__", [])]
    assert any("in rows 4, 5 of epoch 0" in text for text in texts)


def test_a_process_that_is_killed_ends_the_epoch_with_an_error():
    def die(rows):
        if int(rows[0]) >= 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return rows

    batches, seen = pipe(torch.arange(12), mip.batch(2), mip.transform(die)), []
    loader = DataLoader(Datapipe(batches), batch_size=None, num_workers=1)

    def run():
        seen.extend(batch.tolist() for batch in loader)

    with pytest.raises((RuntimeError, OSError, EOFError)):  # as torch meets it first
        within(30, run)
    assert seen == [[0, 1], [2, 3]][: len(seen)]


# A bad cell in training names the branch that reads it.


@pytest.mark.parametrize("depth", [1, 2])
def test_a_bad_cell_names_its_branch_in_training_and_not_in_predictions(depth):
    inner = '{ kind = "continuous", columns = ["rooms"] }'
    branch, path = f"[branch]\nb = {inner}\n", "branch.b"
    if depth == 2:
        branch = f'[branch.a]\nkind = "fuse"\n[branch.a.branch]\nb = {inner}\n'
        path = "branch.a.branch.b"
    spec = spec_of("regression", branch)
    frame = frame_of().astype({"rooms": object})
    plan = mip.adapt(spec, frame)
    frame.loc[2, "rooms"] = "many"
    cell = "table row 2, column 'rooms': 'many' is not a number"
    with pytest.raises(DataError) as caught:
        mip.adapt(spec, frame)
    assert str(caught.value) == f"{cell} ({path})"
    predict = mip.predictor(plan, mip.init(mip.build(plan), mip.sgd(0.1)))
    assert predict(frame)["error"][2] == cell
