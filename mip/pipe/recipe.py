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
from mip.pipe.nodes import Work, capture_error, run_threaded
from mip.pipe.samplers import Each, Order
from mip.pipe.sources import source_of
from mip.tree import concat, count_rows, slice_rows, taker

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode


class Stage(Protocol):
    """A stretch of a pipe: puts a node of torchdata behind the one before it."""

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        ...


@frozen
class Pipe:
    """A recipe: where rows come from, in which order, how many at once, and what is done.

    A pipe is a value; nothing runs until it is iterated. `iter(pipe)` yields the first epoch. The
    source is a table, or a tree of tensors or numpy arrays of one length; others raise DataError.

    >>> from toolz import pipe; from mip.pipe import batch, sample, transform
    >>> batches = pipe(torch.arange(5), sample(), batch(2), transform(lambda rows: rows * 10))
    >>> [rows.tolist() for rows in batches]
    [[0, 10], [20, 30], [40]]
    >>> next(batches.iter_from(4))
    tensor([20, 30])
    """

    source: Any = field(converter=source_of)
    order: Order = Each()
    batch_size: int = field(default=1, validator=gt(0))
    drop_last: bool = False
    stages: tuple[Stage, ...] = ()
    ranks: int = field(default=1, validator=gt(0))
    rank: int = field(default=0)

    @rank.validator
    def _is_one_of_the_ranks(self, _: Any, rank: int) -> None:
        if not 0 <= rank < self.ranks:
            raise ValueError(f"'rank' must be from 0 to {self.ranks - 1}: {rank}")

    def __len__(self) -> int:
        return _batches(self, _size(self))

    def __iter__(self) -> Iterator[Any]:
        return run_works(self, works_of(self, once=True))

    def __repr__(self) -> str:
        source = (
            self.source if isinstance(self.source, Subset) else f"{count_rows(self.source)} rows"
        )
        rows = f"batch({self.batch_size}{', drop_last=True' if self.drop_last else ''})"
        shared = [f"shard({self.rank}, {self.ranks})"] if self.ranks > 1 else []
        return " | ".join(map(str, [source, self.order, rows, *shared, *self.stages]))

    def iter_from(self, step: int) -> Iterator[Any]:
        """Stand before a step: give its batch, then those after it, epoch after epoch.

        An error in a stage is raised here, with the rows it happened in as a note; the
        stream never hangs and never ends early. Raises DataError at once for an order that
        does not fit the rows.
        """
        return run_works(self, works_of(self, step))


@frozen(eq=False, repr=False)
class Subset:
    """Some rows of a source, itself a source: nothing is copied but a batch at a time."""

    source: Any
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"{len(self)} of {count_rows(self.source)} rows"

    @property
    def rows(self) -> Tensor:
        """The numbers of the rows, int64 [n], as the source has them."""
        return _numbers(self.source, self.places)

    def take(self, index: Tensor) -> Any:
        """Gather rows by their place in the subset."""
        return taker(self.source)(self.places[index])


def run_works(pipe: Pipe, works: Iterator[Work]) -> Iterator[Any]:
    """Run a pipe's stages over its items, and give the batches."""
    # Without stages a node has nothing to do and costs 2% of gathering a small batch.
    return _values(_laid_out(works, pipe.stages) if pipe.stages else works, pipe.source)


def _laid_out(works: Iterator[Work], stages: tuple[Stage, ...]) -> BaseNode[Work]:
    from torchdata.nodes import IterableWrapper

    node: BaseNode[Work] = IterableWrapper(works)
    for stage in stages:
        node = stage.node(node)
    return node


def _values(works: Iterator[Work], source: Any) -> Iterator[Any]:
    for work in works:
        if work.error is not None:
            del works  # the error's traceback keeps this frame, which must not keep the threads
            raise _explained(work, source)
        yield work.made


def _explained(work: Work, source: Any) -> BaseException:
    note = _where(work, source)
    if isinstance(work.error, StopIteration):
        return DataError(f"a stage raised StopIteration {note}")
    assert work.error is not None
    work.error.add_note(note)
    return work.error


def _where(work: Work, source: Any) -> str:
    if not len(work.places):  # the order itself failed, or a rank has no row of the batch
        return f"in epoch {work.epoch}"
    rows = ", ".join(map(str, _numbers(source, work.places[:8]).tolist()))
    return f"in rows {rows}{', …' * (len(work.places) > 8)} of epoch {work.epoch}"


def _numbers(source: Any, places: Tensor) -> Tensor:
    # Rows are named as in the file where the source knows: a table, or encoded rows.
    if isinstance(source, Shards):
        return source.row_numbers(places)
    return getattr(source, "rows", getattr(source, "row", torch.arange(count_rows(source))))[places]


