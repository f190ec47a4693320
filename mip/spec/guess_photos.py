"""Guesses of how the cells of photo columns name their files."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve, frozen

from mip.data import (
    IMAGE_SUFFIXES,
    ColumnFormat,
    PhotoName,
    Table,
    is_address,
    is_image,
    is_list,
    path_parts,
    photos_in,
    tidy,
)
from mip.errors import DataError, quote
from mip.images import describe_folder, list_images, resolve_path
from mip.spec.distinct_cells import DistinctCells
from mip.spec.guess_formats import FormatGuess
from mip.spec.guess_numbers import describe

SAMPLE = 200
"""Cells that are looked up for a guess."""


TRIED = 20
"""Cells from which templates are drawn up."""


ENOUGH = 0.5
"""A column is one of photos if more than this share of the photos is there."""


SEPARATORS = ("", ";", "|", ",")

_WORD = "image|photo|img|picture|pic|path|file|url"
_NAME_OF_PHOTOS = re.compile(rf"(?:^|[^a-z])(?:{_WORD})(?:{_WORD}|name)*s?(?:$|[^a-z])")


@frozen
class _Folder:
    """The images below a table's folder, listed when they are first asked for."""

    root: Path

    @cached_property
    def names(self) -> dict[str, list[tuple[str, ...]]]:
        """The parts of the paths of images, by name and by stem, in lower case."""
        found: dict[str, list[tuple[str, ...]]] = {}
        for path in list_images(self.root):
            parts = tuple(path.split("/"))
            stem = os.path.splitext(parts[-1])[0].casefold()
            for key in {parts[-1].casefold(), stem, stem.lstrip("0") or "0"}:
                found.setdefault(key, []).append(parts)
        return found


def guess_photos(table: Table, columns: Iterable[DistinctCells]) -> dict[str, FormatGuess]:
    """Guess how photos are named, of the columns whose names or cells look like photos; if there
    are none, of a column of ids that are the names of images.
    """
    folder = _Folder(table.root or Path("."))
    kinds = {cells.column: _sample(cells) for cells in columns}
    looking = {column: cells for column, cells in kinds.items() if _looks(column, cells)}
    found = {column: _guess(table, column, cells, folder) for column, cells in looking.items()}
    has_pixels = any(is_image(cell) for cells in kinds.values() for cell in cells)
    if has_pixels or any(not guess.problem for guess in found.values()):
        return found
    for column, cells in kinds.items():
        if column not in found and _are_ids(cells):
            form = _find_form(cells, folder, share=0.9)
            if form:
                return {**found, column: _explain(column, cells, folder.root, form)}
    return found


def _sample(cells: DistinctCells) -> list[Any]:
    """Take different cells of a column, evenly spread."""
    values = [cell for cell in cells.values() if cell is not None]
    objects = cells.objects()
    if not any(is_image(cell) or is_list(cell) for cell in objects):
        values = [*filter(str.strip, map(str, values))]
        values = list(dict.fromkeys(values)) if objects else values
    spread = np.linspace(0, len(values) - 1, min(len(values), SAMPLE)).astype(int)
    return [values[position] for position in spread]


def _names(cells: Sequence[Any], root: Path, form: ColumnFormat) -> list[Any]:
    template = form.path or "{}"
    return [
        photo
        for cell in cells
        for photo in photos_in(form.values(cell), root, template)
        if photo is not None
    ]


