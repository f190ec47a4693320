"""The pipe: a recipe for batches that can stand before any step, on torchdata's nodes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt
from toolz import identity
from torch import Tensor
from torch.utils.data import IterDataPipe, get_worker_info

from mip.errors import DataError
from mip.rng import derive
from mip.sample import Each, Grouped, Labels, Order, Own, Uniform, Weighted, places_of
from mip.shards import Shards
from mip.source import source_of
from mip.tree import Tree, between, concat, map_tree, size, taker

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode


class Work(NamedTuple):
    """What travels through the nodes: an epoch, places of rows, what was made of them, or an
    error. Before the first stage nothing has been made: `gather` takes the rows, in its thread.
    """

    epoch: int
    places: Tensor
    made: Any = None
    error: BaseException | None = None
    gather: Callable[[Tensor], Any] | None = None

    @property
    def value(self) -> Any:
        """Give what was made, or take the rows."""
        return self.made if self.gather is None else self.gather(self.places)


class Stage(Protocol):
    """A stretch of a pipe: puts a node of torchdata behind the one before it."""

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        ...


@frozen
class Pipe:
    """A recipe: where rows come from, in which order, how many at once, and what is done.

    It is a value; nothing runs until `at` lays it out. Iterating gives the first epoch. The source
    is a table, or a tree of tensors or numpy arrays of one length; others raise DataError.

    >>> from toolz import pipe
    >>> batches = pipe(torch.arange(5), sample(), batch(2), transform(lambda rows: rows * 10))
    >>> [rows.tolist() for rows in batches]
    [[0, 10], [20, 30], [40]]
    >>> next(batches.at(4))
    tensor([20, 30])
    """

    source: Any = field(converter=source_of)
    order: Order = Each()
    rows: int = field(default=1, validator=gt(0))
    tail: bool = True
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
        return _running(self, _works(self, once=True))

    def __repr__(self) -> str:
        source = self.source if isinstance(self.source, Subset) else f"{count(self.source)} rows"
        rows = f"batch({self.rows})" if self.tail else f"batch({self.rows}, tail=False)"
        shared = [f"shard({self.rank}, {self.ranks})"] if self.ranks > 1 else []
        return " | ".join(map(str, [source, self.order, rows, *shared, *self.stages]))

    def at(self, step: int) -> Iterator[Any]:
        """Stand before a step: give its batch, then those after it, epoch after epoch.

        An error in a stage is raised here, with the rows it happened in as a note; the
        stream never hangs and never ends early. Raises DataError at once for an order that
        does not fit the rows.
        """
        return _running(self, _works(self, step))


@frozen(eq=False, repr=False)
class Subset:
    """Some rows of a source, itself a source: nothing is copied but a batch at a time."""

    source: Any
    places: Tensor

    def __len__(self) -> int:
        return len(self.places)

    def __repr__(self) -> str:
        return f"{len(self)} of {count(self.source)} rows"

    @property
    def rows(self) -> Tensor:
        """The numbers of the rows, int64 [n], as the source has them."""
        return _numbers(self.source, self.places)

    def take(self, index: Tensor) -> Any:
        """Gather rows by their place in the subset."""
        return _gatherer(self.source)(self.places[index])


class Datapipe(IterDataPipe[Any]):
    """A pipe's first epoch for torch's own tools: an IterDataPipe of batches.

    `DataLoader(Datapipe(pipe), batch_size=None, num_workers=2)` gives the batches of the pipe in
    its order; each process makes its own share of them and no other. The way back needs no
    class: `fit` takes an IterDataPipe of batches as it is, and of one of rows,
    `from_dataset(list(datapipe))` makes a table.

    >>> from toolz import pipe; from torch.utils.data import DataLoader
    >>> negative = Datapipe(pipe(torch.arange(4), batch(2))).map(torch.neg)
    >>> list(DataLoader(negative, batch_size=None))
    [tensor([ 0, -1]), tensor([-2, -3])]
    """

    def __init__(self, pipe: Pipe) -> None:
        # With a stage, rows are taken when it runs: those of other processes never are.
        self.pipe = pipe if pipe.stages else evolve(pipe, stages=(Transform(identity),))

    def __len__(self) -> int:
        return len(self.pipe)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        works = _works(self.pipe, once=True)
        return _running(self.pipe, itertools.islice(works, first, None, every))


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
    return getattr(source, "rows", getattr(source, "row", torch.arange(count(source))))[places]


def _size(pipe: Pipe) -> int:
    order = pipe.order
    if isinstance(pipe.source, Shards) and (not isinstance(order, Each) or order.draws is not None):
        raise DataError(f"sample: shards are read in order or shuffled; {order} needs mip.read")
    return order.size(count(pipe.source))


def _batches(pipe: Pipe, size: int) -> int:
    return -(-size // pipe.rows) if pipe.tail else size // pipe.rows


def _works(pipe: Pipe, step: int = 0, once: bool = False) -> Iterator[Work]:
    # The batches' rows from a step on, for ever, or to the end of its epoch.
    batches = _batches(pipe, _size(pipe))
    if not batches:
        return iter(())
    first, done = divmod(step, batches)
    epochs = [first] if once else itertools.count(first)
    if isinstance(pipe.source, Shards):
        return _streamed(pipe, pipe.source, epochs, done * pipe.rows)
    return _gathered(pipe, epochs, done * pipe.rows)


def _gathered(pipe: Pipe, epochs: Iterable[int], skip: int) -> Iterator[Work]:
    rows, size, gather = pipe.rows, _size(pipe), _gatherer(pipe.source)
    for epoch in epochs:
        order = _tried(lambda now: _ordered(pipe, now, size), epoch, epoch, torch.arange(0))
        if order.error is not None:
            yield order
            return
        for places in _split(order.made[skip : _batches(pipe, size) * rows], rows):
            if pipe.ranks > 1:
                places = places.tensor_split(pipe.ranks)[pipe.rank]
            if pipe.stages:
                yield Work(epoch, places, gather=gather)
            else:
                yield _tried(gather, places, epoch, places)
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
    return _cut(_threaded(_read, windows, workers=1, ahead=1), pipe)


def _read(work: Work) -> Work:
    return _tried(lambda _: work.value, None, work.epoch, work.places)


def _cut(windows: Iterator[Work], pipe: Pipe) -> Iterator[Work]:
    # What is left of a window begins the next one's first batch, unless the epoch ends.
    held: Work | None = None
    for work in windows:
        if held and held.epoch != work.epoch:
            yield from [_share(held, pipe)] if pipe.tail else []
            held = None
        begin = 0
        while begin < len(work.places) and work.error is None:
            part = _part(work, begin, begin + pipe.rows - (len(held.places) if held else 0))
            begin += len(part.places)
            held = _joined(held, part) if held else part
            if len(held.places) == pipe.rows:
                yield _share(held, pipe)
                held = None
        if work.error is not None:
            yield work
    if held and pipe.tail:
        yield _share(held, pipe)


def _part(work: Work, begin: int, end: int) -> Work:
    places = work.places[begin:end]
    return Work(work.epoch, places, between(work.made, begin, begin + len(places)))


def _joined(a: Work, b: Work) -> Work:
    return Work(a.epoch, torch.cat([a.places, b.places]), concat([a.made, b.made]))


def _share(work: Work, pipe: Pipe) -> Work:
    if pipe.ranks == 1:
        return work
    own = torch.arange(len(work.places)).tensor_split(pipe.ranks)[pipe.rank]
    begin = int(own[0]) if len(own) else 0
    return _part(work, begin, begin + len(own))


def _ordered(pipe: Pipe, epoch: int, size: int) -> Tensor:
    places = pipe.order(count(pipe.source), epoch)
    if len(places) != size:
        raise DataError(f"sample: the order has {len(places)} places and not {size}")
    return places


def _tried(function: Callable[[Any], Any], argument: Any, epoch: int, places: Tensor) -> Work:
    # Errors travel as values: torchdata's threads would lose some of them, or wait for ever.
    try:
        return Work(epoch, places, function(argument))
    except BaseException as error:  # an exit too: a thread that ends here would hang the rest
        return Work(epoch, places, error=error)


def _mapped(
    source: BaseNode[Work], function: Callable[[Work], Any], workers: int
) -> BaseNode[Work]:
    from torchdata.nodes import IterableWrapper

    def run(work: Work) -> Work:
        if work.error is not None:
            return work
        return _tried(function, work, work.epoch, work.places)

    # torchdata's mapper makes four calls a batch without workers; with them it takes a tenth of a
    # second to end, and hands every batch from thread to thread four times.
    mapped = _threaded(run, source, workers, 2 * workers) if workers else map(run, source)
    return IterableWrapper(mapped)


def _threaded(
    run: Callable[[Any], Any], source: Iterable[Any], workers: int, ahead: int
) -> Iterator[Any]:
    # A thread works alone; what it sets would also be the main thread's, had that not asked before.
    torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    works = iter(source)
    try:
        begun = deque(pool.submit(run, work) for work in itertools.islice(works, ahead))
        while begun:
            done = begun.popleft().result()
            begun.extend(pool.submit(run, work) for work in itertools.islice(works, 1))
            yield done
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _named(function: Any) -> str:
    # A bound method would print all that it is bound to: a whole plan.
    inner = getattr(function, "func", function)
    return str(getattr(inner, "__qualname__", type(inner).__name__))


@frozen
class Transform:
    """Apply a function to every batch, in threads if asked."""

    function: Callable[[Any], Any] = field(repr=_named)
    workers: int = field(default=0, validator=ge(0))

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        return _mapped(source, lambda work: self.function(work.value), self.workers)


@frozen
class Augmented:
    """Apply a function of a batch and the epoch's key."""

    function: Callable[[Any, int], Any] = field(repr=_named)
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
        from torchdata.nodes import IterableWrapper

        # torchdata's prefetcher takes up to a tenth of a second to end.
        works = iter(_mapped(source, lambda work: work.value, 0))
        asked = itertools.repeat(None)
        ahead = _threaded(lambda _: next(works, None), asked, workers=1, ahead=self.batches)
        return IterableWrapper(itertools.takewhile(lambda work: work is not None, ahead))


