"""Predictions and targets as losses and metrics of the user's take them, so that none broadcasts.

Which shapes a function compares row by row is found by trying it on a few made-up rows: if it can
be computed although a target has a row more than the predictions, it broadcasts them. A function is
tried once for each combination of shapes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from math import prod
from typing import Any, Generic, TypeVar, cast

import torch
from attrs import frozen
from toolz import identity
from torch import Tensor

from mip.errors import DataError
from mip.heads import CheckedLoss
from mip.metrics import Metric, StreamingMetric, fold_of, split_metrics
from mip.tree import leaves, map_tree, unflatten_as

T = TypeVar("T")
"""What a loss or a metric returns."""


Pair = tuple[Any, Any]
"""Predictions and targets."""


@frozen
class Matched(Generic[T]):
    """A function of (predictions, targets) that is given them in the shapes that it compares."""

    function: Callable[[Any, Any], T]
    match: Callable[[Any, Any], Pair]

    def __call__(self, predictions: Any, targets: Any) -> T:
        return self.function(*self.match(predictions, targets))


def match_shapes(function: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    """Make a function of (predictions, targets) never broadcast [n, 1] against [n].

    It is given both as they are. If it can compare them row by row only in one shape, because it
    would broadcast them or cannot take them, it is given [n] and [n], or else [n, 1] and [n, 1].
    The same holds for tensors in dicts and tuples. A floating-point target takes the dtype of the
    predictions. A loss of a head, which checks shapes itself, is returned as it is.

    The function raises DataError for other shapes that would be broadcast: [n, 1] beside [n, 2],
    and [n, n] beside numbers [n], unless it treats [n] as a column or slices its arguments itself.

    >>> error = match_shapes(lambda p, y: (p - y).abs().sum())
    >>> error(torch.ones(3, 1), torch.zeros(3))
    tensor(3.)
    >>> match_shapes(lambda p, y: (p - y[:, None]).abs().sum())(torch.ones(3, 1), torch.zeros(3))
    tensor(3.)
    >>> error(torch.ones(3, 1), torch.ones(3, 2))
    Traceback (most recent call last):
    mip.errors.DataError: predictions of shape [3, 1] and targets of shape [3, 2] would be broadcast
    """
    if isinstance(function, CheckedLoss | Matched):
        return cast(Callable[[Any, Any], T], function)
    return Matched(function, _matcher(function))


def match_metrics(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """Make metrics by name never broadcast [n, 1] against [n], as `match_shapes` does for a
    function. Those of `mip.metrics` do not anyway, and are returned as they are.

    Raises MipError for what is no metric.
    """
    functions, streaming = split_metrics(metrics)
    return {
        name: metric
        if fold_of(metric) is not None
        else match_shapes(functions[name])
        if name in functions
        else _match_fold(streaming[name])
        for name, metric in metrics.items()
    }


def _match_fold(metric: StreamingMetric) -> StreamingMetric:
    init, update, compute = metric
    # An update may do no more than keep its arguments: what broadcasts is the value.
    match = _matcher(lambda predictions, targets: compute(update(init(), predictions, targets)))
    return StreamingMetric(init, lambda so_far, *pair: update(so_far, *match(*pair)), compute)


def _matcher(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Pair]:
    forms = dict[Any, str]()

    # A constant for torch.compile, because nothing can be tried inside of a graph.
    @torch.compiler.assume_constant_result
    def form_of_tensors(*key: Any) -> str:
        if key not in forms:
            forms[key] = _form_of_tensors(function, *key)
        return forms[key]

    def form_of_trees(pair: Pair) -> str:
        key = tuple((path, leaf.shape, leaf.dtype) for path, leaf in leaves(pair))
        if key not in forms:
            forms[key] = _form_of_trees(function, pair)
        return forms[key]

    def match(predictions: Any, targets: Any) -> Pair:
        if not (isinstance(predictions, Tensor) and isinstance(targets, Tensor)):
            pair = predictions, targets
            return pair if torch.compiler.is_compiling() else _FORMS[form_of_trees(pair)](pair)
        if targets.is_floating_point() and targets.dtype != predictions.dtype:
            targets = targets.to(predictions.dtype)
        if predictions.shape == targets.shape:
            return predictions, targets
        shapes = tuple(predictions.shape), tuple(targets.shape)
        form = form_of_tensors(*shapes, predictions.dtype, targets.dtype, predictions.device)
        if form in _REFUSED:
            _refuse(form, function, predictions, targets)
        return _FORMS.get(form, identity)((predictions, targets))

    return match


def _refuse(
    form: str, function: Callable[[Any, Any], Any], predictions: Tensor, targets: Tensor
) -> None:
    one, other = (list(each.shape) for each in (predictions, targets))
    shapes = f"predictions of shape {one} and targets of shape {other}"
    if form == "broadcast":
        raise DataError(f"{shapes} would be broadcast")
    if torch.compiler.is_compiling():
        return
    # The made-up rows may have failed for another reason.
    failure = failure_of(function, predictions, targets)
    if isinstance(failure, (RuntimeError, ValueError)):
        cure = cast_text(function, predictions, targets)
        raise DataError(f"{shapes} cannot be compared: {failure}{cure}") from failure


def failure_of(
    function: Callable[[Any, Any], Any], predictions: Any, targets: Any
) -> Exception | None:
    """Return what a function of predictions and targets raises, without the warnings of torch."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            function(predictions, targets)
        except torch.OutOfMemoryError:
            raise
        except Exception as failure:
            return failure
    return None


