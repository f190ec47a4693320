"""No source of rows is read in part, or not at all, without a word."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from conftest import bits
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from toolz import pipe
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, TensorDataset

import mip
from mip.errors import DataError, MipError
from mip.pipe import collect
from mip.tree import leaves, map_tree

X, Y = torch.arange(10.0).view(5, 2), torch.arange(5.0).view(5, 1)


class Pairs(NamedTuple):
    x: object
    y: object


class Squares(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, row):
        return torch.tensor([float(row)]), torch.tensor([float(row**2)])


class Stream(IterableDataset):
    def __iter__(self):
        return iter([torch.ones(2)])


class Own:
    """Rows of the user's, with the two methods that a pipe needs."""

    def __len__(self):
        return 5

    def take(self, index):
        return torch.stack([X[row] for row in index.tolist()])


def array_of(leaf):
    return leaf.numpy()


SHAPES = {
    "one": X,
    "a tuple": (X, Y),
    "a dict": {"x": X, "y": Y},
    "a named tuple": Pairs(X, {"y": Y, "none": None}),
    "deep": ({"a": {"b": (X, X)}}, Y),
}


def read(source, rows=2):
    return list(pipe(source, mip.batch(rows)))


@pytest.mark.parametrize("source", SHAPES.values(), ids=SHAPES)
def test_arrays_are_read_as_tensors_are(source):
    batches = read(map_tree(array_of, source))
    assert len(batches) == 3
    assert [bits(batch) for batch in batches] == [bits(batch) for batch in read(source)]
    assert type(batches[0]) is type(read(source)[0])


NUMBERS = (*"bBhHiIlLefd?", "complex64")


@given(
    st.sampled_from(NUMBERS).flatmap(
        lambda kind: arrays.arrays(kind, arrays.array_shapes(min_dims=1, max_dims=3))
    )
)
def test_every_number_of_an_array_comes_through(array):
    assume(len(array))
    with np.errstate(over="ignore"):
        expected = array.astype("float32") if array.dtype == float else array
    assume(np.array_equal(np.isfinite(expected), np.isfinite(array)))
    values = torch.cat(read(array)).numpy()
    assert values.dtype == expected.dtype
    np.testing.assert_array_equal(values, expected)


LISTS = {
    "numbers": ([0, 1, 2], torch.arange(3)),
    "fractions": ([0.5, 1.5], torch.tensor([0.5, 1.5])),
    "truths": ([True, False], torch.tensor([True, False])),
    "rows of numbers": ([[1, 2], [3, 4]], torch.tensor([[1, 2], [3, 4]])),
    "tensors": ([*X], X),
    "arrays": ([*X.double().numpy()], X),
    "single tensors": ([torch.tensor(1), torch.tensor(2)], torch.tensor([1, 2])),
    "pairs": ([(X[k], k) for k in range(5)], (X, torch.arange(5))),
    "dicts": ([{"x": X[k], "y": 0.5} for k in range(5)], {"x": X, "y": torch.full((5,), 0.5)}),
    "columns in a tuple": (([1, 2], [0.5, 1.5]), (torch.tensor([1, 2]), torch.tensor([0.5, 1.5]))),
}


@pytest.mark.parametrize(("rows", "expected"), LISTS.values(), ids=LISTS)
def test_a_list_has_a_row_in_each_place(rows, expected):
    assert [bits(part) for part in read(rows)] == [bits(part) for part in read(expected)]


class Items:
    """Items of a stranger's, without a base class."""

    def __len__(self):
        return 5

    def __getitem__(self, row):
        return {"x": X[row], "label": row % 2}


DATASETS = {
    "a dataset": (Squares(), (X[:, :1] / 2, X[:, :1] ** 2 / 4)),
    "a part of one": (
        torch.utils.data.Subset(Squares(), range(5)),
        (X[:, :1] / 2, X[:, :1] ** 2 / 4),
    ),
    "two, joined": (ConcatDataset([Squares(), Squares()]), None),
    "tensors": (TensorDataset(X, Y), (X, Y)),
    "items": (Items(), {"x": X, "label": torch.tensor([0, 1, 0, 1, 0])}),
}


@pytest.mark.parametrize(("dataset", "rows"), DATASETS.values(), ids=DATASETS)
def test_a_dataset_is_collated_as_torch_does(dataset, rows):
    if rows is not None:
        kind = tuple if isinstance(rows, tuple) else dict
        as_given = [batch if kind is dict else tuple(batch) for batch in read(dataset)]
        assert [bits(batch) for batch in as_given] == [bits(batch) for batch in read(rows)]
    if isinstance(dataset, Dataset):
        loaded = DataLoader(dataset, batch_size=2)
        assert [bits(tuple(batch)) for batch in read(dataset)] == [bits(tuple(b)) for b in loaded]
    assert bits(collect(pipe(dataset, mip.batch(2)))) == bits(read(dataset, rows=len(dataset))[0])


