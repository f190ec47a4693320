"""From what cells say to files: as people write paths, by rules of the spec, and never outside."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, UnidentifiedImageError

import mip
from mip.data import ColumnFormat, PhotoName, from_columns
from mip.errors import DataError
from mip.images import decode, find_photo, photos_of, resolve_path
from mip.images.decoding import known_formats
from mip.spec import make_draft

N = 12


def save(path, level=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (level, 0, 0)).save(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A folder of photos beside a secret, with ways out of it."""
    outside = tmp_path_factory.mktemp("outside")
    save(outside / "secret.png")
    folder = outside / "base"
    for name in ("img/3.jpg", "img/Photo.PNG", "img/0007.jpg", "a*/b.png", "y1/4.png", "y2/5.png"):
        save(folder / name)
    save(folder / "img/3.jpg - Copy.jpg")
    (folder / "out").symlink_to(outside)
    (folder / "img" / "link.png").symlink_to(outside / "secret.png")
    return folder


FOUND = {
    ("'img/3.jpg'", "{}"): "img/3.jpg",
    (' "img/3.jpg" ', "{}"): "img/3.jpg",
    ("img\\3.jpg", "{}"): "img/3.jpg",
    (".\\img\\3.jpg", "{}"): "img/3.jpg",
    ("IMG/photo.png", "{}"): "img/Photo.PNG",
    ("3", "img/{}.jpg"): "img/3.jpg",
    ("3.0", "img/{}.jpg"): "img/3.jpg",
    ("img/3", "{}.*"): "img/3.jpg",
    ("photo", "img/{}.*"): "img/Photo.PNG",
    ("7", "img/{0000}.jpg"): "img/0007.jpg",
    ("4", "y*/{}.png"): "y1/4.png",
    ("5.png", "*/{}"): "y2/5.png",
    ("C:\\Users\\ann\\3.jpg", "img/{name}"): "img/3.jpg",
    ("/home/ann/img/3.jpg", "{2:}"): "img/3.jpg",
    ("https://a.org/x/3.jpg?size=9", "img/{name}"): "img/3.jpg",
    ("secret", "../{}.png"): "../secret.png",
    ("C:\\x\\3.jpg - Copy.jpg", "img/{name}"): "img/3.jpg - Copy.jpg",
    ("img/3.jpg%20-%20Copy.jpg", "{}"): "img/3.jpg - Copy.jpg",
    ("https://a.org/3.jpg%20-%20Copy.jpg?w=9", "img/{name}"): "img/3.jpg - Copy.jpg",
}


@pytest.mark.parametrize(("cell", "template"), FOUND)
def test_a_cell_finds_its_file(cell, template, base):
    assert resolve_path(base, cell, template) == (base / FOUND[cell, template]).resolve()


@pytest.mark.parametrize(
    ("cell", "template"),
    [
        ("../secret.png", "img/{}"),
        ("../secret.png", "../base/img/{}"),
        ("*", "y*/{}.png"),
        ("[45]", "y*/{}.png"),
        ("OUT/secret.png", "{}"),
        ("link", "img/{}.png"),
        ("4", "out/base/*/{}.jpg"),
        ("%2e%2e/secret.png", "img/{}"),
        ("%2e%2e/secret.png", "{}"),
        ("%00", "y*/{}.png"),
    ],
)
def test_a_cell_has_no_wildcards_and_does_not_leave(cell, template, base):
    with pytest.raises(DataError, match=r"leaves the table's folder|is missing"):
        resolve_path(base, cell, template)


SEVERAL = {
    ("img/3.jpg;img/0007.jpg", "img/{name}"): True,
    ("https://a.org/7.jpg?w=9 https://a.org/3.jpg", "img/{name}"): True,
    ("x/y/7.jpg\nx/y/3.jpg", "{2:}"): True,
    ("img/9.jpg, img/3.jpg", "{}"): True,
    ("img/9.jpg", "{}"): False,
}


@pytest.mark.parametrize(("cell", "template"), SEVERAL)
def test_no_photo_is_cut_off_with_the_folders(cell, template, base):
    text = "names several photos" if SEVERAL[cell, template] else "is missing"
    with pytest.raises(DataError, match=text):
        resolve_path(base, cell, template)


