"""Branches of several columns of photos: what the backbone makes of each photo is kept, so that a
column can be exchanged without running the backbone again.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mip.branches import Image
from mip.tree import Tree, concat, count_rows, slice_rows

if TYPE_CHECKING:
    from mip.prediction import Predictor


@torch.no_grad()
def photo_features(model: Predictor, inputs: dict[str, Tree]) -> dict[str, Tree]:
    """Return, for branches that read several columns of photos, what the model takes in the place
    of their encoded photos: float32 [n, k, …] by branch.
    """
    found: dict[str, Tree] = {}
    for name, branch in model.plan.root.branch.items():
        if not isinstance(branch, Image) or len(branch.columns) == 1:
            continue
        net: Any = model.net.body.branch[name]
        photos, parts = inputs[name], list[Tensor]()
        for begin in range(0, max(1, count_rows(photos)), model.batch_size):
            pixels = slice_rows(photos["pixels"], begin, begin + model.batch_size)
            features = net.frozen_features(pixels.flatten(0, 1).to(model.device)).cpu()
            parts.append(features.unflatten(0, pixels.shape[:2]))
        found[name] = {"features": concat(parts), "present": photos["present"]}
    return found


def exchange_columns(
    model: Predictor,
    photos: dict[str, Tree],
    others: dict[str, Tree],
    columns: Collection[str],
) -> dict[str, Tree]:
    """Take the photos of some columns from other rows, in those branches that also read others."""
    found: dict[str, Tree] = {}
    for name, features in photos.items():
        branch, most = model.plan.root.branch[name], model.plan.facts["branch"][name]["most"]
        read = [column in columns for column in getattr(branch, "columns", ())]
        if any(read) and not all(read):
            chosen = torch.tensor(read).repeat_interleave(torch.tensor(most))
            pairs = {key: (features[key], others[name][key]) for key in features}
            found[name] = {key: _choose(chosen, *pair) for key, pair in pairs.items()}
    return found


def _choose(chosen: Tensor, mine: Tensor, theirs: Tensor) -> Tensor:
    return torch.where(chosen.view(1, -1, *[1] * (mine.dim() - 2)), theirs, mine)
