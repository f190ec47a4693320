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
    rng = generator_of("house", seed, row)
    area = round(110 * math.exp(0.33 * rng.standard_normal()), 1)
    rooms = max(1, round(area / 28 + 0.8 * rng.standard_normal()))
    day = datetime.date(2019, 1, 1) + datetime.timedelta(days=int(rng.integers(6 * 365)))
    told = (area, int(rng.integers(101)), rooms, pick(rng, sorted(DISTRICTS)), day)
    front = int(rng.integers(1, 4)), pick(rng, tuple(ROOFS))
    garden = int(rng.integers(5)), pick(rng, ("none", "none", "pond", "pool"))
    return House(row, *told, *front, *garden, round(NOISE * rng.standard_normal(), 6))


def generator_of(purpose: str, seed: int, row: int) -> Rng:
    """Make the generator of one purpose and row."""
    return np.random.Generator(np.random.PCG64(derive("demo", purpose, seed, row)))


def pick(rng: Rng, choices: Sequence[Choice]) -> Choice:
    """Pick one of the choices."""
    return choices[int(rng.integers(len(choices)))]