def test_a_name_that_two_files_have_is_none_of_them(base):
    save(base / "y1" / "6.png")
    save(base / "y2" / "6.png")
    with pytest.raises(DataError, match="which of them"):
        resolve_path(base, "6.png", "y*/{}")


@pytest.fixture(scope="module")
def views(tmp_path_factory):
    """A folder with one, two and three images for the names 1, 2 and 3, and texts beside them."""
    folder = tmp_path_factory.mktemp("views")
    for k in (1, 2, 3):
        for view in range(k):
            save(folder / f"img/{k}/{view}.jpg")
            save(folder / f"scans/{k}_{view}.{'png' if view else 'jpg'}")
        (folder / f"img/{k}/notes.txt").touch()
    return folder


@pytest.mark.parametrize("path", ["img/{}/*", "scans/{}_*.*", "scans/{}*"])
def test_a_wildcard_in_the_name_of_a_file_means_all_images_that_match(path, views):
    rows = from_columns({"id": [3, 1, "2.0", 4]}, views).with_formats(
        {"id": ColumnFormat(path=path)}
    )
    *found, lost = photos_of(rows, "id")
    files = [[find_photo(photo) for photo in row] for row in found]
    globbed = [views.glob(path.replace("{}", name)) for name in "312"]
    assert files == [sorted(file for file in each if file.suffix != ".txt") for each in globbed]
    with pytest.raises(DataError, match=r"4.* is missing"):
        find_photo(*lost)


def test_an_ending_and_a_folder_are_one_of_several(views):
    save(views / "scans/3_0.png")
    for path, name in (("scans/{}.*", "3_0"), ("img/*/{}", "0.jpg")):
        rows = from_columns({"id": [name]}, views).with_formats({"id": ColumnFormat(path=path)})
        [[photo]] = photos_of(rows, "id")
        with pytest.raises(DataError, match="which of them"):
            find_photo(photo)


def test_all_images_of_a_row_are_encoded_looked_for_and_cached(views, tmp_path):
    rows = from_columns({"id": [3, 1, 2]}, views)
    rows = rows.with_formats({"id": ColumnFormat(path="img/{}/*")})
    branch = mip.branches.Image(["id"], size=8)
    facts = branch.adapt(rows)
    assert (branch.encode(facts, rows)["present"] == 1).sum(dim=1).tolist() == [3, 1, 2]
    assert list(branch.problems(rows)) == []
    before = branch.cache(facts, rows, tmp_path).digests
    save(views / "img/1/9.jpg")
    after = branch.cache(facts, rows, tmp_path).digests
    assert (before == after).tolist() == [True, False, True]


PIECES = ["..", ".", "/", "\\", "secret.png", "out", "img", "base", "link.png", "*", "[", "'", " "]
PIECES += ["file://", "C:", "\0", "{}", "{name}", "SECRET.PNG", "http://", "~", "a*", "3.jpg"]


@given(cell=st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=30))
@pytest.mark.parametrize("template", ["{}", "{}.*", "img/{}", "*/{}", "{name}", "{1:}", "{000}"])
def test_no_cell_leads_outside(template, cell, base):
    try:
        path = resolve_path(base, cell, template)
    except DataError:
        return
    assert path.is_relative_to(base.resolve())


WRITTEN = {
    "ids": (lambda folder, k: str(k), "img/{}.jpg"),
    "numbers": (lambda folder, k: k, "img/{}.jpg"),
    "noext": (lambda folder, k: f"img/{k}", "{}.jpg"),
    "names": (lambda folder, k: f"{k}.jpg", "img/{}"),
    "quoted": (lambda folder, k: f"'img/{k}.jpg'", "{}"),
    "absolute": (lambda folder, k: str(folder / f"img/{k}.jpg"), "{}"),
    "elsewhere": (lambda folder, k: f"D:\\x\\{k}.JPG", "img/{name}"),
    "plain": (lambda folder, k: f"img/{k}.jpg", ""),
}


