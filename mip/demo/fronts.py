"""The demo's picture of a house from the street: its floors and its roof show its price."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from PIL import Image

from mip.demo._scenery import (
    ACCENTS,
    BLOOMS,
    EDGE,
    GREENS,
    PAINT,
    SHADOW,
    SKIES,
    Colour,
    Pen,
    box,
    disc,
    finish,
    grass,
    landscape,
    shade,
)
from mip.demo.houses import House, Rng, pick, rng_for

WALLS: tuple[Colour, ...] = (
    (250, 240, 218),
    (246, 214, 170),
    (240, 190, 178),
    (206, 222, 190),
    (190, 214, 230),
    (240, 232, 240),
    (216, 204, 190),
)


ROOF_COLOURS = {"worn": (158, 138, 112), "tiled": (202, 88, 58), "slate": (66, 78, 104)}


@frozen
class Look:
    """How a house is decorated, which does not affect its price."""

    wall: Colour
    accent: Colour
    glass: Colour
    shutters: bool
    flower_boxes: bool


def draw_front(house: House, seed: int = 0) -> Image.Image:
    """Draw a house from the street. Its floors and its roof affect the price, nothing else does.

    >>> from mip.demo.houses import make_house
    >>> draw_front(make_house(0)).size
    (96, 96)
    """
    rng = rng_for("front", seed, house.row)
    sky = pick(rng, sorted(SKIES))
    image, pen = landscape(rng, SKIES[sky], horizon=270)
    grass(pen, rng, 278)
    shutters, flower_boxes = rng.random() < 0.5, rng.random() < 0.5
    look = Look(
        wall=pick(rng, WALLS),
        accent=pick(rng, ACCENTS),
        glass=(255, 224, 130) if sky == "evening" else (150, 190, 214),
        shutters=shutters,
        flower_boxes=flower_boxes,
    )
    door = _house(pen, rng, house, look)
    _front_yard(pen, rng, door)
    return finish(image, pen, rng, SKIES[sky])


def _house(pen: Pen, rng: Rng, house: House, look: Look) -> float:
    """Draw the house and return the position of its door."""
    width, middle, base = rng.uniform(174, 198), 192 + rng.uniform(-12, 12), 320.0
    left, right, top = middle - width / 2, middle + width / 2, base - 60 * house.floors
    pen.polygon([(right, base), (right + 50, base + 8), (left + 30, base + 10)], SHADOW)
    _chimney(pen, rng, middle + pick(rng, (-0.28, 0.28)) * width, top)
    pen.rectangle((left, top, right, base), look.wall)
    pen.rectangle((left, base - 9, right, base), shade(look.wall, 0.78))
    _roof(pen, rng, house.roof, left=left - 15, right=right + 15, base=top)
    windows = np.linspace(left, right, int(rng.integers(2, 4)) * 2 + 1)[1::2].tolist()
    door = pick(rng, windows)
    for floor in range(house.floors):
        for x in windows:
            if floor or x != door:
                _window(pen, rng, x, base - 60 * floor - 33, look)
    _door(pen, door, base, look.accent)
    return float(door)


def _chimney(pen: Pen, rng: Rng, x: float, top: float) -> None:
    pen.rectangle((x - 11, top - 78, x + 11, top), (168, 104, 86))
    pen.rectangle((x - 14, top - 84, x + 14, top - 76), (140, 84, 70))
    if rng.random() < 0.4:
        for puff in range(3):
            drift = rng.uniform(8, 14) * puff
            disc(pen, x + drift, top - 92 - 13 * puff, 7 + 3 * puff, (245, 245, 245, 150))


def _roof(pen: Pen, rng: Rng, kind: str, *, left: float, right: float, base: float) -> None:
    colour = shade(ROOF_COLOURS[kind], rng.uniform(0.93, 1.07))
    height, inset = rng.uniform(64, 72), rng.uniform(30, 66)
    ridge = [(right - inset, base - height), (left + inset, base - height)]
    pen.polygon([(left, base), (right, base), *ridge], colour)
    for course in range(1, 6):
        share = course / 6
        begin, end, y = left + inset * share, right - inset * share, base - height * share
        pen.line((begin, y, end, y), shade(colour, 0.82), 3)
        for x in np.arange(begin + rng.uniform(8, 20), end - 6, 18).tolist():
            _joint(pen, rng, kind, x, y, y + height / 6)
    pen.rectangle((left, base - 4, right, base + 4), shade(colour, 0.7))


def _joint(pen: Pen, rng: Rng, kind: str, x: float, top: float, bottom: float) -> None:
    pen.line((x, top, x, bottom), shade(ROOF_COLOURS[kind], 0.86), 2)
    if kind == "worn" and rng.random() < 0.5:
        patch = pick(rng, ((96, 118, 62), (84, 68, 58), (112, 132, 72)))
        pen.rectangle((x - 12, top + 2, x, bottom), patch)


def _window(pen: Pen, rng: Rng, x: float, y: float, look: Look) -> None:
    if look.shutters:
        pen.rectangle(box(x, y, 24, 17), look.accent)
    pen.rectangle(box(x, y, 15, 19), PAINT)
    pen.rectangle(box(x, y, 11, 15), look.glass)
    pen.line((x, y - 15, x, y + 15), PAINT, 3)
    pen.line((x - 11, y, x + 11, y), PAINT, 3)
    if look.flower_boxes:
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


def _front_yard(pen: Pen, rng: Rng, door: float) -> None:
    for x in rng.uniform(10, 374, int(rng.integers(3, 8))).tolist():
        if abs(x - door) > 44:
            _bush(pen, rng, x, 322)
    if rng.random() < 0.5:
        for side in (-1, 1):
            _fence(pen, door + 46 * side, side)


def _bush(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, bloom = pick(rng, GREENS), pick(rng, BLOOMS)
    for dx, radius in ((-13, 11), (12, 12), (0, 16)):
        disc(pen, x + dx, y - radius * 0.6, radius, shade(green, 1 + dx / 150))
    for dx, dy in rng.uniform(-14, 14, (int(rng.integers(7)), 2)).tolist():
        disc(pen, x + dx, y - 9 + dy * 0.6, 3, bloom)


def _fence(pen: Pen, gate: float, side: int) -> None:
    for x in np.arange(gate, gate + EDGE * side, 18 * side).tolist():
        picket = [(x - 5, 384), (x - 5, 358), (x, 352), (x + 5, 358), (x + 5, 384)]
        pen.polygon(picket, (250, 248, 242))
    left, right = sorted((gate, gate + EDGE * side))
    pen.rectangle((left, 362, right, 367), (250, 248, 242))
