"""The demo: small houses, drawn and priced, whose best reachable error is known.

Every row is a house with a few facts in a table, a picture of its front and one of its garden.
Its price is

    log(price) = BASE + T + P + noise

    T     = 0.6 log(area / 110) + 0.04 (rooms - 4) + 0.4 ((age - 60)² / 3600 - 0.26)
            + DISTRICTS[district] + 0.03 cos(2π (month - 5) / 12)
    P     = 0.25 (floors - 2) + ROOFS[roof] + 0.08 (trees - 2) + WATERS[water]
    noise = normal, mean 0, standard deviation 0.08

T stands in the table alone and P in the pictures alone; the three terms are drawn independently
of one another, and T and P spread about equally (standard deviation 0.35). So a model of the
table, however good, keeps the spread of P as its error, and a model of the pictures that of T:
`floors` says how large these errors are on given rows. All else that is drawn (weather, walls,
shutters, fences, flowers) means nothing.

Some cells and pictures are missing. The floors know T and P even there, so a model can come near
them but not quite reach them.
"""

from __future__ import annotations

import csv
import datetime
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from attrs import frozen
from PIL import Image, ImageChops, ImageDraw

from mip import report
from mip.branch import walk
from mip.branches.image import Image as ImageBranch
from mip.errors import MipError
from mip.fit import History, Hook
from mip.folder import is_run
from mip.output import check_output, holds, write
from mip.predict import evaluate
from mip.prepare import clean, parts, target_columns
from mip.read import read
from mip.rng import derive
from mip.run import Job, run
from mip.spec import Spec, load_spec
from mip.table import Table

if TYPE_CHECKING:
    import rich.table

Choice = TypeVar("Choice")
Colour = tuple[int, int, int]
Pen = ImageDraw.ImageDraw
Rng = np.random.Generator
Span = tuple[float, float, float]
"""Left end, right end and height of something level, in canvas pixels."""

BASE = math.log(320_000)
"""The logarithm of the price, in euros, of a house whose T and P are 0."""

DISTRICTS = {
    "harbour": -0.12,
    "hillside": 0.22,
    "lakeside": 0.34,
    "meadows": -0.05,
    "mills": -0.22,
    "oldtown": 0.12,
    "orchard": 0.05,
    "station": -0.34,
}
ROOFS = {"worn": -0.22, "tiled": 0.0, "slate": 0.22}
WATERS = {"none": -0.15, "pond": 0.0, "pool": 0.3}
NOISE = 0.08
TERMS = ("row", "table", "pictures", "noise")

MISSING = {
    "area": 0.02,
    "age": 0.02,
    "district": 0.01,
    "front": 0.01,
    "garden": 0.01,
    "price": 0.003,
}
"""The share of rows whose cell is left empty, by column."""


@frozen
class House:
    """A house: what the table tells, what the pictures show, and the noise of its price.

    `area` is in m², `age` in years when it was sold.

    >>> one = House(0, 110.0, 40, 4, "meadows", datetime.date(2023, 5, 2), 2, "tiled", 3, "pool")
    >>> one.table, one.pictures, one.price
    (-0.079556, 0.38, 432147)
    """

    row: int
    area: float
    age: int
    rooms: int
    district: str
    sold: datetime.date
    floors: int
    roof: str
    trees: int
    water: str
    noise: float = 0.0

    @property
    def table(self) -> float:
        """T, the part of the log price that the table shows."""
        size = 0.6 * math.log(self.area / 110) + 0.04 * (self.rooms - 4)
        age = 0.4 * ((self.age - 60) ** 2 / 3600 - 0.26)
        season = 0.03 * math.cos(2 * math.pi * (self.sold.month - 5) / 12)
        return round(size + age + DISTRICTS[self.district] + season, 6)

    @property
    def pictures(self) -> float:
        """P, the part of the log price that the pictures show."""
        front = 0.25 * (self.floors - 2) + ROOFS[self.roof]
        return round(front + 0.08 * (self.trees - 2) + WATERS[self.water], 6)

    @property
    def price(self) -> int:
        """The price in whole euros."""
        return round(math.exp(BASE + self.table + self.pictures + self.noise))


