"""Where a run happens: folders, device and kinds, none of which is part of a spec."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from attrs import field, frozen
from attrs.converters import optional

from mip.devices import find_device
from mip.spec import KINDS


@frozen
class Context:
    """The surroundings of a run, which never change what its spec and rows decide.

    `base` is the folder that the spec's paths are relative to. Decoded photos are cached in the
    folder `cache`; without one they are cached in the user's cache folder, and only if the encoded
    rows do not fit in memory. `device` is a torch device or "auto" (see
    `mip.devices.find_device`), by default the GPU if there is one.
    `kinds` are the kinds that a spec or a file may name.
    """

    base: Path = field(default=Path(), converter=Path)
    cache: Path | None = field(default=None, converter=optional(Path))
    device: str | None = field(default=None, converter=optional(find_device))
    # A copy, because the mapping proxy KINDS cannot be sent to a worker process.
    kinds: Mapping[str, type] = field(default=KINDS, converter=dict)

    def resolved_device(self) -> str:
        """Return the name of the device: `device`, or "cuda" if there is a GPU, or "cpu"."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")


DEFAULT_CONTEXT = Context()
"""The current folder, no cache folder, the default device and the built-in kinds."""
