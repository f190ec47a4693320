"""What a branch is: a frozen class per kind with three verbs, and more where it needs them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeGuard, TypeVar, runtime_checkable

import torch
from attrs import Attribute, field
from attrs.validators import ge, lt
from torch import Tensor, nn

from mip.data import Rows, Table, from_columns
from mip.errors import FieldError
from mip.fields import MinLength
from mip.nn import Activation, BatchNorm, Function, LazyMLP
from mip.tree import Tree, leaves

Facts = dict[str, Any]
"""What a kind has learned from the training rows: plain JSON values."""


# The verbs of every branch.


class Branch(Protocol):
    """The three verbs of a branch. Any frozen attrs class that has them is a kind; its attribute
    `kind` is its name in specs.

    Further verbs are optional, each with a protocol below. They are called on every branch that
    has them, at any depth of the tree.
    """

    kind: str

    def adapt(self, table: Rows) -> Facts:
        """Learn from training rows what encoding and building need, as plain JSON values."""
        ...

    def encode(self, facts: Facts, table: Table) -> Tree:
        """Turn rows into tensors with one entry per row, whatever the cells hold: NaN and unseen
        categories are valid.
        """
        ...

    def module(self, facts: Facts) -> nn.Module:
        """Build the module: encoded inputs of n rows to float32 [n, out_features]."""
        ...


# The optional verbs.


@runtime_checkable
class Augments(Protocol):
    """A branch that changes its inputs in training."""

    def augment(self, inputs: Tree, key: int, row_ids: Tensor) -> Tree:
        """Return changed inputs; random draws depend only on the key and a row's id."""
        ...


@runtime_checkable
class Pretrains(Protocol):
    """A branch whose module starts from weights trained elsewhere."""

    def pretrain(self, module: nn.Module) -> None:
        """Load the weights into a freshly built module."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A branch whose fields name files besides the table, such as pretrained weights."""

    def map_files(self, function: Callable[[str], str]) -> Branch:
        """Return the branch with the path of every file replaced by what the function returns."""
        ...


@runtime_checkable
class Caches(Protocol):
    """A branch that can leave its encoded rows on disk."""

    def cache(self, facts: Facts, table: Table, folder: Path) -> Tree:
        """Return what `encode` returns, as rows that are encoded once and read from the folder."""
        ...


@runtime_checkable
class HasFeatures(Protocol):
    """A branch whose module may begin with a frozen part, which computes the same of a row in every
    epoch.
    """

    def with_features(self, module: nn.Module, augmented: bool, folder: Path | None) -> Branch:
        """Return a branch whose `encode` runs the frozen part of the module too; the module takes
        the result in the place of its inputs. If nothing is frozen return the branch itself.

        If `augmented` the result has what `augment` needs, and otherwise what prediction needs.
        Results are kept in the folder, if there is one.
        """
        ...


class LayerGroup(NamedTuple):
    """Parameters of a module, by path, that learn otherwise than the rest: at `lr_scale` times the
    learning rate, and from the fraction `start` of the run on. Until then they are frozen.
    """

    name: str
    params: tuple[str, ...]
    lr_scale: float = 1.0
    start: float = 0.0


@runtime_checkable
class GroupsParams(Protocol):
    """A branch with parameters that have learning rates of their own."""

    def param_groups(self, module: nn.Module) -> Sequence[LayerGroup]:
        """Return the groups of the module's parameters; those in none learn as all others."""
        ...


@runtime_checkable
class FindsAbsent(Protocol):
    """A branch that knows which rows have no inputs; used for modality dropout."""

    def absent(self, inputs: Any) -> Tensor:
        """Mark the encoded rows that have no inputs: bool [n]."""
        ...


@runtime_checkable
class Blanks(Protocol):
    """A branch whose rows without anything are not those of missing cells."""

    def blank(self, facts: Facts, n: int) -> Tree:
        """Make n encoded rows in which the branch has nothing."""
        ...


@runtime_checkable
class FindsProblems(Protocol):
    """A branch that screens rows. `missing_policy` decides what happens to a row with a problem."""

    def problems(self, table: Table) -> Iterable[Problem | tuple[int, str, str]]:
        """Yield a `Problem`, or (row, column, reason), for each cell that cannot be used."""
        ...


@runtime_checkable
class FindsConversions(Protocol):
    """A branch that does not read every cell exactly as it is stored."""

    def conversions(self, table: Table) -> Iterable[tuple[int, str]]:
        """Yield (row, text) for each cell that counts as missing or is converted when read."""
        ...


@runtime_checkable
class FindsUnseen(Protocol):
    """A branch with a vocabulary learned from the training rows."""

    def unseen(self, facts: Facts, table: Rows) -> Iterable[tuple[str, list[str]]]:
        """Yield (column, categories) for each column with categories not seen in training."""
        ...


