"""Repeat one step of a past run: which rows it saw, and whether its numbers are the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attrs import frozen

from mip.errors import FileError, MipError
from mip.files import intact_checkpoints
from mip.model import Parts
from mip.runs.context import Context
from mip.runs.jobs import prepare_job
from mip.runs.resuming import load_run_checkpoint, origin, sources_of_run
from mip.spec import Spec
from mip.train import History, Metrics, fit, norms


@frozen
class Replay:
    """A step of a past run, taken again.

    `step` counts from 1, as in the history; `epoch` from 0. The steps since `start` were taken
    from the checkpoint `file`, or from the spec if it is None. `rows` are the row numbers of the
    batch; `now` has the loss and the norms of the step, `then` those of them in the history.
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
        """The numbers of the history that are not reproduced bit for bit; NaN equals NaN."""
        return {k: was for k, was in self.then.items() if repr(was) != repr(self.now[k])}


def replay(
    spec: Spec,
    parts: Parts,
    out: str | Path,
    step: int,
    *,
    context: Context | None = None,
) -> Replay:
    """Take one step of the run in the folder `out` again, from the nearest checkpoint before it.

    `spec` is the run's; by default its paths are relative to `out`, as in a run's `spec.toml`.
    Nothing is written. On the CPU the numbers are those of the run, bit for bit, unless a hook of
    yours skipped batches or replaced states: hooks are not called again. Raises FileError for a
    folder without an intact checkpoint, SpecError if spec or rows are not those of the run, and
    MipError for a step that it does not have.
    """
    out = Path(out)
    context = Context(base=out) if context is None else context
    checkpoints = intact_checkpoints(out / "checkpoints")
    if not checkpoints:
        raise FileError(f"{out}: there is no intact checkpoint of a run in checkpoints/")
    file = next((path for taken, path in reversed(checkpoints) if taken < step), None)
    sources = sources_of_run(spec, file, context) if file else None
    made_of = origin(spec, parts, context.base)
    job = prepare_job(spec, parts, context, sources=sources, origin=made_of, measure=norms)
    if not 1 <= step <= job.steps:
        raise MipError(f"{out}: there is no step {step}; its steps are 1 to {job.steps}")
    history = load_run_checkpoint(checkpoints[-1][1], job.start, context.kinds).history
    start = load_run_checkpoint(file, job.start, context.kinds) if file else job.start
    state, left = start.state, step - 1 - start.state.step
    if left:
        # A plateau lowers the rate by what is validated on the way.
        hooks = job.hooks if spec.train.plateau else ()
        state = fit(job.step, job.batches, state, steps=left, hooks=hooks, history=start.history)
    batch = next(job.batches.iter_from(step - 1))
    now = _numbers(job.step(state, batch)[1])
    return Replay(
        step=step,
        epoch=(step - 1) // len(job.batches),
        start=start.state.step,
        file=file,
        rows=tuple(batch.row.tolist()),
        now=now,
        then=_recorded(history, step, now),
    )


def _numbers(metrics: Metrics) -> dict[str, float]:
    numbers = {name: float(value) for name, value in metrics.items()}
    # A step that was not skipped need not say so.
    return {name: value for name, value in numbers.items() if value or name != "skipped"}


def _recorded(history: History, step: int, names: Mapping[str, float]) -> dict[str, float]:
    # The run need not have measured norms, and one that was cut short may end before the step.
    if not history.steps:
        return {}
    at_step = history.steps["step"] == step
    columns = {name: history.steps[name][at_step] for name in names if name in history.steps}
    return {name: float(values[0]) for name, values in columns.items() if len(values)}
