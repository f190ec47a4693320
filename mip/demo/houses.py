"""The demo's houses, whose prices follow a formula, so that the best reachable error is known.

Every row is a house with a few facts in a table, a picture of its front and one of its garden.
Its price is

    log(price) = BASE + T + P + noise

    T     = 0.6 log(area / 110) + 0.04 (rooms - 4) + 0.4 ((age - 60)² / 3600 - 0.26)
            + DISTRICTS[district] + 0.03 cos(2π (month - 5) / 12)
    P     = 0.25 (floors - 2) + ROOFS[roof] + 0.08 (trees - 2) + WATERS[water]
    noise = normal, mean 0, standard deviation 0.08

T can be read only from the table and P only from the pictures; the three terms are independent, and
T and P vary about equally (standard deviation 0.35). So the best model of the table is wrong by the
variation of P, and the best model of the pictures by that of T: `oracle_scores` computes how large
these errors are. Everything else in the pictures (weather, walls, shutters, fences, flowers) means
nothing.

Some cells and pictures are missing. The oracles know T and P even then, so a model comes near their
scores but does not quite reach them.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from attrs import frozen

from mip.rng import derive

Choice = TypeVar("Choice")


Rng = np.random.Generator


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
"""The standard deviation of the noise in the log price."""


TRUTH_COLUMNS = ("row", "table", "pictures", "noise")
"""The columns of `truth.csv`."""


MISSING = {
    "area": 0.02,
    "age": 0.02,
    "district": 0.01,
    "front": 0.01,
    "garden": 0.01,
    "price": 0.003,
}
"""The share of rows with an empty cell, by column."""


@frozen
class House:
    """A house: what the table says, what the pictures show, and the noise of its price.

    `area` is in m², `age` in years when it was sold.

    >>> facts = {"area": 110.0, "age": 40, "rooms": 4, "district": "meadows"}
    >>> shown = {"floors": 2, "roof": "tiled", "trees": 3, "water": "pool"}
    >>> house = House(row=0, sold=datetime.date(2023, 5, 2), **facts, **shown)
    >>> house.table, house.pictures, house.price
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
        """T, the part of the log price that the table determines."""
        size = 0.6 * math.log(self.area / 110) + 0.04 * (self.rooms - 4)
        age = 0.4 * ((self.age - 60) ** 2 / 3600 - 0.26)
        season = 0.03 * math.cos(2 * math.pi * (self.sold.month - 5) / 12)
        return round(size + age + DISTRICTS[self.district] + season, 6)

    @property
    def pictures(self) -> float:
        """P, the part of the log price that the pictures determine."""
        front = 0.25 * (self.floors - 2) + ROOFS[self.roof]
        return round(front + 0.08 * (self.trees - 2) + WATERS[self.water], 6)

    @property
    def price(self) -> int:
        """The price in whole euros."""
        return round(math.exp(BASE + self.table + self.pictures + self.noise))


def make_house(row: int, seed: int = 0) -> House:
    """Make up a house, as a function of the row and the seed alone.

    >>> make_house(3) == make_house(3) != make_house(3, seed=1)
    True
    """
    rng = rng_for("house", seed, row)
    area = round(110 * math.exp(0.33 * rng.standard_normal()), 1)
    rooms = max(1, round(area / 28 + 0.8 * rng.standard_normal()))
    sold = datetime.date(2019, 1, 1) + datetime.timedelta(days=int(rng.integers(6 * 365)))
    return House(
        row=row,
        area=area,
        rooms=rooms,
        sold=sold,
        age=int(rng.integers(101)),
        district=pick(rng, sorted(DISTRICTS)),
        floors=int(rng.integers(1, 4)),
        roof=pick(rng, tuple(ROOFS)),
        trees=int(rng.integers(5)),
        water=pick(rng, ("none", "none", "pond", "pool")),
        noise=round(NOISE * rng.standard_normal(), 6),
    )


def rng_for(purpose: str, seed: int, row: int) -> Rng:
    """Make the random generator for one purpose and row."""
    return np.random.Generator(np.random.PCG64(derive("demo", purpose, seed, row)))


def pick(rng: Rng, choices: Sequence[Choice]) -> Choice:
    """Pick one of the choices at random."""
    return choices[int(rng.integers(len(choices)))]
