"""The history of a run, and the state that has one: what `fit` returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from attrs import field, fields_dict, frozen
from torch import Tensor

from mip.optim import REPORTED
from mip.train.state import State

STEP_INFO = frozenset({"rows", "skipped", "step"})
"""What the history has for every step besides the step's own measurements."""


Steps = Mapping[str, Tensor]
"""A tensor [steps] for each of the metrics of some steps."""


@frozen(repr=False)
class History:
    """The measurements of a run: a row for each finished epoch, and one for each step.

    `steps` holds a tensor [steps] for each of the step's metrics, for the rates of the optimizer
    (`lr`, …), for `step`, the number of steps taken by then, and for `rows`, the number of rows in
    its batch. Epochs count from 0. A notebook shows a table of the epochs, which counts them from 1
    and leaves out rates that never change.

    >>> History(({"epoch": 0, "step": 4, "loss": 0.5}, {"epoch": 1, "step": 8, "loss": 0.25}))
    History(2 epochs, 0 steps; last epoch: loss 0.25)
    """

    epochs: tuple[Mapping[str, float], ...] = ()
    steps: Steps = field(factory=dict)

    @property
    def unfinished(self) -> Tensor:
        """Return a mask of the steps that belong to no finished epoch: bool [steps]."""
        last = self.epochs[-1]["step"] if self.epochs else 0
        return self.steps["step"] > last if self.steps else torch.zeros(0, dtype=torch.bool)

    def __repr__(self) -> str:
        counts = f"{len(self.epochs)} epochs, {len(self.steps.get('step', ()))} steps"
        last = self.epochs[-1] if self.epochs else {}
        shown = [f"{k} {v:.4g}" for k, v in last.items() if k not in {"epoch", "step"}]
        return f"History({counts}{'; last epoch: ' if shown else ''}{', '.join(shown)})"

    def _repr_html_(self) -> str:
        import pandas as pd

        # As people count epochs, and without rates that never change.
        epochs = pd.DataFrame([{**row, "epoch": row["epoch"] + 1} for row in self.epochs])
        fixed = [rate for rate in REPORTED if rate in epochs and epochs[rate].nunique() == 1]
        return str(epochs.drop(columns=fixed).to_html(index=False, max_rows=20))


@frozen(repr=False)
class Fitted(State):
    """The state at the end of a fit, with the history of the run: `state, history = fit(…)`, or
    `fitted.history`. Wherever a state is expected it is one. `stop_reason` says why a hook has
    ended the fit, if one has.

    >>> state, history = Fitted({}, {}, (), step=3, history=History())
    >>> state, len(history.epochs)
    (State(step=3, seed=0, 0 parameters of 0 numbers), 0)
    """

    history: History = field(factory=History, kw_only=True)
    stop_reason: str | None = field(default=None, kw_only=True)

    def __iter__(self) -> Iterator[State | History]:
        return iter((_plain(self), self.history))

    def __getitem__(self, position: int) -> State | History:
        return (_plain(self), self.history)[position]

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, {self.history!r})"

    def _repr_html_(self) -> str:
        return f"<p>{_plain(self)!r}</p>{self.history._repr_html_()}"


def _plain(state: State) -> State:
    return State(*_values(state))


def with_history(state: State, history: History, stop_reason: str | None = None) -> Fitted:
    """Return a state as the end of a fit."""
    return Fitted(*_values(state), history=history, stop_reason=stop_reason)


def _values(state: State) -> tuple[Any, ...]:
    return tuple(getattr(state, name) for name in fields_dict(State))


def concat_steps(parts: Sequence[Steps]) -> Steps:
    """Concatenate the measurements of steps. A metric that a part lacks is NaN there: a run may be
    resumed with another `measure`.

    >>> concat_steps([{"step": torch.tensor([1])}, {"step": torch.tensor([2]), "a": torch.ones(1)}])
    {'step': tensor([1, 2]), 'a': tensor([nan, 1.])}
    """
    parts = [part for part in parts if part]
    missing = [torch.full((len(part["step"]),), torch.nan) for part in parts]
    return {
        name: torch.cat([part.get(name, nan) for part, nan in zip(parts, missing, strict=True)])
        for name in dict.fromkeys(name for part in parts for name in part)
    }


def append_steps(parts: list[Steps], steps: Steps) -> None:
    """Append the steps of an epoch to the parts of a history.

    Parts are joined as a binary counter carries, so that there are never more than the logarithm
    of the number of epochs, and a long history is not copied anew in every epoch.
    """
    if not steps:
        return
    parts.append(steps)
    while len(parts) > 1 and len(parts[-2]["step"]) < 2 * len(parts[-1]["step"]):
        parts[-2:] = [concat_steps(parts[-2:])]
