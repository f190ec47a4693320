"""Photos: one backbone for all of a row's, pooled to one vector."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import field, frozen
from attrs.validators import ge, gt, instance_of, le
from torch import Tensor, nn

from mip.branches.protocol import Facts, Problem, column_names, layer_sizes_field
from mip.data import Rows, Table, as_photos
from mip.errors import DataError, FieldError, MipWarning, SpecError
from mip.fields import MinLength, choice
from mip.images import (
    Augment,
    CachedRows,
    LazyRows,
    MissingImageError,
    Photos,
    decode,
    decoder_version,
    open_cache,
    photo_conversions,
    resolve_path,
)
from mip.nn import (
    BUILT_IN,
    ConvStack,
    FeatureExtractor,
    SmallResNet,
    backbone_error,
    freeze_until,
    source_of,
)

UNNAMED = "no image is named"
"""The reason why a photo is missing if its cell is empty."""


class Absence(Enum):
    """Why there is no photo: the cell is empty, the file does not exist, or it cannot be decoded.
    The values are the names under which reports count such rows.
    """

    UNNAMED = "no image named"
    LOST = "image file missing"
    BROKEN = "image broken"


def absence_of(error: DataError) -> Absence:
    """Return the absence that an error of `mip.images` means.

    >>> absence_of(MissingImageError("a.jpg is missing"))
    <Absence.LOST: 'image file missing'>
    """
    return Absence.LOST if isinstance(error, MissingImageError) else Absence.BROKEN


@frozen
class Image:
    """Photos: one or more image columns, one backbone for all, pooled to one vector per row.

    A cell holds a photo (a path, bytes, a dict with either, a PIL image, pixels) or a list of
    photos, which may be empty.

    `backbone` is "small" (a residual net of `base_channels`, twice and four times as many
    channels), "conv" (a convolution of stride 2 for each of `channels`), the name of a torchvision
    classification model, or "timm/" and the name of a timm model, if timm is installed.
    `pretrained` names its weights (a tag for timm; "DEFAULT" for those the library recommends). The
    features are those before the classifier, or those of the module `feature_layer`, averaged over
    the image. `freeze` freezes "all" of the backbone, or everything up to the named module; frozen
    batch norms use their running statistics.

    `missing` says what to do with rows whose photo is missing or broken: "error" raises, "drop"
    leaves the row out, "learn" replaces the photo by a learned vector, with a MipWarning if the
    file exists but is broken. `decoding = "scaled"` decodes large JPEGs at a fraction of their
    size: faster, with slightly different pixels.
    """

    kind = "image"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    size: int = field(default=64, validator=[instance_of(int), ge(8), le(1024)])
    backbone: str = field(default="small")
    base_channels: int = field(default=16, validator=[gt(0), le(1024)])
    pretrained: str | None = field(default=None)
    pool: Literal["mean", "max", "concat", "attention"] = choice("mean")
    missing: Literal["error", "drop", "learn"] = choice("error")
    decoding: Literal["full", "scaled"] = choice("full")
    augmentation: Augment = Augment()
    channels: tuple[int, ...] = layer_sizes_field((16, 32, 64), min_layers=1)
    feature_layer: str | None = field(default=None)
    freeze: str | None = None

    @backbone.validator
    def _check_backbone(self, _: object, name: str) -> None:
        if error := backbone_error(name):
            raise FieldError("backbone", f"= '{name}' {error}")

    @feature_layer.validator
    def _check_feature_layer(self, _: object, name: str | None) -> None:
        if name is not None and self.backbone in BUILT_IN:
            none = f"the {self.backbone} backbone has none"
            raise FieldError("feature_layer", f"must be left out: {none}")

    @pretrained.validator
    def _check_pretrained(self, _: object, name: str | None) -> None:
        if name is not None and self.backbone in BUILT_IN:
            raise FieldError(
                "pretrained", f"must be left out: the {self.backbone} backbone has none"
            )

    def adapt(self, table: Rows) -> Facts:
        """Return the mean and standard deviation by channel that the backbone expects, and the
        largest number of photos in a cell of each column.
        """
        most = [_most_photos(table, column) for column in self.columns]
        if self.pool == "concat" and max(most) > 1:
            raise DataError(
                "pool 'concat' needs the same photos in every row, and no lists of them"
            )
        if self.pretrained is None:
            return {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "most": most}
        mean, std = source_of(self.backbone).normalization(self.pretrained)
        return {"mean": mean, "std": std, "most": most}

    def encode(self, facts: Facts, table: Table) -> Photos:
        """Decode the photos.

        Raises DataError naming file, row and column for a photo that cannot be read, unless
        `missing` is "learn".
        """
        n, k = len(table), sum(facts["most"])
        pixels = torch.zeros(n, k, 3, self.size, self.size, dtype=torch.uint8)
        present = torch.full((n, k), -1, dtype=torch.int8)
        begin = 0
        for column, most in zip(self.columns, facts["most"], strict=True):
            for row, cell in enumerate(table.cells(column)):
                photos = as_photos(cell)
                if len(photos) > most:
                    text = f"{len(photos)} photos, of which the first {most} count"
                    warnings.warn(
                        f"{table.cell_name(row, column)}: {text}", MipWarning, stacklevel=2
                    )
                for place, photo in enumerate(photos[:most], start=begin):
                    decoded = self._decode(table, row, column, photo)
                    present[row, place] = 0 if decoded is None else 1
                    if decoded is not None:
                        pixels[row, place] = decoded
            begin += most
        return {"pixels": pixels, "present": present}

    def _decode(self, table: Table, row: int, column: str, photo: Any) -> Tensor | None:
        if photo is None:
            if self.missing != "learn":
                raise DataError(f"{table.cell_name(row, column)}: {UNNAMED}")
            return None
        try:
            return decode(table.root, photo, self.size, self.decoding == "scaled")
        except DataError as error:
            text = f"{table.cell_name(row, column)}: {error}"
            if self.missing != "learn":
                raise DataError(text) from error
            if absence_of(error) is Absence.BROKEN:
                warnings.warn(f"{text}; it counts as missing", MipWarning, stacklevel=3)
            return None

    def absent(self, inputs: Photos) -> Tensor:
        """Mark the rows without any photo: bool [n]."""
        return (inputs["present"] != 1).all(dim=1)

    def cache(self, facts: Facts, table: Table, folder: Path) -> CachedRows | LazyRows:
        """Return the encoded rows as rows of a file in the folder, each decoded when first taken;
        if there is no space for the file, as rows that are decoded whenever they are taken.
        """
        k = sum(facts["most"])
        encode = partial(self.encode, facts)
        cached = open_cache(
            table,
            columns=self.columns,
            encode=encode,
            shapes={
                "present": (torch.int8, (k,)),
                "pixels": (torch.uint8, (k, 3, self.size, self.size)),
            },
            key=(
                self.columns,
                facts["most"],
                self.size,
                self.decoding,
                self.missing,
                decoder_version(),
            ),
            folder=folder,
        )
        return cached or LazyRows(table, encode)

    def module(self, facts: Facts) -> PhotoNet:
        """Build a module to float32 [n, features], or [n, k * features] for pool "concat"."""
        backbone, features = self._sized_backbone()
        inner = backbone.cut if isinstance(backbone, FeatureExtractor) else backbone
        return PhotoNet(
            backbone,
            features,
            self.pool,
            mean=facts["mean"],
            std=facts["std"],
            learn_missing=self.missing == "learn",
            frozen=freeze_until(inner.train(), self.freeze),
            channels_last=self.backbone in BUILT_IN,
        )

    @torch.no_grad()
    def _sized_backbone(self) -> tuple[nn.Module, int]:
        try:
            backbone = self._backbone()
            return backbone, backbone.eval()(torch.zeros(1, 3, self.size, self.size)).shape[1]
        except SpecError:
            raise
        except Exception as error:  # a model may raise anything for photos that are too small
            why = " ".join(str(error).split()) or type(error).__name__
            text = f"the backbone '{self.backbone}' cannot take photos of this size ({why})"
            raise SpecError(f"size = {self.size}: {text}") from error

    def _backbone(self) -> nn.Module:
        if self.backbone == "small":
            return SmallResNet(self.base_channels).to(memory_format=torch.channels_last)
        if self.backbone == "conv":
            return ConvStack(self.channels).to(memory_format=torch.channels_last)
        source = source_of(self.backbone)
        if self.feature_layer is None:
            return source.build(self.pretrained, self.size, classifier=False)
        model = source.build(self.pretrained, self.size, classifier=True)
        return FeatureExtractor(model, self.feature_layer)

    def augment(self, inputs: Photos, key: int, row_ids: Tensor) -> Photos:
        """Change the pixels of a training batch; random draws depend only on key and row id."""
        if self.augmentation == Augment():
            return inputs
        return {**inputs, "pixels": self.augmentation(inputs["pixels"], key, row_ids)}

    def pretrain(self, module: nn.Module) -> None:
        """Load the pretrained weights into a freshly built module.

        Raises DataError if neither the library's cache nor the network has them.
        """
        if self.pretrained is None:
            return
        try:
            weights = source_of(self.backbone).state_dict(self.pretrained, self.size)
        except Exception as error:  # a network, a cache or a file may raise anything
            why = f"cannot be had: {' '.join(str(error).split())}"
            raise DataError(f"{self.backbone}: the weights '{self.pretrained}' {why}") from error
        backbone = module.get_submodule("backbone")
        # Those of a feature extractor are the model's own, below `cut`.
        names = {name: name.removeprefix("cut.") for name in backbone.state_dict()}
        backbone.load_state_dict({name: weights[theirs] for name, theirs in names.items()})

    def problems(self, table: Table) -> Iterator[Problem]:
        """Yield every photo that is missing, and under policy "drop" every one that cannot be
        decoded.
        """
        for column in self.columns:
            for row, cell in enumerate(table.cells(column)):
                for photo in as_photos(cell):
                    if photo is None:
                        yield Problem(row, column, UNNAMED, Absence.UNNAMED.value)
                    elif error := self._error(table.root, photo):
                        yield Problem(row, column, str(error), absence_of(error).value)

    def _error(self, root: Path | None, photo: Any) -> DataError | None:
        try:
            if isinstance(photo, str):
                resolve_path(root, photo)
            if self.missing == "drop":
                decode(root, photo, 8)
        except DataError as error:
            return error
        return None

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for every photo whose pixels are not used exactly as stored."""
        for column in self.columns:
            for row, cell in enumerate(table.cells(column)):
                for photo in as_photos(cell):
                    with suppress(DataError):  # `problems` names a photo that cannot be read
                        changes = [] if photo is None else photo_conversions(table.root, photo)
                        yield from ((row, f"'{column}' {change}") for change in changes)