def _size(pipe: Pipe) -> int:
    order = pipe.order
    if isinstance(pipe.source, Shards) and (
        not isinstance(order, Each) or order.num_samples is not None
    ):
        raise DataError(f"sample: shards are read in order or shuffled; {order} needs mip.read")
    return order.size(count_rows(pipe.source))


def _batches(pipe: Pipe, size: int) -> int:
    return size // pipe.batch_size if pipe.drop_last else -(-size // pipe.batch_size)


def works_of(pipe: Pipe, step: int = 0, once: bool = False) -> Iterator[Work]:
    """List a pipe's batches from a step on, for ever, or to the end of that epoch."""
    # The batches' rows from a step on, for ever, or to the end of its epoch.
    batches = _batches(pipe, _size(pipe))
    if not batches:
        return iter(())
    first, done = divmod(step, batches)
    epochs = [first] if once else itertools.count(first)
    if isinstance(pipe.source, Shards):
        return _streamed(pipe, pipe.source, epochs, done * pipe.batch_size)
    return _gathered(pipe, epochs, done * pipe.batch_size)


def _gathered(pipe: Pipe, epochs: Iterable[int], skip: int) -> Iterator[Work]:
    rows, size, gather = pipe.batch_size, _size(pipe), taker(pipe.source)
    for epoch in epochs:
        order = capture_error(lambda now: _ordered(pipe, now, size), epoch, epoch, torch.arange(0))
        if order.error is not None:
            yield order
            return
        for places in _split(order.made[skip : _batches(pipe, size) * rows], rows):
            if pipe.ranks > 1:
                places = places.tensor_split(pipe.ranks)[pipe.rank]
            if pipe.stages:
                yield Work(epoch, places, gather=gather)
            else:
                yield capture_error(gather, places, epoch, places)
        skip = 0


def _split(places: Tensor, rows: int) -> Iterator[Tensor]:
    # Many at once take half the time of one slice after another; all would take memory.
    stretches = places.split(64 * rows)
    return itertools.chain.from_iterable(stretch.split(rows) for stretch in stretches)


def _streamed(pipe: Pipe, shards: Shards, epochs: Iterable[int], skip: int) -> Iterator[Work]:
    order = pipe.order
    assert isinstance(order, Each)
    seed = order.seed if order.shuffle else None
    skips = itertools.chain([skip], itertools.repeat(0))
    windows = (
        Work(epoch, places, gather=shards.take)
        for epoch, begin in zip(epochs, skips, strict=False)
        for places in shards.windows(epoch, seed, begin)
    )
    # One window is read while another is in use, which is all that memory must hold.
    return _cut(run_threaded(_read, windows, workers=1, ahead=1), pipe)


def _read(work: Work) -> Work:
    return capture_error(lambda _: work.value, None, work.epoch, work.places)


def _cut(windows: Iterator[Work], pipe: Pipe) -> Iterator[Work]:
    # What is left of a window begins the next one's first batch, unless the epoch ends.
    held: Work | None = None
    for work in windows:
        if held and held.epoch != work.epoch:
            yield from [] if pipe.drop_last else [_share(held, pipe)]
            held = None
        begin = 0
        while begin < len(work.places) and work.error is None:
            part = _part(work, begin, begin + pipe.batch_size - (len(held.places) if held else 0))
            begin += len(part.places)
            held = _joined(held, part) if held else part
            if len(held.places) == pipe.batch_size:
                yield _share(held, pipe)
                held = None
        if work.error is not None:
            yield work
    if held and not pipe.drop_last:
        yield _share(held, pipe)


def _part(work: Work, begin: int, end: int) -> Work:
    places = work.places[begin:end]
    return Work(work.epoch, places, slice_rows(work.made, begin, begin + len(places)))


def _joined(a: Work, b: Work) -> Work:
    return Work(a.epoch, torch.cat([a.places, b.places]), concat([a.made, b.made]))


def _share(work: Work, pipe: Pipe) -> Work:
    if pipe.ranks == 1:
        return work
    own = torch.arange(len(work.places)).tensor_split(pipe.ranks)[pipe.rank]
    begin = int(own[0]) if len(own) else 0
    return _part(work, begin, begin + len(own))


def _ordered(pipe: Pipe, epoch: int, size: int) -> Tensor:
    places = pipe.order(count_rows(pipe.source), epoch)
    if len(places) != size:
        raise DataError(f"sample: the order has {len(places)} places and not {size}")
    return places
