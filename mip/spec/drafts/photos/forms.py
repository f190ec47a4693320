"""The format by which the cells of a column name the most photos that are there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from attrs import evolve

from mip.data import (
    IMAGE_SUFFIXES,
    ColumnFormat,
    PhotoName,
    as_text,
    normalize_name,
    objects_in,
    parse_list,
    path_parts,
    photos_in,
    tidy,
)
from mip.errors import DataError
from mip.images import files_of
from mip.spec.drafts.photos.templates import Folder, templates_around, templates_of

SEPARATORS = ("\n", ";", "|", ",", "\t", " ")
"""What may stand between the names of photos, the surest first."""


SURE = 0.9
"""A separator divides names if this share of what it divides has the ending of an image."""


_ENDING = re.compile("|".join(map(re.escape, IMAGE_SUFFIXES)), re.IGNORECASE)


def photos_in_cells(cells: Sequence[Any], root: Path | None, form: ColumnFormat) -> list[Any]:
    """Return the photos of all cells together, without missing ones (see `Table.photos`)."""
    template = form.path or "{}"
    photos = chain.from_iterable(photos_in(form.values(cell), root, template) for cell in cells)
    return [photo for photo in photos if photo is not None]


def found_files(photo: Any) -> list[Path]:
    """Return the files of a photo that a cell names: none if it is not there, or is no name."""
    if not isinstance(photo, PhotoName):
        return []
    try:
        return files_of(photo)
    except DataError:
        return []


def image_share(cells: Sequence[Any], form: ColumnFormat | None = None) -> float:
    """Return the share of photos in cells that have the ending of an image or are data, read by a
    format, or by the one that gives the largest.

    >>> image_share(["a.png b.png", "c.png"]), image_share(["a.png b.png"], ColumnFormat())
    (1.0, 1.0)
    >>> image_share(["Ulm", "c.png"])
    0.5
    """
    if form is None:
        may_divide = any(_ENDING.search(as_text(cell)) for cell in cells)
        forms = list_forms(cells) if may_divide else [ColumnFormat()]
        return max(image_share(cells, form) for form in forms)
    photos = photos_in_cells(cells, None, form)
    n_images = sum(
        _is_image_name(photo.text) if isinstance(photo, PhotoName) else isinstance(photo, bytes)
        for photo in photos
    )
    return n_images / max(len(photos), 1)


def _is_image_name(text: str) -> bool:
    last = (path_parts(tidy(text)) or [""])[-1]
    return last.lower().endswith(IMAGE_SUFFIXES) and last[0] != "."


def list_forms(cells: Sequence[Any]) -> list[ColumnFormat]:
    """List the formats in which cells may hold several photos, the plain one first.

    >>> [form.sep for form in list_forms(["a.png; b.png", "c.png|d.png"])]
    ['', (';', '|')]
    >>> [form.sep for form in list_forms(["17;18", "19"])]
    ['', ';']
    >>> [form.key for form in list_forms(['[{"src": "a.png"}]'])]
    ['', 'src']
    """
    keys = dict.fromkeys(chain.from_iterable(each for cell in cells for each in objects_in(cell)))
    texts = [cell.strip() for cell in cells if isinstance(cell, str) and not objects_in(cell)]
    texts = [text for text in texts if parse_list(text, (str,)) is text]
    seps = [sep for sep in SEPARATORS if any(sep in text for text in texts)]
    if any(map(_ENDING.search, texts)):
        ways = [_sure_separators(texts)]
    else:
        ways = [*([sep] for sep in seps), *([seps] if len(seps) > 1 else [])]
    plain = [ColumnFormat(), *(ColumnFormat(key=key) for key in keys)]
    return [*plain, *(ColumnFormat(sep=way if way[1:] else way[0]) for way in ways if way)]


def _sure_separators(texts: Sequence[str]) -> list[str]:
    """Find the separators that stand between names of images wherever they are."""
    sure, pieces = [], list(texts)
    for sep in SEPARATORS:
        form, divided = ColumnFormat(sep=sep), [text for text in pieces if sep in text]
        if divided and image_share(divided, form) >= SURE:
            sure.append(sep)
            parts = photos_in_cells(divided, None, form)
            pieces = [text for text in pieces if sep not in text] + [*map(str, parts)]
    return sure


class _Reading(NamedTuple):
    """How many photos of cells are there, read by a format, and how many are not."""

    form: ColumnFormat
    n_found: float
    n_lost: float

    @property
    def share(self) -> float:
        return self.n_found / max(self.n_found + self.n_lost, 1)

    @property
    def gain(self) -> float:
        # Of cells with several photos, one that reads only some of them has no photo lost.
        return self.n_found - self.n_lost


def find_form(cells: Sequence[Any], folder: Folder, needed: float) -> ColumnFormat | None:
    """Find the format by which the most photos are there, a file for each name, if more than the
    share `needed` is.
    """
    return _best([_read(cells, folder, form) for form in list_forms(cells)], needed)


def find_pattern(cells: Sequence[Any], folder: Folder, needed: float) -> ColumnFormat | None:
    """Find the format by which the most names are in the paths of images, if more than the share
    `needed` is.
    """
    paths = templates_around([*map(as_text, cells)], folder) if folder.images else ()
    return _best([_measure(cells, folder.root, ColumnFormat(path=path)) for path in paths], needed)


def _best(readings: Sequence[_Reading], needed: float) -> ColumnFormat | None:
    enough = [reading for reading in readings if reading.share > needed]
    return max(enough, key=lambda reading: reading.gain).form if enough else None


def _read(cells: Sequence[Any], folder: Folder, form: ColumnFormat) -> _Reading:
    """Read cells by the first template that finds the largest share of their photos."""
    best = _measure(cells, folder.root, form)
    names = [p.text for p in photos_in_cells(cells, None, form) if isinstance(p, PhotoName)]
    for template in templates_of(names, folder) if best.share < 1 else ():
        reading = _measure(cells, folder.root, evolve(form, path=template))
        best = max(best, reading, key=lambda reading: reading.share)
        if best.share == 1:
            break
    return best


def _measure(cells: Sequence[Any], root: Path, form: ColumnFormat) -> _Reading:
    """Count photos that are there; different names must have different files."""
    photos = photos_in_cells(cells, root, form)
    named = [photo for photo in photos if isinstance(photo, PhotoName)]
    names = {normalize_name(tidy(photo.text)): photo for photo in named}
    others = [photo for photo in photos if not isinstance(photo, PhotoName)]
    n_within = sum(isinstance(photo, bytes) for photo in others)
    files = [found for photo in names.values() if (found := found_files(photo))]
    n_different = len({*chain.from_iterable(files)})
    n_found = len(files) * n_different / max(sum(map(len, files)), 1) + n_within
    return _Reading(form, n_found, len(names) + len(others) - n_found)