class Problem(NamedTuple):
    """Why a row cannot be used as it is: its index in the table, the column, the reason, and a
    short name under which reports count such rows (by default the reason).
    """

    row: int
    column: str
    reason: str
    summary: str = ""


Verb = TypeVar("Verb")
"""The protocol of an optional verb."""


def has(branch: object, verb: type[Verb]) -> TypeGuard[Verb]:
    """Tell whether a branch has an optional verb.

    >>> from mip.branches.continuous import Continuous
    >>> has(Continuous(["x"]), FindsConversions), has(Continuous(["x"]), Augments)
    (True, False)
    """
    return issubclass(type(branch), verb)  # isinstance takes up to 80 times as long on Python 3.11


def augment(branch: Branch, inputs: Tree, key: int, row_ids: Tensor) -> Tree:
    """Return inputs changed for training; by default unchanged."""
    return branch.augment(inputs, key, row_ids) if has(branch, Augments) else inputs


def pretrain(branch: Branch, module: nn.Module) -> None:
    """Load pretrained weights into a branch's module; by default none."""
    if has(branch, Pretrains):
        branch.pretrain(module)


def map_files(branch: Branch, function: Callable[[str], str]) -> Branch:
    """Replace the paths of the files that a branch reads; by default there are none."""
    return branch.map_files(function) if has(branch, ReadsFiles) else branch


def files_of(branch: Branch) -> list[str]:
    """List the files that a branch reads."""
    files = list[str]()

    def note(path: str) -> str:
        files.append(path)
        return path

    map_files(branch, note)
    return files


def encode_cached(branch: Branch, facts: Facts, table: Table, folder: Path) -> Tree:
    """Encode rows and leave them on disk; by default encode them in memory."""
    if has(branch, Caches):
        return branch.cache(facts, table, folder)
    return branch.encode(facts, table)


def with_features(
    branch: Branch, module: nn.Module, augmented: bool, folder: Path | None
) -> Branch:
    """Run the frozen part of a branch's module when rows are encoded; by default there is none."""
    if has(branch, HasFeatures):
        return branch.with_features(module, augmented, folder)
    return branch


def absent(branch: Branch, inputs: Tree) -> Tensor:
    """Mark the encoded rows that have no inputs: bool [n]; by default none, whatever the tensors
    hold.

    >>> from mip.branches.categorical import Categorical; from mip.branches.stub import Stub
    >>> absent(Categorical(["town"]), torch.tensor([[0], [2]]))
    tensor([ True, False])
    >>> absent(Stub(1), torch.tensor([[torch.nan], [0.0]]))
    tensor([False, False])
    """
    if has(branch, FindsAbsent):
        return branch.absent(inputs)
    leaf = next(leaf for _, leaf in leaves(inputs))
    return torch.zeros(len(leaf), dtype=torch.bool, device=leaf.device)


def blank(branch: Branch, facts: Facts, n: int) -> Tree:
    """Make n encoded rows in which a branch has nothing; by default those of missing cells.

    >>> from mip.branches.boolean import Boolean
    >>> blank(Boolean(["sold", "new"]), {"missing": [0, 1]}, 1)
    tensor([[nan, nan]])
    """
    if has(branch, Blanks):
        return branch.blank(facts, n)
    cells = {column: [None] * n for column in branch_columns(branch)}
    return branch.encode(facts, from_columns(cells))


def branch_columns(branch: object) -> tuple[str, ...]:
    """Return the columns that a branch reads: its field `columns`, or `column`."""
    column = getattr(branch, "column", None)
    return getattr(branch, "columns", (column,) if column else ())


def problems(branch: Branch | FindsProblems, table: Table) -> Iterator[Problem]:
    """Iterate over the problems that a branch finds in rows; by default none."""
    if has(branch, FindsProblems):
        yield from (Problem(*problem) for problem in branch.problems(table))


def missing_policy(branch: object) -> str:
    """Return what happens to rows in which a branch finds problems: its field `missing`.

    By default they are an "error". Under "drop" `clean` leaves them out; under any other policy,
    such as "learn", they are kept and reported. Unless they are kept, `encode` raises DataError
    for such a row, which becomes its error in predictions.
    """
    return str(getattr(branch, "missing", "error"))


# The tree of branches.


@runtime_checkable
class HoldsBranches(Protocol):
    """A branch that holds others by name, as `fuse` does."""

    @property
    def branch(self) -> Mapping[str, Branch]:
        """The branches by name."""
        ...


