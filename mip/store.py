"""Files: models and checkpoints as safetensors, whole or not at all, and nothing executable."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from attrs import evolve, frozen
from torch import Tensor

from mip.errors import FileError, SpecError, hint
from mip.fit import History
from mip.gradient import aligned
from mip.output import flush, replacing
from mip.plan import Plan, from_json, to_json
from mip.spec import KINDS
from mip.step import State, averaged
from mip.tree import leaves, like

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


def save(
    path: str | Path,
    plan: Plan,
    state: State,
    kinds: Mapping[str, type] = KINDS,
    *,
    overwrite: bool = False,
) -> None:
    """Write a model: weights (where the state keeps averages of them, these), spec and facts in
    one safetensors file. Equal models give equal bytes.

    Raises FileError where the file exists already, unless `overwrite` says to replace it.
    """
    meta = {"plan": to_json(plan, kinds), "step": state.step}
    write_packed(path, dict(leaves(_kept(state))), meta, overwrite=overwrite)


def _kept(state: State) -> dict[str, Any]:
    return {"params": averaged(state).params, "buffers": state.buffers}


def load_model(path: str | Path, kinds: Mapping[str, type] = KINDS) -> tuple[Plan, State]:
    """Read a model's plan and its state (without an optimizer's tensors)."""
    models = load_models(path, kinds)
    if len(models) > 1:
        raise FileError(f"{path}: an ensemble of {len(models)} models, where one is needed")
    return models[0]


def save_models(
    path: str | Path,
    models: Sequence[tuple[Plan, State]],
    kinds: Mapping[str, type] = KINDS,
    *,
    overwrite: bool = False,
) -> None:
    """Write several models into one file, in their order. Equal ones give equal bytes. Raises
    FileError as `save` does.
    """
    trees = {str(k): _kept(state) for k, (_, state) in enumerate(models)}
    plans = [to_json(plan, kinds) for plan, _ in models]
    write_packed(path, dict(leaves(trees)), {"models": plans}, overwrite=overwrite)


def load_models(
    path: str | Path, kinds: Mapping[str, type] = KINDS
) -> tuple[tuple[Plan, State], ...]:
    """Read the models of a file: one, or those of an ensemble."""
    tensors, meta = read_file(path)
    many = meta.get("models")
    if many is None:
        return (_model(path, tensors, meta, kinds),)
    if not isinstance(many, list) or not many:
        raise FileError(f"{path}: its models cannot be read")
    each = [(_part(tensors, str(k)), {"plan": plan}) for k, plan in enumerate(many)]
    return tuple(_model(path, own, plan, kinds) for own, plan in each)


def _model(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    kinds: Mapping[str, type],
) -> tuple[Plan, State]:
    params, buffers = _part(tensors, "params"), _part(tensors, "buffers")
    step = int(meta.get("step", 0))
    return _plan(path, meta, kinds), State(params, buffers, optimizer=(), step=step)


def _plan(path: str | Path, meta: Mapping[str, Any], kinds: Mapping[str, type]) -> Plan:
    if "plan" not in meta:
        raise FileError(f"{path}: the file holds no model")
    try:
        return from_json(meta["plan"], kinds)
    except SpecError as error:
        raise FileError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{path}: its plan cannot be read") from error


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    start = f"{part}/"
    return {name[len(start) :]: tensors[name] for name in sorted(tensors) if name.startswith(start)}


@frozen
class Checkpoint:
    """What a run can go on from: state, history, and what was noted beside them."""

    state: State
    history: History
    extra: Mapping[str, Any]


def save_checkpoint(
    path: str | Path,
    state: State,
    history: History,
    plan: Plan | None = None,
    extra: Mapping[str, Any] | None = None,
    kinds: Mapping[str, type] = KINDS,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint: a model file with the optimizer's tensors and the history beside.
    Raises FileError as `save` does.
    """
    trees = {name: getattr(state, name) for name in ("params", "buffers", "optimizer")}
    meta = {"step": state.step, "seed": state.seed, "extra": dict(extra or {})}
    meta["history"] = [_finite(row) for row in history.epochs]
    if plan is not None:
        meta["plan"] = to_json(plan, kinds)
    tensors = dict(leaves({**trees, "steps": dict(history.steps)}))
    write_packed(path, tensors, meta, overwrite=overwrite)


def _finite(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    # JSON has no NaN: such a number travels as its name. Pairs keep their order, keys do not.
    return [(k, v if v == v and abs(v) != float("inf") else str(v)) for k, v in row.items()]


def load_checkpoint(path: str | Path, start: State) -> Checkpoint:
    """Read a checkpoint into a state shaped like `start`, that of the run's first step.

    Raises FileError when the file is damaged or belongs to another model or optimizer.
    """
    tensors, meta = read_file(path)
    if "history" not in meta:
        raise FileError(f"{path}: the file holds a model and no checkpoint")
    trees = {name: getattr(start, name) for name in ("params", "buffers", "optimizer")}
    named = dict(leaves(trees))
    found = {name: tensor for name, tensor in tensors.items() if not name.startswith("steps/")}
    if other := _other(found, named):
        raise FileError(f"{path}: the checkpoint belongs to another model or optimizer: {other}")
    placed = {name: tensors[name].to(leaf.device) for name, leaf in named.items()}
    # A file does not say how tensors lay in memory, and that decides the last bits of what follows.
    state = evolve(
        start, **like(trees, aligned(placed, named)), step=meta["step"], seed=meta["seed"]
    )
    history = History(tuple(map(_row, meta["history"])), _numbered(tensors, state.step))
    return Checkpoint(state, history, meta["extra"])


def _other(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    for name in sorted(found.keys() ^ wanted.keys()):
        return f"it has no '{name}'" if name in wanted else f"'{name}' is not known here"
    for name, tensor in wanted.items():
        if found[name].shape != tensor.shape:
            return f"'{name}' is {list(found[name].shape)} and not {list(tensor.shape)}"
    return ""


def checkpoints(folder: str | Path) -> list[Path]:
    """List the files of a folder that have the name of a checkpoint."""
    names = ("last.safetensors", "best.safetensors", "epoch-*.safetensors")
    return [path for name in names for path in sorted(Path(folder).glob(name))]


def sound(folder: str | Path) -> list[tuple[int, Path]]:
    """List the checkpoints of a folder that are whole, each behind its count of steps, in order.

    Each is read, for its checksum; a file that is damaged, or no checkpoint, is left out.
    """
    found = []
    for path in Path(folder).glob("*.safetensors"):
        with suppress(FileError):
            meta = read_file(path)[1]
            found += [(int(meta["step"]), path)] if "history" in meta else []
    return sorted(found)


def _numbered(tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    steps = _part(tensors, "steps")
    if steps and "step" not in steps:  # as earlier files have it: those of the epoch begun alone
        count = len(next(iter(steps.values())))
        steps["step"] = torch.arange(step - count + 1, step + 1)
    return steps


def _row(row: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: float(value) if isinstance(value, str) else value for name, value in row}
