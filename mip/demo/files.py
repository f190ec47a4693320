"""The demo's files: a table of houses and their pictures."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from mip.demo.fronts import draw_front
from mip.demo.gardens import draw_garden
from mip.demo.houses import MISSING, TRUTH_COLUMNS, House, make_house, rng_for
from mip.output import check_output, holds, write


def draw(folder: Path, n_rows: int = 800, seed: int = 0, *, overwrite: bool = False) -> None:
    """Draw the demo's data into a folder: `houses.csv`, `truth.csv` and `images/`.

    Equal arguments give equal bytes, and fewer rows are the first of more. `houses.csv` has the
    columns area (m²), age (years), rooms, district, sold (YYYY-MM-DD), front, garden (paths in the
    folder) and price (euros); `truth.csv` has the terms of each row's log price: row, table (T),
    pictures (P) and noise.

    Raises FileError if one of these files exists with other content, unless `overwrite` is set.
    """
    folder = Path(folder)
    houses = [make_house(row, seed) for row in range(n_rows)]
    rows = [table_cells(house, seed) for house in houses]
    truth = [{name: getattr(house, name) for name in TRUTH_COLUMNS} for house in houses]
    tables = {folder / "truth.csv": _as_csv(truth), folder / "houses.csv": _as_csv(rows)}
    for path, data in tables.items():
        if not holds(path, data):
            check_output(path, overwrite)
    for house, cells in zip(houses, rows, strict=True):
        for column, draw_picture in (("front", draw_front), ("garden", draw_garden)):
            if cells[column]:
                photo = _as_jpeg(draw_picture(house, seed))
                write(folder / cells[column], photo, overwrite=overwrite, sync=False)
    # The tables come last, so that no table names pictures that are not drawn yet.
    for path, data in tables.items():
        write(path, data, overwrite=overwrite)


def table_cells(house: House, seed: int = 0) -> dict[str, Any]:
    """Return the cells of a house in `houses.csv`; a missing cell is ''.

    >>> table_cells(make_house(7))["front"]
    'images/007_front.jpg'
    """
    facts = {name: getattr(house, name) for name in ("area", "age", "rooms", "district", "sold")}
    images = {name: f"images/{house.row:03d}_{name}.jpg" for name in ("front", "garden")}
    rng = rng_for("missing", seed, house.row)
    missing = {name for name, share in MISSING.items() if rng.random() < share}
    cells = {**facts, **images, "price": house.price}
    return {name: "" if name in missing else cell for name, cell in cells.items()}


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