def test_a_pipe_says_what_is_in_a_row():
    rows = pipe({"x": X, "y": [0, 1, 0, 1, 0]}, mip.batch(2))
    assert repr(rows).startswith("5 rows of {x: float32 [2], y: int64 []} | ")
    assert repr(pipe(Items(), mip.batch(2))).startswith("5 rows of DatasetRows(dataset=Items) | ")


def test_an_array_that_torch_cannot_share_is_copied():
    still = np.arange(5)
    still.flags.writeable = False
    assert torch.cat(read(still)).tolist() == [0, 1, 2, 3, 4]
    assert torch.cat(read(np.arange(5)[::-1])).tolist() == [4, 3, 2, 1, 0]
    assert still.flags.writeable is False


def test_what_has_the_two_verbs_is_read():
    assert bits(torch.cat(read(Own()))) == bits(X)
    frame = pd.DataFrame({"a": range(5), "b": 0.5}, index=[7, 7, 3, 1, 0])
    assert torch.cat(read(frame)).tolist() == [[k, 0.5] for k in range(5)]
    assert read({"a": frame["a"], "both": frame})[0]["a"].tolist() == [0, 1]
    assert [len(part) for part in read(mip.from_frame(frame))] == [2, 2, 1]


def test_a_table_in_a_dict_has_its_rows():
    batches = list(pipe({"rows": mip.from_columns({"a": range(5)})}, mip.batch(2)))
    assert [batch["rows"]["a"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]


WRONG = {
    "nothing in a list": ([], r"from list: a list holds a row in each place"),
    "a number in a dict": ({"x": X, "y": 0.5}, r"from float 0.5 at 'y': make a tensor"),
    "words": (
        {"x": X, "name": ["a"] * 5},
        r"from list at 'name': .*mip.from_columns makes a table",
    ),
    "columns in a list": ([X, Y], r"\[5, 2\] and, in row 1, \[5, 1\]; .* in a tuple, \(x, y\)"),
    "rows of many lengths": ([[1, 2], [3]], r"from list: a list holds a row in each place"),
    "rows of many parts": ([(1, 2), (3,)], r"from list: the parts of row 1 differ from row 0's"),
    "rows of many names": ([{"x": 1}, {"y": 1}], r"the parts of row 1 differ from row 0's"),
    "a row that is a number": ([(1, 2), 3], r"from list: the parts of row 1 differ from row 0's"),
    "a frame of words": (pd.DataFrame({"a": ["x"]}), r"from DataFrame: text .*mip.from_frame"),
    "a name": ("houses.csv", r"from str 'houses.csv': mip.read reads a table"),
    "an array of words": (np.array(["a", "b"]), r"ndarray <U1 \[2\]: text becomes .*from_columns"),
    "an array of objects": (np.array([None, {}]), r"ndarray object \[2\]"),
    "a foreign order of bytes": (np.zeros(2, ">f4"), r"ndarray >f4 \[2\]"),
    "one number": (torch.tensor(3.0), r"Tensor torch.float32 \[\]"),
    "an array of one number": (np.array(3.0), r"ndarray float64 \[\]"),
    "numbers too large": ({"x": [1.0, 1e39]}, r"source at 'x' has numbers too large for float32"),
    "a stream": (Stream(), r"from Stream: an iterable of batches can be passed to fit"),
    "a loader": (DataLoader(Squares()), r"from DataLoader: an iterable of batches"),
    "a generator": ((x for x in [X]), r"from generator: an iterable of batches"),
    "an Arrow table": (
        pa.table({"a": [1, 2]}),
        r"from Table: mip.from_frame\(table.to_pandas\(\)\)",
    ),
    "a function": (len, r"from builtin_function_or_method: pass a table, a Dataset, or tensors"),
    "nothing": (None, r"from NoneType: pass a table"),
    "no tensors": ((), r"contains no tensors: tuple"),
    "nothing within": ({"x": None, "y": {}}, r"contains no tensors: dict"),
    "a shorter target": ((X, Y[:4]), r"5 rows in '0' and 4 rows in '1'"),
    "a longer target": ((X, torch.ones(7)), r"5 rows in '0' and 7 rows in '1'"),
    "a table beside": ((mip.from_columns({"a": [1]}), X), r"1 rows in '0' and 5 rows in '1'"),
    "a dataset beside": ((Squares(), X[:4]), r"5 rows in '0' and 4 rows in '1'"),
}
STAGES = {
    "batch": mip.batch(2),
    "sample": mip.sample(shuffle=True),
    "transform": mip.transform(len),
    "subset": mip.pipe.stages.subset([0]),
    "shard": mip.pipe.shard(0, 1),
    "pipe": mip.pipe.Pipe,
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
@pytest.mark.parametrize(("source", "error"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_read_is_refused_when_the_pipe_is_made(source, error, stage):
    with pytest.raises(DataError, match=error) as caught:
        stage(source)
    assert "\n" not in str(caught.value)


def test_an_array_of_bytes_that_are_numbers_has_all_its_rows_in_a_training():
    net, opt = torch.nn.Linear(2, 1), mip.sgd(0.01)
    step = mip.train_step(net, torch.nn.functional.mse_loss, opt)
    state = mip.init(net, opt)
    ended = mip.fit(step, pipe((X.numpy(), Y.numpy()), mip.batch(2)), state, epochs=2)
    assert bits(ended) == bits(mip.fit(step, pipe((X, Y), mip.batch(2)), state, epochs=2))


def test_what_is_collected_is_whole():
    kept = collect(pipe((X, Y), mip.batch(2), mip.transform(lambda both: both[0].numpy())))
    assert bits(kept) == bits(X)
    named = pipe(X, mip.batch(2), mip.transform(lambda x: {"x": x, "name": ["a"] * len(x)}))
    with pytest.raises(DataError, match="from list at 'name'"):
        collect(named)
    with pytest.raises(DataError, match="the pipe has no batches: its source has no rows"):
        collect(pipe(X[:0], mip.batch(2)))


# What fit accepts.


def trained(batches, **limits):
    net, opt = torch.nn.Linear(2, 1), mip.sgd(0.01)
    step = mip.train_step(net, torch.nn.functional.mse_loss, opt)
    return mip.fit(step, batches, mip.init(net, opt), **(limits or {"epochs": 2}))


REFUSED = {
    "a dataset of tensors": (
        TensorDataset(X, Y),
        "TensorDataset is not an iterable of batches",
    ),
    "a dataset": (
        Squares(),
        "Squares is not an iterable of batches: batch rows with pipe",
    ),
    "a part of one": (
        torch.utils.data.Subset(Squares(), [1]),
        "Subset is not an iterable of batches",
    ),
    "a tensor": (X, "Tensor is not an iterable of batches"),
    "a table": (mip.from_columns({"a": [1]}), "Table is not an iterable of batches"),
    "a number": (3, "int is not an iterable of batches"),
    "a pair of tensors": ((X, Y), r"tuple is not an iterable of batches: .*pipe\(rows, mip.batch"),
    "tensors": ([X, X], r"a batch must be \(inputs, target\), not Tensor"),
    "dicts": (
        [{"x": X, "y": Y}],
        r"a batch must be \(inputs, target\), not a dict: make it one, "
        r'mip.transform\(lambda batch: \(batch\["x"\], batch\["y"\]\)\)',
    ),
    "no batches": ([], "the pipe yielded no batches"),
    "no rows": (pipe((X[:0], Y[:0]), mip.batch(2)), "the pipe has no batches"),
    "no whole batch": (pipe((X, Y), mip.batch(9, drop_last=True)), "the pipe has no batches"),
    "three parts": ([(X, Y, Y)], r"has 3 parts, and nobody reads the rest: .*\(inputs, \(target, "),
    "rows without a batch size": (mip.sample(shuffle=True)((X, Y)), r"add mip\.batch\(32\)"),
    "an exhausted generator": ((batch for batch in [(X, Y)]), "yields its batches once"),
}


@pytest.mark.parametrize(("batches", "error"), REFUSED.values(), ids=REFUSED)
def test_anything_but_an_iterable_of_batches_is_refused(batches, error):
    with pytest.raises(MipError, match=error):
        trained(batches)


def test_fewer_batches_than_steps_are_no_end():
    with pytest.raises(DataError, match="it must be iterable again"):
        trained(iter([(X, Y)] * 3), steps=5)


def test_scores_and_statistics_of_no_batches_are_refused():
    rows = mip.from_columns({"x": [1.0, 2.0], "y": [3.0, 4.0]})
    plan = mip.adapt(
        mip.parse(
            'branch.x = { kind = "continuous", columns = ["x"] }\n'
            'head = { kind = "regression", column = "y" }\n'
        ),
        rows,
    )
    net, opt, batch = mip.build(plan), mip.sgd(0.1), plan.encode(rows)
    step, once = mip.train_step(net, plan.loss, opt), iter([batch])
    with pytest.raises(DataError, match="no batches to validate on"):
        mip.fit(step, [batch], mip.init(net, opt), epochs=2, hooks=[mip.validate(plan, once)])
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(2))
    opt = mip.chain(mip.sgd(), mip.optim.ema(0.9))
    state = mip.init(net, opt)
    with pytest.raises(DataError, match="update_bn: there are no batches"):
        mip.train.update_bn(net, state, [])
    assert len(list(leaves(mip.train.update_bn(net, state, [(X, Y)]).buffers))) == 3
