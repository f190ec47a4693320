"""Where a run happens: folders, device and kinds, none of which is part of a spec."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from attrs import evolve, field, frozen
from attrs.converters import optional

from mip.devices import find_device
from mip.spec import KINDS


def do_nothing(*args: object) -> None:
    """Do nothing. Unlike a lambda, this can be sent to a worker process."""


@frozen
class Context:
    """The surroundings of a run, which never change what its spec and rows decide.

    `base` is the folder that the spec's paths are relative to. Decoded photos, or the features of
    those whose backbone is frozen, are cached in the folder `cache`; without one they are cached in
    the user's cache folder, and only if the encoded rows do not fit in memory. Features are kept in
    the folder `features` instead, if it is given; `on_features` is called, as they are computed for
    training, with the number of rows that have them and that of all. `on_residual` is called with
    the name of each residual branch that is fitted, and the loss of held-out rows without it and
    with it. With `use_features=False`
    frozen backbones run on pixels, in every epoch. `device` is a torch device or "auto" (see
    `mip.devices.find_device`), by default the GPU if there is one. `kinds` are the kinds that a
    spec or a file may name.
    """

    base: Path = field(default=Path(), converter=Path)
    cache: Path | None = field(default=None, converter=optional(Path))
    features: Path | None = field(default=None, converter=optional(Path))
    use_features: bool = True
    on_features: Callable[[int, int], object] = do_nothing
    on_residual: Callable[[str, float, float], object] = do_nothing
    device: str | None = field(default=None, converter=optional(find_device))
    # A copy, because the mapping proxy KINDS cannot be sent to a worker process.
    kinds: Mapping[str, type] = field(default=KINDS, converter=dict)

    def resolved_device(self) -> str:
        """Return the name of the device: `device`, or "cuda" if there is a GPU, or "cpu"."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def feature_folder(self) -> Path | None:
        """The folder that features are kept in; without one they are computed where needed."""
        return self.features or self.cache


@contextmanager
def sharing_features(context: Context) -> Iterator[Context]:
    """Let all runs of a block share the features of frozen backbones: in the folder of the context,
    or in a temporary one.
    """
    if context.feature_folder:
        yield context
        return
    with TemporaryDirectory(prefix="mip-features-") as folder:
        yield evolve(context, features=folder)


DEFAULT_CONTEXT = Context()
"""The current folder, no cache folder, the default device and the built-in kinds."""