def cast_text(function: Callable[[Any, Any], Any], predictions: Any, targets: Any) -> str:
    """Say which dtype of the targets a function can take, if another one is all that it needs."""
    casts = {
        "floating-point": (Tensor.float, 'y.float() or y.astype("float32")'),
        "int64": (Tensor.long, 'y.long() or y.astype("int64")'),
    }
    for name, (convert, code) in casts.items():
        if failure_of(function, predictions, map_tree(convert, targets)) is None:
            return f"; it takes {name} targets: convert the rows once, {code}"
    return ""


def _flat(pair: Pair) -> Pair:
    """Take the last dimension from [n, 1] beside [n]."""
    shapes = _shapes(pair)
    return map_tree(
        lambda leaf: (
            leaf.squeeze(-1) if leaf.shape[-1:] == (1,) and leaf.shape[:-1] in shapes else leaf
        ),
        pair,
    )


def _columns(pair: Pair) -> Pair:
    """Give [n] beside [n, 1] that dimension too."""
    shapes = _shapes(pair)
    return map_tree(
        lambda leaf: leaf.unsqueeze(-1) if leaf.dim() and (*leaf.shape, 1) in shapes else leaf, pair
    )


def _shapes(pair: Pair) -> set[torch.Size]:
    return {leaf.shape for _, leaf in leaves(pair) if leaf.dim()}


_REFUSED = frozenset({"broadcast", "mismatch"})
"""In the place of a form: the function would broadcast, or can probably not take such shapes."""


_FORMS: Mapping[str, Callable[[Pair], Pair]] = {
    "as given": identity,
    "flat": _flat,
    "columns": _columns,
}


def _form_of_tensors(
    function: Callable[[Any, Any], Any],
    predicted: Sequence[int],
    true: Sequence[int],
    dtype: torch.dtype,
    target_dtype: torch.dtype,
    device: torch.device,
) -> str:
    rows = _free_size({*predicted, *true})
    shapes = [
        (rows, *shape[1:]) if shape[:1] == predicted[:1] else shape for shape in (predicted, true)
    ]
    pair = _probabilities(shapes[0], dtype, device), _labels(shapes[1], target_dtype, device)
    if _shapes(_flat(pair)) != _shapes(pair):
        return _best_form(function, pair)
    is_class = not target_dtype.is_floating_point and len(predicted) > len(true)
    if is_class or not predicted or not true:
        return "as given"
    if not _can_broadcast(predicted, true):
        return "as given" if _accepts(function, *pair) else "mismatch"
    # With another number of rows [n, n] beside [n] cannot be computed by accident.
    intended = (
        _accepts(function, *pair) if len(predicted) != len(true) else _slices(function, *pair)
    )
    return "as given" if intended else "broadcast"


