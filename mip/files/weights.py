"""Weights of a net without a plan: one file that other tools read, and a load that says what fits.

A file of weights is a safetensors file with the net's own names of its tensors. What is loaded may
come from elsewhere: any safetensors file, a checkpoint of torch that holds nothing but tensors and
plain values, or a file of mip's. The prefixes that DataParallel and `torch.compile` put before
names are ignored.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from attrs import field, frozen
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from mip.errors import FileError, MipError
from mip.files.format import Tensors, peek, read_file, write_packed
from mip.files.models import subtree
from mip.nn import read_tensors
from mip.train import State, path_of, with_averaged_params


@frozen(repr=False)
class LoadReport:
    """What of a file's weights was loaded into a net: the names of tensors, as the net has them.

    `missing` has those that only the net has, `unexpected` those that only the file has, and
    `mismatched` the shapes, (in the file, in the net), of those that both have.

    >>> LoadReport("a.pt", ("0.bias",), mismatched={"0.weight": ((1, 3), (1, 2))})
    a.pt: 1 tensor loaded
      other shape: 0.weight is [1, 3] in the file and [1, 2] in the net
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = field(factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether the net and the file have the same tensors."""
        return not (self.missing or self.unexpected or self.mismatched)

    def __repr__(self) -> str:
        lines = [f"{self.source}: {_count(self.loaded)} loaded"]
        if self.missing:
            lines.append(f"only in the net: {_list(self.missing)}")
        if self.unexpected:
            lines.append(f"only in the file: {_list(self.unexpected)}")
        lines += [f"other shape: {text}" for text in _other_shapes(self)]
        return "\n  ".join(lines)


def _other_shapes(report: LoadReport) -> Iterator[str]:
    for name, (stored, wanted) in report.mismatched.items():
        yield f"{name} is {list(stored)} in the file and {list(wanted)} in the net"


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} tensor{'s' * (len(names) != 1)}"


def _list(names: Sequence[str], limit: int = 8) -> str:
    rest = f", … ({len(names)} in all)" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def save_weights(path: str | Path, net: nn.Module | State, *, overwrite: bool = False) -> None:
    """Write the weights of a net, or of a state (their averages, if it keeps any), into one
    safetensors file, under the net's own names: parameters, and buffers that are saved.

    Other tools read it: `net.load_state_dict(safetensors.torch.load_file(path))`. A tensor that
    several layers share is stored once, under the first of its names, as safetensors' `save_model`
    does it. Raises FileError as `save` does, and for the suffix of a pickle of torch (.pt, .pth,
    .bin, .ckpt), which this is not.

    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "net.safetensors")
    >>> save_weights(path, nn.Linear(2, 1))
    >>> load_weights(nn.Linear(2, 1), path).loaded
    ('weight', 'bias')
    """
    if isinstance(net, State):
        state = with_averaged_params(net)
        tensors = {**state.params, **state.buffers}
    elif isinstance(net, nn.Module):
        tensors = {path_of(name): tensor for name, tensor in _unshared(net).items()}
    else:
        order = "the order is save_weights(path, net)"
        raise MipError(f"save_weights: not a net or a state, but {type(net).__name__}; {order}")
    if Path(path).suffix in (".pt", ".pth", ".bin", ".ckpt"):
        name = Path(path).with_suffix(".safetensors").name
        raise FileError(
            f"{path}: save_weights writes a safetensors file, which torch.load cannot read: name "
            f"it {name}, or use torch.save(net.state_dict(), path)"
        )
    # By this entry transformers and others recognize tensors of torch.
    write_packed(path, tensors, {}, overwrite=overwrite, labels={"format": "pt"})


def _unshared(net: nn.Module) -> dict[str, Tensor]:
    first: dict[int, str] = {}
    tensors = net.state_dict(keep_vars=True)
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise MipError(f"'{name}' is {type(tensor).__name__}: files of weights hold tensors")
        if is_lazy(tensor):
            raise MipError(
                f"'{name}' has no shape yet: run the net once before its weights are saved"
            )
        first.setdefault(id(tensor), name)
    return {name: tensors[name] for name in first.values()}


def load_weights(
    net: nn.Module, source: str | Path | Tensors, *, strict: bool = False
) -> LoadReport:
    """Load into a net, in place, what fits of a file's weights; report what was loaded and what was
    not.

    `source` is a file as `read_weights` reads it, or tensors by name, for instance those of a file
    under other names. With `strict` everything must fit. Raises FileError, before anything changes,
    if it does not, or if nothing fits at all.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    >>> other = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 5), nn.Linear(5, 1))
    >>> load_weights(net, other.state_dict())
    state dict: 2 tensors loaded
      only in the file: 2.weight, 2.bias
      other shape: 1.weight is [5, 3] in the file and [1, 3] in the net
      other shape: 1.bias is [5] in the file and [1] in the net
    """
    if not isinstance(net, nn.Module):
        order = "the order is load_weights(net, path)"
        raise MipError(f"load_weights: not a net, but {type(net).__name__}; {order}")
    if isinstance(source, State):
        raise MipError("load_weights: mip.train.load_state(net, state) writes a state into a net")
    if isinstance(source, Mapping):
        label, stored = "state dict", source
        for name, each in source.items():
            if not isinstance(each, Tensor):
                kind, cure = type(each).__name__, "torch.as_tensor makes one"
                raise MipError(f"load_weights: '{name}' is no tensor, but {kind}: {cure}")
    else:
        label, stored = str(source), read_weights(source)
    state_dict = net.state_dict(keep_vars=True)
    ours = {path_of(name): name for name, each in state_dict.items() if isinstance(each, Tensor)}
    tensors = _as_named_in(ours, stored)
    report = _compare(label, tensors, {path: state_dict[name] for path, name in ours.items()})
    if not report.loaded or (strict and not report.is_complete):
        raise FileError(_refusal(report, ours))
    net.load_state_dict({ours[path]: tensors[path] for path in report.loaded}, strict=False)
    return report


def _as_named_in(names: Iterable[str], tensors: Tensors) -> dict[str, Tensor]:
    known = set(names)
    bare = {re.sub(r"^(module\.)+", "", path_of(name)): name for name in tensors}
    renamed = {new: tensors[old] for new, old in bare.items() if old not in known}
    return {**renamed, **{name: tensors[name] for name in tensors if name in known}}


def _compare(label: str, tensors: Tensors, targets: Tensors) -> LoadReport:
    shared = [name for name in targets if name in tensors]
    other = {
        name: (tuple(tensors[name].shape), tuple(targets[name].shape))
        for name in shared
        if not is_lazy(targets[name]) and tensors[name].shape != targets[name].shape
    }
    loaded = tuple(name for name in shared if name not in other)
    filled = {id(targets[name]) for name in loaded}  # a shared tensor may have one name in a file
    return LoadReport(
        label,
        loaded,
        missing=tuple(
            name
            for name, target in targets.items()
            if name not in tensors and id(target) not in filled
        ),
        unexpected=tuple(name for name in tensors if name not in targets),
        mismatched=other,
    )


def _refusal(report: LoadReport, names: Iterable[str]) -> str:
    mistakes = list(_other_shapes(report))
    mistakes += [f"the file has no {_near(name, report.unexpected)}" for name in report.missing]
    mistakes += [f"the net has no {_near(name, names)}" for name in report.unexpected]
    rest = f"; and {len(mistakes) - 3} more" if len(mistakes) > 3 else ""
    what = "the weights do not fit the net" if report.loaded else "no tensor fits the net"
    return f"{report.source}: {what}: {'; '.join(mistakes[:3])}{rest}"


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"{name} (nearest: {near[0]})" if near else name


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the weights of a file by name: those of a safetensors file, of a model of mip or a
    checkpoint (without the averages that its optimizer keeps), or of a checkpoint of torch, also
    if they are one of its entries ("state_dict", "model_state_dict", "model").

    Nothing in a file is executed. Raises FileError for a pickle that holds more than tensors and
    plain values, and for a file that is missing, damaged or holds no weights.
    """
    path = Path(path)
    return _of_mip(path) if peek(path) else read_tensors(path)


def _of_mip(path: Path) -> dict[str, Tensor]:
    tensors, meta = read_file(path)
    if "models" in meta:
        raise FileError(f"{path}: an ensemble of {len(meta['models'])} models, where one is needed")
    if "step" not in meta:  # a file of weights has no state
        return tensors
    return {**subtree(tensors, "params"), **subtree(tensors, "buffers")}
