"""How large a model may be: each width of a spec has a bound, and all of them together have one."""

from __future__ import annotations

from typing import Any

import torch
from toolz import dissoc
from torch.overrides import TorchFunctionMode

from mip.errors import SpecError

MAX_BYTES = 8 << 30
"""A model with more bytes of parameters is not built: two billion numbers in float32."""


class TooLargeError(SpecError):
    """A model that would have more than `MAX_BYTES` of parameters."""


class LimitBytes(TorchFunctionMode):
    """A block in which tensors of up to `limit` bytes in all may be made, as modules make their
    parameters. Raises TooLargeError before the tensor that is too much gets its memory.

    >>> with LimitBytes(1 << 30):
    ...     layers = torch.nn.Linear(9, 9), torch.nn.Linear(10**5, 10**5)
    Traceback (most recent call last):
    mip.model.limits.TooLargeError: the model is too large: a tensor of 100000 × 100000 makes it \
more than 1,024 MiB; choose smaller layers
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.limit, self.left = limit, limit

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count what a function makes, before it does."""
        kwargs = kwargs or {}
        if func in _FACTORIES:
            made = func(*args, **{**dissoc(kwargs, "generator", "out"), "device": "meta"})
            self.left -= made.nbytes
            if self.left < 0:
                shape = " × ".join(map(str, made.shape))
                limit = f"{self.limit >> 20:,} MiB"
                raise TooLargeError(
                    f"the model is too large: a tensor of {shape} makes it more than {limit}; "
                    "choose smaller layers"
                )
        return func(*args, **kwargs)


_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}
