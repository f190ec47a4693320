"""Mixing: rows of a training batch combined in pairs, photos, numbers and targets alike."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from attrs import field, frozen
from attrs.validators import gt, lt, min_len
from torch import Tensor

from mip.errors import DataError
from mip.images import Photos, is_photos, rectangle_mask
from mip.model.plan import Batch
from mip.rng import derive
from mip.tree import Tree, leaves, map_tree


class Pairs(NamedTuple):
    """How rows are mixed: `partner` int64 [n], the index of the other row in the batch; `share`
    float32 [n] of the row itself, one half or more; `corner` float32 [n, 2], draws in [0, 1) for
    the position of a rectangle.
    """

    partner: Tensor
    share: Tensor
    corner: Tensor


Classes = int | Mapping[str, "Classes"] | None
"""The number of classes of an integer target; by head if there are several."""


def mixup(alpha: float = 0.2, classes: Classes = None) -> Mix:
    """Blend the rows of a batch in pairs (Zhang et al. 2018): a function of (batch, key).

    For `mip.augment(mixup(0.2), seed)` after the other augmentation of a pipe. Shares are drawn
    from Beta(alpha, alpha), the larger one for the row itself. Photos, other floating-point inputs
    and the target are mixed. Categories and other integers are not, nor is a photo if either one
    is missing, or a number if the partner's is. Floating-point targets keep their shape; a
    multiclass target, int64 [n], needs the number of `classes` and becomes probabilities float32
    [n, classes], which cross-entropy accepts. The targets of several heads are mixed alike;
    `classes` is then a dict too.

    The mix depends only on the key, derived from (seed, epoch), and on the batch's rows. Raises
    DataError without a target, and for an int64 target without `classes`.

    >>> batch = Batch({}, torch.tensor([0, 1]), torch.tensor([5, 8]))
    >>> mixup(1.0, classes=2)(batch, 3).target.sum(dim=1).tolist()
    [1.0, 1.0]
    """
    return Mix("mixup", blend, alpha, classes)


def cutmix(alpha: float = 1.0, classes: Classes = None) -> Mix:
    """Paste a square of the partner's photos into those of a row (Yun et al. 2019); otherwise like
    `mixup`.

    The square has the partner's share of the area, to within a pixel per side, and is inside the
    image.

    >>> dark = torch.zeros(2, 1, 3, 8, 8, dtype=torch.uint8); dark[1] = 200
    >>> photos = {"pixels": dark, "present": torch.ones(2, 1, dtype=torch.int8)}
    >>> batch = Batch({"photo": photos}, torch.tensor([0.0, 1.0]), torch.tensor([5, 8]))
    >>> cutmix()(batch, 3).inputs["photo"]["pixels"].unique().tolist()
    [0, 200]
    """
    return Mix("cutmix", paste, alpha, classes)


def random_choice(*mixes: Mix) -> RandomChoice:
    """Mix each batch by one of several mixes, each equally likely: a function of (batch, key).

    Which one depends only on the key, derived from (seed, epoch), and on the batch's rows. Raises
    ValueError if there are none.

    >>> batches = [Batch({}, torch.zeros(2), torch.tensor([8, k])) for k in range(4)]
    >>> mixing = random_choice(mixup(0.2), cutmix(1.0))
    >>> [mixing.choose(batch, 4).name for batch in batches]
    ['mixup', 'cutmix', 'cutmix', 'mixup']
    """
    return RandomChoice(mixes)


@frozen
class RandomChoice:
    """Several mixes, one of which each batch gets; see `random_choice`."""

    mixes: tuple[Mix, ...] = field(validator=min_len(1))

    def __call__(self, batch: Batch, key: int) -> Batch:
        return self.choose(batch, key)(batch, key)

    def choose(self, batch: Batch, key: int) -> Mix:
        """Return the mix of a batch."""
        return self.mixes[derive("either", key, *batch.row.tolist()) % len(self.mixes)]


@frozen
class Mix:
    """How to mix a batch; see `mixup` and `cutmix`."""

    name: str
    mix_pixels: Callable[[Tensor, Pairs], Tensor]
    alpha: float = field(validator=[gt(0.0), lt(math.inf)])
    classes: Classes = field(default=None)

    @classes.validator
    def _check_classes(self, _: object, classes: Classes) -> None:
        if isinstance(classes, int) and classes < 1:
            raise ValueError(f"'classes' must be > 0: {classes}")

    def __call__(self, batch: Batch, key: int) -> Batch:
        pairs = draw_pairs(derive(self.name, key, *batch.row.tolist()), self.alpha, len(batch.row))
        probabilities = _probabilities(batch.target, self.classes)
        target = map_tree(lambda leaf: mix_numbers(leaf, pairs), probabilities)
        return batch._replace(inputs=self._mix_inputs(batch.inputs, pairs), target=target)

    def _mix_inputs(self, inputs: Tree, pairs: Pairs) -> Tree:
        if is_photos(inputs):
            return {**inputs, "pixels": self._mix_photos(inputs, pairs)}
        if isinstance(inputs, dict):
            return {name: self._mix_inputs(child, pairs) for name, child in inputs.items()}
        return map_tree(lambda leaf: mix_numbers(leaf, pairs), inputs)

    def _mix_photos(self, photos: Photos, pairs: Pairs) -> Tensor:
        pixels, present = photos["pixels"], photos["present"] == 1
        both = present & present[pairs.partner]
        return torch.where(both[..., None, None, None], self.mix_pixels(pixels, pairs), pixels)


def _probabilities(target: Tree, classes: Classes) -> Tree:
    if target is None:
        raise DataError("rows without a target cannot be mixed")
    if isinstance(target, dict):
        by_head = classes if isinstance(classes, Mapping) else {}
        return {name: _probabilities(part, by_head.get(name)) for name, part in target.items()}
    if target.is_floating_point():
        return target
    if classes is None or isinstance(classes, Mapping):
        raise DataError("mixing an integer target needs the number of classes: classes=…")
    return F.one_hot(target, classes).float()


def has_photos(inputs: Tree) -> bool:
    """Tell whether there are photos among the inputs of a batch, which `cutmix` needs.

    >>> photos = {"pixels": torch.zeros(1, 1, 3, 8, 8).byte(), "present": torch.ones(1, 1).char()}
    >>> has_photos({"size": torch.zeros(1, 2)}), has_photos({"home": {"photo": photos}})
    (False, True)
    """
    if not isinstance(inputs, dict):
        return False
    return is_photos(inputs) or any(map(has_photos, inputs.values()))


def can_mix(inputs: Tree) -> bool:
    """Tell whether `mixup` changes any input of a batch: photos or floating-point tensors.

    >>> can_mix({"words": torch.zeros(1, 2, dtype=torch.int64)}), can_mix(torch.zeros(1, 2))
    (False, True)
    """
    return has_photos(inputs) or any(leaf.is_floating_point() for _, leaf in leaves(inputs))


def draw_pairs(seed: int, alpha: float, n: int) -> Pairs:
    """Draw a partner, a share and a corner for each row of a batch.

    >>> pairs = draw_pairs(7, 1.0, 3)
    >>> sorted(pairs.partner.tolist()), bool((pairs.share >= 0.5).all())
    ([0, 1, 2], True)
    """
    rng = np.random.default_rng(seed)
    partner, drawn = rng.permutation(n), rng.beta(alpha, alpha, n)
    # The row itself has the larger share, since it keeps whatever cannot be mixed.
    share = np.maximum(drawn, 1 - drawn).astype(np.float32)
    corner = rng.random((n, 2), dtype=np.float32)
    return Pairs(*map(torch.from_numpy, (partner, share, corner)))


def mix_numbers(leaf: Tensor, pairs: Pairs) -> Tensor:
    """Mix a floating-point leaf [n, …]; integers are returned unchanged.

    >>> pairs = Pairs(torch.tensor([1, 0]), torch.tensor([0.75, 0.5]), torch.zeros(2, 2))
    >>> mix_numbers(torch.tensor([0.0, 8.0]), pairs).tolist()
    [2.0, 4.0]
    """
    if not leaf.is_floating_point():
        return leaf
    other = leaf[pairs.partner]
    return torch.where(other.isnan(), leaf, _lerp(other, leaf, pairs.share.to(leaf.dtype)))


def _lerp(start: Tensor, end: Tensor, weight: Tensor) -> Tensor:
    return torch.lerp(start, end, weight.view(-1, *[1] * (end.dim() - 1)))


def blend(pixels: Tensor, pairs: Pairs) -> Tensor:
    """Blend pixels uint8 [n, k, 3, h, w] with those of the partners, by their shares."""
    values = pixels.float()
    return _lerp(values[pairs.partner], values, pairs.share).round().to(torch.uint8)


def paste(pixels: Tensor, pairs: Pairs) -> Tensor:
    """Paste a square of the partners' pixels, of their share, into uint8 [n, k, 3, h, w]."""
    side = (1 - pairs.share).sqrt()
    square = rectangle_mask(side, side, pairs.corner, pixels.shape[-2:])
    return torch.where(square, pixels[pairs.partner], pixels)