def house(row: int, seed: int = 0) -> House:
    """Make up a house: a function of the row and the seed alone.

    >>> house(3) == house(3) != house(3, seed=1)
    True
    """
    rng = _rng("house", seed, row)
    area = round(110 * math.exp(0.33 * rng.standard_normal()), 1)
    rooms = max(1, round(area / 28 + 0.8 * rng.standard_normal()))
    day = datetime.date(2019, 1, 1) + datetime.timedelta(days=int(rng.integers(6 * 365)))
    told = (area, int(rng.integers(101)), rooms, _pick(rng, sorted(DISTRICTS)), day)
    front = int(rng.integers(1, 4)), _pick(rng, tuple(ROOFS))
    garden = int(rng.integers(5)), _pick(rng, ("none", "none", "pond", "pool"))
    return House(row, *told, *front, *garden, round(NOISE * rng.standard_normal(), 6))


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
    rng = _rng("missing", seed, each.row)
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


def _rng(purpose: str, seed: int, row: int) -> Rng:
    return np.random.Generator(np.random.PCG64(derive("demo", purpose, seed, row)))


def _pick(rng: Rng, choices: Sequence[Choice]) -> Choice:
    return choices[int(rng.integers(len(choices)))]


# Pictures are drawn on a canvas of EDGE pixels and averaged down, which smooths all edges.

SIZE, FINE = 96, 4
EDGE = SIZE * FINE
PAINT = (252, 252, 248)
SHADOW = (60, 90, 50, 90)


@frozen
class Weather:
    """The sky's colours, top and bottom, and the light that all colours are multiplied by."""

    top: Colour
    bottom: Colour
    light: Colour = (255, 255, 255)
    clouds: int = 0
    rain: bool = False


SKIES = {
    "sunny": Weather((112, 182, 232), (214, 238, 248), clouds=1),
    "cloudy": Weather((168, 186, 202), (222, 228, 232), (236, 238, 242), clouds=4),
    "rainy": Weather((120, 138, 156), (178, 190, 200), (206, 214, 226), clouds=3, rain=True),
    "evening": Weather((122, 104, 168), (255, 190, 140), (255, 214, 190), clouds=1),
}
WALLS: tuple[Colour, ...] = (
    (250, 240, 218),
    (246, 214, 170),
    (240, 190, 178),
    (206, 222, 190),
    (190, 214, 230),
    (240, 232, 240),
    (216, 204, 190),
)
ACCENTS: tuple[Colour, ...] = (
    (46, 104, 92),
    (58, 92, 140),
    (150, 60, 62),
    (120, 84, 56),
    (96, 120, 60),
    (236, 236, 230),
)
BLOOMS: tuple[Colour, ...] = (
    (232, 84, 92),
    (250, 206, 82),
    (214, 120, 196),
    (250, 250, 250),
    (246, 150, 70),
)
TILES = {"worn": (158, 138, 112), "tiled": (202, 88, 58), "slate": (66, 78, 104)}
GREENS: tuple[Colour, ...] = ((92, 152, 70), (74, 136, 80), (118, 160, 66), (64, 122, 66))


def front(each: House, seed: int = 0) -> Image.Image:
    """Draw a house from the street: floors and roof count, all else is there for the eye.

    >>> front(house(0)).size
    (96, 96)
    """
    rng = _rng("front", seed, each.row)
    mood = _pick(rng, sorted(SKIES))
    image, pen = _landscape(rng, SKIES[mood], horizon=270)
    _grass(pen, rng, 278)
    door = _home(pen, rng, each, _look(rng, mood))
    _yard(pen, rng, door)
    return _finished(image, pen, rng, SKIES[mood])


