"""Looking inside: what each layer gives, call by call, while a module runs."""

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

from mip.errors import MipError, hint
from mip.model import spec_path
from mip.rng import generators, seeded
from mip.tree import Tree, leaves, map_tree

if TYPE_CHECKING:
    import pandas as pd


Types = type[nn.Module] | tuple[type[nn.Module], ...]
"""A type of module, or several; none means all."""


Values = Callable[[Tree], list[tuple[str, Any]]]
"""From what a layer gave to what is recorded: pairs of a leaf's path and its value."""


NUMBERS = ("mean", "std", "zeros", "dead")
"""The statistics beside the histogram, in the order in which `Statistics.numbers` holds them."""


OUTSIDE = -1
"""The pass of calls that come by no forward of the module that is probed."""


_EXACT = 2**24


@frozen(eq=False)
class Statistics:
    """What is kept of one tensor: `numbers`, float32 or float64 [4], and `counts`, int64 [bins].

    Both stay on the tensor's device; reading a property waits for it. `counts` are those of bins
    of equal width over `span`, which holds both its ends; what lies outside of it, or is NaN, is
    in no bin.
    """

    numbers: Tensor
    counts: Tensor
    span: tuple[float, float]

    @property
    def mean(self) -> float:
        """The mean of all activations."""
        return float(self.numbers[0])

    @property
    def std(self) -> float:
        """Their standard deviation, as numpy's: that of one number is 0."""
        return float(self.numbers[1])

    @property
    def zeros(self) -> float:
        """The share of activations that are exactly 0, as a ReLU makes them."""
        return float(self.numbers[2])

    @property
    def dead(self) -> float:
        """The share of units that are exactly 0 in every row; a unit is a place behind the rows."""
        return float(self.numbers[3])


@torch.no_grad()
def statistics(
    output: Tensor, bins: int = 40, span: tuple[float, float] = (0.0, 10.0)
) -> Statistics:
    """Summarise a tensor on its device, without waiting: mean, std, zeros, dead, and a histogram.

    Whole numbers and halves are summed as float32. Of a tensor without elements all numbers are
    NaN and all counts 0.

    >>> seen = statistics(torch.tensor([[0.0, 1.0], [0.0, 0.0], [0.0, 11.0]]), bins=5)
    >>> seen.mean, round(seen.zeros, 3), seen.dead, seen.counts
    (2.0, 0.667, 0.5, tensor([5, 0, 0, 0, 0]))
    """
    values = torch.atleast_1d(output.detach())
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    return Statistics(_numbers(values), _counts(values.flatten(), bins, span), span)


def _numbers(values: Tensor) -> Tensor:
    if not values.numel():
        return values.new_full((len(NUMBERS),), torch.nan)
    # One tensor to work in: a new one for each number costs several times the arithmetic.
    mean = values.mean()
    work = values - mean
    std = work.mul_(work).mean().sqrt()
    zero = torch.eq(values, 0, out=work)
    return torch.stack([mean, std, zero.mean(), zero.amin(dim=0).mean()])


def _counts(values: Tensor, bins: int, span: tuple[float, float]) -> Tensor:
    # histc counts in floats, which are exact up to 2**24: a longer tensor is counted in pieces.
    with _in_any_order():
        pieces = [piece.histc(bins, *span).long() for piece in values.split(_EXACT)]
    return torch.stack(pieces).sum(dim=0)


@contextmanager
def _in_any_order() -> Iterator[None]:
    # Where algorithms must be deterministic torch refuses histc on a GPU, for the order in which
    # it adds; but ones add up to the same in any order.
    was = torch.get_deterministic_debug_mode()
    torch.set_deterministic_debug_mode(0)
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(was)


@frozen(eq=False)
class Record:
    """One call of a layer: its path, the pass and the call within it, both counted from 0, whether
    the layer was in training mode, and the value: Statistics, or what a function of yours gave.

    Where a layer gives several tensors there is a record for each, whose path ends in the tensor's:
    "head/price". A pass is a forward of the module that is probed; a layer that was called outside
    of any has pass -1.
    """

    path: str
    pass_: int
    call: int
    training: bool
    value: Any


