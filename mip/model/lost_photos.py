"""A column of which most photos cannot be found has nothing to learn from."""

from __future__ import annotations

from itertools import chain

from mip.data import PhotoName, Rows
from mip.errors import DataError
from mip.images import describe_folder, find_photo, photos_of
from mip.model.columns import image_columns
from mip.spec import Spec

MOST = 0.5
"""A smaller share of lost photos is learned around."""


MIN_PHOTOS = 4
"""Of fewer photos all may be lost by chance."""


def check_most_found(spec: Spec, rows: Rows) -> None:
    """Raise DataError for a column of photos of which most cannot be found, saying what the cells
    look like and what the table's folder has.
    """
    for column in image_columns(spec):
        cells = (cell for chunk in rows.chunks([column]) for cell in photos_of(chunk, column))
        names = [photo for photo in chain.from_iterable(cells) if isinstance(photo, PhotoName)]
        lost = [photo for photo in names if not _is_there(photo)]
        if len(names) >= MIN_PHOTOS and len(lost) > MOST * len(names):
            why = f"{len(lost)} of {len(names)} photos cannot be used"
            more = describe_folder(lost, rows.name, column)
            raise DataError(f"{rows.name}: column '{column}': {why}: {more}")


def _is_there(photo: PhotoName) -> bool:
    try:
        find_photo(photo)
    except DataError:
        return False
    return True
