"""The pipe: a recipe for batches that can start at any step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from attrs import field, frozen
from attrs.validators import gt, instance_of, optional
from torch import Tensor

from mip.data import Shards, Table
from mip.errors import DataError, add_note, list_first
from mip.pipe.nodes import Item, capture_error, run_threaded
from mip.pipe.samplers import CustomOrder, Sampler, WithoutReplacement
from mip.pipe.sources import as_source
from mip.tree import concat, count_rows, map_tree, shapes_text, slice_rows, taker

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode


class Stage(Protocol):
    """A stage of a pipe: something that is done with every batch."""

    def node(self, source: BaseNode[Item]) -> BaseNode[Item]:
        """Make the torchdata node of this stage, which reads from the node before it."""
        ...


@frozen
class Pipe:
    """A recipe: where rows come from, in which order, how many per batch, and what is done with
    them.

    A pipe is a value; nothing runs until it is iterated. What its source may be is said at
    `mip.pipe.sources.as_source`: a table, a Dataset, tensors, arrays, lists, and trees of these.

    Like a list, a pipe has a length and items: the batches of its first epoch. `epochs` yields
    those of several epochs, shuffled anew in each; `row` shows a row of the source.

    >>> from toolz import pipe; from mip.pipe import batch, sample, transform
    >>> batches = pipe(torch.arange(5), sample(), batch(2), transform(lambda rows: rows * 10))
    >>> [rows.tolist() for rows in batches]
    [[0, 10], [20, 30], [40]]
    >>> len(batches), batches[2], batches.row(2)
    (3, tensor([40]), tensor(2))
    >>> next(batches.iter_from(4))
    tensor([20, 30])
    """

    source: Any = field(converter=as_source)
    sampler: Sampler = WithoutReplacement()
    batch_size: int | None = field(default=None, validator=optional([instance_of(int), gt(0)]))
    drop_last: bool = False
    stages: tuple[Stage, ...] = ()
    ranks: int = field(default=1, validator=gt(0))
    rank: int = field(default=0)

    @rank.validator
    def _check_rank(self, _: Any, rank: int) -> None:
        if not 0 <= rank < self.ranks:
            raise ValueError(f"'rank' must be from 0 to {self.ranks - 1}: {rank}")

    @property
    def rows_per_batch(self) -> int:
        """The size of a batch: without a `batch_size` one row, which `fit` refuses."""
        return self.batch_size or 1

    @property
    def is_shuffled(self) -> bool:
        """Whether the rows are drawn at random, in another order than that of the source."""
        in_order = isinstance(self.sampler, CustomOrder) or (
            isinstance(self.sampler, WithoutReplacement) and not self.sampler.shuffle
        )
        return not in_order

    def __len__(self) -> int:
        return _count_batches(self, _epoch_size(self))

    def __iter__(self) -> Iterator[Any]:
        return self.epoch(0)

    def __getitem__(self, position: int) -> Any:
        """Make one batch of the first epoch; raise IndexError past its end."""
        index = range(len(self))[position]
        return next(iter(run_stages(self, iter_items(self, index, one_epoch=True))))

    def __repr__(self) -> str:
        source = self.source if isinstance(self.source, Subset) else _rows_text(self.source)
        last = ", drop_last=True" if self.drop_last else ""
        shard = [f"shard({self.rank}, {self.ranks})"] if self.ranks > 1 else []
        batch = [f"batch({self.batch_size}{last})"] if self.batch_size else []
        parts = [source, self.sampler, *batch, *shard, *self.stages]
        return " | ".join(map(str, parts))

    def row(self, position: int) -> Any:
        """Return one row of the source, as it is before any sampler or stage: tensors without the
        dimension of rows, or a dict of the cells of a table. Raises IndexError past the end.
        """
        index = range(count_rows(self.source))[position]
        rows = taker(self.source)(torch.tensor([index]))
        return rows[0] if isinstance(rows, Table) else map_tree(lambda leaf: leaf[0], rows)

    def epoch(self, number: int) -> Iterator[Any]:
        """Yield the batches of an epoch, counted from 0: a shuffling sampler has another order in
        every epoch, the same whenever it is asked again. Raises DataError if there are none.
        """
        return run_stages(self, iter_items(self, number * len(self), one_epoch=True))

    def epochs(self, stop: int, start: int = 0) -> Iterator[tuple[int, Iterator[Any]]]:
        """Yield the numbers of the epochs from `start` to before `stop`, with their batches.

        >>> from toolz import pipe; from mip.pipe import batch, sample
        >>> shuffled = pipe(torch.arange(4), sample(shuffle=True, seed=0), batch(2))
        >>> for epoch, batches in shuffled.epochs(2):
        ...     print(epoch, [rows.tolist() for rows in batches])
        0 [[0, 2], [1, 3]]
        1 [[3, 2], [1, 0]]
        """
        for number in range(start, stop):
            yield number, self.epoch(number)

    def rows_at(self, step: int) -> Tensor:
        """Return the numbers of the rows in the batch of a step, int64 [n], as the source numbers
        them. Raises DataError for shards, which are read in order.
        """
        if isinstance(self.source, Shards):
            raise DataError("rows_at: shards are read in order; the batches hold their row numbers")
        epoch, position = divmod(step, len(self))
        indices = self.sampler(count_rows(self.source), epoch)
        start = position * self.rows_per_batch
        return _row_numbers(self.source, indices[start : start + self.rows_per_batch])

    def iter_from(self, step: int) -> Iterator[Any]:
        """Yield the batch of a step and those after it, epoch after epoch, without an end.

        An error in a stage is raised at its batch, with a note that names the rows; the iterator
        never hangs and never ends early. Raises DataError at once for a sampler that does not fit
        the source.
        """
        return run_stages(self, iter_items(self, step))


@frozen(eq=False, repr=False)
class Subset:
    """Some rows of a source, a source itself. Only the rows of a batch are copied."""

    source: Any
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def __repr__(self) -> str:
        return f"{len(self)} of {_rows_text(self.source)}"

    @property
    def row_ids(self) -> Tensor:
        """The row numbers that the source has for these rows, int64 [n]."""
        return _row_numbers(self.source, self.indices)

    def take(self, index: Tensor) -> Any:
        """Gather rows by their index in the subset."""
        return taker(self.source)(self.indices[index])


def _rows_text(source: Any) -> str:
    """Describe a source by its rows: their number, and dtype and shape of what is in one."""
    n_rows = f"{count_rows(source)} rows"
    if isinstance(source, (Tensor, dict, tuple)):
        return f"{n_rows} of {shapes_text(source, rows=False)}"
    return f"{n_rows} of {source}"


def _row_numbers(source: Any, indices: Tensor) -> Tensor:
    # As numbered in the file, if the source knows: a table, or encoded rows.
    if isinstance(source, Shards):
        return source.row_ids_at(indices)
    numbers = getattr(source, "row_ids", getattr(source, "row", None))
    return indices if numbers is None else torch.as_tensor(numbers)[indices]


def run_stages(pipe: Pipe, items: Iterator[Item]) -> Iterator[Any]:
    """Run a pipe's stages over items, and iterate over the results."""
    # Without stages a node has nothing to do and costs 2% of gathering a small batch.
    return _results(_build_nodes(items, pipe.stages) if pipe.stages else items, pipe.source)


