"""Guesses of which columns name photos, and how."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from attrs import frozen

from mip.data import (
    ColumnFormat,
    PhotoName,
    Table,
    as_text,
    is_address,
    is_image,
    is_list,
    names_all,
    path_parts,
    split_template,
    spread_evenly,
    tidy,
)
from mip.errors import quote
from mip.images import describe_folder, photos_of
from mip.spec.drafts.distinct_cells import DistinctCells
from mip.spec.drafts.formats.columns import FormatGuess
from mip.spec.drafts.formats.numbers import describe
from mip.spec.drafts.photos.forms import (
    find_form,
    find_pattern,
    found_files,
    image_share,
    list_forms,
    photos_in_cells,
)
from mip.spec.drafts.photos.templates import Folder
from mip.spec.drafts.photos.unnamed import named_images
from mip.spec.drafts.roles import MAX_CATEGORIES, NAME_OF_IDS

SAMPLE = 200
"""Cells that are looked up for a guess."""


ENOUGH = 0.5
"""A column is one of photos if more than this share of the photos is there."""


NEARLY_ALL = 0.9
"""What a column must have that looks like one of photos by its cells alone."""


MAX_ROWS = 5
"""The number of rows that share the name of a photo, on average, beyond which it is none."""


_WORD = "image|photo|img|picture|pic|path|file|url"
_OTHER_WORD = "foto|bild|bilder|dateiname|imagen|imagem|immagine|fichier|zdjecie|zdjęcie|obraz"
_NAME_OF_PHOTOS = re.compile(
    rf"(?:^|[^a-z])(?:(?:{_WORD})(?:{_WORD}|name)*|[a-z]*(?:{_OTHER_WORD}))s?(?:$|[^a-z])"
    "|фото|写真|画像|图片|照片|사진"
)


def guess_photos(
    table: Table, columns: Iterable[DistinctCells], folder: Folder
) -> dict[str, FormatGuess]:
    """Guess how photos are named, of the columns whose names or cells look like photos; if there
    are none, of columns of ids that are the names of images in the table's folder.
    """
    kinds = {cells.column: cells for cells in columns}
    samples = {name: _sample(cells) for name, cells in kinds.items()}
    looking = [name for name, sample in samples.items() if _looks(name, sample)]
    guesses = [_guess(table, name, samples[name], folder) for name in looking]
    found = {
        guess.column: guess
        for guess in guesses
        if guess.problem
        or not _may_be_counts(samples[guess.column], guess.form)
        or _claim(kinds[guess.column], guess.form, folder).is_of_names
    }
    has_pixels = any(is_image(cell) for sample in samples.values() for cell in sample)
    if has_pixels or any(not guess.problem for guess in found.values()):
        return _without_copies(table, found)
    ids = [kinds[name] for name in samples if name not in found and _are_ids(samples[name])]
    for name, form in _guess_ids(ids, samples, folder).items():
        found[name] = _explain(name, samples[name], folder.root, form)
    return found


def _guess_ids(
    ids: Sequence[DistinctCells], samples: Mapping[str, Sequence[Any]], folder: Folder
) -> dict[str, ColumnFormat]:
    """Guess which columns of ids are names of images, with their formats: if none are, which are in
    the paths of images.
    """
    if not folder.images:
        return {}
    few_rows = [cells for cells in ids if len(cells.table) <= MAX_ROWS * len(cells.firsts)]
    for find, columns in ((find_form, ids), (find_pattern, few_rows)):
        forms = [(cells, find(samples[cells.column], folder, NEARLY_ALL)) for cells in columns]
        if chosen := _choose([_claim(cells, form, folder) for cells, form in forms if form]):
            return chosen
    return {}


def _sample(cells: DistinctCells) -> list[Any]:
    """Take different cells of a column, evenly spread."""
    values = [cell for cell in cells.values() if cell is not None]
    objects = cells.objects()
    if not any(is_image(cell) or is_list(cell) for cell in objects):
        values = [*filter(str.strip, map(as_text, values))]
        values = list(dict.fromkeys(values)) if objects else values
    return [values[position] for position in spread_evenly(len(values), SAMPLE)]


def has_name_of_photos(column: str) -> bool:
    """Whether a column's name says that it has photos.

    >>> [has_name_of_photos(name) for name in ("photo", "imagePath", "img_2", "profile", "a_name")]
    [True, True, True, False, False]
    >>> [has_name_of_photos(name) for name in ("Hauptbild", "Foto 1", "写真", "Bildung")]
    [True, True, True, False]
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", column).lower()
    return bool(_NAME_OF_PHOTOS.search(name))


def _looks(column: str, cells: Sequence[Any]) -> bool:
    if not cells or any(map(is_image, cells)):
        return False
    return has_name_of_photos(column) or image_share(cells) > ENOUGH


def _are_ids(cells: Sequence[Any]) -> bool:
    texts = [cell for cell in cells if isinstance(cell, str) and not re.search(r"\s", cell)]
    return len(texts) == len(cells) >= 2 and not any(is_address(text) for text in texts)


def _may_be_counts(cells: Sequence[Any], form: ColumnFormat) -> bool:
    """Whether cells may be no names, although photos are found by them."""
    return _are_numbers(cells) or names_all(form.path)


def _are_numbers(cells: Iterable[Any]) -> bool:
    return all(re.fullmatch(r"\s*[0-9]+(\.0+)?\s*", as_text(cell)) for cell in cells)


