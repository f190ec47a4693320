"""Experiment trackers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mip.errors import FileError
from mip.train import Event, Hook, Reply, stateful


def tensorboard(folder: str | Path) -> Hook:
    """Write each epoch's row for TensorBoard: a curve by step for each metric.

    Needs the extra `tensorboard`; raises FileError without it.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        cure = "pip install 'mixed-input-pipelines[tensorboard]'"
        raise FileError(f"{folder}: TensorBoard is not installed: {cure}") from error

    def hook(writer: SummaryWriter, event: Event) -> Reply:
        if event.name == "after_epoch":
            for name in event.metrics.keys() - {"epoch", "step"}:
                writer.add_scalar(name, event.metrics[name], event.step)
        elif event.name == "after_fit":
            writer.close()
        return None

    return stateful(partial(SummaryWriter, str(folder)), hook, adds=())
