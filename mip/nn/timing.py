"""How long a module takes for a batch."""

from __future__ import annotations

import time
from copy import deepcopy
from statistics import quantiles
from typing import Any

import torch
from attrs import frozen
from torch import nn

from mip.devices import find_device, synchronize
from mip.errors import MipError
from mip.rng import generators, seeded
from mip.tree import count_rows, leaves, map_tree


@frozen
class Timing:
    """The time of a pass in seconds: the median of `repeats`, and the quartiles around it; for how
    many `rows`, and on which device.
    """

    seconds: float
    low: float
    high: float
    rows: int
    device: str
    repeats: int

    @property
    def rows_per_second(self) -> float:
        """Rows in a second of such passes."""
        return self.rows / self.seconds

    def __str__(self) -> str:
        times = "{:.4g} ms ({:.4g} to {:.4g})".format(
            *(1000 * value for value in (self.seconds, self.low, self.high))
        )
        rows = f"{self.rows} row{'s' * (self.rows != 1)}"
        return f"{times} for {rows} on {self.device}, {self.rows_per_second:,.0f} rows/s"


def time_forward(
    net: nn.Module,
    batch: Any,
    *,
    backward: bool = False,
    device: str | None = None,
    repeats: int = 20,
    warmup: int = 3,
) -> Timing:
    """Measure the seconds of a module's forward pass over a batch, as the median of `repeats`.

    `batch` is a tensor or a tree of them, or a tuple that begins with the inputs. It is moved to
    the `device` first (by default that of the module), which does not count, as `warmup` passes do
    not. The clock stops when the device has finished. With `backward`, a pass is the forward pass
    and the gradient of the sum of the outputs with respect to all parameters, otherwise there are
    no gradients. A copy of the module runs, in the mode that the module is in; its buffers, its
    gradients and the global random state stay as they are. Raises MipError for a device that this
    machine lacks, for fewer than two repeats, and for `backward` without parameters to train.

    >>> timing = time_forward(nn.Linear(8, 2), torch.ones(4, 8), repeats=5)
    >>> timing.rows, timing.device, 0 < timing.low <= timing.seconds <= timing.high
    (4, 'cpu', True)
    """
    if repeats < 2:
        raise MipError(f"a median needs 2 repeats or more: {repeats}")
    place = torch.device(find_device(device)) if device else _device_of(net)
    inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
    inputs = map_tree(lambda leaf: leaf.to(place), inputs)
    net = deepcopy(net).to(place)
    params = [param for param in net.parameters() if param.requires_grad]
    if backward and not params:
        raise MipError("backward: the module has no parameters to train")

    def run() -> None:
        with torch.set_grad_enabled(backward):
            outputs = net(inputs)
            if backward:
                total = torch.stack([leaf.sum() for _, leaf in leaves(outputs)]).sum()
                torch.autograd.grad(total, params, allow_unused=True)

    seconds = []
    with seeded(0, generators(place)):
        for _ in range(warmup + repeats):
            synchronize(place)
            began = time.perf_counter()
            run()
            synchronize(place)
            seconds.append(time.perf_counter() - began)
    low, median, high = quantiles(seconds[warmup:], n=4, method="inclusive")
    return Timing(median, low, high, count_rows(inputs), str(place), repeats)


def _device_of(net: nn.Module) -> torch.device:
    return next((param.device for param in net.parameters()), torch.device("cpu"))
