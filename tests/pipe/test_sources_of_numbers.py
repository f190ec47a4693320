"""Numbers as they come: dtypes of Datasets and frames, and what has no rows to take."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from toolz import pipe
from torch import nn
from torch.nn.functional import mse_loss
from torch.utils.data import Dataset

import mip
from mip.errors import DataError


class Rows(Dataset):
    def __init__(self, row):
        self.row = row

    def __len__(self):
        return 6

    def __getitem__(self, position):
        return self.row


ITEMS = {
    "arrays": (np.zeros(3), np.float64(1.0)),
    "numbers": (np.zeros(3), 1.0),
    "a dict": {"x": np.zeros(3), "y": (1.0, np.ones(2))},
    "lists": ([1.0, 2.0], [np.ones(2)]),
}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS)
def test_float64_of_a_dataset_is_that_of_an_array(item):
    batch = next(iter(pipe(Rows(item), mip.batch(2))))
    dtypes = [leaf.dtype for _, leaf in mip.tree.leaves(batch)]
    assert set(dtypes) == {torch.float32}


def test_tensors_integers_and_texts_of_a_dataset_stay_as_they_are():
    item = (torch.zeros(2, dtype=torch.float64), 3, "a", np.float32(1.0), np.zeros(1, np.int16))
    batch = next(iter(pipe(Rows(item), mip.batch(2))))
    assert batch[2] == ("a", "a")
    dtypes = [leaf.dtype for _, leaf in mip.tree.leaves(batch)]
    assert dtypes == [torch.float64, torch.int64, torch.float32, torch.int16]


def test_a_dataset_of_numpy_trains():
    step = mip.train_step(nn.Linear(3, 1), mse_loss, mip.sgd())
    rows = pipe(Rows((np.zeros(3), 1.0)), mip.batch(3))
    assert mip.fit(step, rows, step.init(), epochs=1).step == 2


def test_a_frame_of_integers_floats_and_bools_is_one_tensor():
    frame = pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5], "c": [True, False]})
    batch = pipe(frame, mip.batch(2))[0]
    assert batch.dtype == torch.float32
    assert batch.tolist() == [[1.0, 0.5, 1.0], [2.0, 1.5, 0.0]]
    assert pipe(frame[["c"]], mip.batch(2))[0].dtype == torch.bool


LABELS = ["a", "b", "a"]


@pytest.mark.parametrize(
    ("source", "cure"),
    [
        (np.array(LABELS), "factorize"),
        (pd.Series(LABELS), "factorize"),
        (LABELS, "factorize"),
        (pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]}), "factorize"),
        (torch.eye(3).to_sparse(), r"x\.to_dense\(\)"),
    ],
)
def test_what_has_no_rows_of_numbers_is_refused_with_a_cure(source, cure):
    with pytest.raises(DataError, match=cure):
        pipe((source, torch.zeros(3)), mip.batch(2))


def test_a_sparse_matrix_of_scipy_is_refused_with_the_cure():
    sparse = pytest.importorskip("scipy.sparse")
    for matrix in (sparse.csr_matrix(np.eye(3)), sparse.coo_array(np.eye(3))):
        with pytest.raises(DataError, match=r"x\.toarray\(\)"):
            pipe(matrix, mip.batch(2))


def test_a_dataset_without_a_length_is_refused():
    class Endless(Dataset):
        def __getitem__(self, position):
            return torch.zeros(1)

    with pytest.raises(DataError, match="needs the method __len__"):
        pipe(Endless(), mip.batch(2))
