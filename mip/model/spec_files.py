"""The files that a spec names: where they are, and what is in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from attrs import evolve

from mip.branches import Fuse
from mip.spec import Spec


def with_files(spec: Spec, function: Callable[[str], str]) -> Spec:
    """Return a spec in which the path of every file is what the function returns: table, folds,
    models to start from, pretrained weights.

    >>> from mip.branches import Stub
    >>> from mip.heads import Regression
    >>> from mip.spec.values import Data
    >>> spec = Spec({"later": Stub(1)}, Regression("price"), Data("houses.csv"))
    >>> with_files(spec, lambda path: f"../{path}").data.table
    '../houses.csv'
    """
    data, folds = spec.data, spec.data.split.folds
    split = evolve(data.split, folds=folds and function(folds))
    return evolve(
        spec,
        branch=spec.root.map_files(function).branch,
        data=evolve(data, table=data.table and function(data.table), split=split),
        warm_start={path: function(file) for path, file in spec.warm_start.items()},
    )


def root_at(spec: Spec, base: str | Path) -> Fuse:
    """Return the tree of branches with paths of files that are relative to the folder `base`."""
    return spec.root.map_files(lambda path: str(Path(base) / path))
