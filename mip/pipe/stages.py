"""The stages of a pipe, and the functions that add them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from mip.errors import DataError
from mip.pipe.nodes import Work, mapped_node, run_threaded
from mip.pipe.recipe import Pipe, Stage, Subset
from mip.pipe.samplers import Each, Grouped, Labels, Order, Own, Uniform, Weighted, places_of
from mip.pipe.sources import source_of
from mip.rng import derive
from mip.tree import Tree, concat, count_rows, map_tree

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode


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
        return mapped_node(source, lambda work: self.function(work.value), self.workers)


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

        return mapped_node(source, run, self.workers)


@frozen
class Prefetch:
    """Prepare batches ahead, in a thread of their own."""

    batches: int = field(validator=gt(0))

    def node(self, source: BaseNode[Work]) -> BaseNode[Work]:
        """Lay out the stage."""
        from torchdata.nodes import IterableWrapper

        # torchdata's prefetcher takes up to a tenth of a second to end.
        works = iter(mapped_node(source, lambda work: work.value, 0))
        asked = itertools.repeat(None)
        ahead = run_threaded(lambda _: next(works, None), asked, workers=1, ahead=self.batches)
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
    num_samples: int | None = None,
    replacement: bool = False,
    weights: Any = None,
    groups: Labels | None = None,
    order: Callable[[int, int], Any] | None = None,
) -> Callable[[Any], Pipe]:
    """Choose which rows an epoch has and in which order, anew each epoch from (seed, epoch).

    Each row once, as they stand or with `shuffle`; with `num_samples`, only so many of them. With
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
    >>> list(pipe(rows, sample(weights=[0, 0, 1, 0, 0, 0], num_samples=4), batch(3)))
    [tensor([2, 2, 2]), tensor([2])]
    >>> def every_other(rows, epoch):
    ...     return torch.arange(epoch % 2, rows, 2)
    >>> other = pipe(rows, sample(order=every_other), batch(3))
    >>> len(other), list(other), next(other.iter_from(1))
    (1, [tensor([0, 2, 4])], tensor([1, 3, 5]))
    """
    options = {"order": order, "groups": groups, "weights": weights, "num_samples": num_samples}
    options["replacement"] = replacement or None
    given = [name for name, value in options.items() if value is not None]
    if len(given) > 1 and given[0] in ("order", "groups"):
        raise DataError(f"sample: {given[0]} and {given[1]} exclude each other")
    chosen: Order = Uniform(seed, num_samples) if replacement else Each(shuffle, seed, num_samples)
    if weights is not None:
        chosen = Weighted(weights, seed, num_samples)
    if groups is not None:
        chosen = Grouped(groups, seed)
    if order is not None:
        chosen = Own(order)
    return lambda source: evolve(_pipe(source), order=chosen)


def subset(indices: Any) -> Callable[[Any], Pipe]:
    """Choose some rows of the source by their places (int64 [n]): what is sampled from then on.

    Weights and groups then count the rows of the subset. Raises DataError for a place that the
    source lacks.

    >>> from toolz import pipe
    >>> pipe(torch.arange(10), subset([7, 1, 4]), batch(2))
    3 of 10 rows | Each(shuffle=False, seed=0, num_samples=None) | batch(2)
    >>> list(pipe(torch.arange(10), subset([7, 1, 4]), batch(2)))
    [tensor([7, 1]), tensor([4])]
    """

    def put(source: Any) -> Pipe:
        pipe = _pipe(source)
        kept = places_of(indices, count_rows(pipe.source))
        return evolve(pipe, source=Subset(pipe.source, kept))

    return put


def shard(rank: int, ranks: int) -> Callable[[Any], Pipe]:
    """Take one rank's part of every batch, for training in several processes.

    All ranks have as many batches, and together the rows of the whole pipe's, in its order;
    their sizes differ by one at most. A batch of fewer rows than ranks leaves some without:
    `batch(size, drop_last=True)` has none of these. Raises ValueError unless 0 <= rank < ranks.

    >>> from toolz import pipe
    >>> [list(pipe(torch.arange(5), batch(3), shard(rank, 2))) for rank in (0, 1)]
    [[tensor([0, 1]), tensor([3])], [tensor([2]), tensor([4])]]
    """
    return lambda source: evolve(_pipe(source), rank=rank, ranks=ranks)


def batch(size: int, drop_last: bool = False) -> Callable[[Any], Pipe]:
    """Set the number of rows in a batch; with `drop_last` a shorter last batch is left out."""
    return lambda source: evolve(_pipe(source), batch_size=size, drop_last=drop_last)


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
    batches = list(evolve(pipe, order=Each(), drop_last=False, rank=0, ranks=1))
    if not batches:
        raise DataError("collect: the pipe has no rows")
    return concat([source_of(each) for each in batches])
