"""From what a cell says to the file that it means, inside the folders that it may lie in."""

from __future__ import annotations

import os
import re
import sys
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import Any
from urllib.parse import unquote

from toolz import groupby

from mip.data import (
    IMAGE_SUFFIXES,
    PhotoName,
    Table,
    as_text,
    cuts_folders,
    is_address,
    names_all,
    names_several,
    normalize_name,
    path_parts,
    photo_name,
    split_template,
    tidy,
    walk_files,
)
from mip.errors import DataError, quote

ANY = "\0"
"""A wildcard of the template, which no cell can have."""


_OBJECT = re.compile(r"""\s*\[?\s*\{\s*["'][^"']*["']\s*:""")


RECENT = 2.0
"""Seconds in which a folder may change without a change of its time, on some file systems."""


class MissingImageError(DataError):
    """The image file does not exist; anything wrong with an existing file is a plain DataError."""


def resolve_path(root: Path | None, cell: str, template: str = "{}") -> Path:
    """Return the path of the file that an image cell names, inside the table's folder or the one
    that the template names.

    `template` says which path a cell means (`mip.data.photo_name`). A `*` in it stands for any
    folder, after a point for the ending of any image, and elsewhere in the name of the file for
    anything. A path is tried as it is written, then without quotes and blanks around it and with
    slashes for backslashes (`mip.data.tidy`), without percent encoding, then in other case and with
    accents written otherwise (`mip.data.normalize_name`). An absolute path must lie in the folder
    too.

    Raises DataError if the path leaves the folder ('..', a link), contains a NUL, is an address, or
    means several files, and MissingImageError if it means none.

    >>> resolve_path(Path("."), "../secret.png")
    Traceback (most recent call last):
    mip.errors.DataError: ../secret.png leaves the table's folder
    """
    found = _resolve(root, cell, template)
    if len(found) > 1:
        both = " and ".join(found[:2])
        raise DataError(f"{_shown(cell, template)} may be {both}: which of them?")
    if not os.path.getsize(found[0]):
        raise DataError(f"{_shown(cell, template)} is empty (0 bytes)")
    return Path(found[0])


def _resolve(root: Path | None, cell: str, template: str) -> list[str]:
    """Return the paths of all files that a cell means, sorted; there is one at least."""
    if "\0" in cell:
        raise DataError(f"{quote(cell, 80)} has a character that no image path may have")
    if is_address(cell) and not cuts_folders(template):
        cure = "which is not followed: download the photos"
        raise DataError(f"{printable(cell)} is an address, {cure}")
    if cuts_folders(template) and names_several(cell) and not names_several(path_parts(cell)[-1]):
        # Of its photos all but one would be cut off.
        raise MissingImageError(_why_missing(cell, template))
    try:
        return _find(os.path.realpath(root or "."), cell, template)
    except (OSError, ValueError) as error:  # too long, a loop of links, no access
        raise DataError(f"{quote(cell, 80)} cannot be looked up ({error})"[:200]) from error


def find_photo(photo: PhotoName) -> Path:
    """Return the path of the file of a photo; raises as `resolve_path` does."""
    return resolve_path(photo.root, photo.text, photo.template)


def files_of(photo: PhotoName) -> list[Path]:
    """Return the paths of the files that a name means: one, or all images that match, sorted,
    if its template means all (`mip.data.names_all`); raises as `resolve_path` does.
    """
    if not names_all(photo.template):
        return [find_photo(photo)]
    found = [Path(path) for path in _resolve(photo.root, photo.text, photo.template)]
    return [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES] or found


def photos_of(table: Table, column: str) -> list[list[Any]]:
    """Read a column as photos (`Table.photos`), with one for each file where a name means several
    (`files_of`).
    """
    form, photos = table.formats.get(column), table.photos(column)
    if form is None or not names_all(form.path):
        return photos
    return [[each for photo in row for each in _one_each(photo)] for row in photos]


def _one_each(photo: Any) -> list[Any]:
    if not isinstance(photo, PhotoName):
        return [photo]
    try:
        paths = files_of(photo)
    except DataError:  # said where the photo is read
        return [photo]
    folder, _ = split_template(photo.template)
    start = os.path.realpath(os.path.join(photo.root or ".", folder))
    names = [os.path.relpath(path, start) for path in paths]
    return [PhotoName(name, photo.root, f"{folder}{{}}") for name in names]


def read_photo(photo: PhotoName) -> bytes:
    """Read the file of a photo; raises as `resolve_path` does."""
    return find_photo(photo).read_bytes()


def printable(path: str) -> str:
    """Write a path in an error: quoted if it is long or has letters that cannot be printed."""
    return path if path.isprintable() and len(path) <= 200 else quote(path, 200)


def _shown(cell: str, template: str) -> str:
    return printable(photo_name(template, cell))


def _find(root: str, cell: str, template: str) -> list[str]:
    # With strings instead of Paths, which would cost time for every photo.
    folder, rest = split_template(template)
    start = os.path.realpath(os.path.join(root, folder)) if folder else root
    allowed = dict.fromkeys((root, start))
    names = [photo_name(rest.replace("*", ANY), text) for text in _spellings(cell, template)]
    paths = [os.path.realpath(os.path.join(start, name)) for name in names if ANY not in name]
    inside = [path for path in paths if _is_inside(path, allowed)]
    if written := next(filter(_is_file, inside), None):
        return [written]
    if found := _search_all(start, names, allowed):
        return sorted(found)
    if len(inside) < len(paths):
        raise DataError(f"{printable(cell)} leaves the table's folder")
    raise MissingImageError(_why_missing(cell, template))


