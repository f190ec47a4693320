"""Model files: a plan and the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from mip.errors import FileError, SpecError
from mip.files.format import read_file, write_packed
from mip.model import Plan, from_json, to_json
from mip.spec import KINDS
from mip.train import State, with_averaged_params
from mip.tree import leaves


def save(
    path: str | Path,
    plan: Plan,
    state: State,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model: weights (where the state keeps averages of them, these), spec and facts in
    one safetensors file. Equal models give equal bytes.

    Raises FileError where the file exists already, unless `overwrite` says to replace it.
    """
    meta = {"plan": to_json(plan), "step": state.step}
    write_packed(path, dict(leaves(_kept(state))), meta, overwrite=overwrite)


def _kept(state: State) -> dict[str, Any]:
    return {"params": with_averaged_params(state).params, "buffers": state.buffers}


def load_model(path: str | Path, kinds: Mapping[str, type] = KINDS) -> tuple[Plan, State]:
    """Read a model's plan and its state (without an optimizer's tensors)."""
    models = load_models(path, kinds)
    if len(models) > 1:
        raise FileError(f"{path}: an ensemble of {len(models)} models, where one is needed")
    return models[0]


def save_models(
    path: str | Path,
    models: Sequence[tuple[Plan, State]],
    *,
    overwrite: bool = False,
) -> None:
    """Write several models into one file, in their order. Equal ones give equal bytes. Raises
    FileError as `save` does.
    """
    trees = {str(k): _kept(state) for k, (_, state) in enumerate(models)}
    plans = [to_json(plan) for plan, _ in models]
    write_packed(path, dict(leaves(trees)), {"models": plans}, overwrite=overwrite)


def load_models(
    path: str | Path, kinds: Mapping[str, type] = KINDS
) -> tuple[tuple[Plan, State], ...]:
    """Read the models of a file: one, or those of an ensemble."""
    tensors, meta = read_file(path)
    many = meta.get("models")
    if many is None:
        return (_model(path, tensors, meta, kinds),)
    if not isinstance(many, list) or not many:
        raise FileError(f"{path}: its models cannot be read")
    each = [(part_of(tensors, str(k)), {"plan": plan}) for k, plan in enumerate(many)]
    return tuple(_model(path, own, plan, kinds) for own, plan in each)


def _model(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    kinds: Mapping[str, type],
) -> tuple[Plan, State]:
    params, buffers = part_of(tensors, "params"), part_of(tensors, "buffers")
    step = int(meta.get("step", 0))
    return _plan(path, meta, kinds), State(params, buffers, optimizer=(), step=step)


def _plan(path: str | Path, meta: Mapping[str, Any], kinds: Mapping[str, type]) -> Plan:
    if "plan" not in meta:
        raise FileError(f"{path}: the file holds no model")
    try:
        return from_json(meta["plan"], kinds)
    except SpecError as error:
        raise FileError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its plan cannot be read") from error


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Select the tensors below one name, sorted."""
    start = f"{part}/"
    return {name[len(start) :]: tensors[name] for name in sorted(tensors) if name.startswith(start)}
