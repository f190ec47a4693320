"""The pipe: a recipe for batches that can stand before any step, on torchdata's nodes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from mip.errors import DataError
from mip.rng import derive, generator
from mip.tree import Tree, concat, map_tree, size, taker

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode


class Work(NamedTuple):
    """What travels through the nodes: an epoch, places of rows, a value, or an error."""

    epoch: int
    places: Tensor
    value: Any = None
    error: BaseException | None = None


class Stage(Protocol):
    """A stretch of a pipe: puts a node of torchdata behind the one before it."""

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        ...


@frozen
class Order:
    """In which order the rows of an epoch come: a function of (seed, epoch)."""

    shuffle: bool = False
    seed: int = 0

    def __call__(self, rows: int, epoch: int) -> Tensor:
        """Give the places of all rows, int64 [rows]."""
        if not self.shuffle:
            return torch.arange(rows)
        return torch.randperm(rows, generator=generator("shuffle", self.seed, epoch))


@frozen
class Pipe:
    """A recipe: where rows come from, in which order, how many at once, and what is done.

    It is a value; nothing runs until `at` lays it out. Iterating gives the first epoch.

    >>> from toolz import pipe
    >>> batches = pipe(torch.arange(5), sample(), batch(2), transform(lambda rows: rows * 10))
    >>> [rows.tolist() for rows in batches]
    [[0, 10], [20, 30], [40]]
    >>> next(batches.at(4))
    tensor([20, 30])
    """

    source: Any
    order: Order = Order()
    rows: int = field(default=1, validator=gt(0))
    tail: bool = True
    stages: tuple[Stage, ...] = ()

    def __len__(self) -> int:
        total = count(self.source)
        return -(-total // self.rows) if self.tail else total // self.rows

    def __iter__(self) -> Iterator[Any]:
        return _running(self, itertools.islice(_gathered(self, 0), len(self)))

    def __repr__(self) -> str:
        steps = [f"{count(self.source)} rows", str(self.order), f"batch({self.rows})"]
        return " | ".join([*steps, *map(str, self.stages)])

    def at(self, step: int) -> Iterator[Any]:
        """Stand before a step: give its batch, then those after it, epoch after epoch.

        An error in a stage is raised here, with the rows it happened in as a note; the
        stream never hangs and never ends early.
        """
        return _running(self, _gathered(self, step))


def count(source: Any) -> int:
    """Count the rows of a table or of a tree of tensors."""
    return (
        len(source) if hasattr(source, "take") and not isinstance(source, Tensor) else size(source)
    )


def _gatherer(source: Any) -> Callable[[Tensor], Any]:
    tensors = isinstance(source, Tensor) or not hasattr(source, "take")
    return taker(source) if tensors else source.take


def _running(pipe: Pipe, works: Iterator[Work]) -> Iterator[Any]:
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
        yield work.value


def _explained(work: Work, source: Any) -> BaseException:
    numbers = _numbers(source)[work.places]
    rows = ", ".join(map(str, numbers[:8].tolist())) + (", …" if len(numbers) > 8 else "")
    note = f"in rows {rows} of epoch {work.epoch}"
    if isinstance(work.error, StopIteration):
        return DataError(f"a stage raised StopIteration {note}")
    assert work.error is not None
    work.error.add_note(note)
    return work.error


def _numbers(source: Any) -> Tensor:
    # Rows are named as in the file where the source knows: a table, or encoded rows.
    return getattr(source, "rows", getattr(source, "row", torch.arange(count(source))))


def _gathered(pipe: Pipe, step: int) -> Iterator[Work]:
    rows, batches, gather = pipe.rows, len(pipe), _gatherer(pipe.source)
    if not batches:
        return
    first, done = divmod(step, batches)
    for epoch in itertools.count(first):
        order = pipe.order(count(pipe.source), epoch)
        for begin in range(done * rows, batches * rows, rows):
            places = order[begin : begin + rows]
            yield _tried(gather, places, epoch, places)
        done = 0


def _tried(function: Callable[[Any], Any], argument: Any, epoch: int, places: Tensor) -> Work:
    # Errors travel as values: torchdata's threads would lose some of them, or wait for ever.
    try:
        return Work(epoch, places, function(argument))
    except BaseException as error:  # an exit too: a thread that ends here would hang the rest
        return Work(epoch, places, error=error)


def _mapped(
    source: BaseNode[Work], function: Callable[[Work], Any], workers: int
) -> BaseNode[Work]:
    from torchdata.nodes import IterableWrapper, ParallelMapper

    def run(work: Work) -> Work:
        if work.error is not None:
            return work
        return _tried(function, work, work.epoch, work.places)

    if not workers:
        # A mapper of torchdata without workers makes four calls a batch, this makes one.
        return IterableWrapper(map(run, source))
    # torchdata's threads set torch's thread count to 1; asking first keeps ours.
    torch.get_num_threads()
    return ParallelMapper(source, run, num_workers=workers, method="thread")


@frozen
class Transform:
    """Apply a function to every batch, in threads if asked."""

    function: Callable[[Any], Any]
    workers: int = field(default=0, validator=ge(0))

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        return _mapped(source, lambda work: self.function(work.value), self.workers)


@frozen
class Augmented:
    """Apply a function of a batch and the epoch's key."""

    function: Callable[[Any, int], Any]
    seed: int = 0
    workers: int = field(default=0, validator=ge(0))

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""

        def run(work: Work) -> Any:
            return self.function(work.value, derive("augment", self.seed, work.epoch))

        return _mapped(source, run, self.workers)


