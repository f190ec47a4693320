"""The demo's pictures: a house from the front, and its garden."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from PIL import Image

from mip.demo._scenery import (
    ACCENTS,
    BLOOMS,
    EDGE,
    PAINT,
    SHADOW,
    SKIES,
    Colour,
    Pen,
    Span,
    border,
    box,
    bush,
    disc,
    finished,
    grass,
    landscape,
    life,
    picket,
    rail,
    shade,
    trees,
    water,
)
from mip.demo.houses import House, Rng, generator_of, pick

WALLS: tuple[Colour, ...] = (
    (250, 240, 218),
    (246, 214, 170),
    (240, 190, 178),
    (206, 222, 190),
    (190, 214, 230),
    (240, 232, 240),
    (216, 204, 190),
)


TILES = {"worn": (158, 138, 112), "tiled": (202, 88, 58), "slate": (66, 78, 104)}


def front(each: House, seed: int = 0) -> Image.Image:
    """Draw a house from the street: floors and roof count, all else is there for the eye.

    >>> from mip.demo.houses import house
    >>> front(house(0)).size
    (96, 96)
    """
    rng = generator_of("front", seed, each.row)
    mood = pick(rng, sorted(SKIES))
    image, pen = landscape(rng, SKIES[mood], horizon=270)
    grass(pen, rng, 278)
    door = _home(pen, rng, each, _look(rng, mood))
    _yard(pen, rng, door)
    return finished(image, pen, rng, SKIES[mood])


def garden(each: House, seed: int = 0) -> Image.Image:
    """Draw a garden: trees and water count, all else is there for the eye.

    >>> from mip.demo.houses import house
    >>> garden(house(0)).size
    (96, 96)
    """
    rng = generator_of("garden", seed, each.row)
    mood = pick(rng, sorted(SKIES))
    image, pen = landscape(rng, SKIES[mood], horizon=150)
    border(pen, rng)
    grass(pen, rng, 176)
    trees(pen, rng, each.trees)
    life(pen, rng)
    water(pen, rng, each.water)
    return finished(image, pen, rng, SKIES[mood])


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
    return Look(pick(rng, WALLS), pick(rng, ACCENTS), glass, *extras)


def _home(pen: Pen, rng: Rng, each: House, look: Look) -> float:
    """Draw the house and give the place of its door."""
    width, middle, base = rng.uniform(174, 198), 192 + rng.uniform(-12, 12), 320.0
    left, right, top = middle - width / 2, middle + width / 2, base - 60 * each.floors
    pen.polygon([(right, base), (right + 50, base + 8), (left + 30, base + 10)], SHADOW)
    _chimney(pen, rng, middle + pick(rng, (-0.28, 0.28)) * width, top)
    pen.rectangle((left, top, right, base), look.wall)
    pen.rectangle((left, base - 9, right, base), shade(look.wall, 0.78))
    _roof(pen, rng, each.roof, (left - 15, right + 15, top))
    return _facade(pen, rng, each.floors, (left, right, base), look)


def _chimney(pen: Pen, rng: Rng, x: float, top: float) -> None:
    pen.rectangle((x - 11, top - 78, x + 11, top), (168, 104, 86))
    pen.rectangle((x - 14, top - 84, x + 14, top - 76), (140, 84, 70))
    if rng.random() < 0.4:
        for puff in range(3):
            drift = rng.uniform(8, 14) * puff
            disc(pen, x + drift, top - 92 - 13 * puff, 7 + 3 * puff, (245, 245, 245, 150))


def _roof(pen: Pen, rng: Rng, kind: str, eaves: Span) -> None:
    (left, right, base), colour = eaves, shade(TILES[kind], rng.uniform(0.93, 1.07))
    height, inset = rng.uniform(64, 72), rng.uniform(30, 66)
    ridge = [(right - inset, base - height), (left + inset, base - height)]
    pen.polygon([(left, base), (right, base), *ridge], colour)
    for course in range(1, 6):
        share = course / 6
        row = left + inset * share, right - inset * share, base - height * share
        pen.line((row[0], row[2], row[1], row[2]), shade(colour, 0.82), 3)
        _joints(pen, rng, kind, row, height / 6)
    pen.rectangle((left, base - 4, right, base + 4), shade(colour, 0.7))


def _joints(pen: Pen, rng: Rng, kind: str, row: Span, course: float) -> None:
    left, right, y = row
    for x in np.arange(left + rng.uniform(8, 20), right - 6, 18).tolist():
        pen.line((x, y, x, y + course), shade(TILES[kind], 0.86), 2)
        if kind == "worn" and rng.random() < 0.5:
            patch = pick(rng, ((96, 118, 62), (84, 68, 58), (112, 132, 72)))
            pen.rectangle((x - 12, y + 2, x, y + course), patch)


def _facade(pen: Pen, rng: Rng, floors: int, walls: Span, look: Look) -> float:
    left, right, base = walls
    places = np.linspace(left, right, int(rng.integers(2, 4)) * 2 + 1)[1::2].tolist()
    entry = pick(rng, places)
    for floor in range(floors):
        for x in places:
            if floor or x != entry:
                _window(pen, rng, x, base - 60 * floor - 33, look)
    _door(pen, entry, base, look.accent)
    return float(entry)


def _window(pen: Pen, rng: Rng, x: float, y: float, look: Look) -> None:
    if look.shutters:
        pen.rectangle(box(x, y, 24, 17), look.accent)
    pen.rectangle(box(x, y, 15, 19), PAINT)
    pen.rectangle(box(x, y, 11, 15), look.glass)
    pen.line((x, y - 15, x, y + 15), PAINT, 3)
    pen.line((x - 11, y, x + 11, y), PAINT, 3)
    if look.boxes:
        pen.rectangle((x - 16, y + 17, x + 16, y + 23), (136, 92, 62))
        for dx in (-12, -4, 4, 12):
            disc(pen, x + dx, y + 16, 4, pick(rng, BLOOMS))


def _door(pen: Pen, x: float, base: float, accent: Colour) -> None:
    pen.polygon([(x - 14, base), (x + 14, base), (x + 40, EDGE), (x - 40, EDGE)], (222, 206, 178))
    pen.rectangle((x - 18, base - 48, x + 18, base), (252, 252, 248))
    pen.rectangle((x - 14, base - 44, x + 14, base), shade(accent, 0.9))
    pen.rectangle((x - 8, base - 38, x + 8, base - 26), (206, 226, 236))
    disc(pen, x + 9, base - 18, 3, (250, 214, 110))
    pen.rectangle((x - 22, base - 3, x + 22, base + 5), (196, 188, 178))


def _yard(pen: Pen, rng: Rng, door: float) -> None:
    for x in rng.uniform(10, 374, int(rng.integers(3, 8))).tolist():
        if abs(x - door) > 44:
            bush(pen, rng, x, 322)
    if rng.random() < 0.5:
        for side in (-1, 1):
            gate = door + 46 * side
            for x in np.arange(gate, gate + EDGE * side, 18 * side).tolist():
                pen.polygon(picket(x, 352), (250, 248, 242))
            pen.rectangle(rail(gate, side), (250, 248, 242))
