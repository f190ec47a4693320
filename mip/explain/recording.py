"""Record what each layer outputs, call by call, while a module runs.

The forward hooks live as long as a `with` block, on the very module that a step runs, so they see
the passes with the weights of the step's state. The hooks only read, and what they compute stays on
the device. A pass is a forward of the recorded module; calls are counted in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from attrs import define, field, frozen
from torch import Tensor, nn

from mip.errors import MipError, add_note, hint
from mip.model import short_path
from mip.rng import generators, seeded
from mip.train import check_net
from mip.tree import Tree, leaves, map_tree

if TYPE_CHECKING:
    import pandas as pd


Types = type[nn.Module] | Sequence[type[nn.Module]]
"""One or more types of modules; an empty sequence means all."""


Summarize = Callable[[Tree], list[tuple[str, Any]]]
"""From a layer's output to what is recorded: pairs of a leaf's path and its value."""


NUMBERS = ("mean", "std", "zeros", "dead")
"""The statistics in `Statistics.numbers`, in their order."""


OUTSIDE = -1
"""The pass of calls outside of any forward of the probed module."""


_EXACT = 2**24


@frozen(eq=False)
class Statistics:
    """The summary of one tensor of `size` numbers: `numbers`, float32 or float64 [4], and `counts`,
    int64 [bins].

    Both stay on the tensor's device; reading a property waits for it. The bins have equal width
    over `span`, both ends included; values outside of it, and NaN, are in no bin.
    """

    numbers: Tensor
    counts: Tensor
    span: tuple[float, float]
    size: int = 0

    @property
    def mean(self) -> float:
        """The mean of all activations."""
        return float(self.numbers[0])

    @property
    def std(self) -> float:
        """Their standard deviation as numpy computes it: 0 for a single number."""
        return float(self.numbers[1])

    @property
    def zeros(self) -> float:
        """The share of activations that are exactly 0, as after a ReLU."""
        return float(self.numbers[2])

    @property
    def dead(self) -> float:
        """The share of units that are exactly 0, not just small, in every row.

        A unit is an index into all dimensions but that of the rows.
        """
        return float(self.numbers[3])


@torch.no_grad()
def statistics(
    output: Tensor, bins: int = 40, span: tuple[float, float] = (0.0, 10.0)
) -> Statistics:
    """Summarize a tensor on its device, without waiting: mean, std, zeros, dead, and a histogram.

    Integers and half floats are summed as float32. If a tensor has no elements, all numbers are NaN
    and all counts 0.

    >>> seen = statistics(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 11.0]]), bins=5)
    >>> seen.mean, round(seen.zeros, 3), seen.dead, seen.counts
    (2.0, 0.667, 0.5, tensor([5, 0, 0, 0, 0]))
    """
    values = torch.atleast_1d(output.detach())
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return Statistics(_numbers(values), _counts(values.flatten(), bins, span), span, values.numel())


def _numbers(values: Tensor) -> Tensor:
    if not values.numel():
        return values.new_full((len(NUMBERS),), torch.nan)
    # One tensor to work in: allocating one for each number costs several times the arithmetic.
    mean = values.mean()
    work = values - mean
    std = work.mul_(work).mean().sqrt()
    zero = torch.eq(values, 0, out=work)
    return torch.stack([mean, std, zero.mean(), zero.amin(dim=0).mean()])


def _counts(values: Tensor, bins: int, span: tuple[float, float]) -> Tensor:
    # histc counts in floats, which are exact up to 2**24: a longer tensor is counted in parts.
    with _nondeterministic_allowed():
        parts = [part.histc(bins, *span).long() for part in values.split(_EXACT)]
    return torch.stack(parts).sum(dim=0)


@contextmanager
def _nondeterministic_allowed() -> Iterator[None]:
    # When algorithms must be deterministic, torch refuses histc on a GPU because of the order in
    # which it adds; but ones add up to the same in any order.
    mode = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(mode)


@frozen(eq=False)
class Record:
    """One call of a layer: its path, the pass and the call within it, both counted from 0, whether
    the layer was in training mode, the value (Statistics, or what your function returned), and the
    layer's type, such as "Linear".

    If a layer outputs several tensors, there is a record for each, whose path ends with that of the
    tensor: "head/price". A pass is a forward of the probed module; for a layer that was called
    outside of any it is -1.
    """

    path: str
    pass_: int
    call: int
    training: bool
    value: Any
    layer: str = ""


def layers(
    net: nn.Module, types: Types = (), containers: bool = False
) -> list[tuple[str, nn.Module]]:
    """List the layers with their paths, in the module's order: modules without children, with
    `containers` all modules; if `types` are given, only those.

    Paths are those that patterns in a spec match: `photos.backbone.0`, `head.0`. A layer that is
    used in several places is listed once.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))
    >>> [path for path, _ in layers(net)], [path for path, _ in layers(net, nn.Linear)]
    (['0', '1.0', '1.1'], ['0', '1.1'])
    >>> [path for path, _ in layers(net, nn.Sequential, containers=True)]
    ['', '1']
    """
    check_net(net)
    classes = _classes(types)
    counts = Counter(short_path(path) for path, _ in net.named_modules())
    return [
        # The spec path of a mere container can be that of another module: it keeps its own path.
        (short_path(path) if counts[short_path(path)] == 1 else path, module)
        for path, module in net.named_modules()
        if isinstance(module, classes) and (containers or not list(module.children()))
    ]


def _classes(types: Types) -> tuple[type[nn.Module], ...]:
    classes = (types,) if isinstance(types, (type, str, nn.Module)) else tuple(types)
    for kind in classes:
        if not isinstance(kind, type):
            name = kind if isinstance(kind, str) else type(kind).__name__
            raise MipError(f"types are classes, such as types=nn.ReLU, and not {name!r}")
    return classes or (nn.Module,)


@contextmanager
def record_activations(
    net: nn.Module,
    match: str = "*",
    types: Types = (),
    *,
    containers: bool = False,
    record: Callable[[Tree], Any] | None = None,
    bins: int = 40,
    span: tuple[float, float] = (0.0, 10.0),
) -> Iterator[list[Record]]:
    """Record what layers output while a block runs; afterwards the module is as before.

    Layers are selected from those of `layers` by a pattern of their paths and by type. Each call
    appends a record to the list: the `statistics` of each tensor, which stay on the device until
    they are read, or `record(output)`. That function gets the output detached, must not write into
    it, and draws random numbers under a seed of its own. What runs is the module itself, also
    inside `mip.fit`, `mip.train_step` and `mip.train.eval_step`. Copies of it made inside the
    block, and what `torch.compile` makes of it, are not recorded.

    Raises MipError if there is no such layer, and for arguments that make no sense.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> with record_activations(net, types=nn.ReLU) as records: out = net(torch.ones(3, 1))
    >>> [(r.path, r.pass_, r.value.mean == out.mean().item()) for r in records]
    [('1', 0, True)]
    """
    selected = _select(net, match, types, containers)
    low, high = span
    if bins < 1 or not -torch.inf < low < high < torch.inf:
        raise MipError(f"bins must be >= 1 and span low < high, not {bins} and {span}")
    if record is not None and not callable(record):
        raise MipError(f"record is a function of a layer's output, not {record!r}")
    log = _Log(_apply(net, record) if record else partial(_summarize, bins, span))
    with ExitStack() as hooks:
        hooks.enter_context(net.register_forward_pre_hook(log.begin))
        for path, layer in selected:
            hooks.enter_context(layer.register_forward_hook(partial(log.add, path)))
        # Also after an error; and after the hooks of the layers, since the net may be one of them.
        hooks.enter_context(net.register_forward_hook(log.end, always_call=True))
        yield log.records


def _select(
    net: nn.Module, match: str, types: Types, containers: bool
) -> list[tuple[str, nn.Module]]:
    known = layers(net, types, containers)
    if not isinstance(match, str):
        cure = (
            "classes are given by types="
            if isinstance(match, type)
            else "one of `layers`, or '*.relu'"
        )
        raise MipError(f"match is a pattern of paths as text, not {match!r}: {cure}")
    matches = [(path, layer) for path, layer in known if fnmatchcase(path, match)]
    if matches:
        return matches
    cure = ""
    if any(fnmatchcase(path, match) for path, _ in layers(net, types, True)):
        cure = "; modules that hold others need containers=True"
    if not known:
        wanted = " or ".join(kind.__name__ for kind in _classes(types))
        kinds = sorted({type(layer).__name__ for _, layer in layers(net, (), containers)})
        raise MipError(f"no layer is a {wanted}{cure}{hint(wanted, kinds)}")
    raise MipError(f"'{match}' matches no layer{cure}{hint(match, dict(known))}")


def _summarize(bins: int, span: tuple[float, float], output: Tree) -> list[tuple[str, Any]]:
    return [(leaf, statistics(tensor, bins, span)) for leaf, tensor in leaves(output)]


def _apply(net: nn.Module, record: Callable[[Tree], Any]) -> Summarize:
    on_device = generators(next((param.device for param in net.parameters()), None))

    def summarize(output: Tree) -> list[tuple[str, Any]]:
        with seeded(0, on_device):
            return [("", record(map_tree(Tensor.detach, output)))]

    return summarize


@define(eq=False)
class _Log:
    # Methods, not closures: if the module is copied, the hooks of the copy have a log of their own.
    summarize: Summarize
    records: list[Record] = field(factory=list)
    passes: int = 0
    current: int = OUTSIDE
    calls: dict[str, int] = field(factory=dict)
    outside: dict[str, int] = field(factory=dict)

    def begin(self, net: nn.Module, args: object) -> None:
        self.current, self.passes, self.calls = self.passes, self.passes + 1, {}

    def end(self, net: nn.Module, args: object, output: Tree) -> None:
        self.current = OUTSIDE

    @torch.no_grad()
    def add(self, path: str, layer: nn.Module, args: object, output: Tree) -> None:
        if torch.compiler.is_compiling():
            return  # a compiled module calls no hooks
        calls = self.outside if self.current == OUTSIDE else self.calls
        calls[path] = calls.get(path, -1) + 1
        try:
            pairs = self.summarize(output)
        except Exception as error:
            add_note(error, f"while recording {path or 'the module'}")
            raise
        kind = type(layer).__name__
        for leaf, value in pairs:
            name = f"{path}/{leaf}" if leaf else path
            self.records.append(
                Record(name, self.current, calls[path], layer.training, value, kind)
            )


def to_frame(records: Iterable[Record]) -> pd.DataFrame:
    """Make a DataFrame with a row for each record and the statistics in columns.

    The values of your own function are in a column `value`, or, if they are dicts, in columns of
    their names; tensors of one element become numbers. This waits for the device.

    >>> net = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> with record_activations(net, "1", record=lambda output: output.max()) as records:
    ...     _ = net(torch.ones(2, 3))
    >>> to_frame(records)
      path  pass  call  training  value
    0    1     0     0      True    1.0
    """
    import pandas as pd

    rows = [
        {"path": r.path, "pass": r.pass_, "call": r.call, "training": r.training, **_named(r.value)}
        for r in records
    ]
    return pd.DataFrame(
        rows, columns=None if rows else ["path", "pass", "call", "training", *NUMBERS]
    )


def _named(value: Any) -> dict[str, Any]:
    if isinstance(value, Statistics):
        return dict(zip(NUMBERS, value.numbers.tolist(), strict=True))
    named = value if isinstance(value, Mapping) else {"value": value}
    return {
        name: each.item() if isinstance(each, Tensor) and each.numel() == 1 else each
        for name, each in named.items()
    }


def histograms(records: Sequence[Record]) -> dict[str, Tensor]:
    """Collect each layer's histograms: int64 [bins, passes] on the CPU, by path.

    The columns are the passes in order, the same for all layers; several calls in one pass are
    added up. A column sums to the number of activations within the span. Raises MipError for a
    record without statistics.

    >>> net = nn.ReLU()
    >>> with record_activations(net, bins=2, span=(0, 1)) as records:
    ...     for high in (1.0, 2.0): _ = net(torch.tensor([-1.0, 0.2, high]))
    >>> histograms(records)
    {'': tensor([[2, 2],
                 [1, 0]])}
    """
    passes = sorted({record.pass_ for record in records})
    column = {number: k for k, number in enumerate(passes)}
    counts: dict[str, Tensor] = {}
    for record in records:
        new = statistics_of(record).counts
        empty = torch.zeros(len(new), len(passes), dtype=torch.int64)
        counts.setdefault(record.path, empty)[:, column[record.pass_]] += new.cpu()
    return counts


def statistics_of(record: Record) -> Statistics:
    """Return the statistics of a record. Raises MipError if it holds something else."""
    if not isinstance(record.value, Statistics):
        kind = type(record.value).__name__
        raise MipError(
            f"{record.path}: the record holds a value of your own ({kind}) and no statistics: "
            "record_activations without record="
        )
    return record.value