def _pipe(source: Any) -> Pipe:
    return source if isinstance(source, Pipe) else Pipe(source)


def _staged(stage: Stage) -> Callable[[Any], Pipe]:
    def put(source: Any) -> Pipe:
        pipe = _pipe(source)
        return evolve(pipe, stages=(*pipe.stages, stage))

    return put


def sample(
    shuffle: bool = False,
    seed: int = 0,
    *,
    draws: int | None = None,
    replacement: bool = False,
    weights: Any = None,
    groups: Labels | None = None,
    order: Callable[[int, int], Any] | None = None,
) -> Callable[[Any], Pipe]:
    """Choose which rows an epoch has and in which order, anew each epoch from (seed, epoch).

    Each row once, as they stand or with `shuffle`; with `draws`, only so many of them. With
    `replacement` a row may come again, and there may be more draws than rows. With `weights`
    (one a row, see `balance`) rows are drawn with replacement, a weight of 0 never. With
    `groups` (a label a row) the rows of a group come one after another, groups and rows
    shuffled. Or with an `order` of your own, a function of (rows, epoch) that gives int64 places,
    as many in every epoch.

    Raises DataError for weights that are negative, NaN or all 0 and for options that exclude
    each other; when the pipe is laid out, for weights or groups that are not one a row, more
    draws than rows, and places that are none.

    >>> from toolz import pipe
    >>> rows = torch.arange(6)
    >>> list(pipe(rows, sample(weights=[0, 0, 1, 0, 0, 0], draws=4), batch(3)))
    [tensor([2, 2, 2]), tensor([2])]
    >>> def every_other(rows, epoch):
    ...     return torch.arange(epoch % 2, rows, 2)
    >>> other = pipe(rows, sample(order=every_other), batch(3))
    >>> len(other), list(other), next(other.at(1))
    (1, [tensor([0, 2, 4])], tensor([1, 3, 5]))
    """
    options = {"order": order, "groups": groups, "weights": weights, "draws": draws}
    options["replacement"] = replacement or None
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1 and given[0] in ("order", "groups"):
        raise DataError(f"sample: {given[0]} and {given[1]} exclude each other")
    chosen: Order = Uniform(seed, draws) if replacement else Each(shuffle, seed, draws)
    if weights is not None:
        chosen = Weighted(weights, seed, draws)
    if groups is not None:
        chosen = Grouped(groups, seed)
    if order is not None:
        chosen = Own(order)
    return lambda source: evolve(_pipe(source), order=chosen)


