"""How the model of a first spec is trained: the size of its head and its steps, by the rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import numpy as np
from attrs import evolve, frozen

MANY_ROWS = 2000
"""Rows enough to learn a curve for each column of numbers, and to choose an epoch by."""


LARGE_TABLE = 10_000
"""Rows of nothing but columns from which larger steps at a higher rate learn as much."""


@frozen
class Training:
    """The head and the steps of a first spec. `dropout` is 0 or comes with its `reason`;
    `optimizer` are the options of AdamW.
    """

    layers: tuple[int, ...] = (128, 128)
    members: int = 8
    dropout: float = 0.0
    reason: str = ""
    batch_size: int = 32
    epochs: int = 40
    optimizer: str = "lr = 3e-3"


def choose_training(
    n_rows: int, roles: Collection[str], target_kinds: Iterable[str], of_photos: bool = False
) -> Training:
    """Choose how to train on rows that hold columns of these roles; `of_photos` if nothing but the
    features of a frozen net is read.

    The rules were found on few data sets: large tables with photos or texts nobody has tried.

    >>> choose_training(1000, ["number"], ["binary"]).reason
    '1000 rows could be learned by heart'
    >>> choose_training(50_000, ["number"], ["binary"]).epochs
    10
    """
    is_large = n_rows >= LARGE_TABLE and not {"image", "free text"} & {*roles}
    if of_photos:
        features = Training((128,), dropout=0.5, reason="the features of the net are many")
        if n_rows < MANY_ROWS:
            # At the usual rate few photos are told as well, but with far too much confidence.
            return evolve(features, epochs=10, optimizer="lr = 1e-3")
        batch_size, epochs = _batch_size(n_rows), _epochs(1_200_000, n_rows, most=20)
        return evolve(features, batch_size=batch_size, epochs=epochs)
    if is_large and "regression" not in {*target_kinds}:
        # Classes are overfitted earlier than numbers, and sooner at a high rate.
        epochs = _epochs(500_000, n_rows)
        return Training(members=4, batch_size=256, epochs=epochs, optimizer="lr = 4e-3")
    if is_large:
        # The errors of numbers go on falling, and Adam's average of squares has to follow them.
        epochs, optimizer = _epochs(700_000, n_rows), "lr = 1e-2, betas = [0.9, 0.99]"
        return Training(members=4, batch_size=256, epochs=epochs, optimizer=optimizer)
    if n_rows >= MANY_ROWS:
        return Training(batch_size=_batch_size(n_rows), epochs=_epochs(1_200_000, n_rows))
    return Training(dropout=0.1, reason=f"{n_rows} rows could be learned by heart")


def _batch_size(n_rows: int) -> int:
    return 128 if n_rows < 50_000 else 256


def _epochs(n_seen: int, n_rows: int, most: int = 60) -> int:
    return int(np.clip(n_seen / n_rows, 5, most))
