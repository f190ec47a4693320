"""Trees of tensors: dicts and tuples, nested to any depth, with tensors as leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

Tree: TypeAlias = Any
"""A tensor, or a dict, list, tuple or named tuple of trees. Other leaves are left as they are, but
leaves with a method `take` are indexed with it, and leaves with a method `join` concatenated.
"""


T = TypeVar("T")
"""A tree whose structure is kept."""


K = TypeVar("K")
"""A class of nodes in a tree."""


def map_tree(function: Callable[[Any], Any], tree: Tree, kind: type = Tensor) -> Tree:
    """Apply `function` to every tensor, or to every node of another class, and keep the structure
    of the rest.

    >>> map_tree(lambda leaf: leaf + 1, {"a": torch.zeros(2), "b": (torch.ones(1), None)})
    {'a': tensor([1., 1.]), 'b': (tensor([2.]), None)}
    >>> map_tree(lambda number: 10 * number, ({"a": 1}, [2], "b"), int)
    ({'a': 10}, [20], 'b')
    """
    if isinstance(tree, kind):
        return function(tree)
    if isinstance(tree, dict):
        return {name: map_tree(function, child, kind) for name, child in tree.items()}
    if isinstance(tree, (tuple, list)):
        children = [map_tree(function, child, kind) for child in tree]
        return getattr(tree, "_make", type(tree))(children)
    return tree


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Iterate over the tensors with their paths, joined by '/'.

    >>> [path for path, leaf in leaves({"a": torch.zeros(2), "b": (torch.ones(1), None)})]
    ['a', 'b/0']
    """
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, (dict, tuple, list)):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, child in pairs:
            yield from leaves(child, f"{path}/{name}" if path else str(name))


def unflatten_as(tree: T, tensors: dict[str, Tensor]) -> T:
    """Build a tree with the structure of `tree` from tensors by path, as `leaves` names them.

    Raises KeyError when a path is missing.

    >>> unflatten_as({"a": torch.zeros(1)}, {"a": torch.ones(1)})
    {'a': tensor([1.])}
    """
    paths = iter([path for path, _ in leaves(tree)])
    return map_tree(lambda _: tensors[next(paths)], tree)


def get_in(tree: Any, path: Sequence[str]) -> Any:
    """Return the node at a path through nested dicts.

    >>> get_in({"a": {"b": 1}}, ["a", "b"])
    1
    """
    for name in path:
        tree = tree[name]
    return tree