@pytest.mark.parametrize("how", WRITTEN)
def test_a_draft_holds_the_rule_and_reads_each_row_its_photo(how, tmp_path):
    for k in range(N):
        save(tmp_path / f"img/{k}.jpg", 20 * k)
    write, path = WRITTEN[how]
    cells = {"photo": [write(tmp_path, k) for k in range(N)], "y": np.arange(N) % 5 + 0.5}
    rows = from_columns(cells, tmp_path, "t.csv")
    made = make_draft(rows, "y", "t.csv")
    spec = mip.parse(made.text)
    assert spec.data.columns == ({"photo": ColumnFormat(path=path)} if path else {})
    assert sum(note.startswith("photo: ") for note in made.notes) == bool(path)
    read, _ = mip.clean(spec, rows)
    for k, [photo] in enumerate(read.photos("photo")):
        assert decode(None, photo, 8)[0].float().mean() == pytest.approx(20 * k, abs=3)


def test_files_that_several_cells_would_share_are_no_rule(tmp_path):
    for k in range(N):
        save(tmp_path / f"p/{'cd'[k % 2]}/{k // 2}.jpg")
    cells = {"photo": [f"/home/ann/{'cd'[k % 2]}/{k // 2}.jpg" for k in range(N)], "y": range(N)}
    spec = mip.parse(make_draft(from_columns(cells, tmp_path), "y", "t.csv").text)
    assert spec.data.columns["photo"].path == "p/{2:}"


@pytest.mark.parametrize("head", ["", "data:image/png;base64,"])
def test_photos_in_base64_are_read(head, tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(file, "PNG")
    text = head + base64.b64encode(file.getvalue()).decode()
    [[photo]] = from_columns({"photo": [text]}).photos("photo")
    assert decode(None, photo, 8)[:, 0, 0].tolist() == [255, 0, 0]


def test_percent_encoding_is_said(tmp_path):
    for k in range(N):
        save(tmp_path / f"my photo {k}.jpg", k)
    cells = {"photo": [f"my%20photo%20{k}.jpg" for k in range(N)], "y": range(N)}
    made = make_draft(from_columns(cells, tmp_path, "t.csv"), "y", "t.csv")
    assert "photo: 'my%20photo%200.jpg' is my photo 0.jpg (path = \"{}\")" in made.notes


def test_missing_words_are_no_names():
    assert from_columns({"photo": ["NaN", "-", "", "none"]}).photos("photo") == [[None]] * 4


def test_addresses_are_refused_with_the_line_that_downloads_them(tmp_path):
    cells = {"photo": [f"https://a.org/{k}.jpg" for k in range(N)], "y": range(N)}
    with pytest.raises(DataError, match=r"not followed; download them: python -c .*--without"):
        make_draft(from_columns(cells, tmp_path, "t.csv"), "y", "t.csv")


@pytest.mark.parametrize("missing", ["learn", "drop", "error"])
def test_photos_that_are_nearly_all_lost_are_refused(missing, tmp_path):
    save(tmp_path / "pics" / "0.jpg")
    rows = from_columns({"photo": [f"img/{k}.jpg" for k in range(N)], "y": range(N)}, tmp_path)
    branch = f'branch.p = {{ kind = "image", columns = ["photo"], missing = "{missing}" }}\n'
    spec = mip.parse(branch + 'head = { kind = "regression", column = "y" }')
    text = r"12 of 12 photos .*: img/0\.jpg is missing, and .* has one image, pics/0\.jpg$"
    with pytest.raises(DataError, match=text):
        mip.clean(spec, rows)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16"]


@pytest.mark.parametrize("kind", known_formats())
def test_every_mode_that_pillow_writes_is_read(kind):
    written = 0
    for mode in MODES:
        file = io.BytesIO()
        try:
            Image.new(mode, (20, 30)).save(file, kind)
        except (OSError, ValueError, KeyError, UnidentifiedImageError):
            continue
        assert decode(None, file.getvalue(), 8).shape == (3, 8, 8)
        written += 1
    assert written


def test_heic_without_its_extra_names_it(monkeypatch):
    monkeypatch.setattr("mip.images.decoding.known_formats", lambda: ("PNG",))
    with pytest.raises(DataError, match=r"is HEIC, which the extra heif reads: pip install"):
        decode(None, b"\0\0\0\x18ftypheic" + bytes(40), 8)


def test_a_photo_name_is_shown_as_its_text():
    assert str(PhotoName("a.png")) == "a.png"
