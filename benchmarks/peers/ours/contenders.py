"""Ours: a fit with what `mip fit` shows and keeps, but for checkpoints."""

from __future__ import annotations

from functools import partial

import mip
from benchmarks import mixed, table, train
from benchmarks.harness import scratch
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run
from mip.hooks import console
from mip.pipe import Pipe
from mip.train import State, Step


def mlp() -> Fresh:
    """Train the MLP over tensors."""
    step, state = train.ours()
    batches = mip.batch(train.BATCH)(mip.sample(shuffle=True)(workloads.digits()))
    return partial(_laid, step, batches, state, 1)


def table_() -> Fresh:
    """Train the table from its spec."""
    one = table.laid(table.BATCH * workloads.TABLE_STEPS)
    return partial(_laid, one.step, one.batches, one.start.state, 1)


def mixed_() -> Fresh:
    """Train table and photos from their spec."""
    one = mixed.laid()
    return partial(_laid, one.step, one.batches, one.start.state, workloads.EPOCHS)


def _laid(step: Step, batches: Pipe, state: State, epochs: int) -> Run:
    keep = mip.log(scratch("ours-") / "history.jsonl", overwrite=True)
    hooks = [keep, mip.progress(epochs * len(batches)), console(epochs=epochs)]

    def run() -> Done:
        after = mip.fit(step, batches, state, epochs=epochs, hooks=hooks)
        return Done(after.step, sum(param.numel() for param in after.params.values()))

    return run


WORKLOADS = {"mlp": mlp, "table": table_, "mixed": mixed_}