def _form_of_trees(function: Callable[[Any, Any], Any], pair: Pair) -> str:
    if _shapes(_flat(pair)) == _shapes(pair):
        return "as given"
    sizes = {size for shape in _shapes(pair) for size in shape}
    n_rows, rows = next(leaf.shape[0] for _, leaf in leaves(pair) if leaf.dim()), _free_size(sizes)

    def sample(make: Callable[..., Tensor], tree: Any) -> Any:
        resized = lambda shape: (rows, *shape[1:]) if shape[:1] == (n_rows,) else shape  # noqa: E731
        return map_tree(lambda leaf: make(resized(leaf.shape), leaf.dtype, leaf.device), tree)

    return _best_form(function, (sample(_probabilities, pair[0]), sample(_labels, pair[1])))


def _best_form(function: Callable[[Any, Any], Any], pair: Pair) -> str:
    """Find the first form that a function can take, in which the fewest targets broadcast."""
    shapes = _shapes(pair)
    ambiguous = [
        path
        for path, leaf in leaves(pair[1])
        if (*leaf.shape, 1) in shapes or (leaf.shape[-1:] == (1,) and leaf.shape[:-1] in shapes)
    ]

    def faults(form: str) -> tuple[bool, int]:
        predictions, targets = _FORMS[form](pair)
        longer = (_with_row_more(targets, path) for path in ambiguous)
        loose = sum(_accepts(function, predictions, each) for each in longer)
        return not _accepts(function, predictions, targets), loose

    return min(_FORMS, key=faults)


def _with_row_more(tree: Any, path: str) -> Any:
    tensors = dict(leaves(tree))
    return unflatten_as(tree, {**tensors, path: torch.cat([tensors[path], tensors[path][:1]])})


def _can_broadcast(one: Sequence[int], other: Sequence[int]) -> bool:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _slices(function: Callable[[Any, Any], Any], predictions: Tensor, targets: Tensor) -> bool:
    """Return whether a function that can take [n, 1] beside [n, k] slices one of them itself.

    One that does can take [n, k + 1] beside [n, k], or else cannot take [n, 1] beside [n, 1, k].
    """
    if not _accepts(function, predictions, targets):
        return False
    sizes = list(zip(predictions.shape, targets.shape, strict=True))
    dim = next(dim for dim, (one, other) in enumerate(sizes) if one != other)
    narrow, wide = sorted((predictions, targets), key=lambda leaf: leaf.shape[dim])
    wider, deeper = narrow.repeat_interleave(wide.shape[dim] + 1, dim), wide.unsqueeze(1)
    if narrow is predictions:
        return _accepts(function, wider, wide) or not _accepts(function, narrow, deeper)
    return _accepts(function, wide, wider) or not _accepts(function, deeper, narrow)


def _accepts(function: Callable[[Any, Any], Any], predictions: Any, targets: Any) -> bool:
    devices = {leaf.device for _, leaf in leaves((predictions, targets)) if leaf.is_cuda}
    # What a step draws does not depend on whether its loss has been tried before.
    with torch.random.fork_rng([*devices]), torch.no_grad():
        return failure_of(function, predictions, targets) is None


def _free_size(sizes: Iterable[int]) -> int:
    """Return a number of rows that neither it nor the next is among the sizes."""
    return next(n for n in count(3) if not {n, n + 1} & set(sizes))


def _probabilities(shape: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    # Within (0, 1), so that a loss of probabilities can be computed too.
    if not dtype.is_floating_point:
        return _labels(shape, dtype, device)
    return ((_numbers(shape, device) % 7 + 1) / 8).to(dtype)


def _labels(shape: Iterable[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    return (_numbers(shape, device) % 2).to(dtype)


def _numbers(shape: Iterable[int], device: torch.device) -> Tensor:
    return torch.arange(prod(shape), device=device).reshape(*shape)