def subset(places: Any) -> Callable[[Any], Pipe]:
    """Choose some rows of the source by their places (int64 [n]): what is sampled from then on.

    Weights and groups then count the rows of the subset. Raises DataError for a place that the
    source lacks.

    >>> from toolz import pipe
    >>> pipe(torch.arange(10), subset([7, 1, 4]), batch(2))
    3 of 10 rows | Each(shuffle=False, seed=0, draws=None) | batch(2)
    >>> list(pipe(torch.arange(10), subset([7, 1, 4]), batch(2)))
    [tensor([7, 1]), tensor([4])]
    """

    def put(source: Any) -> Pipe:
        pipe = _pipe(source)
        kept = places_of(places, count(pipe.source))
        return evolve(pipe, source=Subset(pipe.source, kept))

    return put


def shard(rank: int, ranks: int) -> Callable[[Any], Pipe]:
    """Take one rank's part of every batch, for training in several processes.

    All ranks have as many batches, and together the rows of the whole pipe's, in its order;
    their sizes differ by one at most. A batch of fewer rows than ranks leaves some without:
    `batch(rows, tail=False)` has none of these. Raises ValueError unless 0 <= rank < ranks.

    >>> from toolz import pipe
    >>> [list(pipe(torch.arange(5), batch(3), shard(rank, 2))) for rank in (0, 1)]
    [[tensor([0, 1]), tensor([3])], [tensor([2]), tensor([4])]]
    """
    return lambda source: evolve(_pipe(source), rank=rank, ranks=ranks)


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
    """Move every batch's tensors to a device; to a GPU from pinned memory, while Python goes on."""
    target = torch.device(device)
    return _staged(Transform(partial(map_tree, partial(_moved, device=target))))


def _moved(leaf: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and leaf.device.type == "cpu":
        # Only from pinned memory does a copy run by itself.
        return leaf.pin_memory().to(device, non_blocking=True)
    return leaf.to(device)


def collect(pipe: Pipe) -> Tree:
    """Run one epoch in order and keep it: a tree of tensors, itself a source of rows.

    All rows are kept once, whatever the pipe's sampler and rank.

    Photos decoded once this way stay in memory as uint8 at the model's size. Raises DataError for
    a pipe without rows, and for batches that are no source of rows.

    >>> kept = collect(batch(2)(Pipe((torch.arange(3), torch.ones(3)))))
    >>> kept
    (tensor([0, 1, 2]), tensor([1., 1., 1.]))
    """
    batches = list(evolve(pipe, order=Each(), tail=True, rank=0, ranks=1))
    if not batches:
        raise DataError("collect: the pipe has no rows")
    return concat([source_of(each) for each in batches])