def _why_missing(cell: str, template: str) -> str:
    if _OBJECT.match(cell):
        return f"{quote(cell, 80)} is an object: its column's key names the value that is the photo"
    if names_several(cell):
        return f"{quote(cell, 80)} names several photos: its column's sep says what divides them"
    return f"{_shown(cell, template)} is missing"


def _spellings(cell: str, template: str) -> Iterator[str]:
    yield cell
    if (text := tidy(cell)) != cell:
        yield text
    if (plain := unquote(text)) != text and "\0" not in plain:  # my%20photo.jpg
        yield plain
    if template != "{}" and (number := as_text(text)) != text:  # 7.0, of a column with gaps
        yield number


def _is_inside(path: str, folders: Iterable[str]) -> bool:
    path = f"{path}{os.sep}"
    return any(path.startswith(f"{folder.rstrip(os.sep)}{os.sep}") for folder in folders)


def _is_file(path: str) -> bool:
    try:
        return S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _search_all(start: str, names: Iterable[str], allowed: Iterable[str]) -> set[str]:
    """Find the files that names mean in other case, or whose names have wildcards."""
    parts = [os.path.normpath(name).split(os.sep) for name in names if not os.path.isabs(name)]
    return {path for each in parts for path in _search(start, each, allowed)}


def _search(folder: str, parts: Sequence[str], allowed: Iterable[str]) -> Iterator[str]:
    for name in _matching(folder, parts[0]):
        path = os.path.realpath(os.path.join(folder, name))
        if not _is_inside(path, allowed):
            continue
        if parts[1:]:
            yield from _search(path, parts[1:], allowed)
        elif _is_file(path):
            yield path


def _matching(folder: str, part: str) -> Iterable[str]:
    """Return the names in a folder that are like a part of a path."""
    try:
        changed = os.stat(folder).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return []
    is_recent = time.time_ns() - changed < RECENT * 1e9
    names, keys = (_listing.__wrapped__ if is_recent else _listing)(folder, changed)
    part = normalize_name(part)
    if ANY not in part:
        return names.get(part, ())
    stem, point, ending = part.rpartition(".")
    if point and ending == ANY and ANY not in stem:
        return [name for suffix in IMAGE_SUFFIXES for name in names.get(stem + suffix, ())]
    pieces = part.split(ANY)
    near = keys[bisect_left(keys, pieces[0]) : bisect_left(keys, pieces[0] + chr(sys.maxunicode))]
    return [name for key in near if _has_pieces(key, pieces) for name in names[key]]


def _has_pieces(name: str, pieces: Sequence[str]) -> bool:
    """Whether a name is pieces in this order with anything between them.

    >>> [_has_pieces("p1_2.png", pieces) for pieces in (["p1_", ".png"], ["p1_2", "2.png"])]
    [True, False]
    """
    first, *between, last = pieces
    end = len(name) - len(last)
    position = len(first) if name.startswith(first) and name.endswith(last) else end + 1
    for piece in between:
        found = name.find(piece, position)
        position = found + len(piece) if found >= 0 else end + 1
    return position <= end


@lru_cache(maxsize=256)
def _listing(folder: str, changed: int) -> tuple[Mapping[str, list[str]], Sequence[str]]:
    """Return the names in a folder by what `normalize_name` makes of them, and that, sorted."""
    try:
        names = groupby(normalize_name, sorted(os.listdir(folder)))
    except NotADirectoryError:
        names = {}
    return names, sorted(names)


def list_images(root: Path | None, limit: int = 500_000) -> Iterator[str]:
    """Iterate over the images below a folder, by their paths relative to it, with slashes, as
    `mip.data.walk_files` finds them; those after `limit` files are skipped.
    """
    for path in islice(walk_files(root or Path()), limit):
        if path.suffix.lower() in IMAGE_SUFFIXES:
            yield path.as_posix()


def describe_folder(photos: Sequence[PhotoName], table: str, column: str) -> str:
    """Say what photos are called that cannot be found, what their folder has instead, and what to
    do.
    """
    if not photos:
        return "no cell names one"
    first = photos[0]
    if is_address(first.text) and not cuts_folders(first.template):
        cure = f"which are not followed; download them: {_download(table, column)}"
        return f"the cells are addresses, such as {quote(first.text, 80)}, {cure}"
    found = list(list_images(first.root))
    count = f"{len(found)} images, such as" if found[1:] else "one image,"
    has = f"{count} {printable(found[0])}" if found else "no images"
    return f"{_reason(first)}, and the table's folder has {has}"


def _reason(photo: PhotoName) -> str:
    try:
        find_photo(photo)
    except DataError as error:
        if "leaves" not in str(error):
            return str(error)
        named = os.path.dirname(tidy(photo.text)) or "FOLDER"
        return f'{error}; only a spec that names the folder allows that (path = "{named}/{{name}}")'
    return f"{printable(photo.text)} is there"


def _download(table: str, column: str) -> str:
    code = (
        "import os, pandas, urllib.request as u; os.makedirs('photos', exist_ok=True); "
        "[u.urlretrieve(a, 'photos/' + a.split('?')[0].split('/')[-1]) for a in "
        f"pandas.read_csv({table!r})[{column!r}].dropna()]"
    )
    return f'python -c "{code}"'