def garden(each: House, seed: int = 0) -> Image.Image:
    """Draw a garden: trees and water count, all else is there for the eye.

    >>> garden(house(0)).size
    (96, 96)
    """
    rng = _rng("garden", seed, each.row)
    mood = _pick(rng, sorted(SKIES))
    image, pen = _landscape(rng, SKIES[mood], horizon=150)
    _border(pen, rng)
    _grass(pen, rng, 176)
    _trees(pen, rng, each.trees)
    _life(pen, rng)
    _water(pen, rng, each.water)
    return _finished(image, pen, rng, SKIES[mood])


def _landscape(rng: Rng, weather: Weather, horizon: int) -> tuple[Image.Image, Pen]:
    image = _gradient(weather.top, weather.bottom)
    pen = ImageDraw.Draw(image, "RGBA")  # this mode blends colours that have an alpha
    if not weather.rain:
        _disc(pen, rng.uniform(40, 344), rng.uniform(34, 80), 20, (255, 244, 190))
    for _ in range(weather.clouds):
        _cloud(pen, rng.uniform(20, 364), rng.uniform(24, 110), rng.uniform(0.7, 1.2))
    for tone in ((150, 184, 158), (134, 172, 128)):
        middle, reach = rng.uniform(0, EDGE), rng.uniform(180, 320)
        pen.ellipse(_box(middle, horizon + 90, reach, rng.uniform(110, 140)), tone)
    pen.rectangle((0, horizon, EDGE, EDGE), (134, 172, 128))
    return image, pen