def _guess(table: Table, column: str, cells: Sequence[Any], folder: Folder) -> FormatGuess:
    form = find_form(cells, folder, ENOUGH) or find_pattern(cells, folder, ENOUGH)
    if form:
        return _explain(column, cells, folder.root, form)
    likely = max(list_forms(cells), key=lambda form: image_share(cells, form))
    photos = photos_in_cells(cells, folder.root, likely)
    lost = [p for p in photos if isinstance(p, PhotoName) and not found_files(p)]
    return FormatGuess(column, problem=describe_folder(lost, table.name, column))


@frozen
class _Claim:
    """What a column that may name photos would read: the files, the share that these are of the
    images in their folder, the number of its different cells, and of rows for each of them.
    """

    column: str
    form: ColumnFormat
    files: set[str]
    coverage: float
    n_cells: int
    rows_per_cell: float
    are_numbers: bool

    @property
    def is_of_names(self) -> bool:
        """Whether the cells are names of photos, and not words or numbers that photos happen to
        have in their names: few numbers that recur are counts.
        """
        means_all, are_few_rows = names_all(self.form.path), self.rows_per_cell <= MAX_ROWS
        if not self.are_numbers:
            return are_few_rows or not means_all
        has_name = has_name_of_photos(self.column)
        if self.rows_per_cell < 1.1 and (has_name or self._has_name_of_ids):
            return True
        if has_name and self.n_cells > MAX_CATEGORIES:
            return True
        may_count = has_name and means_all  # the photos of its row
        return are_few_rows and self.coverage >= NEARLY_ALL and not may_count

    @property
    def rank(self) -> tuple[float, bool, int]:
        """What decides between columns that name the same photos."""
        return round(self.coverage, 1), self._has_name_of_ids, self.n_cells

    @property
    def _has_name_of_ids(self) -> bool:
        return bool(NAME_OF_IDS.search(self.column))


def _claim(cells: DistinctCells, form: ColumnFormat, folder: Folder) -> _Claim:
    counts = cells.count(cells.texts())
    read = cells.with_format(form).rows()
    files = {*named_images(read, [cells.column], folder)}
    place, _ = split_template(form.path)
    n_near = sum(image.startswith(place) for image in folder.images)
    return _Claim(
        cells.column,
        form,
        files,
        coverage=len(files) / max(n_near, 1),
        n_cells=len(counts),
        rows_per_cell=sum(counts.values()) / max(len(counts), 1),
        are_numbers=_are_numbers(counts),
    )


def _choose(claims: Sequence[_Claim]) -> dict[str, ColumnFormat]:
    """Choose the columns that name photos, with their formats: of those that name the same photos,
    the one that names the most, and each of them once.
    """
    chosen: dict[str, ColumnFormat] = {}
    taken: set[str] = set()
    for claim in sorted(claims, key=lambda claim: claim.rank, reverse=True):
        if claim.is_of_names and taken.isdisjoint(claim.files):
            chosen[claim.column] = claim.form
            taken |= claim.files
    return chosen


def _without_copies(table: Table, found: Mapping[str, FormatGuess]) -> dict[str, FormatGuess]:
    """Mark the columns that name, in every row, the photos of another column."""
    if len(found) < 2:
        return dict(found)
    rows = table.take(spread_evenly(len(table), SAMPLE))
    names = [column for column, guess in found.items() if not guess.problem]
    read = rows.with_formats({column: found[column].form for column in names})
    files = {column: [_files_of_row(row) for row in photos_of(read, column)] for column in names}
    kept: dict[str, FormatGuess] = {}
    for column, guess in found.items():
        others = [other for other in kept if other in files and column in files]
        same = next((other for other in others if _agree(files[other], files[column])), "")
        kept[column] = FormatGuess(column, same_as=same) if same else guess
    return kept


def _files_of_row(photos: Sequence[Any]) -> list[Path]:
    return sorted(chain.from_iterable(map(found_files, photos)))


def _agree(first: Sequence[list[Path]], second: Sequence[list[Path]]) -> bool:
    pairs = [(a, b) for a, b in zip(first, second, strict=True) if a and b]
    return bool(pairs) and sum(a == b for a, b in pairs) >= NEARLY_ALL * len(pairs)


def _explain(column: str, cells: Sequence[Any], root: Path, form: ColumnFormat) -> FormatGuess:
    """Say how cells name photos, by an example, of several photos if there is one, unless it is the
    plain way.
    """
    examples = [example for cell in cells if (example := _example(cell, root, form))]
    _, changed = max(examples, key=lambda example: example[0] > 1, default=(0, ""))
    if changed and form == ColumnFormat():
        form = ColumnFormat(path="{}")
    return FormatGuess(column, form, (f"{changed} ({describe(form)})",) if changed else ())


def _example(cell: Any, root: Path, form: ColumnFormat) -> tuple[int, str] | None:
    """Count the photos of a cell, and say which they are, if that is not what the cell says."""
    photos = photos_in_cells([cell], root, form)
    if isinstance(cell, str) and any(isinstance(photo, bytes) for photo in photos):
        return 1, f"{cell[:30]}… is a photo within the table"
    paths = list(chain.from_iterable(map(found_files, photos)))
    shown = [os.path.relpath(path, os.path.realpath(root)).replace(os.sep, "/") for path in paths]
    if not paths or cell in (shown, *shown[:1]):
        return None
    listed = " and ".join(shown[:3]) + (f" and {len(shown) - 3} more" if shown[3:] else "")
    accents = ", with accents written otherwise" if _differ_by_accents(cell, shown[0]) else ""
    return len(shown), f"{quote(cell, 60)} is {listed}{accents}"


def _differ_by_accents(cell: Any, path: str) -> bool:
    name = (path_parts(tidy(as_text(cell))) or [""])[-1]
    composed = [unicodedata.normalize("NFC", text) for text in (name, path)]
    return name not in path and composed[0] in composed[1]
