"""Randomness that is derived, never stored: every draw is a function of integers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor


def derive(*parts: int | str) -> int:
    """Hash integers and strings to a 63-bit seed (BLAKE2b).

    >>> derive("shuffle", 0, 1) == derive("shuffle", 0, 1) != derive("shuffle", 1, 0)
    True
    """
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Make a CPU generator with the seed derived from `parts`."""
    return torch.Generator().manual_seed(derive(*parts))


def uniform(key: int, row_ids: Tensor, n: int) -> Tensor:
    """Draw n numbers in [0, 1) per row, which depend on the key and the row's id alone.

    Takes row ids as int64 [rows] and returns float32 [rows, n]. The mixing function is SplitMix64
    (Steele, Lea and Flood 2014), so the draws of a row do not depend on its batch or worker.

    >>> a = uniform(7, torch.tensor([3, 4]), 2); b = uniform(7, torch.tensor([4]), 2)
    >>> torch.equal(a[1], b[0])
    True
    """
    offsets = np.arange(1, n + 1, dtype=np.uint64)
    counter = row_ids.numpy().astype(np.uint64)[:, None] * np.uint64(n) + offsets
    bits: np.ndarray = counter * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    bits = bits ^ (bits >> np.uint64(31))
    return torch.from_numpy((bits >> np.uint64(40)).astype(np.float32) / np.float32(1 << 24))


def generators(device: torch.device | None = None) -> tuple[torch.Generator, ...]:
    """Return the global generators that a computation on a device can draw from."""
    if device is None or device.type != "cuda":
        return (torch.default_generator,)
    return torch.default_generator, torch.cuda.default_generators[device.index or 0]


@contextmanager
def seeded(seed: int, rngs: tuple[torch.Generator, ...] = generators()) -> Iterator[None]:
    """Run a block with global generators seeded, and restore their states afterwards.

    `rngs` are the generators that the block uses: `torch.manual_seed` would reach every
    accelerator's queue, at a hundred times the cost.

    >>> before = torch.get_rng_state()
    >>> with seeded(1): a = torch.rand(1)
    >>> with seeded(1): b = torch.rand(1)
    >>> bool(a == b), torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    states = [rng.get_state() for rng in rngs]
    for rng in rngs:
        rng.manual_seed(seed)
    try:
        yield
    finally:
        for rng, state in zip(rngs, states, strict=True):
            rng.set_state(state)
