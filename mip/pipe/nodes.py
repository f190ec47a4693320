"""Nodes: what runs behind a pipe, on torchdata's nodes and a pool of threads."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

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


def capture_error(
    function: Callable[[Any], Any], argument: Any, epoch: int, places: Tensor
) -> Work:
    """Call a function, and keep what it raises as a value."""
    # Errors travel as values: torchdata's threads would lose some of them, or wait for ever.
    try:
        return Work(epoch, places, function(argument))
    except BaseException as error:  # an exit too: a thread that ends here would hang the rest
        return Work(epoch, places, error=error)


def mapped_node(
    source: BaseNode[Work], function: Callable[[Work], Any], workers: int
) -> BaseNode[Work]:
    """Make a node that applies a function to every item, in threads if asked."""
    from torchdata.nodes import IterableWrapper

    def run(work: Work) -> Work:
        if work.error is not None:
            return work
        return capture_error(function, work, work.epoch, work.places)

    # torchdata's mapper makes four calls a batch without workers; with them it takes a tenth of a
    # second to end, and hands every batch from thread to thread four times.
    mapped = run_threaded(run, source, workers, 2 * workers) if workers else map(run, source)
    return IterableWrapper(mapped)


def run_threaded(
    run: Callable[[Any], Any], source: Iterable[Any], workers: int, ahead: int
) -> Iterator[Any]:
    """Apply a function in threads, in order, with so many items submitted ahead."""
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
