"""Single values and keys as TOML, on one line."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from typing import Any

import tomli_w


def inline(value: Any) -> str:
    """Write a value as TOML on one line.

    >>> print(inline({"k": 1000, "M": 1e6}), inline(("oak", "ash")))
    { k = 1_000, M = 1_000_000 } ["oak", "ash"]
    """
    if isinstance(value, Mapping):
        pairs = [f"{key(name)} = {inline(child)}" for name, child in value.items()]
        return f"{{ {', '.join(pairs)} }}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(inline, value))}]"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value % 1 == 0:
        return f"{value:_.0f}"
    return tomli_w.dumps({"x": value}).strip().removeprefix("x = ")


def parse_value(text: str) -> Any:
    """Read a value: TOML if possible, otherwise text.

    >>> parse_value("1e-3"), parse_value("[8, 4]"), parse_value("resnet18")
    (0.001, [8, 4], 'resnet18')
    """
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def key(name: str) -> str:
    """Write the name of a table as a key of TOML, quoted where it must be.

    >>> key("price"), key("price of sale")
    ('price', '"price of sale"')
    """
    return tomli_w.dumps({name: 0}).removesuffix(" = 0\n")