@frozen
class Prefetch:
    """Prepare batches ahead, in a thread of their own."""

    batches: int = field(validator=gt(0))

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        from torchdata.nodes import Prefetcher

        return Prefetcher(source, self.batches)


def _pipe(source: Any) -> Pipe:
    return source if isinstance(source, Pipe) else Pipe(source)


def _staged(stage: Stage) -> Callable[[Any], Pipe]:
    def put(source: Any) -> Pipe:
        pipe = _pipe(source)
        return evolve(pipe, stages=(*pipe.stages, stage))

    return put


def sample(shuffle: bool = False, seed: int = 0) -> Callable[[Any], Pipe]:
    """Choose the order of rows: as they stand, or shuffled anew each epoch from (seed, epoch)."""
    return lambda source: evolve(_pipe(source), order=Order(shuffle, seed))


def batch(rows: int, tail: bool = True) -> Callable[[Any], Pipe]:
    """Choose how many rows a batch has, and whether a shorter last one counts."""
    return lambda source: evolve(_pipe(source), rows=rows, tail=tail)


def transform(function: Callable[[Any], Any], workers: int = 0) -> Callable[[Any], Pipe]:
    """Apply a function to every batch; with workers, in as many threads, order kept."""
    return _staged(Transform(function, workers))


def augment(
    function: Callable[[Any, int], Any], seed: int = 0, workers: int = 0
) -> Callable[[Any], Pipe]:
    """Apply `function(batch, key)`, where the key is derived from (seed, epoch).

    With `plan.augment`, a row's draws come from (seed, epoch, row) alone, so that neither the
    batch size nor the workers change them.
    """
    return _staged(Augmented(function, seed, workers))


def prefetch(batches: int) -> Callable[[Any], Pipe]:
    """Prepare batches ahead. Worth it where a transform is slow; a loss where it is cheap."""
    return _staged(Prefetch(batches))


def to(device: torch.device | str) -> Callable[[Any], Pipe]:
    """Move every batch's tensors to a device."""
    return _staged(Transform(lambda tree: map_tree(lambda leaf: leaf.to(device), tree)))


def collect(pipe: Pipe) -> Tree:
    """Run one epoch in order and keep it: a tree of tensors, itself a source of rows.

    Photos decoded once this way stay in memory as uint8 at the model's size.

    >>> kept = collect(batch(2)(Pipe((torch.arange(3), torch.ones(3)))))
    >>> kept
    (tensor([0, 1, 2]), tensor([1., 1., 1.]))
    """
    return concat(list(evolve(pipe, order=Order(), tail=True)))
