"""Trees of tensors: dicts and tuples, nested to any depth, with tensors as leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

Tree = Any
"""A tensor, or a dict, tuple or named tuple of trees; other leaves pass untouched, but rows are
taken from those that have a method `take`, and put together with `join`.
"""


def map_tree(function: Callable[[Tensor], Any], tree: Tree) -> Tree:
    """Apply `function` to every tensor and keep the tree's shape.

    >>> map_tree(lambda leaf: leaf + 1, {"a": torch.zeros(2), "b": (torch.ones(1), None)})
    {'a': tensor([1., 1.]), 'b': (tensor([2.]), None)}
    """
    if isinstance(tree, Tensor):
        return function(tree)
    if isinstance(tree, dict):
        return {name: map_tree(function, child) for name, child in tree.items()}
    if isinstance(tree, (tuple, list)):
        children = [map_tree(function, child) for child in tree]
        return getattr(tree, "_make", type(tree))(children)
    return tree


def leaves(tree: Tree, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Walk the tensors with their paths, joined by '/'.

    >>> [path for path, leaf in leaves({"a": torch.zeros(2), "b": (torch.ones(1), None)})]
    ['a', 'b/0']
    """
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, (dict, tuple, list)):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for name, child in pairs:
            yield from leaves(child, f"{path}/{name}" if path else str(name))


def like(tree: Tree, tensors: dict[str, Tensor]) -> Tree:
    """Put `tensors`, named as `leaves` names them, into a tree of the shape of `tree`.

    Raises KeyError when a path is missing.

    >>> like({"a": torch.zeros(1)}, {"a": torch.ones(1)})
    {'a': tensor([1.])}
    """
    named = iter([path for path, _ in leaves(tree)])
    return map_tree(lambda _: tensors[next(named)], tree)


def size(tree: Tree) -> int:
    """Count the rows: the first length of the first tensor.

    >>> size({"a": torch.zeros(5, 2)})
    5
    """
    return next((leaf.shape[0] for _, leaf in leaves(tree)), 0)


def take(tree: Tree, index: Tensor) -> Tree:
    """Gather rows by number (int64), from every tensor.

    >>> take((torch.arange(10), torch.arange(10) * 2), torch.tensor([3, 1]))
    (tensor([3, 1]), tensor([6, 2]))
    """
    return taker(tree)(index)


_UNSIGNED = {torch.uint16, torch.uint32, torch.uint64}


# Of these dtypes torch 2.11's index_select takes no vectors.


def taker(tree: Tree) -> Callable[[Tensor], Tree]:
    """Prepare `take` from one tree, so that its shape is walked once and not at every batch.

    >>> rows = taker({"a": torch.arange(10)})
    >>> rows(torch.tensor([3, 1])), rows(torch.tensor([2]))
    ({'a': tensor([3, 1])}, {'a': tensor([2])})
    """
    if isinstance(tree, Tensor):
        if tree.dtype in _UNSIGNED:
            return tree.__getitem__
        return partial(tree.index_select, 0)  # the function takes twice the method's overhead
    if isinstance(tree, dict):
        named = {name: taker(child) for name, child in tree.items()}
        return lambda index: {name: child(index) for name, child in named.items()}
    if isinstance(tree, (tuple, list)):
        children, make = [taker(child) for child in tree], getattr(tree, "_make", type(tree))
        return lambda index: make([child(index) for child in children])
    return tree.take if hasattr(tree, "take") else lambda index: tree


def between(tree: Tree, begin: int, end: int) -> Tree:
    """Give the rows from `begin` to before `end`: tensors stay views.

    >>> between({"a": torch.arange(5)}, 1, 3)
    {'a': tensor([1, 2])}
    """
    if hasattr(tree, "take") and not isinstance(tree, Tensor):
        return tree.take(range(begin, end))
    return map_tree(lambda leaf: leaf[begin:end], tree)


def concat(trees: list[Tree]) -> Tree:
    """Join trees of one shape along the rows; the inverse of cutting them into batches.

    >>> concat([(torch.zeros(1),), (torch.ones(2),)])
    (tensor([0., 1., 1.]),)
    """
    if hasattr(trees[0], "join"):
        return trees[0].join(trees[1:])
    return _merged(torch.cat, trees)


def stacked(trees: list[Tree]) -> Tree:
    """Put trees of one shape into one, with a dimension more in front.

    >>> stacked([{"a": torch.zeros(2)}, {"a": torch.ones(2)}])["a"].shape
    torch.Size([2, 2])
    """
    return _merged(torch.stack, trees)


def mean(trees: list[Tree]) -> Tree:
    """Average trees of one shape.

    >>> mean([{"a": torch.zeros(2)}, {"a": torch.ones(2)}])
    {'a': tensor([0.5000, 0.5000])}
    """
    return _merged(lambda parts: torch.stack(parts).mean(dim=0), trees)


def _merged(merge: Callable[[tuple[Tensor, ...]], Tensor], trees: list[Tree]) -> Tree:
    columns = [[leaf for _, leaf in leaves(tree)] for tree in trees]
    merged = iter([merge(parts) for parts in zip(*columns, strict=True)])
    return map_tree(lambda _: next(merged), trees[0])


def clone(tree: Tree, into: Tree = None) -> Tree:
    """Copy every tensor, so that nobody shares memory with the result: new memory, or that of
    `into`, a tree of the same shape, which is faster for large tensors.

    >>> one = {"a": torch.zeros(1)}; two = clone(one); two["a"].add_(1)
    tensor([1.])
    >>> one
    {'a': tensor([0.])}
    >>> clone(one, into=two), two
    ({'a': tensor([0.])}, {'a': tensor([0.])})
    """
    with torch.no_grad():
        return map_tree(torch.clone, tree) if into is None else _copied(tree, into)


def _copied(tree: Tree, into: Tree) -> Tree:
    found, spare = ([leaf for _, leaf in leaves(each)] for each in (tree, into))
    if found:
        torch._foreach_copy_(spare, found)
    places = iter(spare)
    return map_tree(lambda _: next(places), tree)
