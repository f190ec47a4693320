"""The file format: safetensors with a checksum, and nothing executable."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mip.errors import FileError, hint
from mip.output import flush, replacing

FORMAT = 1
"""The version of model files and checkpoints; a later mip reads earlier ones."""


_BLANK = "0" * 64


_DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


# The names that safetensors has for dtypes, in the order in which it lays out tensors.


def pack(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Make the bytes of a safetensors file with one metadata key, "mip": canonical JSON.

    It holds a SHA-256 over the whole file, taken with the digest's own place zeroed, because
    safetensors by itself accepts any flipped bit in the data. Raises FileError for a dtype that
    safetensors has no name for.

    >>> import torch
    >>> tensors, meta = unpack(pack({"w": torch.ones(2)}, {"note": "x"}), "memory")
    >>> tensors, meta["note"]
    ({'w': tensor([1., 1.])}, 'x')
    """
    header, *body = _pieces(tensors, meta)
    return b"".join([_sealed(header, _digest([header, *body])), *body])


def write_packed(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> None:
    """Write the bytes that `pack` makes, without making them: tensors of the CPU go from where
    they are to the file, while another thread takes the digest. Raises FileError as
    `mip.output.write` does.
    """
    header, *body = _pieces(tensors, meta)
    with ThreadPoolExecutor(1) as pool, replacing(path, overwrite=overwrite) as file:
        digest = pool.submit(_digest, [header, *body])
        file.writelines([header, *body])
        flush(file)  # what follows is short, and the digest takes as long as this
        file.seek(0)
        file.write(_sealed(header, digest.result()))


def _pieces(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> list[Any]:
    # Bytes of the header, its digest's place zeroed, then a view of each tensor's memory.
    told = json.dumps({"format": FORMAT, **meta}, sort_keys=True, allow_nan=False)
    # The digest stands first, so that no text of the user's can be taken for its place.
    text = f'{{"sha256": "{_BLANK}", {told[1:]}'
    order = sorted(tensors, key=lambda name: (_place(name, tensors[name]), name))
    plain = {name: tensors[name].detach().cpu().contiguous() for name in order}
    return [_header(plain, text), *map(_memory, plain.values())]


def _place(name: str, tensor: Tensor) -> int:
    if tensor.dtype not in _DTYPES:
        raise FileError(f"{name}: safetensors files hold no {str(tensor.dtype)[6:]}")
    return list(_DTYPES).index(tensor.dtype)


def _header(tensors: Mapping[str, Tensor], text: str) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"mip": text}}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        about = {"dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape)}
        entries[name] = {**about, "data_offsets": [begin, end]}
    told = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    told += b" " * (-len(told) % 8)
    return struct.pack("<Q", len(told)) + told


def _memory(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _digest(pieces: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest().encode()


def _sealed(header: bytes, digest: bytes) -> bytes:
    return header.replace(_BLANK.encode(), digest, 1)


def unpack(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `pack` made. Raises FileError, naming the file, for anything else."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    meta = _metadata(data, name)
    _check_format(meta.get("format"), name)
    digest = str(meta.get("sha256"))
    zeroed = data.replace(digest.encode(errors="replace"), _BLANK.encode(), 1)
    if hashlib.sha256(zeroed).hexdigest() != digest:
        raise FileError(f"{name}: the file is damaged (its checksum does not match)")
    if meta.get("format") not in range(1, FORMAT + 1):
        raise FileError(f"{name}: format = {meta.get('format')} is not one of mip's")
    try:
        return from_bytes(data), meta
    except SafetensorError as error:
        raise FileError(f"{name}: the file is damaged ({error})") from error


def _check_format(found: Any, name: str) -> None:
    # Before the checksum, which a later format may take otherwise.
    if type(found) is int and found > FORMAT:
        told = f"this mip reads files up to format {FORMAT}; upgrade mip"
        raise FileError(f"{name}: format = {found}: {told}")


def _metadata(data: bytes, name: str) -> dict[str, Any]:
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > len(data) - 8:
            raise FileError(f"{name}: the file is truncated, or not a mip file")
        text = json.loads(data[8 : 8 + length])["__metadata__"]["mip"]
        return dict(json.loads(text))
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise FileError(f"{name}: the file is damaged, or not a mip file") from error


def read_file(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of ours into memory. Raises FileError when it is missing or damaged."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        folder = path if path.is_dir() else path.parent
        near = hint(path.name, (each.name for each in folder.glob("*.safetensors")))
        raise FileError(f"{path}: cannot be read ({error.strerror}){near}") from error
    return unpack(data, str(path))


def peek(path: str | Path) -> dict[str, Any]:
    """Read the metadata of a file of ours from its header alone, unverified; empty for others."""
    with suppress(OSError, FileError), Path(path).open("rb") as file:
        head, size = file.read(8), Path(path).stat().st_size
        # In a foreign file the length can be any number.
        return _metadata(head + file.read(min(int.from_bytes(head, "little"), size)), str(path))
    return {}
