"""Checks before and after training: what would fail later, and what must not be saved."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from mip.data import Shards, Table, folds
from mip.errors import DataError, SpecError, hint
from mip.model import Net, Parts, Plan, matches_pattern, short_path, target_columns
from mip.rng import seeded
from mip.spec import Spec, Train
from mip.train import State, path_of
from mip.tree import map_tree

UNTRAINED = "train.epochs = 0: nothing is trained, and the model is saved as it is initialized"
"""What to say of a spec without epochs, which is allowed: a fit is then a fold of no steps."""

REPEATED_ROWS, MOST_REPEATS = 2000, 4
"""Few rows are dealt to folds several times, since what one deal says of them is mostly noise."""


def check_targets(plan: Plan, parts: Parts) -> None:
    """Raise DataError for a valid or test row that cannot be scored: its class is not in train."""
    for part in (parts.valid, parts.test):
        for chunk in part.chunks(target_columns(plan.spec)):
            plan.spec.head.encode(plan.facts["head"], chunk)


def check_groups(train: Train, net: Net, batches: int) -> None:
    """Raise SpecError for a parameter group that matches no parameter, or starts too late, and for
    a run with too few batches for one step.
    """
    if 0 < batches < train.accumulate:
        raise SpecError(f"train.accumulate = {train.accumulate}: the run has {batches} batches")
    paths = [path for path, param in net.named_parameters() if param.requires_grad]
    for k, group in enumerate(train.group):
        name = f"train.group[{k}]"
        if not any(matches_pattern(path, group.match) for path in paths):
            known = hint(group.match, map(short_path, paths))
            raise SpecError(f"{name}.match = '{group.match}' matches no parameter{known}")
        if 0 < train.epochs <= group.start_epoch:
            start = f"{name}.start_epoch = {group.start_epoch}"
            raise SpecError(f"{start} is never reached in {train.epochs} epochs")


def check_residual(plan: Plan, rows: Table | Shards) -> None:
    """Raise SpecError for training rows to which residual branches cannot be fitted: those of
    shards, and fewer rows, or groups, than there are folds.
    """
    if not plan.spec.fusion.residual:
        return
    if isinstance(rows, Shards):
        raise SpecError("fusion.residual needs a table in memory; leave out data.stream")
    inner_folds(plan.spec, rows)


def inner_folds(spec: Spec, rows: Table) -> np.ndarray:
    """Deal training rows to `fusion.residual_folds` folds, repeatedly if they are few: int64
    [repeats, n], a function of the seed. Rows that the split keeps together stay together.

    Raises SpecError if there are fewer rows, or groups, than folds.
    """
    config, k = spec.data.split, spec.fusion.residual_folds
    column = config.group or config.key
    columns: dict[str, Any] = {"row": np.arange(len(rows))}
    if column and column in rows.columns:
        columns["group"] = rows.texts(column)
    group = "group" if "group" in columns else None
    repeats = min(max(1, REPEATED_ROWS // max(1, len(rows))), MOST_REPEATS)
    try:
        dealt = folds(columns, k, repeats, seed=spec.train.seed, group=group)
    except DataError as error:
        cure = "give the training part more rows, or choose fewer folds"
        raise SpecError(f"fusion.residual_folds = {k}: {error}; {cure}") from error
    return np.stack([dealt.numbers(f"fold_{k}") for k in range(repeats)]).astype(np.int64)


def check_batch_norm(plan: Plan, net: Net, n_rows: int) -> None:
    """Raise SpecError if training on `n_rows` rows would give a batch norm of the net a batch of
    one value per channel, which has no variance.

    Batches of one row are fine if batch norm is frozen, or sees several positions of a photo.
    """
    train = plan.spec.train
    if not train.epochs or min(train.batch_size, n_rows) > 1:
        return
    name = _batch_norm_of_one(plan, net)
    if name and train.batch_size == 1:
        needs = f"batch norm ('{name}') needs 2 or more rows"
        raise SpecError(f"train.batch_size = 1: {needs}; set train.batch_size to 2 or more")
    if name:
        cure = "give it more rows in data.split, or choose a model without batch norm"
        raise SpecError(f"the training part has 1 row: batch norm ('{name}') needs 2; {cure}")


@torch.no_grad()
def _batch_norm_of_one(plan: Plan, net: Net) -> str | None:
    """Return the path of a batch norm that sees one value per channel in a batch of one row."""
    names: list[str] = []

    def look(name: str, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if module.training and inputs[0].numel() == inputs[0].shape[1]:
            names.append(short_path(name))

    hooks = [
        module.register_forward_pre_hook(partial(look, name))
        for name, module in net.named_modules()
        if isinstance(module, _BatchNorm)
    ]
    device = next(net.parameters(), torch.zeros(0)).device
    row = map_tree(lambda leaf: leaf.to(device), plan.example())
    buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
    try:
        with seeded(0), suppress(ValueError):  # raised by torch after `look` has seen the module
            functional_call(net, buffers, (row,))
    finally:
        for hook in hooks:
            hook.remove()
    return names[0] if names else None


def check_frozen_parts(plan: Plan, net: nn.Module | None, state: State, label: str | Path) -> None:
    """Raise SpecError if features of frozen parts of the net are computed once, and the state of a
    run that is resumed has other weights there: those of a library have changed since.
    """
    root = plan.spec.root
    if not isinstance(net, Net) or root.with_features(net.body, False, None) is root:
        return
    frozen = {path_of(name): p for name, p in net.named_parameters() if not p.requires_grad}
    for path in frozen.keys() & state.buffers.keys():
        if not torch.equal(frozen[path].cpu(), state.buffers[path].cpu()):
            why = f"{short_path(path)} is frozen, and has other weights than when the run began"
            raise SpecError(f"{label}: {why}; start again without resume")


def check_finite(state: State, label: str | Path) -> None:
    """Raise DataError naming a parameter that is not finite: such a state must not be saved."""
    for path, param in state.params.items():
        if not param.isfinite().all():
            why = f"{short_path(path)} is not finite (try a smaller train.optimizer.lr)"
            raise DataError(f"{label}: no model is saved: {why}")
