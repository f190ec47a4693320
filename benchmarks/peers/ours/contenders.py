"""mip: a fit with the progress bar, console lines and history of `mip fit`, without checkpoints.

Expert setup: without hooks.
"""

from __future__ import annotations

from functools import partial

import mip
from benchmarks import mixed, table, train
from benchmarks.harness import temporary_folder
from benchmarks.peers import workloads
from benchmarks.peers.workloads import Fit, FitStats, PrepareFit
from mip.hooks import console
from mip.model import Parts
from mip.pipe import Pipe
from mip.runs import Job, prepare_job
from mip.train import State, Step


def mlp(expert: bool, compiled: bool) -> PrepareFit:
    """Train the MLP on tensors."""
    step, state = train.make_step(mip.train.compiled if compiled else mip.train.eager)
    batches = mip.batch(train.BATCH_SIZE)(mip.sample(shuffle=True)(workloads.random_digits()))
    return partial(_prepare_fit, step, batches, state, epochs=1, expert=expert)


def table_(expert: bool, compiled: bool) -> PrepareFit:
    """Train on the table from its spec."""
    data = mip.from_frame(workloads.random_frame())
    spec = mip.parse(table.SPEC, changes={"train.compile": compiled})
    job = prepare_job(spec, Parts(data, data.take([]), data.take([])))
    return _from_job(job, epochs=1, expert=expert)


def mixed_(expert: bool, compiled: bool) -> PrepareFit:
    """Train on table and photos from their spec."""
    job = mixed.make_job(mixed.N_ROWS, compiled)
    return _from_job(job, epochs=workloads.MIXED_EPOCHS, expert=expert)


def _from_job(job: Job, *, epochs: int, expert: bool) -> PrepareFit:
    state = job.start.state
    return partial(_prepare_fit, job.step, job.batches, state, epochs=epochs, expert=expert)


def _prepare_fit(step: Step, batches: Pipe, state: State, *, epochs: int, expert: bool) -> Fit:
    history = mip.log(temporary_folder("ours-") / "history.jsonl", overwrite=True)
    bar, lines = mip.progress(epochs * len(batches)), console(epochs=epochs)
    hooks = [] if expert else [history, bar, lines]

    def fit() -> FitStats:
        final = mip.fit(step, batches, state, epochs=epochs, hooks=hooks)
        return FitStats(final.step, sum(param.numel() for param in final.params.values()))

    return fit


TUTORIAL = {
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
