"""Vectors made elsewhere: precomputed embeddings, measurements, any list of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import in_, min_len
from torch import Tensor, nn

from mip.branches.protocol import Facts, names
from mip.data import BLANK, FLOAT32, Moments, Rows, Table, array_of, is_list, moments, number
from mip.errors import DataError, shown
from mip.nn import Fill

_PART = re.compile(r"[^\s,;]+")


@frozen
class Vector:
    """Lists of numbers, in each column as long in every row, standardised place by place unless
    the scale is "none".

    A cell is a list, an array, or text such as "[0.5, 2]" or "0.5 2". A missing one (or "NA", as
    of a number) is filled and flagged.

    >>> from mip.data import from_columns
    >>> rows = from_columns({"embedding": [[1.0, 4.0], "[3, 4]", None]})
    >>> kind = Vector(["embedding"]); facts = kind.adapt(rows)
    >>> facts
    {'mean': [[2.0, 4.0]], 'std': [[1.0, 4.0]], 'missing': [1]}
    >>> kind.encode(facts, rows).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [nan, nan]]
    """

    kind = "vector"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    scale: Literal["standard", "none"] = field(
        default="standard", validator=in_(("standard", "none"))
    )

    def adapt(self, rows: Rows) -> Facts:
        """Give means and standard deviations by column and place (0 and 1 for "none"), and the
        count of missing cells.

        Raises DataError for a column without a vector, and for vectors of two lengths.
        """
        lengths = {column: _length(rows, column) for column in self.columns}
        found = [
            moments(_vectors(chunk, column, length) for chunk in rows.chunks([column]))
            for column, length in lengths.items()
        ]
        pairs = [self._scaling(each) for each in found]
        mean, std = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return {"mean": mean, "std": std, "missing": [int(each.missing[0]) for each in found]}

    def _scaling(self, found: Moments) -> tuple[list[float], list[float]]:
        if self.scale == "none":
            return [0.0] * len(found.mean), [1.0] * len(found.std)
        return found.mean.tolist(), found.std.tolist()

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, sum of the lengths]; NaN where a cell is missing, or a number of it is
        missing, infinite or past float32.
        """
        parts = [
            (_vectors(rows, column, len(mean)) - np.array(mean)) / np.array(std)
            for column, mean, std in zip(self.columns, facts["mean"], facts["std"], strict=True)
        ]
        limit, scaled = np.finfo(np.float32).max, np.concatenate(parts, axis=1)
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def absent(self, inputs: Tensor) -> Tensor:
        """Say which rows have no number: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every vector with a number that counts as missing though it is
        there.
        """
        for column in self.columns:
            for place, cell in enumerate(rows.cells(column)):
                numbers = np.zeros(0) if _is_missing(cell) else _numbers(rows, place, column, cell)
                if (np.abs(numbers) > FLOAT32).any():
                    told = "a number infinite or past float32, counts as missing"
                    yield place, f"'{column}' has {told}"

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, sum of the lengths + columns with missing cells]."""
        pairs = zip(facts["missing"], facts["mean"], strict=True)
        # Of a vector's numbers the first tells whether it is missing.
        return Fill(
            [place == 0 and count > 0 for count, mean in pairs for place in range(len(mean))]
        )


def _length(rows: Rows, column: str) -> int:
    for chunk in rows.chunks([column]):
        for place, cell in enumerate(chunk.cells(column)):
            if not _is_missing(cell):
                return len(_numbers(chunk, place, column, cell))
    raise DataError(f"{rows.name}: column '{column}' has no vector")


def _vectors(rows: Table, column: str, length: int) -> np.ndarray:
    values = np.full((len(rows), length), np.nan)
    for place, cell in enumerate(rows.cells(column)):
        if not _is_missing(cell):
            numbers = _numbers(rows, place, column, cell)
            if len(numbers) != length:
                where = rows.where(place, column)
                raise DataError(f"{where}: a vector of {len(numbers)} numbers, not {length}")
            values[place] = numbers
    return np.where(np.abs(values) <= FLOAT32, values, np.nan)


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in BLANK)


def _numbers(rows: Table, place: int, column: str, cell: Any) -> np.ndarray:
    values = _array(cell)
    if values is not None and values.ndim == 1 and len(values):
        return values
    told = f"{shown(cell)} is no list of numbers"
    if values is not None:
        told = f"a vector is a list of numbers, not {list(values.shape)}"
    raise DataError(f"{rows.where(place, column)}: {told}")


def _array(cell: Any) -> np.ndarray | None:
    parts = _PART.findall(cell.strip("[]() ")) if isinstance(cell, str) else cell
    try:
        values = array_of(list(parts) if is_list(parts) else parts)
    except (TypeError, ValueError, RuntimeError):  # lists of many lengths, tensors of no array
        return None
    if values.dtype.kind not in "biuf" and values.ndim == 1:
        found = [number(each) for each in parts]
        values = np.array(found, dtype=np.float64 if None not in found else object)
    with np.errstate(over="ignore"):  # of long doubles
        return values.astype(np.float64) if values.dtype.kind in "biuf" else None
