"""Rows as a model sees them: vectors of a row, and the rows most like it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from mip.errors import MipError
from mip.explain.vectors import Halves, halve, members_of

if TYPE_CHECKING:
    import pandas as pd


def embed(model: Any, rows: Any) -> pd.DataFrame:
    """Return the vectors of rows: the columns `<branch>_0`, `<branch>_1` … of each branch, and
    `joined_0` … of what the fusion makes of them, which is what the head reads; float32. Of an
    ensemble they are those of all members, `<branch>.<member>_0`.

    Rows need no target; those that cannot be predicted are left out. The index is theirs.
    """
    import pandas as pd

    halves = halve(model, rows, targets=False)
    columns = {
        f"{name}_{k}": column
        for name, vectors in _named_vectors(halves)
        for k, column in enumerate(vectors.numpy().T)
    }
    return pd.DataFrame(columns, index=halves.table.index.copy())


@torch.no_grad()
def _named_vectors(halves: Halves) -> Iterator[tuple[str, Tensor]]:
    members = members_of(halves.model)
    for k, (member, vectors) in enumerate(zip(members, halves.vectors, strict=True)):
        suffix = f".{k}" if len(members) > 1 else ""
        moved = {name: vector.to(member.device) for name, vector in vectors.items()}
        for name, vector in {**vectors, "joined": member.net.body.join(moved).cpu()}.items():
            yield f"{name}{suffix}", vector.flatten(1)


def similar_rows(model: Any, rows: Any, among: Any, k: int = 5) -> pd.DataFrame:
    """Find for each row the `k` most alike `among` others, such as the training rows: those at the
    smallest distance in what the head reads, each number divided by its standard deviation there.

    Neither needs a target. The DataFrame has a row for each pair, the nearest first: `row` and
    `similar` (their labels), `rank` (from 1), `distance`, and what is predicted for the similar
    row. Raises MipError if there are fewer than `k` rows.
    """
    import pandas as pd

    halves, others = halve(model, rows, targets=False), halve(model, among, targets=False)
    if not 1 <= k <= len(others):
        raise MipError(f"explain: k must be from 1 to the number of rows, {len(others)}: {k}")
    one, two = (
        torch.cat([v for name, v in _named_vectors(each) if name.startswith("joined")], dim=1)
        for each in (halves, others)
    )
    scale = two.std(dim=0, correction=0).clamp_min(1e-12)
    used = two.std(dim=0, correction=0) > 0
    nearest = torch.cdist((one / scale)[:, used], (two / scale)[:, used]).topk(k, largest=False)
    found = nearest.indices.flatten().numpy()
    frame = pd.DataFrame(
        {
            "row": np.repeat(halves.table.index.to_numpy(), k),
            "similar": others.table.index.to_numpy()[found],
            "rank": np.tile(np.arange(1, k + 1), len(halves)),
            "distance": nearest.values.flatten().numpy(),
        }
    )
    known = {name: column[found] for name, column in others.predict().items()}
    return frame.assign(**known)
