"""The demo's files: a table of houses and their pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mip.demo.drawing import front, garden
from mip.demo.houses import MISSING, TERMS, House, generator_of, house
from mip.output import check_output, holds, write


def draw(folder: Path, rows: int = 800, seed: int = 0, *, overwrite: bool = False) -> None:
    """Draw the demo's data into a folder: `houses.csv`, `truth.csv` and `images/`.

    Equal arguments give equal bytes, and fewer rows are the first of more. `houses.csv` has
    the columns area (m²), age (years), rooms, district, sold (YYYY-MM-DD), front, garden (paths
    in the folder) and price (euros); `truth.csv` says the terms of each row's log price: row,
    table (T), pictures (P) and noise.

    Raises FileError where one of these files holds something else already, unless `overwrite` says
    to replace it.
    """
    folder = Path(folder)
    houses = [house(row, seed) for row in range(rows)]
    shown = [cells(each, seed) for each in houses]
    truth = [{name: getattr(each, name) for name in TERMS} for each in houses]
    tables = {folder / "truth.csv": _as_csv(truth), folder / "houses.csv": _as_csv(shown)}
    for path, data in tables.items():
        if not holds(path, data):
            check_output(path, overwrite)
    for each, named in zip(houses, shown, strict=True):
        for name, picture in (("front", front), ("garden", garden)):
            if named[name]:
                photo = _as_jpeg(picture(each, seed))
                write(folder / named[name], photo, overwrite=overwrite, sync=False)
    # Last, so that a table whose photos are not drawn yet is not there.
    for path, data in tables.items():
        write(path, data, overwrite=overwrite)


def cells(each: House, seed: int = 0) -> dict[str, Any]:
    """Say what `houses.csv` holds of a house; a missing cell is ''.

    >>> cells(house(7))["front"]
    'images/007_front.jpg'
    """
    images = {name: f"images/{each.row:03d}_{name}.jpg" for name in ("front", "garden")}
    told = {name: getattr(each, name) for name in ("area", "age", "rooms", "district", "sold")}
    rng = generator_of("missing", seed, each.row)
    lost = {name for name, share in MISSING.items() if rng.random() < share}
    full = {**told, **images, "price": each.price}
    return {name: "" if name in lost else value for name, value in full.items()}


def _as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _as_jpeg(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "JPEG", quality=92, subsampling=0)
    return data.getvalue()
