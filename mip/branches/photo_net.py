"""The module of an image branch: one backbone for all photos of a row, then layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mip.errors import SpecError
from mip.nn import (
    LEVELS,
    ConvStack,
    FeatureExtractor,
    GlobalPool,
    LevelFeatures,
    SmallResNet,
    inner_model,
    pool_map,
    source_of,
)

if TYPE_CHECKING:
    from mip.branches.image import Image


@torch.no_grad()
def sized_backbone(image: Image) -> tuple[nn.Module, torch.Size]:
    """Build the backbone of an image branch, and find the shape of its features of a photo: (d,),
    or for a feature map (channels, h, w).

    Raises SpecError for a backbone that cannot take photos of the branch's size, and for a function
    that does not build one.
    """
    photo = torch.zeros(1, 3, image.size, image.size)
    try:
        backbone = _backbone(image)
        features = backbone.eval()(photo)
    except SpecError:
        raise
    except Exception as error:  # a model may raise anything for photos that are too small
        why = " ".join(str(error).split()) or type(error).__name__
        text = f"the backbone '{image.backbone_name}' cannot take photos of this size ({why})"
        raise SpecError(f"size = {image.size}: {text}") from error
    if not (isinstance(features, Tensor) and features.dim() in (2, 4) and len(features) == 1):
        actual = list(features.shape) if isinstance(features, Tensor) else type(features).__name__
        expected = "[1, features] or a map [1, channels, h, w]"
        text = f"must return {expected} for {list(photo.shape)}, not {actual}"
        raise SpecError(f"backbone = '{image.backbone_name}' {text}")
    return backbone, pool_map(features, image.global_pool).shape[1:]


def _backbone(image: Image) -> nn.Module:
    if image.feature_layer == LEVELS:
        return LevelFeatures(_whole_model(image), image.size)
    if image.feature_layer is not None:
        return FeatureExtractor(_whole_model(image), image.feature_layer, image.global_pool)
    return _whole_model(image)


def _whole_model(image: Image) -> nn.Module:
    if image.backbone == "small":
        net = SmallResNet(image.base_channels, image.global_pool)
        return net.to(memory_format=torch.channels_last)
    if image.backbone == "conv":
        return _conv_stack(image).to(memory_format=torch.channels_last)
    return _model(image)


def _conv_stack(image: Image) -> ConvStack:
    return ConvStack(
        image.channels,
        image.depth,
        image.stride,
        image.separable,
        image.max_pool,
        image.activation,
        image.batch_norm,
        image.global_pool,
    )


def _model(image: Image) -> nn.Module:
    if isinstance(image.backbone, str):
        source, classifier = source_of(image.backbone), image.feature_layer is not None
        return source.build(image.tag, image.size, classifier)
    model = image.backbone.function()
    if not isinstance(model, nn.Module):
        text = f"must return a torch.nn.Module, not {type(model).__name__}"
        raise SpecError(f"backbone = '{image.backbone_name}' {text}")
    return model


class PhotoNet(nn.Module):
    """Run every photo of a row through one backbone, pool the features, and run layers.

    Features have a `shape`: (d,), or for a feature map (channels, h, w). Takes `Photos`, or what
    `frozen_features` has computed of them in their place, float32 [n, k, …]; returns
    float32 [n, *shape], with k times as many channels for pool "concat", or what the layers return
    for that. A missing photo (present 0) counts as a learned vector if `learn_missing`; past the
    end of a list (present -1) nothing counts. A `norm` follows the pooling. The modules `frozen`
    stay in evaluation mode. `split` are the frozen part of the backbone and the rest, if there is a
    part. Memory is `channels_last` where that is faster: in small nets, and on a GPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        shape: Sequence[int],
        pool: str,
        global_pool: GlobalPool,
        layers: nn.Module,
        mean: list[float],
        std: list[float],
        learn_missing: bool = True,
        frozen: tuple[nn.Module, ...] = (),
        channels_last: bool = False,
        split: tuple[nn.Module, nn.Module] | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        features = self.num_features = prod(shape)
        self.backbone, self.pool, self.global_pool = backbone, pool, global_pool
        self.image_shape = tuple(shape[1:])
        # Tuples, since these are modules of the backbone.
        self.frozen, self.split, self.channels_last = frozen, split, channels_last
        self.missing = nn.Parameter(torch.zeros(features)) if learn_missing else None
        self.score = nn.Linear(features, 1) if pool == "attention" else None
        self.norm, self.layers = norm, layers
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, photos: Mapping[str, Tensor]) -> Tensor:
        present = photos["present"]
        if "features" in photos:
            vectors = self.after_frozen(photos["features"].flatten(0, 1))
        else:
            vectors = self.features(photos["pixels"].flatten(0, 1))
        vectors = vectors.unflatten(0, present.shape)
        if self.missing is not None:
            vectors = torch.where((present == 1).unsqueeze(-1), vectors, self.missing)
        vector = self.pooled(vectors, (present < 0).unsqueeze(-1))
        if self.norm is not None:
            vector = self.norm(vector)
        if self.image_shape:
            vector = vector.unflatten(1, (-1, *self.image_shape))
        return self.layers(vector)

    def features(self, pixels: Tensor) -> Tensor:
        """Run photos through the backbone: uint8 [m, 3, size, size] to float32 [m, d]."""
        return self._pooled_map(self.backbone(self._images(pixels)))

    def frozen_features(self, pixels: Tensor) -> Tensor:
        """Run photos through the frozen part of the backbone: uint8 [m, 3, size, size] to
        float32 [m, …], or if that is all of the backbone to float32 [m, d].
        """
        return self.split[0](self._images(pixels)) if self.split else self.features(pixels)

    def after_frozen(self, features: Tensor) -> Tensor:
        """Run what `frozen_features` returns through the rest of the net: to float32 [m, d]."""
        if self.split is None:
            return features
        if features.dim() == 4:
            features = features.contiguous(memory_format=self._layout(features))
        return self._pooled_map(self.split[1](features))

    def _images(self, pixels: Tensor) -> Tensor:
        # In place, in a copy of our own: fresh memory costs more than the arithmetic.
        layout = self._layout(pixels)
        images = pixels.to(torch.float32, copy=True, memory_format=layout)
        return images.sub_(self.mean).div_(self.std)

    def _layout(self, photos: Tensor) -> torch.memory_format:
        last = self.channels_last or photos.is_cuda
        return torch.channels_last if last else torch.contiguous_format

    def _pooled_map(self, features: Tensor) -> Tensor:
        return pool_map(features, self.global_pool).flatten(1)

    @property
    def has_frozen_backbone(self) -> bool:
        """Whether no part of the backbone is trained, so that a photo's features never change."""
        inner = inner_model(self.backbone)
        return any(module is inner for module in self.frozen)

    @torch.no_grad()
    def can_split(self, pixels: Tensor) -> bool:
        """Tell whether the frozen part and the rest compute of photos what the backbone does:
        uint8 [m, 3, size, size], in evaluation mode.
        """
        if self.split is None:
            return False
        try:
            split = self.after_frozen(self.frozen_features(pixels))
        except Exception:  # a model that does not run its modules in their order may raise anything
            return False
        return torch.equal(split, self.features(pixels))

    def train(self, mode: bool = True) -> PhotoNet:
        """Set the mode, but leave frozen modules in evaluation mode."""
        super().train(mode)
        if self.split is not None:
            self.split[1].train(mode)  # whose containers are its own
        for module in self.frozen:
            module.eval()
        return self

    def pooled(self, vectors: Tensor, past_end: Tensor) -> Tensor:
        """Pool float32 [n, k, d] over the photos of a row, except where `past_end` is true."""
        if self.pool == "concat":
            return vectors.flatten(1)
        if self.pool == "max":
            return vectors.masked_fill(past_end, -torch.inf).amax(dim=1)
        if self.score is None:
            return vectors.masked_fill(past_end, 0).sum(dim=1) / (~past_end).sum(dim=1)
        weights = self.score(vectors).masked_fill(past_end, -torch.inf).softmax(dim=1)
        return (weights * vectors).sum(dim=1)
