"""What hooks may reply to an event, besides a state and numbers."""

from __future__ import annotations

from enum import Enum
from typing import Any

from attrs import frozen


@frozen
class Stop:
    """A hook's reply that ends the fit; `reason` is reported."""

    reason: str


class Skip(Enum):
    """A hook's reply that skips this batch (to before_batch), the rest of the epoch (to
    before_epoch, before_batch or after_batch), or its validation (to before_validate).

    `Skip.BATCH` may also be returned by `map_logits` and `map_loss` of `train_step`, which see the
    predictions and the loss: the step then changes nothing.
    """

    BATCH = "batch"
    EPOCH = "epoch"
    VALIDATION = "validation"


@frozen
class NewBatch:
    """A hook's reply to before_batch: the batch to train on instead."""

    batch: Any
