"""Pretrained weights from a file: safetensors, or a checkpoint of torch that holds only tensors."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mip.errors import DataError, FileError, hint
from mip.output import reason

WEIGHTS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
"""The endings of files of weights. No library has weights with such a name."""


NESTED = ("state_dict", "model_state_dict", "model")
"""The names under which checkpoints of torch hold the weights, beside optimizer and epoch."""


LISTED = 4
"""The number of tensors that an error names."""


PROBED = 16
"""The number of tensors by whose names a prefix is looked for."""


def is_weights_file(pretrained: str | None) -> bool:
    """Tell whether `pretrained` is the path of a file, and not the name of a library's weights.

    >>> is_weights_file("weights/tiny.safetensors"), is_weights_file("DEFAULT")
    (True, False)
    """
    return pretrained is not None and pretrained.lower().endswith(WEIGHTS_SUFFIXES)


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a file. Raises FileError if it cannot be read."""
    with open_weights(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def open_weights(path: Path) -> Iterator[BufferedReader]:
    """Open a file of weights. Raises FileError, with the nearest, if it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        near = [file.name for file in path.parent.glob("*") if is_weights_file(file.name)]
        why = f"cannot be read ({reason(error)}){hint(path.name, near)}"
        raise FileError(f"{path}: {why}") from error


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, or of a checkpoint of torch, by name; those of a
    checkpoint may also be one of its entries (`NESTED`).

    Nothing in a file is executed. Raises FileError for a pickle that holds more than tensors and
    plain values, and for a file that is missing, damaged or holds no weights.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(2)
    except OSError as error:
        raise FileError(f"{path}: cannot be read ({reason(error)})") from error
    if start[:1] == b"\x80" or start == b"PK":
        return _entry_of(path, _read_pickle(path))
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        why = f"neither a safetensors file nor a checkpoint of torch, or damaged ({error})"
        raise FileError(f"{path}: {why}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged archive raises is not documented
        raise FileError(f"{path}: {_refused_pickle(str(error))}") from error


def _refused_pickle(message: str) -> str:
    found = re.search(r"Unsupported global: GLOBAL (\S+)", message)
    if found is None and "TorchScript" not in message:
        return "is damaged, or not a checkpoint of torch"
    held = f"a pickle that holds {found[1]}" if found else "a TorchScript archive, which holds code"
    cure = "save its weights where it was made, as the safe form: mip.save_weights(path, net)"
    return f"is {held}, and reading that could run code; {cure}"


def _entry_of(path: Path, held: Any) -> dict[str, Tensor]:
    entries = held if isinstance(held, Mapping) else {}
    for name in NESTED:
        if isinstance(entries.get(name), Mapping):
            return _entry_of(path, entries[name])
    tensors = {str(name): each for name, each in entries.items() if isinstance(each, Tensor)}
    if not tensors:
        what = f"{type(held).__name__}{hint('state_dict', entries)}"
        raise FileError(f"{path}: holds no weights by name, but {what}")
    return tensors


def load_pretrained(backbone: nn.Module, tensors: Mapping[str, Tensor], label: str) -> None:
    """Load into a backbone, in place, what it has of a file's tensors: all of its own tensors must
    be there, in their shapes. Others are left out, such as those of a classifier.

    Names may have a prefix, the same for all ("module.", "body.branch.photos.backbone."); in a
    model of mip they have one. Raises DataError that names what is missing or has another shape,
    before anything changes.

    >>> layers = nn.Sequential(nn.Linear(2, 1))
    >>> load_pretrained(layers, {"0.wieght": torch.zeros(1, 2), "0.bias": torch.zeros(2)}, "a.pt")
    Traceback (most recent call last):
    mip.errors.DataError: a.pt: does not hold the backbone: there is no 0.weight (nearest: \
0.wieght); 0.bias is [2], and must be [1]
    """
    # Those of a feature extractor are the model's own, below `cut`.
    ours = {name.removeprefix("cut."): each for name, each in backbone.state_dict().items()}
    theirs = _without_prefix(tensors, ours, label)
    wrong = [name for name, each in ours.items() if not _fits(name, each, theirs)]
    if wrong:
        spare = sorted(theirs.keys() - ours)
        mistakes = [_mistake(name, ours[name], theirs, spare) for name in wrong[:LISTED]]
        rest = f"; and {len(wrong) - LISTED} more" if len(wrong) > LISTED else ""
        raise DataError(f"{label}: does not hold the backbone: {'; '.join(mistakes)}{rest}")
    with torch.no_grad():
        for name, tensor in ours.items():
            if name in theirs:
                tensor.copy_(theirs[name])


def _fits(name: str, tensor: Tensor, theirs: Mapping[str, Tensor]) -> bool:
    if name in theirs:
        return theirs[name].shape == tensor.shape
    return name.endswith("num_batches_tracked")  # which old checkpoints lack, and nothing needs


def _mistake(name: str, tensor: Tensor, theirs: Mapping[str, Tensor], spare: Sequence[str]) -> str:
    if name in theirs:
        return f"{name} is {list(theirs[name].shape)}, and must be {list(tensor.shape)}"
    near = get_close_matches(name, spare, n=1, cutoff=0.5)
    return f"there is no {name}" + (f" (nearest: {near[0]})" if near else "")


def _without_prefix(
    tensors: Mapping[str, Tensor], ours: Mapping[str, Tensor], label: str
) -> dict[str, Tensor]:
    named = _of_model(tensors)
    starts = {
        name.removesuffix(own)
        for own in islice(ours, PROBED)
        for name in named
        if name == own or name.endswith(f".{own}")
    }
    shares = {start: sum(start + own in named for own in ours) for start in sorted(starts)}
    best = [start for start, share in shares.items() if share == max(shares.values())]
    if len(best) > 1 and shares[best[0]] == len(ours):
        names = " and ".join(f"'{start}'" for start in best[:2])
        raise DataError(f"{label}: holds several backbones that fit: below {names}")
    prefix = best[0] if best else ""
    return {name.removeprefix(prefix): named[name] for name in named if name.startswith(prefix)}


def _of_model(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Return the tensors of a net under its own names, which a model of mip has below others."""
    parts = [name.partition("/") for name in tensors]
    of_net = [part for part in parts if part[0] in ("params", "buffers") and part[1]]
    return {name: tensors[f"{part}/{name}"] for part, _, name in of_net} or tensors
