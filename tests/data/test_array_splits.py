"""Splits of arrays, tensors and Datasets: the rows of a table's split, in the kind that came."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import Dataset, Subset, TensorDataset

import mip

N = 30
X = torch.arange(N)
Y = torch.arange(N) % 3
TABLE = mip.from_columns({"x": range(N), "y": Y.tolist()})


class Pair(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def numbers(part):
    """The rows of a part, by the numbers that stand in them."""
    if isinstance(part, Subset):
        return [int(part[k][0]) for k in range(len(part))]
    first = next(iter(part.values())) if isinstance(part, dict) else part
    return [int(k) for k in (first[0] if isinstance(first, tuple) else first)]


ROWS = {
    "an array": X.numpy(),
    "a tensor": X,
    "a tuple": (X, Y.numpy(), Y.tolist(), pd.Series(Y.numpy())),
    "a named tuple": Pair(X, Y),
    "a dict": {"x": X, "y": Y.numpy()},
    "a nested one": {"inputs": (X, {"a": Y}), "target": Y},
    "a Dataset": TensorDataset(X, Y),
}


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("column", [None, "stratify", "group", "time", "key"])
def test_arrays_are_split_as_a_table_is(rows, column):
    by = {column: Y} if column else {}
    parts = mip.split(rows, (0.5, 0.3, 0.2), 1, **by)
    tables = mip.split(TABLE, (0.5, 0.3, 0.2), 1, **dict.fromkeys(by, "y"))
    assert [numbers(part) for part in parts] == [part.row_ids.tolist() for part in tables]
    kind = Subset if isinstance(rows, Dataset) else type(rows)
    assert all(type(part) is kind for part in parts)


def test_the_parts_of_a_tuple_keep_their_kinds_and_belong_together():
    (x, y), _ = mip.split((X.numpy(), Y), (0.8, 0.2))
    assert (type(x), type(y)) == (np.ndarray, torch.Tensor)
    assert (torch.from_numpy(x) % 3).equal(y)


def test_an_array_of_names_says_the_parts():
    names = np.array(["train", "val", "test"])[Y]
    parts = mip.split((X, Y), column=names)
    assert [set(y.tolist()) for _, y in parts] == [{0}, {1}, {2}]


def test_a_dataset_is_split_by_the_names_of_its_columns_too():
    class Named(Dataset):
        def __len__(self):
            return N

        def __getitem__(self, k):
            return {"x": k, "y": int(Y[k])}

    train, valid = mip.split(Named(), (0.5, 0.5), stratify="y")
    counts = [np.bincount([row["y"] for row in part]).tolist() for part in (train, valid)]
    assert counts == [[5, 5, 5], [5, 5, 5]]
