"""The stages of a pipe, and the functions that add them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt
from torch import Tensor

from mip.devices import find_device
from mip.errors import DataError
from mip.pipe.nodes import Item, map_node, run_threaded
from mip.pipe.recipe import Pipe, Stage, Subset
from mip.pipe.samplers import (
    CustomOrder,
    Grouped,
    Labels,
    Sampler,
    Weighted,
    WithoutReplacement,
    WithReplacement,
    as_indices,
    name_of,
)
from mip.pipe.sources import as_source
from mip.rng import derive
from mip.tree import Tree, concat, count_rows, map_tree

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode

AddToPipe = Callable[[Any], Pipe]
"""A function of a pipe, or of a source of rows, to a pipe; for `toolz.pipe`."""


@frozen
class Transform:
    """Apply a function to every batch, in threads if there are workers."""

    function: Callable[[Any], Any] = field(repr=name_of)
    workers: int = field(default=0, validator=ge(0))

    def node(self, source: BaseNode[Item]) -> BaseNode[Item]:
        """Make the stage's node."""
        return map_node(source, lambda item: self.function(item.value), self.workers)


@frozen
class Augment:
    """Apply a function of a batch and its epoch's key."""

    function: Callable[[Any, int], Any] = field(repr=name_of)
    seed: int = 0
    workers: int = field(default=0, validator=ge(0))

    def node(self, source: BaseNode[Item]) -> BaseNode[Item]:
        """Make the stage's node."""

        def run(item: Item) -> Any:
            return self.function(item.value, derive("augment", self.seed, item.epoch))

        return map_node(source, run, self.workers)


@frozen
class Prefetch:
    """Prepare batches in advance, in a thread."""

    batches: int = field(validator=gt(0))

    def node(self, source: BaseNode[Item]) -> BaseNode[Item]:
        """Make the stage's node."""
        from torchdata.nodes import IterableWrapper

        # torchdata's prefetcher takes up to a tenth of a second to shut down.
        items = iter(map_node(source, lambda item: item.value, 0))
        requests = itertools.repeat(None)
        ahead = run_threaded(lambda _: next(items, None), requests, workers=1, ahead=self.batches)
        return IterableWrapper(itertools.takewhile(lambda item: item is not None, ahead))


def _as_pipe(source: Any) -> Pipe:
    return source if isinstance(source, Pipe) else Pipe(source)


def _add(stage: Stage) -> AddToPipe:
    def add(source: Any) -> Pipe:
        pipe = _as_pipe(source)
        return evolve(pipe, stages=(*pipe.stages, stage))

    return add


def sample(
    shuffle: bool = False,
    seed: int = 0,
    *,
    num_samples: int | None = None,
    replacement: bool = False,
    weights: Any = None,
    groups: Labels | None = None,
    order: Callable[[int, int], Any] | None = None,
) -> AddToPipe:
    """Choose the rows of an epoch and their order, as a function of (seed, epoch).

    Without options an epoch has every row once, in order. Weights, groups and custom orders
    exclude each other. Raises DataError for options that exclude each other and for weights that
    are negative, NaN or all 0; and when the pipe is iterated, for weights or groups that are not
    one per row, for more samples than rows, and for indices out of range.

    Args:
        shuffle: Shuffle the rows, differently in every epoch.
        seed: The seed of all random choices.
        num_samples: The number of rows in an epoch; by default that of the source.
        replacement: Draw with replacement, so that rows may repeat.
        weights: One per row: draw with replacement in proportion to these; see `balanced_weights`.
        groups: A label per row: keep the rows of a group together, and shuffle groups and rows.
        order: (number of rows, epoch) to int64 indices, the same number of them in every epoch.

    >>> from toolz import pipe
    >>> rows = torch.arange(6)
    >>> list(pipe(rows, sample(weights=[0, 0, 1, 0, 0, 0], num_samples=4), batch(3)))
    [tensor([2, 2, 2]), tensor([2])]
    >>> def every_other(n_rows, epoch):
    ...     return torch.arange(epoch % 2, n_rows, 2)
    >>> batches = pipe(rows, sample(order=every_other), batch(3))
    >>> len(batches), list(batches), next(batches.iter_from(1))
    (1, [tensor([0, 2, 4])], tensor([1, 3, 5]))
    """
    options = {"order": order, "groups": groups, "weights": weights, "num_samples": num_samples}
    options["replacement"] = replacement or None
    chosen = [name for name, value in options.items() if value is not None]
    if len(chosen) > 1 and chosen[0] in ("order", "groups"):
        raise DataError(f"sample: {chosen[0]} and {chosen[1]} exclude each other")
    sampler: Sampler = WithoutReplacement(shuffle, seed, num_samples)
    if order is not None:
        sampler = CustomOrder(order)
    elif groups is not None:
        sampler = Grouped(groups, seed)
    elif weights is not None:
        sampler = Weighted(weights, seed, num_samples)
    elif replacement:
        sampler = WithReplacement(seed, num_samples)
    return lambda source: evolve(_as_pipe(source), sampler=sampler)


