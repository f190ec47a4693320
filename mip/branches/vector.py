"""Vectors computed elsewhere: embeddings, measurements, any list of numbers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from torch import Tensor, nn

from mip.branches.protocol import Facts, column_names, dropout_field, layers_field, with_layers
from mip.data import (
    BLANKS,
    FLOAT32_MAX,
    ColumnFormat,
    Rows,
    Table,
    as_array,
    is_list,
    moments,
)
from mip.errors import DataError, quote
from mip.fields import MinLength, choice
from mip.nn import Activation, BatchNorm, FillMissing, Function

_NUMBER = re.compile(r"[^\s,;]+")


@frozen
class Vector:
    """Lists of numbers, of one length in each column, each position standardized unless the scale
    is "none".

    A cell is a list, an array, or text such as "[0.5, 2]" or "0.5 2", or with whatever stands
    between the numbers by the format of the column (`sep`). Missing cells (empty, or "NA"
    and the like) are filled and flagged. `layers` follow as in a fusion.

    >>> from mip.data import from_columns
    >>> table = from_columns({"embedding": [[1.0, 4.0], "[3, 4]", None]})
    >>> branch = Vector(["embedding"]); facts = branch.adapt(table)
    >>> facts
    {'mean': [[2.0, 4.0]], 'std': [[1.0, 4.0]], 'missing': [1]}
    >>> branch.encode(facts, table).tolist()
    [[-1.0, 0.0], [1.0, 0.0], [nan, nan]]
    """

    kind = "vector"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    scale: Literal["standard", "none"] = choice("standard")
    layers: tuple[int | Function, ...] = layers_field()
    activation: Activation = choice("relu", kw_only=True)
    batch_norm: BatchNorm = choice("none", kw_only=True)
    dropout: float = dropout_field()

    def adapt(self, table: Rows) -> Facts:
        """Return the means and standard deviations of each column by position (0 and 1 for "none"),
        and the number of missing cells.

        Raises DataError for a column without a vector, and for vectors of different lengths.
        """
        facts: Facts = {"mean": [], "std": [], "missing": []}
        lengths = [_length(table, column) for column in self.columns]
        for column, length in zip(self.columns, lengths, strict=True):
            stats = moments(_vectors(part, column, length) for part in table.chunks([column]))
            standard = self.scale == "standard"
            facts["mean"].append(stats.mean.tolist() if standard else [0.0] * length)
            facts["std"].append(stats.scale.tolist() if standard else [1.0] * length)
            facts["missing"].append(int(stats.missing[0]))
        return facts

    def encode(self, facts: Facts, table: Table) -> Tensor:
        """Return float32 [n, sum of the lengths]; NaN if a cell is missing, or for a number of it
        that is missing, infinite or beyond float32.
        """
        parts = [
            (_vectors(table, column, len(mean)) - np.array(mean)) / np.array(std)
            for column, mean, std in zip(self.columns, facts["mean"], facts["std"], strict=True)
        ]
        limit, scaled = np.finfo(np.float32).max, np.concatenate(parts, axis=1)
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def absent(self, inputs: Tensor) -> Tensor:
        """Mark the rows without any number: bool [n]."""
        return inputs.isnan().flatten(1).all(dim=1)

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for each vector with a number that counts as missing."""
        for column in self.columns:
            for row, cell in enumerate(table.cells(column)):
                numbers = np.zeros(0) if _is_missing(cell) else _numbers(table, row, column, cell)
                if (np.abs(numbers) > FLOAT32_MAX).any():
                    text = "a number infinite or beyond float32, treated as missing"
                    yield row, f"'{column}' has {text}"

    def module(self, facts: Facts) -> nn.Module:
        """Build a module to float32 [n, sum of the lengths + columns with missing cells]; with
        `layers` to [n, the last of them].
        """
        # The first number of a vector is enough to flag it as missing.
        pairs = zip(facts["missing"], facts["mean"], strict=True)
        flagged = [k == 0 and count > 0 for count, mean in pairs for k in range(len(mean))]
        return with_layers(FillMissing(flagged), self)


def _length(table: Rows, column: str) -> int:
    for chunk in table.chunks([column]):
        for row, cell in enumerate(chunk.cells(column)):
            if not _is_missing(cell):
                return len(_numbers(chunk, row, column, cell))
    raise DataError(f"{table.name}: column '{column}' has no vector")


def _vectors(table: Table, column: str, length: int) -> np.ndarray:
    values = np.full((len(table), length), np.nan)
    for row, cell in enumerate(table.cells(column)):
        if not _is_missing(cell):
            numbers = _numbers(table, row, column, cell)
            if len(numbers) != length:
                where = table.cell_name(row, column)
                raise DataError(f"{where}: a vector of {len(numbers)} numbers, not {length}")
            values[row] = numbers
    return np.where(np.abs(values) <= FLOAT32_MAX, values, np.nan)


def _is_missing(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in BLANKS)


def _numbers(table: Table, row: int, column: str, cell: Any) -> np.ndarray:
    values = _array(cell, table.formats.get(column, ColumnFormat()))
    if values is not None and values.ndim == 1 and len(values):
        return values
    text = f"{quote(cell)} is not a list of numbers"
    if values is not None:
        text = f"a vector is a list of numbers, not {list(values.shape)}"
    raise DataError(f"{table.cell_name(row, column)}: {text}")


def _array(cell: Any, form: ColumnFormat) -> np.ndarray | None:
    parts = _NUMBER.findall(cell.strip("[]() ")) if isinstance(cell, str) else cell
    try:
        values = as_array(list(parts) if is_list(parts) else parts)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, tensors without an array
        return None
    if values.dtype.kind not in "biuf" and values.ndim == 1:
        numbers = [form.parse_number(part) for part in parts]
        values = np.array(numbers, dtype=np.float64 if None not in numbers else object)
    with np.errstate(over="ignore"):  # of long doubles
        return values.astype(np.float64) if values.dtype.kind in "biuf" else None