def _build_nodes(items: Iterator[Item], stages: tuple[Stage, ...]) -> BaseNode[Item]:
    from torchdata.nodes import IterableWrapper

    node: BaseNode[Item] = IterableWrapper(items)
    for stage in stages:
        node = stage.node(node)
    return node


def _results(items: Iterable[Item], source: Any) -> Iterator[Any]:
    for item in items:
        if item.error is not None:
            del items  # the error's traceback keeps this frame, which must not keep the threads
            raise _with_rows(item.error, item, source)
        yield item.result


def _with_rows(error: BaseException, item: Item, source: Any) -> BaseException:
    where = f"in epoch {item.epoch}"  # the sampler failed, or the rank has no row of the batch
    if len(item.indices):
        rows = list_first(_row_numbers(source, item.indices).tolist())
        where = f"in rows {rows} of epoch {item.epoch}"
    if isinstance(error, StopIteration):  # would end the iteration without a word
        return DataError(f"a stage raised StopIteration {where}")
    add_note(error, where)
    return error


def _epoch_size(pipe: Pipe) -> int:
    sampler = pipe.sampler
    in_order = isinstance(sampler, WithoutReplacement) and sampler.num_samples is None
    if isinstance(pipe.source, Shards) and not in_order:
        raise DataError(f"sample: shards are read in order or shuffled; {sampler} needs mip.read")
    return sampler.size(count_rows(pipe.source))


def _count_batches(pipe: Pipe, size: int) -> int:
    return size // pipe.rows_per_batch if pipe.drop_last else -(-size // pipe.rows_per_batch)