def branches(named: Mapping[str, Branch], path: str = "") -> Iterator[tuple[str, Branch]]:
    """Iterate over all branches with their dotted paths, a fusion before those it holds.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> [path for path, _ in branches({"a": Fuse({"b": Continuous(["x"])})})]
    ['a', 'a.b']
    """
    for name, branch in named.items():
        below = f"{path}.{name}" if path else name
        yield below, branch
        if isinstance(branch, HoldsBranches):
            yield from branches(branch.branch, below)


def leaf_branches(root: HoldsBranches) -> Iterator[tuple[str, Branch]]:
    """Iterate over the leaves of a tree of branches with their dotted paths.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> root = Fuse({"b": Continuous(["x"]), "a": Continuous(["y"])})
    >>> [path for path, leaf in leaf_branches(root)]
    ['a', 'b']
    """
    named = branches(root.branch)
    return ((path, branch) for path, branch in named if not isinstance(branch, HoldsBranches))


def having(root: HoldsBranches, verb: type[Verb]) -> Iterator[tuple[str, Verb]]:
    """Iterate over the branches below a root that have an optional verb, with their dotted paths.

    >>> from mip.branches.continuous import Continuous; from mip.branches.fuse import Fuse
    >>> tree = Fuse({"a": Fuse({"b": Continuous(["x"])})})
    >>> [path for path, _ in having(tree, FindsConversions)]
    ['a.b']
    """
    return ((path, branch) for path, branch in branches(root.branch) if has(branch, verb))


def path_in_spec(path: str) -> str:
    """Return the path in a spec file of a branch with this path in the tree.

    >>> path_in_spec("looks.front")
    'branch.looks.branch.front'
    """
    return ".".join(f"branch.{name}" for name in path.split("."))


# The layers that several kinds have, and other fields.


class HasLayers(Protocol):
    """A branch with linear `layers`, each followed by an `activation`, optionally with a
    `batch_norm` "before" or "after" it, and `dropout`; a function among them stands alone.
    """

    @property
    def layers(self) -> tuple[int | Function, ...]: ...
    @property
    def activation(self) -> Activation: ...
    @property
    def batch_norm(self) -> BatchNorm: ...
    @property
    def dropout(self) -> float: ...


def lazy_layers(branch: HasLayers) -> LazyMLP:
    """Build the layers of a branch: float32 [n, …] to [n, last of the layers]."""
    return LazyMLP(branch.layers, branch.dropout, branch.activation, branch.batch_norm)


def with_layers(module: nn.Module, branch: HasLayers) -> nn.Module:
    """Put the layers of a branch behind its module; without layers that is the module itself.

    >>> from mip.branches.text import Text
    >>> with_layers(nn.Identity(), Text(["note"], layers=[8]))(torch.zeros(2, 5)).shape
    torch.Size([2, 8])
    """
    if not branch.layers:
        return module
    return nn.Sequential(OrderedDict(features=module, layers=lazy_layers(branch)))


def sorted_by_name(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Sort branches or heads by name, so that their order in a file does not matter."""
    return dict(sorted(parts.items()))


def column_names(columns: Iterable[str]) -> tuple[str, ...]:
    """Convert a list of column names to a tuple; a single string would become its letters.

    >>> column_names("area")
    Traceback (most recent call last):
    mip.errors.FieldError: 'columns' must be a list of names, not 'area'
    """
    return as_list(columns, "columns", "names")


def as_list(names: Iterable[str], field: str, what: str) -> tuple[str, ...]:
    """Convert a list to a tuple; raises FieldError for a single string."""
    if isinstance(names, str):
        raise FieldError(field, f"must be a list of {what}, not '{names}'")
    return tuple(names)


def layer_sizes_field(default: tuple[int, ...] = (), min_layers: int = 0) -> Any:
    """Declare a field of sizes of layers, each from 1 to 65,536."""
    length: list[Any] = [MinLength(min_layers)] if min_layers else []
    return field(default=default, converter=tuple, validator=[*length, _check_sizes])


def layers_field(kw_only: bool = True) -> Any:
    """Declare a field of layers, each a size from 1 to 65,536 or a function."""
    return field(default=(), converter=tuple, kw_only=kw_only, validator=_check_layers)


def _check_layers(instance: object, attribute: Attribute, layers: Sequence[int | Function]) -> None:
    sizes = tuple(layer for layer in layers if not isinstance(layer, Function))
    _check_sizes(instance, attribute, sizes)


def dropout_field() -> float:
    """Declare the dropout rate behind each of the layers."""
    return field(default=0.0, kw_only=True, validator=[ge(0), lt(1)])


def _check_sizes(_: object, attribute: Attribute, sizes: tuple[int, ...]) -> None:
    if not all(1 <= size <= 65_536 for size in sizes):
        raise FieldError(attribute.name, f"must hold widths of 1 to 65536: {list(sizes)}")
