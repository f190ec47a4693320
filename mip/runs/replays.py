"""A step of a past run, taken again: which rows it saw, and whether its numbers are the same."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from attrs import frozen

from mip.errors import FileError, MipError
from mip.files import Checkpoint, intact_checkpoints
from mip.model import Parts
from mip.runs.jobs import Job, device_here, job
from mip.runs.resuming import sources_of_run, verified
from mip.runs.warm_starts import load_sources
from mip.spec import KINDS, Spec
from mip.train import History, State, fit, norms


@frozen
class Replay:
    """A step taken again.

    `step` counts from 1, as in the history; `epoch` from 0. `file` is the checkpoint that the
    steps from `start` on were folded from, None for the spec itself. `rows` are the numbers of the
    batch's rows; `now` the step's loss and norms, `then` those of them that the history has.
    """

    step: int
    epoch: int
    start: int
    file: Path | None
    rows: tuple[int, ...]
    now: Mapping[str, float]
    then: Mapping[str, float]

    @property
    def differences(self) -> dict[str, float]:
        """Give what the history says otherwise, bit for bit; NaN equals NaN."""
        return {k: was for k, was in self.then.items() if repr(was) != repr(self.now[k])}


def replay(
    spec: Spec,
    parts: Parts,
    out: str | Path,
    step: int,
    *,
    kinds: Mapping[str, type] = KINDS,
    device: str | None = None,
    base: str | Path | None = None,
    cache: str | Path | None = None,
) -> Replay:
    """Take one step of the run in the folder `out` again, from the nearest checkpoint before it.

    `spec` is the run's, whose paths are relative to `base`, by default to `out`. Nothing is
    written. On the CPU the numbers are those of the run, bit for bit, unless a hook of yours
    skipped batches or gave other states: hooks are not asked again. Raises FileError for a folder
    without a whole checkpoint, SpecError where spec or rows are not those of the run, MipError for
    a step that it does not have.
    """
    out, known = Path(out), intact_checkpoints(Path(out) / "checkpoints")
    if not known:
        raise FileError(f"{out}: there is no whole checkpoint of a run in checkpoints/")
    path = next((path for taken, path in reversed(known) if taken < step), None)
    sources = sources_of_run(spec, path, kinds) if path else load_sources(spec, base or out, kinds)
    laid = job(spec, parts, device or device_here(), cache, sources, norms)
    if not 1 <= step <= laid.steps:
        raise MipError(f"{out}: there is no step {step}; its steps are 1 to {laid.steps}")
    history = verified(known[-1][1], laid.start, kinds).history
    start = verified(path, laid.start, kinds) if path else laid.start
    rows, now = _taken(laid, start, step)
    then = _row(history, step, now)
    epoch = (step - 1) // len(laid.batches)
    return Replay(step, epoch, start.state.step, path, rows, now, then)


def _taken(laid: Job, start: Checkpoint, step: int) -> tuple[tuple[int, ...], dict[str, float]]:
    before = _before(laid, start, step - 1 - start.state.step)
    batch = next(laid.batches.iter_from(step - 1))
    _, metrics = laid.step(before, batch)
    told = {name: float(value) for name, value in metrics.items()}
    # That a step was not skipped goes without saying.
    return tuple(batch.row.tolist()), {
        k: each for k, each in told.items() if each or k != "skipped"
    }


def _before(laid: Job, start: Checkpoint, left: int) -> State:
    # What lowers the rate needs what is validated on the way.
    hooks = laid.hooks if laid.plan.spec.train.plateau else ()
    folded = partial(fit, laid.step, laid.batches, hooks=hooks, history=start.history)
    return folded(start.state, steps=left) if left else start.state


def _row(history: History, step: int, now: Mapping[str, float]) -> dict[str, float]:
    # A run need not have measured norms, and one that was cut short may end before the step.
    if not history.steps:
        return {}
    found = history.steps["step"] == step
    known = {name: history.steps[name][found] for name in now if name in history.steps}
    return {name: float(values[0]) for name, values in known.items() if len(values)}