def subset(indices: Any) -> AddToPipe:
    """Restrict the source to the rows at some indices (int64 [n]), before they are sampled.

    Weights and groups then count the rows of the subset. Raises DataError for indices out of range.

    >>> from toolz import pipe
    >>> list(pipe(torch.arange(10), subset([7, 1, 4]), batch(2)))
    [tensor([7, 1]), tensor([4])]
    """

    def restrict(source: Any) -> Pipe:
        pipe = _as_pipe(source)
        checked = as_indices(indices, count_rows(pipe.source))
        return evolve(pipe, source=Subset(pipe.source, checked))

    return restrict


def shard(rank: int, ranks: int) -> AddToPipe:
    """Take one rank's part of every batch, for training in several processes.

    All ranks have equally many batches; their parts join to the batches of the whole pipe, in
    order, and differ in size by at most one. If a batch has fewer rows than ranks some parts are
    empty, which `batch(size, drop_last=True)` avoids. Raises ValueError unless 0 <= rank < ranks.

    >>> from toolz import pipe
    >>> [list(pipe(torch.arange(5), batch(3), shard(rank, 2))) for rank in (0, 1)]
    [[tensor([0, 1]), tensor([3])], [tensor([2]), tensor([4])]]
    """
    return lambda source: evolve(_as_pipe(source), rank=rank, ranks=ranks)


def batch(size: int, drop_last: bool = False) -> AddToPipe:
    """Set the number of rows in a batch; `drop_last` leaves out a last batch that is smaller.

    Raises DataError for a size that is no whole number above 0.
    """
    if not isinstance(size, Integral) or size < 1:
        raise DataError(f"batch: the size must be a whole number, 1 or more: {size!r}")
    size = int(size)
    return lambda source: evolve(_as_pipe(source), batch_size=size, drop_last=drop_last)


def transform(function: Callable[[Any], Any], workers: int = 0) -> AddToPipe:
    """Apply a function to every batch, in `workers` threads if there are any; order is kept."""
    return _add(Transform(function, workers))


def augment(function: Callable[[Any, int], Any], seed: int = 0, workers: int = 0) -> AddToPipe:
    """Apply `function(batch, key)` to every batch, with a key derived from (seed, epoch).

    With `plan.augment`, what happens to a row depends on (seed, epoch, row) alone, and not on the
    batch size or the workers.
    """
    return _add(Augment(function, seed, workers))


def prefetch(batches: int) -> AddToPipe:
    """Prepare up to n batches in advance. Worth it after slow transforms; after cheap ones it costs
    more than it saves.
    """
    return _add(Prefetch(batches))


def to(device: torch.device | str) -> AddToPipe:
    """Move every batch's tensors to a device; to a GPU asynchronously, from pinned memory.

    "auto" is the GPU if there is one. Raises MipError for a device that this machine lacks.
    """
    target = torch.device(find_device(device))
    return _add(Transform(partial(map_tree, partial(_move, device=target))))


def _move(leaf: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and leaf.device.type == "cpu":
        # Copies are asynchronous only from pinned memory.
        return leaf.pin_memory().to(device, non_blocking=True)
    return leaf.to(device)


def collect(pipe: Pipe) -> Tree:
    """Run one epoch and return all its rows as one tree of tensors, itself a source of rows.

    Every row is there once and in order, whatever the pipe's sampler and rank. Photos collected
    this way stay in memory decoded, as uint8 at the model's size. Raises DataError for a pipe
    without rows, and for batches that are not sources of rows.

    >>> collect(batch(2)(Pipe((torch.arange(3), torch.ones(3)))))
    (tensor([0, 1, 2]), tensor([1., 1., 1.]))
    """
    whole = evolve(pipe, sampler=WithoutReplacement(), drop_last=False, rank=0, ranks=1)
    return concat([as_source(rows) for rows in whole])
