"""The demo's picture of a garden: trees and water show its price."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

from mip.demo._scenery import (
    ACCENTS,
    BLOOMS,
    EDGE,
    GREENS,
    SHADOW,
    SKIES,
    Pen,
    box,
    disc,
    finish,
    grass,
    landscape,
    shade,
)
from mip.demo.houses import House, Rng, pick, rng_for


def draw_garden(house: House, seed: int = 0) -> Image.Image:
    """Draw the garden of a house. Its trees and its water affect the price, nothing else does.

    >>> from mip.demo.houses import make_house
    >>> draw_garden(make_house(0)).size
    (96, 96)
    """
    rng = rng_for("garden", seed, house.row)
    weather = SKIES[pick(rng, sorted(SKIES))]
    image, pen = landscape(rng, weather, horizon=150)
    _fence_or_hedge(pen, rng)
    grass(pen, rng, 176)
    _trees(pen, rng, house.trees)
    _decoration(pen, rng)
    _water(pen, rng, house.water)
    return finish(image, pen, rng, weather)


def _fence_or_hedge(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.5:
        colour = pick(rng, ((176, 136, 98), (206, 190, 166), (150, 120, 96)))
        for x in range(-4, EDGE, 20):
            pen.rectangle((x, 138 + rng.uniform(0, 4), x + 17, 180), colour)
        return
    for x in range(0, EDGE + 12, 22):
        disc(pen, x, 164, rng.uniform(18, 22), (96, 134, 84))


def _trees(pen: Pen, rng: Rng, count: int) -> None:
    # Each tree has its own slot, so that trees do not overlap and can be counted.
    for slot in sorted(rng.permutation(5)[:count].tolist()):
        x, y = 40 + 76 * slot + rng.uniform(-5, 5), 196 + rng.uniform(-5, 5)
        pen.ellipse(box(x + 8, y, 34, 7), SHADOW)
        pen.rectangle((x - 6, y - 44, x + 6, y), (116, 82, 58))
        pick(rng, (_leafy_tree, _fir))(pen, rng, x, y - 36)


def _leafy_tree(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, fruit = shade(pick(rng, GREENS), 0.86), pick(rng, BLOOMS)
    for dx, dy, radius in ((-17, -14, 20), (17, -14, 20), (0, -38, 25), (0, -14, 24)):
        disc(pen, x + dx, y + dy, radius, shade(green, 1 - dx / 170))
    disc(pen, x - 8, y - 42, 12, shade(green, 1.18))
    for dx, dy in rng.uniform(-22, 22, (int(rng.integers(8)), 2)).tolist():
        disc(pen, x + dx, y - 24 + dy, 4, fruit)


def _fir(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green = shade((52, 104, 72), rng.uniform(0.9, 1.12))
    for step in range(3):
        half, foot = 36 - 7 * step, y + 14 - 30 * step
        pen.polygon(
            [(x - half, foot), (x + half, foot), (x, foot - 48)], shade(green, 1 + step / 9)
        )


def _water(pen: Pen, rng: Rng, kind: str) -> None:
    x, y = rng.uniform(176, 208), rng.uniform(280, 292)
    if kind == "pond":
        _pond(pen, rng, x, y)
    elif kind == "pool":
        _pool(pen, rng, x, y)


def _pond(pen: Pen, rng: Rng, x: float, y: float) -> None:
    for angle in np.arange(0, 2 * math.pi, 0.33).tolist():
        disc(pen, x + 78 * math.cos(angle), y + 38 * math.sin(angle), 9, (176, 172, 162))
    pen.ellipse(box(x, y, 76, 36), (62, 112, 122))
    pen.ellipse(box(x - 14, y - 8, 44, 18), (92, 146, 150))
    for dx, dy in rng.uniform(-1, 1, (5, 2)).tolist():
        pen.pieslice(box(x + 44 * dx, y + 20 * dy, 11, 6), 30, 330, (104, 166, 84))
        disc(pen, x + 44 * dx, y + 20 * dy - 3, 3, (248, 190, 214))
    for dx in (60, 66, 72):
        pen.line((x + dx, y + 14, x + dx + 4, y - 34), (92, 132, 62), 4)


def _pool(pen: Pen, rng: Rng, x: float, y: float) -> None:
    pen.polygon(_trapezoid(x, y, 94, 42), (238, 232, 220))
    pen.polygon(_trapezoid(x, y, 82, 33), (64, 190, 222))
    for dy in (-18, -2, 14):
        start = x + rng.uniform(-60, 0)
        pen.line((start, y + dy, start + 46, y + dy), (190, 238, 246), 4)
    for dx in (56, 70):
        pen.arc((x + dx, y - 52, x + dx + 14, y - 12), 180, 20, (240, 240, 244), 4)


def _trapezoid(x: float, y: float, half: float, down: float) -> list[tuple[float, float]]:
    near, far = half * 1.12, half * 0.88
    return [(x - far, y - down), (x + far, y - down), (x + near, y + down), (x - near, y + down)]


def _decoration(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.4:
        _parasol(pen, rng, pick(rng, (44.0, 340.0)), 288)
    if rng.random() < 0.5:
        _flower_bed(pen, rng, rng.uniform(10, 150), rng.uniform(200, 370))
    for x, y in rng.uniform((0, 220), (EDGE, EDGE), (int(rng.integers(14)), 2)).tolist():
        disc(pen, x, y, 3.5, pick(rng, BLOOMS))


def _flower_bed(pen: Pen, rng: Rng, left: float, right: float) -> None:
    pen.rounded_rectangle((left, 358, right, 376), 9, (124, 90, 64))
    for x in np.arange(left + 8, right - 6, 12).tolist():
        y, bloom = 356 + rng.uniform(-5, 5), pick(rng, BLOOMS)
        pen.line((x, y, x, 366), (84, 140, 70), 3)
        disc(pen, x, y, 5, bloom)
        disc(pen, x, y, 2, (252, 226, 130))


def _parasol(pen: Pen, rng: Rng, x: float, y: float) -> None:
    colour = pick(rng, ACCENTS)
    pen.ellipse(box(x, y + 2, 30, 7), SHADOW)
    pen.rectangle((x - 2, y - 66, x + 2, y), (236, 230, 220))
    for part in range(6):
        tone = colour if part % 2 else (250, 246, 236)
        pen.pieslice(box(x, y - 52, 38, 32), 180 + 30 * part, 210 + 30 * part, tone)
    pen.rectangle(box(x, y - 12, 20, 3), (166, 122, 84))
