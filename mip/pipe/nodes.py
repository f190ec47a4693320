"""Nodes: the machinery behind a pipe, on torchdata's nodes and a pool of threads."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchdata.nodes import BaseNode

T = TypeVar("T")
R = TypeVar("R")


class Item(NamedTuple):
    """What travels through the nodes: an epoch, the indices of rows, and the result of the stages
    so far, or an error. Before the first stage there is no result: `gather` takes the rows, in the
    thread of that stage.
    """

    epoch: int
    indices: Tensor
    result: Any = None
    error: BaseException | None = None
    gather: Callable[[Tensor], Any] | None = None

    @property
    def value(self) -> Any:
        """The result, or the rows if there is none yet."""
        return self.result if self.gather is None else self.gather(self.indices)


def capture_error(function: Callable[[T], Any], argument: T, epoch: int, indices: Tensor) -> Item:
    """Call a function and return an item with its result, or with the exception it raised."""
    # Errors travel as values: torchdata's threads would lose some of them, or wait for ever.
    try:
        return Item(epoch, indices, function(argument))
    except BaseException as error:  # SystemExit too: a thread that ends here would hang the rest
        return Item(epoch, indices, error=error)


def map_node(
    source: BaseNode[Item], function: Callable[[Item], Any], workers: int
) -> BaseNode[Item]:
    """Make a node that applies a function to every item, in threads if there are workers."""
    from torchdata.nodes import IterableWrapper

    def run(item: Item) -> Item:
        if item.error is not None:
            return item
        return capture_error(function, item, item.epoch, item.indices)

    # torchdata's mapper makes four calls per batch without workers; with workers it takes a tenth
    # of a second to shut down, and hands every batch from thread to thread four times.
    mapped = run_threaded(run, source, workers, 2 * workers) if workers else map(run, source)
    return IterableWrapper(mapped)


def run_threaded(
    function: Callable[[T], R], source: Iterable[T], workers: int, ahead: int
) -> Iterator[R]:
    """Map a function in threads, in order, with up to `ahead` items submitted in advance."""
    # Each thread computes with one thread. Without this call first, the number of threads that a
    # worker sets would become the main thread's too.
    torch.get_num_threads()
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    items = iter(source)
    try:
        futures = deque(pool.submit(function, item) for item in itertools.islice(items, ahead))
        while futures:
            result = futures.popleft().result()
            futures.extend(pool.submit(function, item) for item in itertools.islice(items, 1))
            yield result
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