def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, EDGE)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    pixels = np.broadcast_to(rows.round().astype(np.uint8), (EDGE, EDGE, 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def _finished(image: Image.Image, pen: Pen, rng: Rng, weather: Weather) -> Image.Image:
    if weather.rain:
        for x, y in rng.uniform(-20, EDGE, (70, 2)).tolist():
            pen.line((x, y, x - 6, y + 22), (235, 242, 250, 110), 2)
    light = Image.new("RGB", image.size, weather.light)
    return ImageChops.multiply(image, light).reduce(FINE)


def _box(x: float, y: float, across: float, down: float) -> tuple[float, float, float, float]:
    return (x - across, y - down, x + across, y + down)


def _disc(pen: Pen, x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
    pen.ellipse(_box(x, y, radius, radius), colour)


def _shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def _cloud(pen: Pen, x: float, y: float, scale: float) -> None:
    for dx, dy, radius in ((-34, 6, 15), (-14, -4, 22), (14, -6, 24), (36, 6, 15)):
        _disc(pen, x + dx * scale, y + dy * scale, radius * scale, (255, 255, 255, 215))
    pen.rounded_rectangle(_box(x, y + 12 * scale, 48 * scale, 10 * scale), 10 * scale, "white")


def _grass(pen: Pen, rng: Rng, top: float) -> None:
    base = _shade((132, 184, 86), rng.uniform(0.92, 1.06))
    pen.rectangle((0, top, EDGE, EDGE), base)
    for stripe in range(0, EDGE, 48):
        # Stripes of a mower run together towards the horizon.
        near, far = stripe * 1.6 - 115, stripe * 1.1 - 19
        corners = [(near, EDGE), (near + 38, EDGE), (far + 26, top), (far, top)]
        pen.polygon(corners, _shade(base, 1.05))


@frozen
class Look:
    """How a house is dressed: it tells nothing of the price."""

    wall: Colour
    accent: Colour
    glass: Colour
    shutters: bool
    boxes: bool


def _look(rng: Rng, mood: str) -> Look:
    glass = (255, 224, 130) if mood == "evening" else (150, 190, 214)
    extras = rng.random() < 0.5, rng.random() < 0.5
    return Look(_pick(rng, WALLS), _pick(rng, ACCENTS), glass, *extras)


def _home(pen: Pen, rng: Rng, each: House, look: Look) -> float:
    """Draw the house and give the place of its door."""
    width, middle, base = rng.uniform(174, 198), 192 + rng.uniform(-12, 12), 320.0
    left, right, top = middle - width / 2, middle + width / 2, base - 60 * each.floors
    pen.polygon([(right, base), (right + 50, base + 8), (left + 30, base + 10)], SHADOW)
    _chimney(pen, rng, middle + _pick(rng, (-0.28, 0.28)) * width, top)
    pen.rectangle((left, top, right, base), look.wall)
    pen.rectangle((left, base - 9, right, base), _shade(look.wall, 0.78))
    _roof(pen, rng, each.roof, (left - 15, right + 15, top))
    return _facade(pen, rng, each.floors, (left, right, base), look)


def _chimney(pen: Pen, rng: Rng, x: float, top: float) -> None:
    pen.rectangle((x - 11, top - 78, x + 11, top), (168, 104, 86))
    pen.rectangle((x - 14, top - 84, x + 14, top - 76), (140, 84, 70))
    if rng.random() < 0.4:
        for puff in range(3):
            drift = rng.uniform(8, 14) * puff
            _disc(pen, x + drift, top - 92 - 13 * puff, 7 + 3 * puff, (245, 245, 245, 150))


def _roof(pen: Pen, rng: Rng, kind: str, eaves: Span) -> None:
    (left, right, base), colour = eaves, _shade(TILES[kind], rng.uniform(0.93, 1.07))
    height, inset = rng.uniform(64, 72), rng.uniform(30, 66)
    ridge = [(right - inset, base - height), (left + inset, base - height)]
    pen.polygon([(left, base), (right, base), *ridge], colour)
    for course in range(1, 6):
        share = course / 6
        row = left + inset * share, right - inset * share, base - height * share
        pen.line((row[0], row[2], row[1], row[2]), _shade(colour, 0.82), 3)
        _joints(pen, rng, kind, row, height / 6)
    pen.rectangle((left, base - 4, right, base + 4), _shade(colour, 0.7))


def _joints(pen: Pen, rng: Rng, kind: str, row: Span, course: float) -> None:
    left, right, y = row
    for x in np.arange(left + rng.uniform(8, 20), right - 6, 18).tolist():
        pen.line((x, y, x, y + course), _shade(TILES[kind], 0.86), 2)
        if kind == "worn" and rng.random() < 0.5:
            patch = _pick(rng, ((96, 118, 62), (84, 68, 58), (112, 132, 72)))
            pen.rectangle((x - 12, y + 2, x, y + course), patch)


def _facade(pen: Pen, rng: Rng, floors: int, walls: Span, look: Look) -> float:
    left, right, base = walls
    places = np.linspace(left, right, int(rng.integers(2, 4)) * 2 + 1)[1::2].tolist()
    entry = _pick(rng, places)
    for floor in range(floors):
        for x in places:
            if floor or x != entry:
                _window(pen, rng, x, base - 60 * floor - 33, look)
    _door(pen, entry, base, look.accent)
    return float(entry)


def _window(pen: Pen, rng: Rng, x: float, y: float, look: Look) -> None:
    if look.shutters:
        pen.rectangle(_box(x, y, 24, 17), look.accent)
    pen.rectangle(_box(x, y, 15, 19), PAINT)
    pen.rectangle(_box(x, y, 11, 15), look.glass)
    pen.line((x, y - 15, x, y + 15), PAINT, 3)
    pen.line((x - 11, y, x + 11, y), PAINT, 3)
    if look.boxes:
        pen.rectangle((x - 16, y + 17, x + 16, y + 23), (136, 92, 62))
        for dx in (-12, -4, 4, 12):
            _disc(pen, x + dx, y + 16, 4, _pick(rng, BLOOMS))


def _door(pen: Pen, x: float, base: float, accent: Colour) -> None:
    pen.polygon([(x - 14, base), (x + 14, base), (x + 40, EDGE), (x - 40, EDGE)], (222, 206, 178))
    pen.rectangle((x - 18, base - 48, x + 18, base), (252, 252, 248))
    pen.rectangle((x - 14, base - 44, x + 14, base), _shade(accent, 0.9))
    pen.rectangle((x - 8, base - 38, x + 8, base - 26), (206, 226, 236))
    _disc(pen, x + 9, base - 18, 3, (250, 214, 110))
    pen.rectangle((x - 22, base - 3, x + 22, base + 5), (196, 188, 178))


def _yard(pen: Pen, rng: Rng, door: float) -> None:
    for x in rng.uniform(10, 374, int(rng.integers(3, 8))).tolist():
        if abs(x - door) > 44:
            _bush(pen, rng, x, 322)
    if rng.random() < 0.5:
        for side in (-1, 1):
            gate = door + 46 * side
            for x in np.arange(gate, gate + EDGE * side, 18 * side).tolist():
                pen.polygon(_picket(x, 352), (250, 248, 242))
            pen.rectangle(_rail(gate, side), (250, 248, 242))


def _rail(gate: float, side: int) -> tuple[float, float, float, float]:
    left, right = sorted((gate, gate + EDGE * side))
    return (left, 362, right, 367)


def _picket(x: float, top: float) -> list[tuple[float, float]]:
    return [(x - 5, top + 32), (x - 5, top + 6), (x, top), (x + 5, top + 6), (x + 5, top + 32)]


def _bush(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, bloom = _pick(rng, GREENS), _pick(rng, BLOOMS)
    for dx, radius in ((-13, 11), (12, 12), (0, 16)):
        _disc(pen, x + dx, y - radius * 0.6, radius, _shade(green, 1 + dx / 150))
    for dx, dy in rng.uniform(-14, 14, (int(rng.integers(7)), 2)).tolist():
        _disc(pen, x + dx, y - 9 + dy * 0.6, 3, bloom)


def _border(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.5:
        colour = _pick(rng, ((176, 136, 98), (206, 190, 166), (150, 120, 96)))
        for x in range(-4, EDGE, 20):
            pen.rectangle((x, 138 + rng.uniform(0, 4), x + 17, 180), colour)
        return
    for x in range(0, EDGE + 12, 22):
        _disc(pen, x, 164, rng.uniform(18, 22), (96, 134, 84))


def _trees(pen: Pen, rng: Rng, count: int) -> None:
    # Each tree has a place of its own, so that trees can be told apart and counted.
    for place in sorted(rng.permutation(5)[:count].tolist()):
        x, y = 40 + 76 * place + rng.uniform(-5, 5), 196 + rng.uniform(-5, 5)
        pen.ellipse(_box(x + 8, y, 34, 7), SHADOW)
        pen.rectangle((x - 6, y - 44, x + 6, y), (116, 82, 58))
        _pick(rng, (_leafy, _fir))(pen, rng, x, y - 36)


def _leafy(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, fruit = _shade(_pick(rng, GREENS), 0.86), _pick(rng, BLOOMS)
    for dx, dy, radius in ((-17, -14, 20), (17, -14, 20), (0, -38, 25), (0, -14, 24)):
        _disc(pen, x + dx, y + dy, radius, _shade(green, 1 - dx / 170))
    _disc(pen, x - 8, y - 42, 12, _shade(green, 1.18))
    for dx, dy in rng.uniform(-22, 22, (int(rng.integers(8)), 2)).tolist():
        _disc(pen, x + dx, y - 24 + dy, 4, fruit)


def _fir(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green = _shade((52, 104, 72), rng.uniform(0.9, 1.12))
    for step in range(3):
        half, foot = 36 - 7 * step, y + 14 - 30 * step
        pen.polygon(
            [(x - half, foot), (x + half, foot), (x, foot - 48)], _shade(green, 1 + step / 9)
        )


def _water(pen: Pen, rng: Rng, kind: str) -> None:
    x, y = rng.uniform(176, 208), rng.uniform(280, 292)
    if kind == "pond":
        _pond(pen, rng, x, y)
    elif kind == "pool":
        _pool(pen, rng, x, y)


def _pond(pen: Pen, rng: Rng, x: float, y: float) -> None:
    for angle in np.arange(0, 2 * math.pi, 0.33).tolist():
        _disc(pen, x + 78 * math.cos(angle), y + 38 * math.sin(angle), 9, (176, 172, 162))
    pen.ellipse(_box(x, y, 76, 36), (62, 112, 122))
    pen.ellipse(_box(x - 14, y - 8, 44, 18), (92, 146, 150))
    for dx, dy in rng.uniform(-1, 1, (5, 2)).tolist():
        pen.pieslice(_box(x + 44 * dx, y + 20 * dy, 11, 6), 30, 330, (104, 166, 84))
        _disc(pen, x + 44 * dx, y + 20 * dy - 3, 3, (248, 190, 214))
    for dx in (60, 66, 72):
        pen.line((x + dx, y + 14, x + dx + 4, y - 34), (92, 132, 62), 4)


def _pool(pen: Pen, rng: Rng, x: float, y: float) -> None:
    pen.polygon(_trapeze(x, y, 94, 42), (238, 232, 220))
    pen.polygon(_trapeze(x, y, 82, 33), (64, 190, 222))
    for dy in (-18, -2, 14):
        start = x + rng.uniform(-60, 0)
        pen.line((start, y + dy, start + 46, y + dy), (190, 238, 246), 4)
    for dx in (56, 70):
        pen.arc((x + dx, y - 52, x + dx + 14, y - 12), 180, 20, (240, 240, 244), 4)


def _trapeze(x: float, y: float, half: float, down: float) -> list[tuple[float, float]]:
    near, far = half * 1.12, half * 0.88
    return [(x - far, y - down), (x + far, y - down), (x + near, y + down), (x - near, y + down)]


def _life(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.4:
        _parasol(pen, rng, _pick(rng, (44.0, 340.0)), 288)
    if rng.random() < 0.5:
        _bed(pen, rng, rng.uniform(10, 150), rng.uniform(200, 370))
    for x, y in rng.uniform((0, 220), (EDGE, EDGE), (int(rng.integers(14)), 2)).tolist():
        _disc(pen, x, y, 3.5, _pick(rng, BLOOMS))


def _bed(pen: Pen, rng: Rng, left: float, right: float) -> None:
    pen.rounded_rectangle((left, 358, right, 376), 9, (124, 90, 64))
    for x in np.arange(left + 8, right - 6, 12).tolist():
        y, bloom = 356 + rng.uniform(-5, 5), _pick(rng, BLOOMS)
        pen.line((x, y, x, 366), (84, 140, 70), 3)
        _disc(pen, x, y, 5, bloom)
        _disc(pen, x, y, 2, (252, 226, 130))


def _parasol(pen: Pen, rng: Rng, x: float, y: float) -> None:
    colour = _pick(rng, ACCENTS)
    pen.ellipse(_box(x, y + 2, 30, 7), SHADOW)
    pen.rectangle((x - 2, y - 66, x + 2, y), (236, 230, 220))
    for part in range(6):
        tone = colour if part % 2 else (250, 246, 236)
        pen.pieslice(_box(x, y - 52, 38, 32), 180 + 30 * part, 210 + 30 * part, tone)
    pen.rectangle(_box(x, y - 12, 20, 3), (166, 122, 84))


def floors(folder: Path, rows: Table) -> dict[str, float]:
    """Score three oracles on given rows of a drawn folder: `table/mape`, `table/mae`, ….

    The oracle "table" knows T of every row and nothing of P, "pictures" the other way round,
    and "both" knows T and P. For what it does not know, each takes the one factor that makes
    that very error smallest on these rows. MAPE is a fraction, MAE is in euros. On few rows a
    model can, by luck, come out a little below.
    """
    truth = read(Path(folder) / "truth.csv")
    lines = np.searchsorted(truth.numbers("row"), rows.rows.numpy())
    t, p = (truth.numbers(name)[lines] for name in ("table", "pictures"))
    price = rows.numbers("price")
    known = np.isfinite(price)
    guesses = {"table": t, "pictures": p, "both": t + p}
    return {
        name: score
        for oracle, terms in guesses.items()
        for name, score in _oracle(oracle, np.exp(BASE + terms[known]), price[known]).items()
    }


def _oracle(name: str, guess: np.ndarray, price: np.ndarray) -> dict[str, float]:
    mape = np.abs(_scaled(guess, price, guess / price) / price - 1).mean()
    mae = np.abs(_scaled(guess, price, guess) - price).mean()
    return {f"{name}/mape": float(mape), f"{name}/mae": float(mae)}


def _scaled(guess: np.ndarray, price: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # The sum of weight * |factor - price / guess| is least at the weighted median.
    ratio = price / guess
    order = np.argsort(ratio, kind="stable")
    total = np.cumsum(weight[order])
    return guess * ratio[order][np.searchsorted(total, total[-1] / 2)]


@frozen
class Row:
    """What a spec came to: errors on the test part, and the floor of what it can see.

    `mape` and `floor`, the MAPE of the matching oracle, are fractions; `mae` is in euros;
    `seconds` is the time of the run; `files` are those written for it.
    """

    name: str
    mape: float
    mae: float
    floor: float
    seconds: float
    files: tuple[Path, ...]


def compare(
    specs: Sequence[Path],
    out: Path,
    hooks: Callable[[Job], Sequence[Hook]] = lambda job: (),
    *,
    overwrite: bool = False,
) -> list[Row]:
    """Fit the specs one after another and score each on its test part.

    Each gets a run folder under `out`, named as its file, with `model.safetensors`,
    `history.jsonl` and `predictions.csv` of the test rows; `losses.png` shows them together.
    Tables are those that `draw` makes. `hooks` are made for every run, as in `run`. What an earlier
    comparison left in `out` is replaced; raises FileError for files of others, unless `overwrite`
    says to replace them too.
    """
    out, specs = Path(out), [Path(path) for path in specs]
    if len({path.stem for path in specs}) < len(specs):
        raise MipError("compare: two specs have the same name")
    replaces = {path: overwrite or is_run(out / path.stem) for path in specs}
    check_output(out / "losses.png", any(replaces.values()))
    for path in specs:
        check_output(out / path.stem / "predictions.csv", replaces[path])
    pairs = [_fitted(path, out / path.stem, hooks, replaces[path]) for path in specs]
    histories = {row.name: history.epochs for row, history in pairs}
    report.plot_losses(out / "losses.png", histories, overwrite=True)
    return [row for row, _ in pairs]


def _fitted(
    path: Path, out: Path, hooks: Callable[[Job], Sequence[Hook]], overwrite: bool
) -> tuple[Row, History]:
    spec = load_spec(path)
    source = path.parent / spec.data.table
    rows, _ = clean(spec, read(source))
    cut = parts(spec, rows, base=path.parent)
    ended = run(spec, cut, out, overwrite=overwrite, hooks=hooks, base=path.parent)
    predict = ended.predict
    scores = evaluate(predict, cut.test)
    target = cut.test[target_columns(spec)[0]].to_numpy()
    told = predict(cut.test).assign(target=target).rename_axis("row")
    report.write_table(out / "predictions.csv", told, overwrite=overwrite)
    floor = floors(source.parent, cut.test)[f"{sees(spec)}/mape"]
    files = tuple(sorted(each for each in out.iterdir() if each.is_file()))
    return Row(path.stem, scores["mape"], scores["mae"], floor, ended.seconds, files), ended.history


def sees(spec: Spec) -> str:
    """Say what a spec's branches read: "table", "pictures" or "both"."""
    found = {isinstance(leaf, ImageBranch) for _, leaf in walk(spec.root)}
    return "both" if len(found) == 2 else "pictures" if True in found else "table"


def table(rows: Iterable[Row]) -> rich.table.Table:
    """Lay rows out for the terminal, a line each, in the order given."""
    lines = [
        (row.name, f"{row.mape:.1%}", f"{row.floor:.1%}", f"{row.mae:,.0f}", f"{row.seconds:.0f}")
        for row in rows
    ]
    columns = ("spec", "MAPE", "best reachable", "MAE (€)", "seconds")
    return report.grid("errors on the test part", columns, lines)
