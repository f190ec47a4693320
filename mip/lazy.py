"""Doors of packages: names that load what they need when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import lazy_loader  # type: ignore[import-untyped]


def attach_stub(
    package: str, file: str
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Make `__getattr__`, `__dir__` and `__all__` of a package from the stub beside its file, as
    `lazy_loader.attach_stub` does; an unknown name gets the nearest known one.

    >>> import mip
    >>> mip.EarlyStopping
    Traceback (most recent call last):
    AttributeError: module 'mip' has no attribute 'EarlyStopping'; did you mean 'early_stop'?
    """
    load, list_names, names = lazy_loader.attach_stub(package, file)

    def find(name: str) -> Any:
        if name in names or name.startswith("__"):
            return load(name)
        raise AttributeError(f"module '{package}' has no attribute '{name}'{_near(name, names)}")

    return find, list_names, names


def _near(name: str, names: Sequence[str]) -> str:
    from difflib import get_close_matches

    # Classes elsewhere are functions here: case and underscores do not count.
    spelled = {known.replace("_", "").lower(): known for known in names}
    near = get_close_matches(name.replace("_", "").lower(), spelled, n=1, cutoff=0.6)
    return f"; did you mean '{spelled[near[0]]}'?" if near else ""