def _why_empty(pipe: Pipe, size: int) -> str:
    if not size:
        return "its source has no rows"
    return f"{size} rows are fewer than batch({pipe.rows_per_batch}, drop_last=True)"


def iter_items(pipe: Pipe, step: int = 0, one_epoch: bool = False) -> Iterator[Item]:
    """Iterate over the items of a pipe's batches from a step on: without an end, or to the end of
    that epoch. Raises DataError if it has no batches.
    """
    size = _epoch_size(pipe)
    n_batches = _count_batches(pipe, size)
    if not n_batches:
        raise DataError(f"the pipe has no batches: {_why_empty(pipe, size)}")
    first, done = divmod(step, n_batches)
    epochs = [first] if one_epoch else itertools.count(first)
    if isinstance(pipe.source, Shards):
        return _iter_shards(pipe, pipe.source, epochs, done * pipe.rows_per_batch)
    return _iter_memory(pipe, size, epochs, done * pipe.rows_per_batch)


def _iter_memory(pipe: Pipe, size: int, epochs: Iterable[int], skip: int) -> Iterator[Item]:
    gather = taker(pipe.source)
    n_rows = count_rows(pipe.source)
    stop = _count_batches(pipe, size) * pipe.rows_per_batch

    def draw(epoch: int) -> Tensor:
        indices = pipe.sampler(n_rows, epoch)
        if len(indices) != size:
            raise DataError(f"sample: expected an order of {size} indices, got {len(indices)}")
        return indices

    for epoch in epochs:
        drawn = capture_error(draw, epoch, epoch, torch.arange(0))
        if drawn.error is not None:
            yield drawn
            return
        for indices in _split(drawn.result[skip:stop], pipe.rows_per_batch):
            if pipe.ranks > 1:
                indices = indices.tensor_split(pipe.ranks)[pipe.rank]
            if pipe.stages:
                yield Item(epoch, indices, gather=gather)
            else:
                yield capture_error(gather, indices, epoch, indices)
        skip = 0


def _split(indices: Tensor, size: int) -> Iterator[Tensor]:
    # Many at once take half the time of one slice after another; all would take memory.
    chunks = indices.split(64 * size)
    return itertools.chain.from_iterable(chunk.split(size) for chunk in chunks)


def _iter_shards(pipe: Pipe, shards: Shards, epochs: Iterable[int], skip: int) -> Iterator[Item]:
    assert isinstance(pipe.sampler, WithoutReplacement)
    seed = pipe.sampler.seed if pipe.sampler.shuffle else None
    skips = itertools.chain([skip], itertools.repeat(0))
    windows = (
        Item(epoch, indices, gather=shards.take)
        for epoch, start in zip(epochs, skips, strict=False)
        for indices in shards.windows(epoch, seed, start)
    )
    # One window is read while another is in use; memory has to hold no more than these.
    return _rebatch(run_threaded(_read, windows, workers=1, ahead=1), pipe)


def _read(item: Item) -> Item:
    return capture_error(lambda _: item.value, None, item.epoch, item.indices)


def _rebatch(windows: Iterator[Item], pipe: Pipe) -> Iterator[Item]:
    # The rows left over from a window begin the first batch of the next, unless the epoch ends.
    rest: Item | None = None
    for window in windows:
        if rest and rest.epoch != window.epoch:
            if not pipe.drop_last:
                yield _take_rank(rest, pipe)
            rest = None
        if window.error is not None:
            yield window
            continue
        start = 0
        while start < len(window.indices):
            wanted = pipe.rows_per_batch - (len(rest.indices) if rest else 0)
            part = _slice(window, start, start + wanted)
            start += len(part.indices)
            rest = _concat(rest, part) if rest else part
            if len(rest.indices) == pipe.rows_per_batch:
                yield _take_rank(rest, pipe)
                rest = None
    if rest and not pipe.drop_last:
        yield _take_rank(rest, pipe)


def _slice(item: Item, start: int, stop: int) -> Item:
    indices = item.indices[start:stop]
    return Item(item.epoch, indices, slice_rows(item.result, start, start + len(indices)))


def _concat(a: Item, b: Item) -> Item:
    return Item(a.epoch, torch.cat([a.indices, b.indices]), concat([a.result, b.result]))


def _take_rank(item: Item, pipe: Pipe) -> Item:
    if pipe.ranks == 1:
        return item
    positions = torch.arange(len(item.indices)).tensor_split(pipe.ranks)[pipe.rank]
    start = int(positions[0]) if len(positions) else 0
    return _slice(item, start, start + len(positions))
