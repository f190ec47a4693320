"""A pipe as an IterDataPipe, for torch's DataLoader."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from attrs import evolve
from toolz import identity
from torch.utils.data import IterDataPipe, get_worker_info

from mip.pipe.recipe import Pipe, iter_items, run_stages
from mip.pipe.stages import Transform


class Datapipe(IterDataPipe[Any]):
    """A pipe's first epoch for torch's own tools: an IterDataPipe of batches.

    `DataLoader(Datapipe(pipe), batch_size=None, num_workers=2)` yields the batches of the pipe in
    its order; each process makes its own share of them and no others. The other direction needs no
    class: `fit` accepts an IterDataPipe of batches, and for one of rows
    `from_dataset(list(datapipe))` makes a table.

    >>> import torch; from mip.pipe import batch
    >>> from toolz import pipe; from torch.utils.data import DataLoader
    >>> negative = Datapipe(pipe(torch.arange(4), batch(2))).map(torch.neg)
    >>> list(DataLoader(negative, batch_size=None))
    [tensor([ 0, -1]), tensor([-2, -3])]
    """

    def __init__(self, pipe: Pipe) -> None:
        # With a stage, rows are gathered when it runs, so never for other processes' batches.
        self.pipe = pipe if pipe.stages else evolve(pipe, stages=(Transform(identity),))

    def __len__(self) -> int:
        return len(self.pipe)

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        first, every = (worker.id, worker.num_workers) if worker else (0, 1)
        items = iter_items(self.pipe, one_epoch=True)
        return run_stages(self.pipe, itertools.islice(items, first, None, every))
