"""The devices of this machine, by the names that torch has for them."""

from __future__ import annotations

import torch

from mip.errors import MipError


def available_devices() -> list[str]:
    """List the devices of this machine: "cpu", and each accelerator, such as "cuda:0" or "mps:0".

    >>> available_devices()[0]
    'cpu'
    """
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if kind else 0
    return ["cpu", *(f"{kind.type}:{number}" for number in range(count) if kind)]


def find_device(name: str | torch.device) -> str:
    """Return the name of a device that this machine has; "auto" is the first accelerator, if there
    is one, and otherwise the CPU.

    Raises MipError naming the devices of this machine for any other. torch's "meta", which computes
    shapes alone, is everywhere.

    >>> find_device("cpu")
    'cpu'
    >>> find_device("abacus")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    mip.errors.MipError: there is no device 'abacus' here; this machine has cpu... (or say auto)
    """
    known = available_devices()
    if name == "auto":
        return (known[1:] or known)[0].partition(":")[0]
    try:
        device = torch.device(name)
        found = device.type in {"cpu", "meta"} or f"{device.type}:{device.index or 0}" in known
    except RuntimeError:
        found = False
    if not found:
        has = ", ".join(known)
        raise MipError(f"there is no device '{name}' here; this machine has {has} (or say auto)")
    return str(name)


def synchronize(device: str | torch.device) -> None:
    """Wait until an accelerator has finished what it was told to compute; the CPU always has."""
    if torch.device(device).type not in {"cpu", "meta"}:
        torch.accelerator.synchronize(device)
