"""Ours: a fit with the bar, the lines and the history of `mip fit`, without checkpoints.

As an expert runs it: without hooks.
"""

from __future__ import annotations

from functools import partial

import mip
from benchmarks import mixed, table, train
from benchmarks.harness import scratch
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Done, Fresh, Run
from mip.hooks import console
from mip.model import Parts
from mip.pipe import Pipe
from mip.runs import Job, prepare_job
from mip.train import State, Step


def mlp(expert: bool, compiled: bool) -> Fresh:
    """Train the MLP over tensors."""
    step, state = train.ours(mip.train.compiled if compiled else mip.train.eager)
    batches = mip.batch(train.BATCH)(mip.sample(shuffle=True)(workloads.digits()))
    return partial(_fit, step, batches, state, 1, expert)


def table_(expert: bool, compiled: bool) -> Fresh:
    """Train the table from its spec."""
    rows = mip.from_frame(workloads.frame())
    spec = mip.parse(table.SPEC, changes={"train.compile": compiled})
    return _fresh(prepare_job(spec, Parts(rows, rows.take([]), rows.take([]))), 1, expert)


def mixed_(expert: bool, compiled: bool) -> Fresh:
    """Train table and photos from their spec."""
    return _fresh(mixed.laid(compiled=compiled), workloads.EPOCHS, expert)


def _fresh(job: Job, epochs: int, expert: bool) -> Fresh:
    return partial(_fit, job.step, job.batches, job.start.state, epochs, expert)


def _fit(step: Step, batches: Pipe, state: State, epochs: int, expert: bool) -> Run:
    history = mip.log(scratch("ours-") / "history.jsonl", overwrite=True)
    bar, lines = mip.progress(epochs * len(batches)), console(epochs=epochs)
    hooks = [] if expert else [history, bar, lines]

    def run() -> Done:
        after = mip.fit(step, batches, state, epochs=epochs, hooks=hooks)
        return Done(after.step, sum(param.numel() for param in after.params.values()))

    return run


WORKLOADS = {
    "mlp": partial(mlp, expert=False, compiled=False),
    "table": partial(table_, expert=False, compiled=False),
    "mixed": partial(mixed_, expert=False, compiled=False),
}
EXPERT = {
    "mlp": partial(mlp, expert=True, compiled=False),
    "table": partial(table_, expert=True, compiled=False),
    "mixed": partial(mixed_, expert=True, compiled=False),
}
COMPILED = {
    "mlp": partial(mlp, expert=True, compiled=True),
    "table": partial(table_, expert=True, compiled=True),
    "mixed": partial(mixed_, expert=True, compiled=True),
}
