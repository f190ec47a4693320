"""The pipe: a recipe for batches that can start at any step."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

import torch
from attrs import field, frozen
from attrs.validators import gt
from torch import Tensor

from mip.data import Shards
from mip.errors import DataError
from mip.pipe.nodes import Item, capture_error, run_threaded
from mip.pipe.samplers import Sampler, WithoutReplacement
from mip.pipe.sources import as_source
from mip.tree import concat, count_rows, slice_rows, taker

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

    A pipe is a value; nothing runs until it is iterated. `iter(pipe)` yields the first epoch. The
    source is a table, or a tree of tensors or numpy arrays of one length; others raise DataError.

    >>> from toolz import pipe; from mip.pipe import batch, sample, transform
    >>> batches = pipe(torch.arange(5), sample(), batch(2), transform(lambda rows: rows * 10))
    >>> [rows.tolist() for rows in batches]
    [[0, 10], [20, 30], [40]]
    >>> next(batches.iter_from(4))
    tensor([20, 30])
    """

    source: Any = field(converter=as_source)
    sampler: Sampler = WithoutReplacement()
    batch_size: int = field(default=1, validator=gt(0))
    drop_last: bool = False
    stages: tuple[Stage, ...] = ()
    ranks: int = field(default=1, validator=gt(0))
    rank: int = field(default=0)

    @rank.validator
    def _check_rank(self, _: Any, rank: int) -> None:
        if not 0 <= rank < self.ranks:
            raise ValueError(f"'rank' must be from 0 to {self.ranks - 1}: {rank}")

    def __len__(self) -> int:
        return _count_batches(self, _epoch_size(self))

    def __iter__(self) -> Iterator[Any]:
        return run_stages(self, iter_items(self, one_epoch=True))

    def __repr__(self) -> str:
        source = self.source if isinstance(self.source, Subset) else _count_text(self.source)
        last = ", drop_last=True" if self.drop_last else ""
        shard = [f"shard({self.rank}, {self.ranks})"] if self.ranks > 1 else []
        parts = [source, self.sampler, f"batch({self.batch_size}{last})", *shard, *self.stages]
        return " | ".join(map(str, parts))

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
        return f"{len(self)} of {_count_text(self.source)}"

    @property
    def row_ids(self) -> Tensor:
        """The row numbers that the source has for these rows, int64 [n]."""
        return _row_numbers(self.source, self.indices)

    def take(self, index: Tensor) -> Any:
        """Gather rows by their index in the subset."""
        return taker(self.source)(self.indices[index])


def _count_text(source: Any) -> str:
    return f"{count_rows(source)} rows"


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
        rows = ", ".join(map(str, _row_numbers(source, item.indices[:8]).tolist()))
        more = ", …" if len(item.indices) > 8 else ""
        where = f"in rows {rows}{more} of epoch {item.epoch}"
    if isinstance(error, StopIteration):  # would end the iteration without a word
        return DataError(f"a stage raised StopIteration {where}")
    error.add_note(where)
    return error


def _epoch_size(pipe: Pipe) -> int:
    sampler = pipe.sampler
    in_order = isinstance(sampler, WithoutReplacement) and sampler.num_samples is None
    if isinstance(pipe.source, Shards) and not in_order:
        raise DataError(f"sample: shards are read in order or shuffled; {sampler} needs mip.read")
    return sampler.size(count_rows(pipe.source))


def _count_batches(pipe: Pipe, size: int) -> int:
    return size // pipe.batch_size if pipe.drop_last else -(-size // pipe.batch_size)


def iter_items(pipe: Pipe, step: int = 0, one_epoch: bool = False) -> Iterator[Item]:
    """Iterate over the items of a pipe's batches from a step on: without an end, or to the end of
    that epoch.
    """
    size = _epoch_size(pipe)
    n_batches = _count_batches(pipe, size)
    if not n_batches:
        return iter(())
    first, done = divmod(step, n_batches)
    epochs = [first] if one_epoch else itertools.count(first)
    if isinstance(pipe.source, Shards):
        return _iter_shards(pipe, pipe.source, epochs, done * pipe.batch_size)
    return _iter_memory(pipe, size, epochs, done * pipe.batch_size)


def _iter_memory(pipe: Pipe, size: int, epochs: Iterable[int], skip: int) -> Iterator[Item]:
    gather = taker(pipe.source)
    n_rows = count_rows(pipe.source)
    stop = _count_batches(pipe, size) * pipe.batch_size

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
        for indices in _split(drawn.result[skip:stop], pipe.batch_size):
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
            wanted = pipe.batch_size - (len(rest.indices) if rest else 0)
            part = _slice(window, start, start + wanted)
            start += len(part.indices)
            rest = _concat(rest, part) if rest else part
            if len(rest.indices) == pipe.batch_size:
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
