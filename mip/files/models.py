"""Model files: a plan and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from mip.errors import FileError, MipError, SpecError, hint
from mip.files.format import Tensors, read_file, write_packed
from mip.model import Plan, plan_from_dict, plan_to_dict
from mip.spec import KINDS
from mip.train import State, with_averaged_params
from mip.tree import Tree, leaves


class HasPlanAndState(Protocol):
    """What `mip.run` returns."""

    @property
    def plan(self) -> Plan: ...

    @property
    def state(self) -> State: ...


def save(
    path: str | Path,
    plan: Plan | HasPlanAndState,
    state: State | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model, or that of a finished run, into one safetensors file: spec, facts, and the
    weights (their averages, if the state keeps averages). Equal models give equal bytes.

    Raises FileError if the file exists, unless `overwrite` allows to replace it. Raises MipError
    for a net without a plan, whose weights `save_weights` writes.

    >>> from torch import nn
    >>> save("net.safetensors", nn.Linear(2, 1))
    Traceback (most recent call last):
    mip.errors.MipError: mip.save(path, plan, state) writes the model of a spec: plan is a Linear; \
mip.save_weights(path, net) writes the weights of a net of your own
    """
    model = _plan_and_state(plan, state)
    _check_arguments(path=path, plan=model[0], state=model[1])
    meta = {"plan": plan_to_dict(model[0]), "step": model[1].step}
    write_packed(path, dict(leaves(_weights(model[1]))), meta, overwrite=overwrite)


def _plan_and_state(plan: Any, state: Any) -> tuple[Plan, State]:
    is_run = state is None and hasattr(plan, "plan") and hasattr(plan, "state")
    return (plan.plan, plan.state) if is_run else (plan, state)


def _check_arguments(**given: Any) -> None:
    kinds: dict[str, tuple[type, ...]] = {"path": (str, Path), "plan": (Plan,), "state": (State,)}
    for name, kind in kinds.items():
        if not isinstance(given[name], kind):
            text = "mip.save(path, plan, state) writes the model of a spec"
            actual = type(given[name]).__name__
            cure = "mip.save_weights(path, net) writes the weights of a net of your own"
            if isinstance(given["plan"], Plan):
                cure = "the state is what fit returns, or step.init()"
            raise MipError(f"{text}: {name} is a {actual}; {cure}")


def _weights(state: State) -> dict[str, Tree]:
    return {"params": with_averaged_params(state).params, "buffers": state.buffers}


def load_model(path: str | Path, kinds: Mapping[str, type] = KINDS) -> tuple[Plan, State]:
    """Read a model's plan and its state (without the optimizer's tensors)."""
    models = load_models(path, kinds)
    if len(models) > 1:
        raise FileError(f"{path}: an ensemble of {len(models)} models, where one is needed")
    return models[0]


def save_models(
    path: str | Path, models: Sequence[tuple[Plan, State]], *, overwrite: bool = False
) -> None:
    """Write several models into one file, in their order. Equal models give equal bytes. Raises
    FileError as `save` does.
    """
    trees: dict[str, Tree] = {str(k): _weights(state) for k, (_, state) in enumerate(models)}
    plans = [plan_to_dict(plan) for plan, _ in models]
    write_packed(path, dict(leaves(trees)), {"models": plans}, overwrite=overwrite)


def load_models(
    path: str | Path, kinds: Mapping[str, type] = KINDS
) -> tuple[tuple[Plan, State], ...]:
    """Read the models of a file, one or those of an ensemble, or the model in a run folder."""
    path = model_file(path)
    tensors, meta = read_file(path)
    plans = meta.get("models")
    if plans is None:
        return (_model(path, tensors, meta, kinds),)
    if not isinstance(plans, list) or not plans:
        raise FileError(f"{path}: its models cannot be read")
    return tuple(
        _model(path, subtree(tensors, str(k)), {"plan": plan}, kinds)
        for k, plan in enumerate(plans)
    )


def model_file(path: str | Path) -> Path:
    """Return the file of a model, which in the folder of a finished run is `model.safetensors`."""
    path = Path(path)
    if path.is_dir() and not (path / "model.safetensors").exists():
        near = hint("", (file.name for file in path.glob("*.safetensors")))
        raise FileError(f"{path}: a folder without the model.safetensors of a finished run{near}")
    return path / "model.safetensors" if path.is_dir() else path


def _model(
    path: str | Path, tensors: Tensors, meta: Mapping[str, Any], kinds: Mapping[str, type]
) -> tuple[Plan, State]:
    if "plan" not in meta:
        cure = "; mip.load_weights(net, path) reads its weights" if tensors else ""
        raise FileError(f"{path}: the file holds no model{cure}")
    try:
        plan = plan_from_dict(meta["plan"], kinds)
    except SpecError as error:
        raise FileError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its plan cannot be read") from error
    params, buffers = subtree(tensors, "params"), subtree(tensors, "buffers")
    return plan, State(params, buffers, optimizer=(), step=int(meta.get("step", 0)))


def subtree(tensors: Tensors, name: str) -> dict[str, Tensor]:
    """Return the tensors whose path begins with `name`, by the rest of their path, sorted."""
    start = f"{name}/"
    return {path[len(start) :]: tensors[path] for path in sorted(tensors) if path.startswith(start)}
