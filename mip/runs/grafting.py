"""Grafting: a branch that begins as the same branch of another model, with its facts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from mip.branches import at, branches, place
from mip.errors import FileError, SpecError, hint
from mip.files import load_model
from mip.model import Net, Plan, build
from mip.spec import KINDS, Spec, to_dict
from mip.train import State

Donors = Mapping[str, tuple[Plan, State]]
"""Models, as `load_model` gives them, by the dotted path of the branch that is taken from each."""


def donors(spec: Spec, base: str | Path = ".", kinds: Mapping[str, type] = KINDS) -> Donors:
    """Read the model files that `[graft]` names, relative to the folder `base`.

    Raises FileError, with the path in the spec, for a file that is missing, damaged or no model.
    """
    return {path: _read(path, Path(base) / file, kinds) for path, file in spec.graft.items()}


def _read(path: str, file: Path, kinds: Mapping[str, type]) -> tuple[Plan, State]:
    try:
        return load_model(file, kinds)
    except FileError as error:
        raise FileError(f"graft.{path}: {error}") from error


def graft(plan: Plan, donors: Donors) -> Plan:
    """Put the donors' facts in the place of those learned anew, for each branch of `[graft]`.

    Weights mean something only with the facts that they were trained with: means, vocabularies.
    Raises SpecError where no donor is given, where it has no such branch (naming the nearest), and
    where its branch is another (naming the first field that differs).
    """
    facts, shapes = plan.facts["branch"], plan.shapes
    for path in plan.spec.graft:
        donor = _checked(plan, path, donors)
        facts = _placed(facts, path.split("."), _part(donor.facts.get("branch"), plan, path))
        shapes = _placed(shapes, path.split("."), _part(donor.shapes, plan, path))
    return evolve(plan, facts={**plan.facts, "branch": facts}, shapes=shapes)


def _checked(plan: Plan, path: str, donors: Donors) -> Plan:
    file = plan.spec.graft[path]
    if path not in donors:
        raise SpecError(f"graft.{path}: {file} is not read; give mip.runs.donors(spec, folder)")
    own, other = (dict(branches(each.spec.branch)) for each in (plan, donors[path][0]))
    if path not in other:
        raise SpecError(f"graft.{path}: {file} has no such branch{hint(path, other)}")
    pair = to_dict(own[path]), to_dict(other[path])
    for name, here, there in differences(*pair, place(path)):
        raise SpecError(f"graft.{path}: {name} is {here} here and {there} in {file}")
    return donors[path][0]


def differences(one: Any, other: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Walk the values in which two trees of plain values differ, with their dotted paths.

    >>> list(differences({"a": {"b": 1, "c": [2]}}, {"a": {"b": 1, "c": [3], "d": 4}}))
    [('a.c', [2], [3]), ('a.d', 'nothing', 4)]
    """
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for name in {**one, **other}:
            pair = one.get(name, "nothing"), other.get(name, "nothing")
            yield from differences(*pair, f"{path}.{name}" if path else name)
    elif one != other:
        yield path, one, other


def _part(tree: Any, plan: Plan, path: str) -> Any:
    try:
        return at(tree, path)
    except (KeyError, TypeError, IndexError) as error:  # a file that was made by hand
        raise _unfit(plan, path) from error


def _unfit(plan: Plan, path: str) -> FileError:
    file = plan.spec.graft[path]
    return FileError(f"graft.{path}: {file} does not hold what its spec says of the branch")


def _placed(tree: dict[str, Any], names: list[str], value: Any) -> dict[str, Any]:
    name, *rest = names
    return {**tree, name: _placed(tree[name], rest, value) if rest else value}


def grow(plan: Plan, donors: Donors, seed: int = 0) -> Net:
    """Build the module of a plan that `graft` gave, with the donors' weights and buffers.

    What is not grafted begins as in `build`, of which the start is a function of the seed.
    """
    net = build(evolve(plan, spec=evolve(plan.spec, graft={})), seed)
    own = saved(net) if plan.spec.graft else {}
    for path in plan.spec.graft:
        state = donors[path][1]
        given = _below(path, {**state.params, **state.buffers})
        _copy(given, _below(path, own), _unfit(plan, path))
    return net


def saved(net: Net) -> dict[str, Tensor]:
    """Give the parameters and buffers that a file of the module holds, themselves, by path."""
    kept = net.state_dict().keys()
    named = [*net.named_parameters(), *net.named_buffers()]
    return {path: tensor for path, tensor in named if path in kept}


def _below(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"body.{place(path)}."
    return {name: tensor for name, tensor in tensors.items() if name.startswith(start)}


@torch.no_grad()
def _copy(given: dict[str, Tensor], own: dict[str, Tensor], unfit: FileError) -> None:
    if given.keys() != own.keys() or any(given[name].shape != own[name].shape for name in own):
        raise unfit
    for name, tensor in own.items():
        tensor.copy_(given[name])
