"""What stands around a house in the demo's pictures: skies, gardens, trees, water."""

from __future__ import annotations

import math

import numpy as np
from attrs import frozen
from PIL import Image, ImageChops, ImageDraw

from mip.demo.houses import Rng, pick

Colour = tuple[int, int, int]


Pen = ImageDraw.ImageDraw


Span = tuple[float, float, float]
"""Left end, right end and height of something level, in canvas pixels."""


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


GREENS: tuple[Colour, ...] = ((92, 152, 70), (74, 136, 80), (118, 160, 66), (64, 122, 66))


def landscape(rng: Rng, weather: Weather, horizon: int) -> tuple[Image.Image, Pen]:
    image = gradient(weather.top, weather.bottom)
    pen = ImageDraw.Draw(image, "RGBA")  # this mode blends colours that have an alpha
    if not weather.rain:
        disc(pen, rng.uniform(40, 344), rng.uniform(34, 80), 20, (255, 244, 190))
    for _ in range(weather.clouds):
        cloud(pen, rng.uniform(20, 364), rng.uniform(24, 110), rng.uniform(0.7, 1.2))
    for tone in ((150, 184, 158), (134, 172, 128)):
        middle, reach = rng.uniform(0, EDGE), rng.uniform(180, 320)
        pen.ellipse(box(middle, horizon + 90, reach, rng.uniform(110, 140)), tone)
    pen.rectangle((0, horizon, EDGE, EDGE), (134, 172, 128))
    return image, pen


def gradient(top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, EDGE)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    pixels = np.broadcast_to(rows.round().astype(np.uint8), (EDGE, EDGE, 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def finished(image: Image.Image, pen: Pen, rng: Rng, weather: Weather) -> Image.Image:
    if weather.rain:
        for x, y in rng.uniform(-20, EDGE, (70, 2)).tolist():
            pen.line((x, y, x - 6, y + 22), (235, 242, 250, 110), 2)
    light = Image.new("RGB", image.size, weather.light)
    return ImageChops.multiply(image, light).reduce(FINE)


def box(x: float, y: float, across: float, down: float) -> tuple[float, float, float, float]:
    return (x - across, y - down, x + across, y + down)


def disc(pen: Pen, x: float, y: float, radius: float, colour: tuple[int, ...]) -> None:
    pen.ellipse(box(x, y, radius, radius), colour)


def shade(colour: Colour, factor: float) -> Colour:
    red, green, blue = (min(255, round(channel * factor)) for channel in colour)
    return red, green, blue


def cloud(pen: Pen, x: float, y: float, scale: float) -> None:
    for dx, dy, radius in ((-34, 6, 15), (-14, -4, 22), (14, -6, 24), (36, 6, 15)):
        disc(pen, x + dx * scale, y + dy * scale, radius * scale, (255, 255, 255, 215))
    pen.rounded_rectangle(box(x, y + 12 * scale, 48 * scale, 10 * scale), 10 * scale, "white")


def grass(pen: Pen, rng: Rng, top: float) -> None:
    base = shade((132, 184, 86), rng.uniform(0.92, 1.06))
    pen.rectangle((0, top, EDGE, EDGE), base)
    for stripe in range(0, EDGE, 48):
        # Stripes of a mower run together towards the horizon.
        near, far = stripe * 1.6 - 115, stripe * 1.1 - 19
        corners = [(near, EDGE), (near + 38, EDGE), (far + 26, top), (far, top)]
        pen.polygon(corners, shade(base, 1.05))


def rail(gate: float, side: int) -> tuple[float, float, float, float]:
    left, right = sorted((gate, gate + EDGE * side))
    return (left, 362, right, 367)


def picket(x: float, top: float) -> list[tuple[float, float]]:
    return [(x - 5, top + 32), (x - 5, top + 6), (x, top), (x + 5, top + 6), (x + 5, top + 32)]


def bush(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, bloom = pick(rng, GREENS), pick(rng, BLOOMS)
    for dx, radius in ((-13, 11), (12, 12), (0, 16)):
        disc(pen, x + dx, y - radius * 0.6, radius, shade(green, 1 + dx / 150))
    for dx, dy in rng.uniform(-14, 14, (int(rng.integers(7)), 2)).tolist():
        disc(pen, x + dx, y - 9 + dy * 0.6, 3, bloom)


def border(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.5:
        colour = pick(rng, ((176, 136, 98), (206, 190, 166), (150, 120, 96)))
        for x in range(-4, EDGE, 20):
            pen.rectangle((x, 138 + rng.uniform(0, 4), x + 17, 180), colour)
        return
    for x in range(0, EDGE + 12, 22):
        disc(pen, x, 164, rng.uniform(18, 22), (96, 134, 84))


def trees(pen: Pen, rng: Rng, count: int) -> None:
    # Each tree has a place of its own, so that trees can be told apart and counted.
    for place in sorted(rng.permutation(5)[:count].tolist()):
        x, y = 40 + 76 * place + rng.uniform(-5, 5), 196 + rng.uniform(-5, 5)
        pen.ellipse(box(x + 8, y, 34, 7), SHADOW)
        pen.rectangle((x - 6, y - 44, x + 6, y), (116, 82, 58))
        pick(rng, (leafy, fir))(pen, rng, x, y - 36)


def leafy(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green, fruit = shade(pick(rng, GREENS), 0.86), pick(rng, BLOOMS)
    for dx, dy, radius in ((-17, -14, 20), (17, -14, 20), (0, -38, 25), (0, -14, 24)):
        disc(pen, x + dx, y + dy, radius, shade(green, 1 - dx / 170))
    disc(pen, x - 8, y - 42, 12, shade(green, 1.18))
    for dx, dy in rng.uniform(-22, 22, (int(rng.integers(8)), 2)).tolist():
        disc(pen, x + dx, y - 24 + dy, 4, fruit)


def fir(pen: Pen, rng: Rng, x: float, y: float) -> None:
    green = shade((52, 104, 72), rng.uniform(0.9, 1.12))
    for step in range(3):
        half, foot = 36 - 7 * step, y + 14 - 30 * step
        pen.polygon(
            [(x - half, foot), (x + half, foot), (x, foot - 48)], shade(green, 1 + step / 9)
        )


def water(pen: Pen, rng: Rng, kind: str) -> None:
    x, y = rng.uniform(176, 208), rng.uniform(280, 292)
    if kind == "pond":
        pond(pen, rng, x, y)
    elif kind == "pool":
        _pool(pen, rng, x, y)


def pond(pen: Pen, rng: Rng, x: float, y: float) -> None:
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


def life(pen: Pen, rng: Rng) -> None:
    if rng.random() < 0.4:
        _parasol(pen, rng, pick(rng, (44.0, 340.0)), 288)
    if rng.random() < 0.5:
        bed(pen, rng, rng.uniform(10, 150), rng.uniform(200, 370))
    for x, y in rng.uniform((0, 220), (EDGE, EDGE), (int(rng.integers(14)), 2)).tolist():
        disc(pen, x, y, 3.5, pick(rng, BLOOMS))


def bed(pen: Pen, rng: Rng, left: float, right: float) -> None:
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
