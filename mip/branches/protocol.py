"""Branches: what a model reads. A frozen class per kind, with three verbs each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from attrs import Attribute, field
from attrs.validators import min_len
from torch import nn

from mip.data import Rows, Table
from mip.tree import Tree

Facts = dict[str, Any]
"""What a kind has learned of the training rows: JSON, nothing else."""


def names(columns: Iterable[str]) -> tuple[str, ...]:
    """Keep names of columns as a tuple; one name alone would fall apart into letters.

    >>> names("area")
    Traceback (most recent call last):
    ValueError: 'columns' must be a list of names, not 'area'
    """
    if isinstance(columns, str):
        raise ValueError(f"'columns' must be a list of names, not '{columns}'")
    return tuple(columns)


class Branch(Protocol):
    """The three verbs of a branch. Any frozen attrs class that has them is a kind; its attribute
    `kind` is its name in specs.

    More verbs are optional, and every branch that has one is asked, at any depth of the tree:

    - `augment(inputs, key, rows)` changes its inputs in training.
    - `pretrain(module)` loads given weights into its new module.
    - `keep(facts, rows, folder)` encodes, and leaves encoded rows on disk.
    - `absent(inputs)` says which rows have no inputs, bool [n], for a fusion with `drop`.
    - `problems(rows)` names the rows that cannot be used, as `Problem`; see `policy`.
    - `oddities(rows)` names what is not read as it stands, as pairs of (place, text).
    - `unknown(facts, rows)` names words that training did not see, as pairs of (column, words).
    """

    kind: str

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what encoding and building need; JSON-able."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Turn rows into tensors with one entry a row; total: NaN and the unseen are fine."""
        ...

    def module(self, facts: Facts) -> nn.Module:
        """Build the module: encoded inputs of n rows to float32 [n, width]."""
        ...


class Problem(NamedTuple):
    """Why a row cannot be used as it is: its place among the rows, the column, the reason, and in
    a few words what reports count it as (the reason itself where empty).
    """

    place: int
    column: str
    reason: str
    summary: str = ""


def problems(branch: Any, rows: Table) -> Iterator[Problem]:
    """Give the problems that a branch finds in rows; it may give plain tuples too."""
    return (Problem(*found) for found in branch.problems(rows))


def policy(branch: Any) -> str:
    """Say what becomes of the rows that a branch finds problems in: its field `missing`.

    They are an "error", as for a branch without the field, or `clean` leaves them out ("drop").
    Under any other policy ("learn") they are kept, and reported. Where they are not kept, `encode`
    raises DataError for such a row, which names it in predictions.
    """
    return str(getattr(branch, "missing", "error"))


def by_name(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Sort branches or heads by name, so that their order in a file cannot matter."""
    return dict(sorted(parts.items()))


def widths(default: tuple[int, ...] = (), least: int = 0) -> Any:
    """Declare a field of widths of layers, each between 1 and 65,536, so many at least."""
    enough: list[Any] = [min_len(least)] if least else []
    return field(default=default, converter=tuple, validator=[*enough, _positive])


def _positive(_: Any, about: Attribute, given: tuple[int, ...]) -> None:
    if not all(1 <= width <= 65_536 for width in given):
        raise ValueError(f"'{about.name}' must hold widths of 1 to 65536: {list(given)}")


def walk(root: Any) -> Iterator[tuple[str, Branch]]:
    """Walk the leaves of a tree of branches, below its root, with their dotted paths.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> [path for path, leaf in walk(Fuse({"b": Continuous(["x"]), "a": Continuous(["y"])}))]
    ['a', 'b']
    """
    return ((path, each) for path, each in branches(root.branch) if not hasattr(each, "branch"))


def having(root: Any, verb: str) -> Iterator[tuple[str, Any]]:
    """Walk the branches of a tree, below its root, that have an optional verb, with their dotted
    paths.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> tree = Fuse({"a": Fuse({"b": Continuous(["x"])})})
    >>> [path for path, _ in having(tree, "oddities")]
    ['a.b']
    """
    return ((path, each) for path, each in branches(root.branch) if hasattr(each, verb))


def place(path: str) -> str:
    """Say where in a spec a branch of the tree stands.

    >>> place("looks.front")
    'branch.looks.branch.front'
    """
    return ".".join(f"branch.{name}" for name in path.split("."))


def branches(named: Mapping[str, Branch], path: str = "") -> Iterator[tuple[str, Branch]]:
    """Walk all branches with their dotted paths, a fusion before those that it holds.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> [path for path, _ in branches({"a": Fuse({"b": Continuous(["x"])})})]
    ['a', 'a.b']
    """
    for name, branch in named.items():
        whole = f"{path}.{name}" if path else name
        yield whole, branch
        yield from branches(getattr(branch, "branch", {}), whole)


def at(facts: Facts, path: str) -> Facts:
    """Find a branch's facts by its dotted path."""
    for name in path.split("."):
        facts = facts[name]
    return facts
