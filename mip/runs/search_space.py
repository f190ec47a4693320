"""What a search may change in a spec: ranges of numbers and choices, by the path of each field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from mip.errors import SpecError
from mip.heads import column_heads
from mip.spec import Spec, parse_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

_RANGE = re.compile(r"\s*([-+\d.eE_]+?)\s*\.\.\s*([-+\d.eE_]+)\s*")


@frozen
class Range:
    """Numbers from `low` to `high`: whole ones if both ends are, and on a log scale if `high` is
    ten times `low` or more.
    """

    low: float
    high: float

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        from optuna.distributions import FloatDistribution, IntDistribution

        is_log = 0 < 10 * self.low <= self.high
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=is_log)
        return FloatDistribution(self.low, self.high, log=is_log)

    def value(self, drawn: float) -> float:
        """Return the value of a field: a fraction has three digits, to be read and written."""
        if isinstance(drawn, int):
            return drawn
        return min(max(float(f"{drawn:.3g}"), self.low), self.high)

    def ends(self) -> tuple[Any, ...]:
        """The lowest and the highest."""
        return self.low, self.high


@frozen
class Choices:
    """Several values, as TOML or text."""

    texts: tuple[str, ...]

    def distribution(self) -> BaseDistribution:
        """Return what Optuna draws from."""
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    def value(self, drawn: str) -> Any:
        """Return the value of a field."""
        return parse_value(drawn)

    def ends(self) -> tuple[Any, ...]:
        """All values."""
        return tuple(map(parse_value, self.texts))


Space: TypeAlias = Mapping[str, Range | Choices]


def read_space(space: Mapping[str, str]) -> Space:
    """Read what is to be tried: a range `LOW..HIGH`, or choices separated by commas.

    >>> read_space({"train.optimizer.lr": "1e-4..1e-2", "head.layers": "[64], [128, 128]"})
    {'train.optimizer.lr': Range(low=0.0001, high=0.01), 'head.layers': Choices(texts=('[64]', \
'[128, 128]'))}
    """
    return {name: _read(name, text) for name, text in space.items()}


def _read(name: str, text: str) -> Range | Choices:
    if name.startswith("data."):
        raise SpecError(
            f"tune: {name}: trials are compared on the same rows; change it in the spec"
        )
    if found := _RANGE.fullmatch(text):
        ends = [parse_value(end) for end in found.groups()]
        if not all(isinstance(end, (int, float)) for end in ends) or ends[0] >= ends[1]:
            raise SpecError(f"tune: {name} = '{text}': write a range as LOW..HIGH")
        return Range(*ends)
    texts = [each.strip() for each in re.split(r",(?![^\[]*\])", text)]
    if len({*texts}) < 2 or not all(texts):
        cure = "write a range, 1e-4..1e-2, or choices, 16,32"
        raise SpecError(f"tune: {name} = '{text}': one value leaves nothing to search; {cure}")
    return Choices(tuple(texts))


def default_space(spec: Spec) -> dict[str, str]:
    r"""Return what is tried if nobody says it: rates around that of the spec, weight decay, the
    batches' size, and the layers and dropout of each head that has them.

    >>> from mip.spec import parse
    >>> spec = parse('branch.x = { kind = "continuous", columns = ["x"] }\n'
    ...              'head = { kind = "regression", column = "y", layers = [32] }')
    >>> for name, values in default_space(spec).items():
    ...     print(name, "=", values)
    train.batch_size = 16,32,64
    train.optimizer.lr = 0.0001..0.01
    train.optimizer.weight_decay = 1e-05..0.3
    head.dropout = 0.0..0.5
    head.layers = [32],[64, 64],[128, 128],[256, 256]
    """
    train, size = spec.train, spec.train.batch_size
    space = {"train.batch_size": f"{max(size // 2, 1)},{size},{2 * size}"}
    if rate := getattr(train.optimizer, "lr", None):
        space["train.optimizer.lr"] = f"{rate / 10:g}..{rate * 10:g}"
    if hasattr(train.optimizer, "weight_decay"):
        space["train.optimizer.weight_decay"] = "1e-05..0.3"
    for path, head in column_heads(spec.head):
        if hasattr(head, "dropout"):
            space[f"{path}.dropout"] = "0.0..0.5"
        if hasattr(head, "layers"):
            layers = [[*head.layers], [64, 64], [128, 128], [256, 256]]
            space[f"{path}.layers"] = ",".join(dict.fromkeys(map(str, layers)))
    return space