def layers(
    net: nn.Module, types: Types = (), containers: bool = False
) -> list[tuple[str, nn.Module]]:
    """List the layers with their paths, in the order in which the module holds them: modules that
    hold no others, and with `containers` all; of the given types, where there are any.

    Paths are those by which patterns of a spec speak: `photos.backbone.0`, `head.0`. A layer that
    stands in several places is listed once.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.ReLU(), nn.Linear(2, 1)))
    >>> [path for path, _ in layers(net)], [path for path, _ in layers(net, nn.Linear)]
    (['0', '1.0', '1.1'], ['0', '1.1'])
    >>> [path for path, _ in layers(net, nn.Sequential, containers=True)]
    ['', '1']
    """
    twice = Counter(spec_path(path) for path, _ in net.named_modules())
    return [
        # What merely holds others is not spoken of, so that it keeps its own path.
        (spec_path(path) if twice[spec_path(path)] == 1 else path, module)
        for path, module in net.named_modules()
        if isinstance(module, types or nn.Module) and (containers or not list(module.children()))
    ]


@contextmanager
def probe(
    net: nn.Module,
    match: str = "*",
    types: Types = (),
    *,
    containers: bool = False,
    record: Callable[[Tree], Any] | None = None,
    bins: int = 40,
    span: tuple[float, float] = (0.0, 10.0),
) -> Iterator[list[Record]]:
    """Record what layers give while a block runs, and leave nothing behind.

    Layers are chosen among those of `layers` by a pattern of their paths and by type. Each call
    adds a record to the list: the `statistics` of each tensor, which stay on the device until they
    are read, or `record(output)`. This function gets the output detached, must not write into it,
    and draws under a seed of its own. What runs is the module itself: also inside `mip.fit`,
    `mip.train_step` and `mip.train.eval_step`. Neither a copy of it made inside the block nor what
    `torch.compile` makes of it is seen.

    Raises MipError when there is no such layer, and where bins or span mean nothing.

    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> with probe(net, types=nn.ReLU) as records: out = net(torch.ones(3, 1))
    >>> [(each.path, each.pass_, each.value.mean == out.mean().item()) for each in records]
    [('1', 0, True)]
    """
    chosen = _chosen(net, match, types, containers)
    _check(bins, span)
    log = _Log(_whole(net, record) if record else partial(_by_leaf, bins, span))
    with ExitStack() as hooks:
        hooks.enter_context(net.register_forward_pre_hook(log.begin))
        for path, layer in chosen:
            hooks.enter_context(layer.register_forward_hook(partial(log.see, path)))
        # A pass that fails ends too; it ends behind the layers' hooks, for the net may be one.
        hooks.enter_context(net.register_forward_hook(log.end, always_call=True))
        yield log.records


def _chosen(
    net: nn.Module, match: str, types: Types, containers: bool
) -> list[tuple[str, nn.Module]]:
    known = layers(net, types, containers)
    found = [(path, layer) for path, layer in known if fnmatchcase(path, match)]
    if found:
        return found
    cure = ""
    if any(fnmatchcase(path, match) for path, _ in layers(net, types, True)):
        cure = "; what holds other modules is asked for with containers=True"
    if not known:
        kinds = sorted({type(layer).__name__ for _, layer in layers(net, (), containers)})
        raise MipError(f"probe: no layer is a {_names(types)}{cure}{hint(_names(types), kinds)}")
    raise MipError(f"probe: '{match}' matches no layer{cure}{hint(match, dict(known))}")


def _names(types: Types) -> str:
    each = types if isinstance(types, tuple) else (types,)
    return " or ".join(kind.__name__ for kind in each)


def _check(bins: int, span: tuple[float, float]) -> None:
    low, high = span
    if bins < 1 or not -torch.inf < low < high < torch.inf:
        raise MipError(f"probe: {bins} bins over {span} mean nothing: give 1 or more, low < high")


def _by_leaf(bins: int, span: tuple[float, float], output: Tree) -> list[tuple[str, Any]]:
    return [(leaf, statistics(tensor, bins, span)) for leaf, tensor in leaves(output)]