def has_name_of_photos(column: str) -> bool:
    """Whether a column's name says that it has photos.

    >>> [has_name_of_photos(name) for name in ("photo", "imagePath", "img_2", "profile", "a_name")]
    [True, True, True, False, False]
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()
    return bool(_NAME_OF_PHOTOS.search(name))


def _looks(column: str, cells: Sequence[Any]) -> bool:
    if not cells or any(map(is_image, cells)):
        return False
    if has_name_of_photos(column):
        return True
    texts = [text for cell in cells for text in (cell if is_list(cell) else [cell])]
    shares = [_share_of_images(texts, sep) for sep in SEPARATORS]
    return max(shares, default=0) > ENOUGH


def _share_of_images(texts: Sequence[Any], sep: str) -> float:
    form = ColumnFormat(sep=sep)
    names = _names(texts, Path("."), form)
    photos = [n for n in names if _is_photo(n)]
    return len(photos) / max(len(names), 1)


def _is_photo(photo: Any) -> bool:
    if not isinstance(photo, PhotoName):
        return isinstance(photo, bytes)
    return _is_image_name(photo.text)


def _is_image_name(text: str) -> bool:
    last = (path_parts(tidy(text)) or [""])[-1]
    return last.lower().endswith(IMAGE_SUFFIXES) and last[0] != "."


def _are_ids(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str) and not re.search(r"\s", cell)]
    return len(texts) == len(cells) >= 2 and not any(is_address(text) for text in texts)


def _guess(table: Table, column: str, cells: Sequence[Any], folder: _Folder) -> FormatGuess:
    form = _find_form(cells, folder, share=ENOUGH)
    if form:
        return _explain(column, cells, folder.root, form)
    photos = _names(cells, folder.root, ColumnFormat())
    lost = [photo for photo in photos if isinstance(photo, PhotoName) and not _path_of(photo)]
    return FormatGuess(column, problem=describe_folder(lost, table.name, column))


def _find_form(cells: Sequence[Any], folder: _Folder, share: float) -> ColumnFormat | None:
    """Find the format that finds the most photos, more than this share of them."""
    best, form = share, None
    for trial in _trials(cells, folder):
        found = _share_found(_names(cells, folder.root, trial))
        if found > best:
            best, form = found, trial
        if best == 1:
            break
    return form


def _trials(cells: Sequence[Any], folder: _Folder) -> Iterator[ColumnFormat]:
    texts = [cell for cell in cells if isinstance(cell, str)]
    forms = [ColumnFormat(sep=sep) for sep in SEPARATORS if any(sep in text for text in texts)]
    yield from (forms := forms or [ColumnFormat()])
    # Two names in a cell look like one long path, so a separator is tried before none.
    for form in [*forms[1:], *forms[:1]]:
        for template in _templates(_names(cells, folder.root, form), folder):
            yield evolve(form, path=template)


def _share_found(photos: Sequence[Any]) -> float:
    """Return the share of photos that are there; different names must have different files."""
    names = {photo for photo in photos if isinstance(photo, PhotoName)}
    n_names = max(len({tidy(photo.text).casefold() for photo in names}), 1)
    n_files = len({path for photo in names if (path := _path_of(photo))})
    n_within = sum(isinstance(photo, bytes) for photo in photos)
    n_others = len(photos) - n_within - sum(isinstance(photo, PhotoName) for photo in photos)
    share = min(n_files / n_names, 1.0) * len(names) + n_within
    return share / max(len(names) + n_within + n_others, 1)


def _path_of(photo: Any) -> Path | None:
    if not isinstance(photo, PhotoName):
        return None
    try:
        return resolve_path(photo.root, photo.text, photo.template)
    except DataError:
        return None


def _templates(photos: Sequence[Any], folder: _Folder) -> Iterator[str]:
    """Propose templates of paths, those that suit most first."""
    names = [photo.text for photo in photos if isinstance(photo, PhotoName)]
    spread = np.linspace(0, len(names) - 1, min(len(names), TRIED)).astype(int)
    counts = Counter(pair for k in spread for pair in dict.fromkeys(_fitting(names[k], folder)))
    yield from (place + rest for (place, rest), _ in counts.most_common())
    for rest in dict.fromkeys(rest for _, rest in counts):
        if pattern := _common_pattern([place for place, other in counts if other == rest]):
            yield pattern + rest


def _fitting(name: str, folder: _Folder) -> Iterator[tuple[str, str]]:
    """Propose folders, and templates inside them, that lead from a name to images."""
    text = tidy(re.sub(r"\.0+$", "", name))
    wanted = path_parts(text.casefold())
    keys = [*wanted[-1:], *(part.lstrip("0") for part in wanted[-1:] if part.isdecimal())]
    for parts in (parts for key in dict.fromkeys(keys) for parts in folder.names.get(key, ())):
        place, (stem, ending) = "".join(f"{p}/" for p in parts[:-1]), os.path.splitext(parts[-1])
        if re.search(r"[{}*]", place):
            continue
        if parts[-1].casefold() == wanted[-1]:
            yield from _ways(text, wanted, parts, "")
        elif stem.casefold() == wanted[-1]:
            yield from _ways(text, wanted, parts, ending)
            yield from _ways(text, wanted, parts, ".*")
        elif stem.isdecimal() and len(wanted) == 1 and int(stem) == int(wanted[0]):
            yield place, f"{{{'0' * len(stem)}}}{ending}"
            yield place, f"{{{'0' * len(stem)}}}.*"


def _ways(
    text: str, wanted: Sequence[str], parts: Sequence[str], ending: str
) -> Iterator[tuple[str, str]]:
    """Propose how a path becomes that of an image: by its name alone, or by its last parts."""
    ours = [*map(str.casefold, parts[:-1]), wanted[-1]]
    pairs = zip(reversed(ours), reversed(wanted), strict=False)
    n_same = len([*takewhile(lambda pair: pair[0] == pair[1], pairs)])
    n_cut = len(wanted) - n_same
    is_plain = not n_cut and not text.startswith("/") and not is_address(text)
    if not is_plain:
        yield "".join(f"{part}/" for part in parts[:-1]), f"{{name}}{ending}"
    rest = "{}" if is_plain else f"{{{n_cut}:}}"
    yield "".join(f"{part}/" for part in parts[: len(parts) - n_same]), rest + ending


def _common_pattern(folders: Sequence[str]) -> str:
    """Return a pattern of several folders of equal depth, or "".

    >>> _common_pattern(["images_1/png/", "images_2/png/"]), _common_pattern(["a/"])
    ('images_*/png/', '')
    """
    parts = [folder.split("/") for folder in dict.fromkeys(folders)]
    if len(parts) < 2 or len({len(each) for each in parts}) > 1:
        return ""
    columns = [list(dict.fromkeys(column)) for column in zip(*parts, strict=True)]
    return "/".join(words[0] if len(words) == 1 else f"{_prefix(words)}*" for words in columns)


def _prefix(words: Sequence[str]) -> str:
    letters = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return "".join(column[0] for column in letters)


def _explain(column: str, cells: Sequence[Any], root: Path, form: ColumnFormat) -> FormatGuess:
    """Say how cells name photos, by an example, unless it is the plain way."""
    examples = (_example(cell, root, form) for cell in cells)
    changed = next(filter(None, examples), "")
    if changed and form == ColumnFormat():
        form = ColumnFormat(path="{}")
    return FormatGuess(column, form, (f"{changed} ({describe(form)})",) if changed else ())


def _example(cell: Any, root: Path, form: ColumnFormat) -> str:
    photos = _names([cell], root, form)
    if isinstance(cell, str) and any(isinstance(photo, bytes) for photo in photos):
        return f"{cell[:30]}… is a photo within the table"
    paths = [path for photo in photos if (path := _path_of(photo))]
    shown = [os.path.relpath(path, os.path.realpath(root)).replace(os.sep, "/") for path in paths]
    if not paths or cell in (shown, *shown[:1]):
        return ""
    return f"{quote(cell, 60)} is {' and '.join(shown)}"
