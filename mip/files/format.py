"""The file format: safetensors with a checksum, and nothing executable.

The metadata key `mip` holds canonical JSON with a SHA-256 of the whole file (with zeros in the
place of the digest), because safetensors accepts a flipped bit in the data. The header is written
here, in safetensors' order: the library would first copy the tensors, or write them before the
digest is known. So tensors go from where they are to the file while a second thread computes the
digest, which is filled in last. Equal tensors give the bytes that safetensors itself would write.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from mip.data import IMAGE_SUFFIXES
from mip.errors import FileError, hint
from mip.output import flush, replacing

Tensors = Mapping[str, Tensor]
"""Tensors by name."""

Metadata = dict[str, Any]
"""What a file says beside its tensors: JSON values."""

FORMAT_VERSION = 1
"""The version of model files and checkpoints; a later mip reads earlier ones."""


WANTED = "where a model file (.safetensors) is wanted"


OTHER_FILES: Mapping[str, str] = {
    ".toml": f"a spec, {WANTED}; mip fit SPEC trains one",
    **dict.fromkeys((".csv", ".jsonl", ".ndjson", ".parquet", ".tsv"), f"a table, {WANTED}"),
    **dict.fromkeys(IMAGE_SUFFIXES, f"a photo, {WANTED}"),
    **dict.fromkeys(
        (".bin", ".ckpt", ".pt", ".pth"),
        f"a checkpoint of torch, {WANTED}; mip.load_weights(net, path) reads its weights",
    ),
}
"""What files with these suffixes are, unless they are mip's."""


_NO_DIGEST = b"0" * 64


# The names that safetensors has for dtypes, in the order in which it lays out tensors.
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


def pack(tensors: Tensors, meta: Mapping[str, Any]) -> bytes:
    """Make the bytes of a safetensors file with one metadata key, "mip": canonical JSON.

    The JSON holds a SHA-256 of the whole file, computed with zeros in place of the digest, because
    safetensors itself does not notice flipped bits in the data. Raises FileError for a dtype that
    safetensors cannot store.

    >>> import torch
    >>> tensors, meta = unpack(pack({"w": torch.ones(2)}, {"note": "x"}), "memory")
    >>> tensors, meta["note"]
    ({'w': tensor([1., 1.])}, 'x')
    """
    header, *data = _blocks(tensors, meta)
    return b"".join([_with_digest(header, _digest([header, *data])), *data])


def write_packed(
    path: str | Path,
    tensors: Tensors,
    meta: Mapping[str, Any],
    *,
    overwrite: bool = False,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write the bytes that `pack` makes without holding them in memory: tensors on the CPU go from
    where they are to the file, while another thread computes the digest. `labels` are metadata for
    other tools, beside the key "mip". Raises FileError as `mip.output.write` does.
    """
    header, *data = _blocks(tensors, meta, labels)
    with ThreadPoolExecutor(1) as pool, replacing(path, overwrite=overwrite) as file:
        digest = pool.submit(_digest, [header, *data])
        file.writelines([header, *data])
        flush(file)  # takes as long as the digest; what follows is short
        file.seek(0)
        file.write(_with_digest(header, digest.result()))


def _blocks(
    tensors: Tensors, meta: Mapping[str, Any], labels: Mapping[str, str] = MappingProxyType({})
) -> list[Any]:
    """Return the header, with zeros for its digest, and a view of each tensor's memory."""
    for name, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise FileError(f"{name}: safetensors files hold no {str(tensor.dtype)[6:]}")
    # The digest comes first, so that no text of the user's can be mistaken for it.
    text = json.dumps({"format": FORMAT_VERSION, **meta}, sort_keys=True, allow_nan=False)
    text = f'{{"sha256": "{_NO_DIGEST.decode()}", {text[1:]}'
    ranks = {dtype: rank for rank, dtype in enumerate(_DTYPES)}
    order = sorted(tensors, key=lambda name: (ranks[tensors[name].dtype], name))
    plain = {name: tensors[name].detach().cpu().contiguous() for name in order}
    memory = [tensor.reshape(-1).view(torch.uint8).numpy().data for tensor in plain.values()]
    return [_header(plain, {**labels, "mip": text}), *memory]


def _header(tensors: Tensors, metadata: Mapping[str, str]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    header = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header


def _digest(blocks: Iterable[bytes | memoryview]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.hexdigest().encode()


def _with_digest(header: bytes, digest: bytes) -> bytes:
    return header.replace(_NO_DIGEST, digest, 1)


def unpack(data: bytes, name: str) -> tuple[dict[str, Tensor], Metadata]:
    """Read the bytes that `pack` made. Raises FileError, naming the file, for any others."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    meta = _metadata(data, name)
    version = meta.get("format")
    # Before the checksum, which a later version may compute in another way.
    if type(version) is int and version > FORMAT_VERSION:
        cure = f"this mip reads files up to format {FORMAT_VERSION}; upgrade mip"
        raise FileError(f"{name}: format = {version}: {cure}")
    digest = str(meta.get("sha256"))
    begin = 8 + int.from_bytes(data[:8], "little")  # of the tensors, which are not copied
    header = data[:begin].replace(digest.encode(errors="replace"), _NO_DIGEST, 1)
    if _digest([header, memoryview(data)[begin:]]) != digest.encode(errors="replace"):
        raise FileError(f"{name}: the file is damaged (its checksum does not match)")
    if version not in range(1, FORMAT_VERSION + 1):
        raise FileError(f"{name}: format = {version} is not one of mip's")
    try:
        return from_bytes(data), meta
    except SafetensorError as error:
        raise FileError(f"{name}: the file is damaged ({error})") from error


def _metadata(data: bytes, name: str) -> Metadata:
    known = OTHER_FILES.get(Path(name).suffix.lower())
    try:
        (length,) = struct.unpack("<Q", data[:8])
        if length > len(data) - 8:
            raise FileError(f"{name}: {known or 'the file is truncated, or not a mip file'}")
        text = json.loads(data[8 : 8 + length])["__metadata__"]["mip"]
        return dict(json.loads(text))
    except (ValueError, KeyError, TypeError, struct.error, RecursionError) as error:
        raise FileError(f"{name}: {known or 'the file is damaged, or not a mip file'}") from error


def read_file(path: str | Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read a file of mip's into memory. Raises FileError if it is missing or damaged."""
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        folder = path if path.is_dir() else path.parent
        near = hint(path.name, (file.name for file in folder.glob("*.safetensors")))
        raise FileError(f"{path}: cannot be read ({error.strerror}){near}") from error
    return unpack(data, str(path))


def peek(path: str | Path) -> Metadata:
    """Read the metadata of a file of mip's from its header alone, without verifying the checksum;
    empty for any other file.
    """
    with suppress(OSError, FileError), Path(path).open("rb") as file:
        start, size = file.read(8), Path(path).stat().st_size
        # In a foreign file the length can be any number.
        length = min(int.from_bytes(start, "little"), size)
        return _metadata(start + file.read(length), str(path))
    return {}