def _most_photos(table: Rows, column: str) -> int:
    cells = (cell for chunk in table.chunks([column]) for cell in chunk.cells(column))
    return max(len(as_photos(cell)) for cell in cells)


class PhotoNet(nn.Module):
    """Run every photo of a row through one backbone and pool the features.

    Takes `Photos`; returns float32 [n, d], or [n, k * d] for pool "concat". A missing photo
    (present 0) counts as a learned vector if `learn_missing`; past the end of a list (present -1)
    nothing counts. The modules `frozen` stay in evaluation mode. Memory is `channels_last` where
    that is faster: in small nets, and on a GPU.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        features: int,
        pool: str,
        mean: list[float],
        std: list[float],
        learn_missing: bool = True,
        frozen: tuple[nn.Module, ...] = (),
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.pool = backbone, pool
        self.frozen, self.channels_last = frozen, channels_last
        self.missing = nn.Parameter(torch.zeros(features)) if learn_missing else None
        self.score = nn.Linear(features, 1) if pool == "attention" else None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, photos: Photos) -> Tensor:
        pixels, present = photos["pixels"], photos["present"]
        last = self.channels_last or pixels.is_cuda
        layout = torch.channels_last if last else torch.contiguous_format
        # In place, in a copy of our own: fresh memory costs more than the arithmetic.
        images = pixels.flatten(0, 1).to(torch.float32, copy=True, memory_format=layout)
        vectors = self.backbone(images.sub_(self.mean).div_(self.std)).unflatten(0, present.shape)
        if self.missing is not None:
            vectors = torch.where((present == 1).unsqueeze(-1), vectors, self.missing)
        return self.pooled(vectors, (present < 0).unsqueeze(-1))

    def train(self, mode: bool = True) -> PhotoNet:
        """Set the mode, but leave frozen modules in evaluation mode."""
        super().train(mode)
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
