"""Mixing: two rows of a training batch made into one, photos, numbers and target alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import gt, lt, min_len
from torch import Tensor

from mip.errors import DataError
from mip.images import inside
from mip.model.plan import Batch
from mip.rng import derive
from mip.tree import Tree, leaves, map_tree


class Pairs(NamedTuple):
    """What a row is mixed with: `partner` int64 [n], its place in the batch; `own` float32 [n],
    the row's share, one half or more; `corner` float32 [n, 2], draws in [0, 1) for a rectangle.
    """

    partner: Tensor
    own: Tensor
    corner: Tensor


Classes = int | Mapping[str, Any] | None
"""How many classes a target of whole numbers has; by head where there are several."""


def mixup(alpha: float = 0.2, classes: Classes = None) -> Mix:
    """Mix rows in pairs, share by share (Zhang et al. 2018): a function of (batch, key).

    For `mip.augment(mixup(0.2), seed)` behind the pipe's other augmentation. The shares are
    drawn from Beta(alpha, alpha), the larger for the row itself. Photos, other inputs of floating
    point and the target are mixed; categories and whatever else is whole stay the row's own, as
    does a photo where either is missing, and a number where the partner's is. Targets of floating
    point keep their shape; a multiclass target, int64 [n], needs the number of `classes` and
    becomes probabilities float32 [n, classes], which cross-entropy takes. Of a dict of targets
    each is mixed alike; `classes` is then a dict too.

    The mix depends on the key, derived from (seed, epoch), and on the batch's rows alone.
    Raises DataError without a target, and for an int64 target without `classes`.

    >>> batch = Batch({}, torch.tensor([0, 1]), torch.tensor([5, 8]))
    >>> mixup(1.0, classes=2)(batch, 3).target.sum(dim=1).tolist()
    [1.0, 1.0]
    """
    return Mix("mixup", blended, alpha, classes)


def cutmix(alpha: float = 1.0, classes: Classes = None) -> Mix:
    """Paste a square of the partner's photos into a row's (Yun et al. 2019); else as `mixup`.

    The square has the partner's share of the area, to within a pixel a side, and lies inside.

    >>> dark = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8); dark[1] = 200
    >>> photos = {"pixels": dark, "present": torch.ones(2, 1, dtype=torch.int8)}
    >>> batch = Batch({"photo": photos}, torch.tensor([0.0, 1.0]), torch.tensor([5, 8]))
    >>> cutmix()(batch, 3).inputs["photo"]["pixels"].unique().tolist()
    [0, 200]
    """
    return Mix("cutmix", pasted, alpha, classes)


def either(*ways: Mix) -> Either:
    """Mix each batch in one of the ways, each as likely: a function of (batch, key).

    Which one depends on the key, derived from (seed, epoch), and on the batch's rows alone.
    Raises ValueError for no ways.

    >>> batches = [Batch({}, torch.zeros(2), torch.tensor([8, k])) for k in range(4)]
    >>> mixing = either(mixup(0.2), cutmix(1.0))
    >>> [mixing.way(batch, 4).word for batch in batches]
    ['mixup', 'cutmix', 'cutmix', 'mixup']
    """
    return Either(ways)


@frozen
class Either:
    """Ways to mix of which each batch gets one; see `either`."""

    ways: tuple[Mix, ...] = field(validator=min_len(1))

    def __call__(self, batch: Batch, key: int) -> Batch:
        return self.way(batch, key)(batch, key)

    def way(self, batch: Batch, key: int) -> Mix:
        """Choose the way of a batch."""
        return self.ways[derive("either", key, *batch.row.tolist()) % len(self.ways)]


@frozen
class Mix:
    """A way to mix a batch; see `mixup` and `cutmix`."""

    word: str
    paint: Callable[[Tensor, Pairs], Tensor]
    alpha: float = field(validator=[gt(0.0), lt(math.inf)])
    classes: Classes = field(default=None)

    @classes.validator
    def _some(self, _: Any, classes: Classes) -> None:
        if isinstance(classes, int) and classes < 1:
            raise ValueError(f"'classes' must be > 0: {classes}")

    def __call__(self, batch: Batch, key: int) -> Batch:
        pairs = draw(derive(self.word, key, *batch.row.tolist()), self.alpha, len(batch.row))
        soft = _probabilities(batch.target, self.classes)
        target = map_tree(lambda leaf: numbers(leaf, pairs), soft)
        return batch._replace(inputs=self._inputs(batch.inputs, pairs), target=target)

    def _inputs(self, inputs: Tree, pairs: Pairs) -> Tree:
        if not isinstance(inputs, dict):
            return map_tree(lambda leaf: numbers(leaf, pairs), inputs)
        if is_photos(inputs):
            return {**inputs, "pixels": self._photos(**inputs, pairs=pairs)}
        return {name: self._inputs(child, pairs) for name, child in inputs.items()}

    def _photos(self, pixels: Tensor, present: Tensor, pairs: Pairs) -> Tensor:
        there = (present == 1) & (present[pairs.partner] == 1)
        return torch.where(there[..., None, None, None], self.paint(pixels, pairs), pixels)


def _probabilities(target: Tree, classes: Any) -> Tree:
    if target is None:
        raise DataError("rows without a target cannot be mixed")
    if isinstance(target, dict):
        named = classes or {}
        return {name: _probabilities(part, named.get(name)) for name, part in target.items()}
    if target.is_floating_point():
        return target
    if classes is None:
        raise DataError("to mix a target of classes, say how many: classes=…")
    return F.one_hot(target, classes).float()


def is_photos(inputs: Tree) -> bool:
    """Say whether inputs are what an image branch encodes: pixels uint8 [n, k, 3, h, w] and present
    int8 [n, k]. Other inputs of these names are not.

    >>> is_photos({"pixels": torch.zeros(2, 9), "present": torch.ones(2, 9)})
    False
    """
    if not isinstance(inputs, dict) or inputs.keys() != {"pixels", "present"}:
        return False
    pixels, present = inputs["pixels"], inputs["present"]
    if not (isinstance(pixels, Tensor) and isinstance(present, Tensor)):
        return False
    is_pixels = pixels.dtype == torch.uint8 and pixels.dim() == 5 and pixels.shape[2] == 3
    return is_pixels and present.dtype == torch.int8 and present.shape == pixels.shape[:2]


def has_photos(inputs: Tree) -> bool:
    """Say whether there are photos among the inputs of a batch: what `cutmix` can paste.

    >>> photos = {"pixels": torch.zeros(1, 1, 3, 8, 8).byte(), "present": torch.ones(1, 1).char()}
    >>> has_photos({"size": torch.zeros(1, 2)}), has_photos({"home": {"photo": photos}})
    (False, True)
    """
    if not isinstance(inputs, dict):
        return False
    return is_photos(inputs) or any(map(has_photos, inputs.values()))


def can_mix(inputs: Tree) -> bool:
    """Say whether `mixup` changes any input of a batch: photos, or what is of floating point.

    >>> can_mix({"words": torch.zeros(1, 2, dtype=torch.int64)}), can_mix(torch.zeros(1, 2))
    (False, True)
    """
    return has_photos(inputs) or any(leaf.is_floating_point() for _, leaf in leaves(inputs))


def draw(seed: int, alpha: float, rows: int) -> Pairs:
    """Draw a partner, a share and a corner for each row of a batch.

    >>> pairs = draw(7, 1.0, 3)
    >>> sorted(pairs.partner.tolist()), bool((pairs.own >= 0.5).all())
    ([0, 1, 2], True)
    """
    chance = np.random.default_rng(seed)
    partner, own = chance.permutation(rows), chance.beta(alpha, alpha, rows)
    # The larger share is the row's own, since what cannot be mixed stays its own.
    shares = np.maximum(own, 1 - own).astype(np.float32)
    corner = chance.random((rows, 2), dtype=np.float32)
    return Pairs(*map(torch.from_numpy, (partner, shares, corner)))


def numbers(leaf: Tensor, pairs: Pairs) -> Tensor:
    """Mix a leaf [n, …] of floating point; one of whole numbers is given back as it is.

    >>> pairs = Pairs(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]), torch.zeros(2, 2))
    >>> numbers(torch.tensor([0.0, 8.0]), pairs).tolist()
    [2.0, 4.0]
    """
    if not leaf.is_floating_point():
        return leaf
    other = leaf[pairs.partner]
    return torch.where(other.isnan(), leaf, _between(other, leaf, pairs.own.to(leaf.dtype)))


def _between(other: Tensor, own: Tensor, share: Tensor) -> Tensor:
    return torch.lerp(other, own, share.view(-1, *[1] * (own.dim() - 1)))


def blended(pixels: Tensor, pairs: Pairs) -> Tensor:
    """Mix pixels uint8 [n, k, 3, h, w] with the partners', share by share."""
    own = pixels.float()
    return _between(own[pairs.partner], own, pairs.own).round().to(torch.uint8)


def pasted(pixels: Tensor, pairs: Pairs) -> Tensor:
    """Paste a square of the partners' pixels, of their share, into uint8 [n, k, 3, h, w]."""
    side = (1 - pairs.own).sqrt()
    square = inside(side, side, pairs.corner, pixels.shape[-2:])
    return torch.where(square, pixels[pairs.partner], pixels)
