"""Drawing primitives of the demo's pictures: the canvas, skies, grass, bushes, colours."""

from __future__ import annotations

import numpy as np
from attrs import frozen
from PIL import Image, ImageChops, ImageDraw

from mip.demo.houses import Rng

Colour = tuple[int, int, int]


Pen = ImageDraw.ImageDraw


# Pictures are drawn on a canvas of EDGE pixels and averaged down to SIZE, which smooths all edges.
SIZE, OVERSAMPLING = 96, 4
EDGE = SIZE * OVERSAMPLING


PAINT = (252, 252, 248)


SHADOW = (60, 90, 50, 90)


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


def landscape(rng: Rng, weather: Weather, horizon: int) -> tuple[Image.Image, Pen]:
    image = gradient(weather.top, weather.bottom)
    pen = ImageDraw.Draw(image, "RGBA")  # this mode blends colours that have an alpha
    if not weather.rain:
        disc(pen, rng.uniform(40, 344), rng.uniform(34, 80), 20, (255, 244, 190))
    for _ in range(weather.clouds):
        cloud(pen, rng.uniform(20, 364), rng.uniform(24, 110), rng.uniform(0.7, 1.2))
    for tone in ((150, 184, 158), (134, 172, 128)):
        center, width = rng.uniform(0, EDGE), rng.uniform(180, 320)
        pen.ellipse(box(center, horizon + 90, width, rng.uniform(110, 140)), tone)
    pen.rectangle((0, horizon, EDGE, EDGE), (134, 172, 128))
    return image, pen


def finish(image: Image.Image, pen: Pen, rng: Rng, weather: Weather) -> Image.Image:
    if weather.rain:
        for x, y in rng.uniform(-20, EDGE, (70, 2)).tolist():
            pen.line((x, y, x - 6, y + 22), (235, 242, 250, 110), 2)
    light = Image.new("RGB", image.size, weather.light)
    return ImageChops.multiply(image, light).reduce(OVERSAMPLING)


def gradient(top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, EDGE)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    pixels = np.broadcast_to(rows.round().astype(np.uint8), (EDGE, EDGE, 3))
    return Image.fromarray(np.ascontiguousarray(pixels))


def box(
    x: float, y: float, half_width: float, half_height: float
) -> tuple[float, float, float, float]:
    return (x - half_width, y - half_height, x + half_width, y + half_height)


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
        # The stripes of a mower converge towards the horizon.
        near, far = stripe * 1.6 - 115, stripe * 1.1 - 19
        corners = [(near, EDGE), (near + 38, EDGE), (far + 26, top), (far, top)]
        pen.polygon(corners, shade(base, 1.05))