def _whole(net: nn.Module, record: Callable[[Tree], Any]) -> Values:
    drawn = generators(next((param.device for param in net.parameters()), None))

    def values(output: Tree) -> list[tuple[str, Any]]:
        with seeded(0, drawn):
            return [("", record(map_tree(Tensor.detach, output)))]

    return values


@define(eq=False)
class _Log:
    # Methods, not closures: when somebody copies the module, the copy's hooks get a log of theirs.
    values: Values
    records: list[Record] = field(factory=list)
    passes: int = 0
    now: int = OUTSIDE
    calls: dict[str, int] = field(factory=dict)
    outside: dict[str, int] = field(factory=dict)

    def begin(self, net: nn.Module, args: Any) -> None:
        self.now, self.passes, self.calls = self.passes, self.passes + 1, {}

    def end(self, net: nn.Module, args: Any, output: Tree) -> None:
        self.now = OUTSIDE

    @torch.no_grad()
    def see(self, path: str, layer: nn.Module, args: Any, output: Tree) -> None:
        if torch.compiler.is_compiling():
            return  # what torch.compile makes of a module calls no hooks
        calls = self.outside if self.now == OUTSIDE else self.calls
        calls[path] = calls.get(path, -1) + 1
        try:
            pairs = self.values(output)
        except Exception as error:
            error.add_note(f"in the probe of {path or 'the module'}")
            raise
        for leaf, value in pairs:
            where = f"{path}/{leaf}" if leaf else path
            self.records.append(Record(where, self.now, calls[path], layer.training, value))


def table(records: Iterable[Record]) -> pd.DataFrame:
    """Lay out records as a table, a row each, with the statistics in columns.

    Values of your own stand in a column `value`, or where they are named (a dict) in columns of
    their names; tensors of one element become numbers. The device is waited for here.

    >>> net = nn.Sequential(nn.Flatten(), nn.ReLU())
    >>> with probe(net, "1", record=lambda output: output.max()) as records:
    ...     _ = net(torch.ones(2, 3))
    >>> table(records)
      path  pass  call  training  value
    0    1     0     0      True    1.0
    """
    import pandas as pd

    first = ("path", "pass", "call", "training")
    rows = [
        {**dict(zip(first, (r.path, r.pass_, r.call, r.training), strict=True)), **_named(r.value)}
        for r in records
    ]
    return pd.DataFrame(rows, columns=None if rows else [*first, *NUMBERS])


def _named(value: Any) -> Mapping[str, Any]:
    if isinstance(value, Statistics):
        return dict(zip(NUMBERS, value.numbers.tolist(), strict=True))
    named = value if isinstance(value, Mapping) else {"value": value}
    return {name: _plain(each) for name, each in named.items()}


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def histograms(records: Sequence[Record]) -> dict[str, Tensor]:
    """Put each layer's histograms side by side: int64 [bins, passes] on the CPU, by path.

    The columns are the passes in their order, the same for all layers; several calls in one pass
    are added up. A column sums to the number of activations within the span. Raises MipError where
    a record holds no statistics.

    >>> net = nn.ReLU()
    >>> with probe(net, bins=2, span=(0, 1)) as records:
    ...     for high in (1.0, 2.0): _ = net(torch.tensor([-1.0, 0.2, high]))
    >>> histograms(records)
    {'': tensor([[2, 2],
                 [1, 0]])}
    """
    places = {each: place for place, each in enumerate(sorted({r.pass_ for r in records}))}
    found: dict[str, Tensor] = {}
    for each in records:
        counts = held(each).counts
        empty = torch.zeros(len(counts), len(places), dtype=torch.int64)
        found.setdefault(each.path, empty)[:, places[each.pass_]] += counts.cpu()
    return found


def held(record: Record) -> Statistics:
    """Give the statistics that a record holds. Raises MipError where it holds something else."""
    if not isinstance(record.value, Statistics):
        kind = type(record.value).__name__
        raise MipError(
            f"{record.path}: the record holds a value of your own ({kind}) and no statistics: "
            "probe without record="
        )
    return record.value