def set_in(tree: dict[str, Any], path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return nested dicts with the node at a path replaced; the given ones are not changed.

    >>> set_in({"a": {"b": 1, "c": 2}}, ["a", "b"], 3)
    {'a': {'b': 3, 'c': 2}}
    """
    name, *rest = path
    return {**tree, name: set_in(tree[name], rest, value) if rest else value}


def find(tree: Tree, kind: type[K]) -> Iterator[K]:
    """Iterate over the nodes of a class; the children of these are not searched.

    >>> list(find(({"a": 1}, [2], "b"), int))
    [1, 2]
    """
    if isinstance(tree, kind):
        yield tree
    elif isinstance(tree, (dict, tuple, list)):
        for child in tree.values() if isinstance(tree, dict) else tree:
            yield from find(child, kind)


def count_rows(tree: Tree) -> int:
    """Count the rows: the first length of the first leaf that has rows, a tensor or a table.

    >>> count_rows({"a": None, "b": torch.zeros(5, 2)})
    5
    """
    if isinstance(tree, Tensor):
        return tree.shape[0]
    if isinstance(tree, (dict, tuple, list)):
        children = tree.values() if isinstance(tree, dict) else tree
        return next(filter(None, map(count_rows, children)), 0)
    return len(tree) if hasattr(tree, "take") else 0


def shapes_text(tree: Tree, rows: bool = True) -> str:
    """Describe a tree by the dtypes and shapes of its tensors; without `rows` by those of one row,
    which lack the first dimension.

    >>> shapes_text((torch.zeros(16, 3), {"label": torch.zeros(16, dtype=torch.int64)}))
    '(float32 [16, 3], {label: int64 [16]})'
    >>> shapes_text(torch.zeros(16, 3), rows=False)
    'float32 [3]'
    """
    if isinstance(tree, Tensor):
        dtype = str(tree.dtype).removeprefix("torch.")
        return f"{dtype} {list(tree.shape[0 if rows else 1 :])}"
    if isinstance(tree, dict):
        children = [f"{name}: {shapes_text(child, rows)}" for name, child in tree.items()]
        return f"{{{', '.join(children)}}}"
    if isinstance(tree, (tuple, list)):
        return f"({', '.join(shapes_text(child, rows) for child in tree)})"
    if hasattr(tree, "dtype") and hasattr(tree, "shape"):  # an array
        return f"{type(tree).__name__} {tree.dtype} {list(tree.shape[0 if rows else 1 :])}"
    return str(tree)


def take(tree: T, index: Tensor) -> T:
    """Gather rows by index (int64 [n]) from every leaf.

    >>> take((torch.arange(10), torch.arange(10) * 2), torch.tensor([3, 1]))
    (tensor([3, 1]), tensor([6, 2]))
    """
    return taker(tree)(index)


_UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}
# torch 2.11's index_select does not support these dtypes.


def taker(tree: T) -> Callable[[Tensor], T]:
    """Prepare `take` for one tree, so that its structure is walked once and not for every batch.

    >>> gather = taker({"a": torch.arange(10)})
    >>> gather(torch.tensor([3, 1])), gather(torch.tensor([2]))
    ({'a': tensor([3, 1])}, {'a': tensor([2])})
    """
    return _taker(tree)


def _taker(tree: Tree) -> Callable[[Tensor], Tree]:
    if isinstance(tree, Tensor):
        if tree.dtype in _UNSIGNED:
            return tree.__getitem__
        return partial(tree.index_select, 0)  # torch.index_select has twice the overhead
    if isinstance(tree, dict):
        named = {name: _taker(child) for name, child in tree.items()}
        return lambda index: {name: child(index) for name, child in named.items()}
    if isinstance(tree, (tuple, list)):
        children, make = [_taker(child) for child in tree], getattr(tree, "_make", type(tree))
        return lambda index: make([child(index) for child in children])
    return tree.take if hasattr(tree, "take") else lambda index: tree


def slice_rows(tree: T, start: int, stop: int) -> T:
    """Return the rows from `start` to before `stop`; tensors are views.

    >>> slice_rows({"a": torch.arange(5)}, 1, 3)
    {'a': tensor([1, 2])}
    """
    if hasattr(tree, "take") and not isinstance(tree, Tensor):
        return tree.take(range(start, stop))
    return map_tree(lambda leaf: leaf[start:stop], tree)


def concat(trees: Sequence[T]) -> T:
    """Concatenate trees of one structure along the rows.

    >>> concat([(torch.zeros(1),), (torch.ones(2),)])
    (tensor([0., 1., 1.]),)
    """
    if hasattr(trees[0], "concat"):
        return trees[0].concat(trees[1:])
    return _merge(torch.cat, trees)


def stack_trees(trees: Sequence[T]) -> T:
    """Stack trees of one structure along a new first dimension.

    >>> stack_trees([{"a": torch.zeros(2)}, {"a": torch.ones(2)}])["a"].shape
    torch.Size([2, 2])
    """
    return _merge(torch.stack, trees)


def mean(trees: Sequence[T]) -> T:
    """Average trees of one structure.

    >>> mean([{"a": torch.zeros(2)}, {"a": torch.ones(2)}])
    {'a': tensor([0.5000, 0.5000])}
    """
    return _merge(lambda parts: torch.stack(parts).mean(dim=0), trees)


def _merge(merge: Callable[[tuple[Tensor, ...]], Tensor], trees: Sequence[T]) -> T:
    columns = [[leaf for _, leaf in leaves(tree)] for tree in trees]
    merged = iter([merge(parts) for parts in zip(*columns, strict=True)])
    return map_tree(lambda _: next(merged), trees[0])


def clone(tree: T, into: T | None = None) -> T:
    """Copy every tensor: to new memory, or to that of `into`, a tree of the same structure, which
    is faster for large tensors.

    >>> one = {"a": torch.zeros(1)}; two = clone(one); two["a"].add_(1)
    tensor([1.])
    >>> one
    {'a': tensor([0.])}
    >>> clone(one, into=two), two
    ({'a': tensor([0.])}, {'a': tensor([0.])})
    """
    with torch.no_grad():
        return map_tree(torch.clone, tree) if into is None else _copy_into(tree, into)


def _copy_into(tree: T, into: T) -> T:
    sources, targets = ([leaf for _, leaf in leaves(each)] for each in (tree, into))
    if sources:
        torch._foreach_copy_(targets, sources)
    copies = iter(targets)
    return map_tree(lambda _: next(copies), tree)
