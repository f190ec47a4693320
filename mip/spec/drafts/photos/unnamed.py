"""The images beside a table, and which of them no column names."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path, PurePosixPath

from mip.data import FORMATS, PhotoName, Table, photo_name
from mip.errors import quote
from mip.spec.drafts.photos.forms import found_files
from mip.spec.drafts.photos.templates import Folder

MANY = 0.1
"""Images in a folder are worth a line if there are this many for each row, and more than others of
the folder that are named."""


def named_images(table: Table, columns: Iterable[str], folder: Folder) -> Iterator[str]:
    """Iterate over the files that columns of photos name, by their paths relative to the table's
    folder, with slashes.
    """
    root = os.path.realpath(folder.root)
    photos = chain.from_iterable(table.photos(column) for column in columns)
    for photo in chain.from_iterable(photos):
        if isinstance(photo, PhotoName):
            written = photo_name(photo.template, photo.text)
            if written in folder.paths:  # as most are, and nothing has to be looked up
                yield written
            else:
                paths = (os.path.relpath(path, root) for path in found_files(photo))
                yield from (path.replace(os.sep, "/") for path in paths)


def describe_unnamed(table: Table, columns: Iterable[str], folder: Folder) -> str:
    """Say which images lie in a table's folder, if there are many for its rows, that no column of
    photos names; "" if there are none.
    """
    if table.root is None:
        return ""
    named = {*named_images(table, columns, folder)}
    unnamed = [image for image in folder.images if image not in named]
    n_named, n_unnamed = Counter(map(_place, named)), Counter(map(_place, unnamed))
    needed = max(2, MANY * len(table))
    many = {place for place, n in n_unnamed.items() if n >= needed and n > n_named[place]}
    many -= {place for place in many if place and _has_table(table.root / place)}
    shown = [image for image in unnamed if _place(image) in many]
    if not shown:
        return _describe_further(named, unnamed, needed)
    rule = 'a path such as "images/{}_*.jpg" in [data.columns.COLUMN] says which belong to a row'
    n_images = f"{len(shown)} images, such as {quote(shown[0], 60)}"
    return f"{n_images}, are named by no column; {rule}"


def _describe_further(named: set[str], unnamed: Sequence[str], needed: float) -> str:
    """Say that images are numbered like further ones of those that are named, if many are."""
    stems = {PurePosixPath(image).with_suffix(""): image for image in sorted(named)}
    further = [(image, stems[stem]) for image in unnamed if (stem := _first_of(image)) in stems]
    if len(further) < needed:
        return ""
    image, first = (quote(name, 60) for name in further[0])
    cure = f'to read all of a row, rename {first} to end in "_1", and set path = "{{}}_*.jpg"'
    return f"{len(further)} images are named by no column, such as {image} beside {first}; {cure}"


def _first_of(image: str) -> PurePosixPath:
    """Write an image's path without its ending and the number behind its name.

    >>> _first_of("img/17_2.jpg"), _first_of("img/17 (2).jpg")
    (PurePosixPath('img/17'), PurePosixPath('img/17'))
    """
    path = PurePosixPath(image)
    return path.with_name(re.sub(r"(?<=.)(?:[_ -]\d+| ?\(\d+\))$", "", path.stem))


def _place(image: str) -> str:
    return image.partition("/")[0] if "/" in image else ""


def _has_table(folder: Path) -> bool:
    # Whose rows the images in it belong to.
    return any(path.suffix.lower() in FORMATS for path in folder.iterdir())
