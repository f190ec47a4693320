"""Warm starts: a branch that starts from the same branch of a trained model, facts included.

Facts are copied together with the weights, because the rows of an embedding belong to the words
that they were learned for, and the branch specs must be equal; so before the first step the outputs
of the branch are those of its source, bit for bit. A warm start is applied after `[[init]]` and
wins. The source file is read once, when a run begins: models and checkpoints hold what was copied,
and a resumed run takes it from its own checkpoint. If the source has seen test rows or a held-out
fold of this model, the scores are optimistic, and nothing in the file can reveal it. The
initializer "lsuv" comes last, for it measures what the warm branches compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from attrs import evolve
from torch import Tensor

from mip.branches import branches, path_in_spec
from mip.compare import differences
from mip.data import Rows
from mip.errors import FileError, MipWarning, SpecError, hint
from mip.files import load_model
from mip.model import Net, Plan, apply_lsuv, build, columns_of, initialize, matches_pattern
from mip.nn import LSUV
from mip.rng import derive, uniform
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.spec import Spec, to_dict
from mip.train import State
from mip.tree import Tree, get_in, set_in

LSUV_ROWS = 256
"""How many rows the initializer "lsuv" measures."""

Sources = Mapping[str, tuple[Plan, State]]
"""Trained models, as `load_model` returns them, by the dotted path of the branch that starts from
each.
"""


def load_sources(spec: Spec, context: Context = DEFAULT_CONTEXT) -> Sources:
    """Read the model files that `[warm_start]` names.

    Raises FileError, with the path in the spec, for a file that is missing, damaged or no model.
    """
    sources = {}
    for path, file in spec.warm_start.items():
        try:
            sources[path] = load_model(context.base / file, context.kinds)
        except FileError as error:
            raise FileError(f"warm_start.{path}: {error}") from error
    return sources


def adopt_facts(plan: Plan, sources: Sources) -> Plan:
    """Replace the facts of each branch in `[warm_start]` by those of its source.

    Weights are meaningful only with the facts they were trained with: means, vocabularies.
    Raises SpecError when a source is missing, lacks the branch (proposing the nearest), or its
    branch has another configuration (naming the first field that differs).
    """
    facts, shapes = plan.facts["branch"], plan.shapes
    for path in plan.spec.warm_start:
        source = _checked_source(plan, path, sources)
        facts = set_in(facts, path.split("."), _part(source.facts.get("branch"), plan, path))
        shapes = set_in(shapes, path.split("."), _part(source.shapes, plan, path))
    return evolve(plan, facts={**plan.facts, "branch": facts}, shapes=shapes)


def _checked_source(plan: Plan, path: str, sources: Sources) -> Plan:
    file = plan.spec.warm_start[path]
    if path not in sources:
        cure = "pass mip.runs.load_sources(spec)"
        raise SpecError(f"warm_start.{path}: {file} has not been read; {cure}")
    source = sources[path][0]
    ours, theirs = dict(branches(plan.spec.branch)), dict(branches(source.spec.branch))
    if path not in theirs:
        raise SpecError(f"warm_start.{path}: {file} has no such branch{hint(path, theirs)}")
    pair = to_dict(ours[path]), to_dict(theirs[path])
    for name, here, there in differences(*pair, path=path_in_spec(path)):
        raise SpecError(f"warm_start.{path}: {name} is {here} here and {there} in {file}")
    return source


def _part(tree: Any, plan: Plan, path: str) -> Any:
    try:
        return get_in(tree, path.split("."))
    except (KeyError, TypeError, IndexError) as error:  # a file that was made by hand
        raise _mismatch(plan, path) from error


def _mismatch(plan: Plan, path: str) -> FileError:
    file = plan.spec.warm_start[path]
    return FileError(f"warm_start.{path}: {file} does not hold the branch that its spec describes")


def build_warm(
    plan: Plan,
    sources: Sources,
    seed: int = 0,
    rows: Rows | None = None,
    base: str | Path = ".",
) -> Net:
    """Build the module of a plan from `adopt_facts`, with the weights and buffers of its sources.

    All other parameters are initialized as `build` does, as a function of the seed, or by "lsuv"
    from training rows: up to `LSUV_ROWS` of the first chunk, drawn by the seed. Files of pretrained
    weights are relative to the folder `base`. Warns (MipWarning)
    of a rule of `[[init]]` that matches only parameters of warm-started branches, which it leaves
    as they are.
    """
    net = build(plan, seed, pretrain=False)
    initialize(net, plan, seed, base)
    ours, warm = saved_tensors(net) if plan.spec.warm_start else {}, set[str]()
    for path in plan.spec.warm_start:
        state = sources[path][1]
        trained, fresh = _below(path, {**state.params, **state.buffers}), _below(path, ours)
        if _shapes(trained) != _shapes(fresh):
            raise _mismatch(plan, path)
        with torch.no_grad():
            for name, tensor in fresh.items():
                tensor.copy_(trained[name])
        warm |= fresh.keys()
    _warn_of_init(net, plan, warm)
    if any(init.initializer == LSUV for init in plan.spec.init):
        apply_lsuv(net, plan, _drawn_inputs(plan, seed, rows), seed, keep=warm)
    return net


def _warn_of_init(net: Net, plan: Plan, warm: Collection[str]) -> None:
    params = [path for path, _ in net.named_parameters()]
    for k, init in enumerate(plan.spec.init if warm else ()):
        if not any(matches_pattern(path, init.match) for path in params if path not in warm):
            text = f"init[{k}]: '{init.match}' changes nothing: all that it matches is warm-started"
            warnings.warn(text, MipWarning, stacklevel=3)


def _drawn_inputs(plan: Plan, seed: int, rows: Rows | None) -> Tree:
    if rows is None:
        raise SpecError("init: lsuv measures training rows: pass rows=")
    chunk = next(rows.chunks(columns_of(plan.spec)))
    draws = uniform(derive("lsuv rows", seed), torch.from_numpy(chunk.row_ids), 1)
    drawn = draws.flatten().argsort(stable=True)[:LSUV_ROWS]
    return plan.spec.root.encode(plan.facts["branch"], chunk.take(drawn))


def saved_tensors(net: Net) -> dict[str, Tensor]:
    """Return the module's own parameters and buffers that a model file holds, by path."""
    kept = net.state_dict().keys()
    named = [*net.named_parameters(), *net.named_buffers()]
    return {path: tensor for path, tensor in named if path in kept}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def _below(path: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"body.{path_in_spec(path)}."
    return {name: tensor for name, tensor in tensors.items() if name.startswith(start)}
