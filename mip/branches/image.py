"""Photos: a backbone for all of a row's, pooled to one vector."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, instance_of, le, min_len
from torch import Tensor, nn

from mip.branches.protocol import Facts, Problem, names, widths
from mip.data import Rows, Table, photos_of
from mip.errors import DataError, MipWarning, SpecError
from mip.images import Augment, Lazy, MissingImageError, decode, keep, locate, traits
from mip.images import version as decoder
from mip.nn import OWN, ConvStack, Cut, SmallResNet, fault, frozen_modules, library
from mip.tree import Tree

NONE = "no image is named"
"""Why there is no photo where a cell is blank."""


class Absence(Enum):
    """Why there is no photo: the cell is blank, the file is not there, or it is and cannot be had.
    The values are what reports count such rows as.
    """

    UNNAMED = "no image named"
    LOST = "image file missing"
    BROKEN = "image broken"


def absence_of(error: DataError) -> Absence:
    """Give the absence that an error of `mip.image` means.

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

    `missing` decides about rows whose photo is missing or broken: "error" raises, "drop" leaves the
    row out, "learn" replaces the photo by a learned vector, with a MipWarning if the file exists
    but is broken. `decoding = "scaled"` decodes large JPEGs at a fraction of their size: faster,
    with slightly different pixels.
    """

    kind = "image"
    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    size: int = field(default=64, validator=[instance_of(int), ge(8), le(1024)])
    backbone: str = field(default="small")
    base_channels: int = field(default=16, validator=[gt(0), le(1024)])
    pretrained: str | None = field(default=None)
    pool: Literal["mean", "max", "concat", "attention"] = field(
        default="mean", validator=in_(("mean", "max", "concat", "attention"))
    )
    missing: Literal["error", "drop", "learn"] = field(
        default="error", validator=in_(("error", "drop", "learn"))
    )
    decoding: Literal["full", "scaled"] = field(default="full", validator=in_(("full", "scaled")))
    augmentation: Augment = Augment()
    channels: tuple[int, ...] = widths((16, 32, 64), least=1)
    feature_layer: str | None = field(default=None)
    freeze: str | None = None

    @backbone.validator
    def _known(self, _: Any, name: str) -> None:
        if told := fault(name):
            raise ValueError(f"'backbone' = '{name}' {told}")

    @feature_layer.validator
    def _foreign(self, _: Any, name: str | None) -> None:
        if name is not None and self.backbone in OWN:
            raise ValueError(
                f"'feature_layer' must be left out: the {self.backbone} backbone has none"
            )

    @pretrained.validator
    def _fitting(self, _: Any, name: str | None) -> None:
        if name is not None and self.backbone in OWN:
            raise ValueError(
                f"'pretrained' must be left out: the {self.backbone} backbone has none"
            )

    def adapt(self, rows: Rows) -> Facts:
        """Give the mean and standard deviation that the backbone expects, by channel, and
        the most photos that a cell of each column holds.
        """
        most = [_most(rows, column) for column in self.columns]
        if self.pool == "concat" and max(most) > 1:
            raise DataError(
                "pool 'concat' needs the same photos in every row, and no lists of them"
            )
        if self.pretrained is None:
            return {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "most": most}
        mean, std = library(self.backbone).normal(self.pretrained)
        return {"mean": mean, "std": std, "most": most}

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give pixels uint8 [n, k, 3, size, size] and present int8 [n, k]: 1 where there is a
        photo, 0 where one is missing, -1 where a list of photos has ended.

        Raises DataError naming file, row and column for a photo that cannot be had, unless
        `missing` is "learn".
        """
        n, k = len(rows), sum(facts["most"])
        pixels = torch.zeros(n, k, 3, self.size, self.size, dtype=torch.uint8)
        present = torch.full((n, k), -1, dtype=torch.int8)
        for i, j, column, cell in self._places(facts["most"], rows):
            photo = self._photo(rows, i, column, cell)
            present[i, j] = 0 if photo is None else 1
            if photo is not None:
                pixels[i, j] = photo
        return {"pixels": pixels, "present": present}

    def absent(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Say which rows have no photo: bool [n]."""
        return (inputs["present"] != 1).all(dim=1)

    def keep(self, facts: Facts, rows: Table, folder: Path) -> Any:
        """Give what `encode` gives as rows of a file in the folder, decoded when first taken."""
        k = sum(facts["most"])
        shapes = {
            "present": (torch.int8, (k,)),
            "pixels": (torch.uint8, (k, 3, self.size, self.size)),
        }
        how = (self.size, self.decoding, self.missing)
        key = (self.columns, facts["most"], *how, decoder())
        encode = partial(self.encode, facts)
        return keep(rows, self.columns, encode, shapes, key, folder) or Lazy(rows, encode)

    def _places(self, most: list[int], rows: Table) -> Iterator[tuple[int, int, str, Any]]:
        first = np.cumsum([0, *most])
        for j, column in enumerate(self.columns):
            for i, cell in enumerate(rows.cells(column)):
                photos = photos_of(cell)
                if len(photos) > most[j]:
                    told = f"{len(photos)} photos, of which the first {most[j]} count"
                    warnings.warn(f"{rows.where(i, column)}: {told}", MipWarning, stacklevel=2)
                for place, each in enumerate(photos[: most[j]], start=int(first[j])):
                    yield i, place, column, each

    def _photo(self, rows: Table, place: int, column: str, cell: Any) -> Tensor | None:
        if cell is None:
            if self.missing != "learn":
                raise DataError(f"{rows.where(place, column)}: {NONE}")
            return None
        try:
            return decode(rows.root, cell, self.size, self.decoding == "scaled")
        except DataError as error:
            where = f"{rows.where(place, column)}: {error}"
            if self.missing != "learn":
                raise DataError(where) from error
            if absence_of(error) is Absence.BROKEN:
                warnings.warn(f"{where}; it counts as missing", MipWarning, stacklevel=2)
            return None

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, features], or [n, k * features] for pool "concat"."""
        backbone, features = self._sized()
        inner = backbone.cut if isinstance(backbone, Cut) else backbone  # whose names are known
        stays = frozen_modules(inner.train(), self.freeze)
        learned = self.missing == "learn"
        about = facts["mean"], facts["std"], learned, stays, self.backbone in OWN
        return Photos(backbone, features, self.pool, *about)

    @torch.no_grad()
    def _sized(self) -> tuple[nn.Module, int]:
        try:
            backbone = self._backbone()
            return backbone, backbone.eval()(torch.zeros(1, 3, self.size, self.size)).shape[1]
        except SpecError:
            raise
        except Exception as error:  # whatever a model raises for photos that are too small for it
            why = " ".join(str(error).split()) or type(error).__name__
            told = f"the backbone '{self.backbone}' cannot take photos of this size ({why})"
            raise SpecError(f"size = {self.size}: {told}") from error

    def _backbone(self) -> nn.Module:
        if self.backbone in OWN:
            own = (
                SmallResNet(self.base_channels)
                if self.backbone == "small"
                else ConvStack(self.channels)
            )
            return own.to(memory_format=torch.channels_last)
        whole = self.feature_layer is not None
        model = library(self.backbone).model(self.pretrained, self.size, whole)
        return model if self.feature_layer is None else Cut(model, self.feature_layer)

    def augment(self, inputs: Tree, key: int, rows: Tensor) -> Tree:
        """Change the pixels of a training batch; a row's draws depend on key and row alone."""
        if self.augmentation == Augment():
            return inputs
        return {**inputs, "pixels": self.augmentation(inputs["pixels"], key, rows)}

    def pretrain(self, module: Any) -> None:
        """Load the named weights into a freshly built module.

        Raises DataError for weights that neither the library's cache nor the network has.
        """
        if self.pretrained is None:
            return
        try:
            given = library(self.backbone).trained(self.pretrained, self.size)
        except Exception as error:  # whatever a network, a cache or a file does to a library
            why = f"cannot be had: {' '.join(str(error).split())}"
            raise DataError(f"{self.backbone}: the weights '{self.pretrained}' {why}") from error
        wanted = module.backbone.state_dict()
        module.backbone.load_state_dict({name: given[name.removeprefix("cut.")] for name in wanted})

    def problems(self, rows: Table) -> Iterator[Problem]:
        """Give every photo that is absent, and under policy "drop" every one that cannot be
        decoded.
        """
        for column in self.columns:
            for place, cell in enumerate(rows.cells(column)):
                for photo in photos_of(cell):
                    if found := self._problem(rows, photo):
                        absence, reason = found
                        yield Problem(place, column, reason, absence.value)

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every photo whose pixels are not used as they are stored."""
        for column in self.columns:
            for place, cell in enumerate(rows.cells(column)):
                for photo in filter(lambda each: each is not None, photos_of(cell)):
                    with suppress(DataError):  # one that cannot be had is named by `problems`
                        for trait in traits(rows.root, photo):
                            yield place, f"'{column}' {trait}"

    def _problem(self, rows: Table, cell: Any) -> tuple[Absence, str] | None:
        if cell is None:
            return Absence.UNNAMED, NONE
        try:
            if isinstance(cell, str):
                locate(rows.root, cell)
            if self.missing == "drop":
                decode(rows.root, cell, 8)
        except DataError as error:
            return absence_of(error), str(error)
        return None


def _most(rows: Rows, column: str) -> int:
    cells = (cell for chunk in rows.chunks([column]) for cell in chunk.cells(column))
    return max(len(photos_of(cell)) for cell in cells)


class Photos(nn.Module):
    """Run every photo of a row through one backbone and pool what comes out.

    Takes pixels uint8 [n, k, 3, s, s] and present int8 [n, k]; gives float32 [n, d], or
    [n, k * d] for pool "concat". A missing photo (present 0) counts as a vector that is `learned`;
    where a row has no further photo (present -1) nothing counts. The modules `stays` are frozen.
    The channels lie `last` in memory where that is faster: in small nets, and on a GPU.
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
        learned: bool = True,
        stays: tuple[nn.Module, ...] = (),
        last: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.pool, self.stays, self.last = backbone, pool, stays, last
        self.missing = nn.Parameter(torch.zeros(features)) if learned else None
        self.score = nn.Linear(features, 1) if pool == "attention" else None
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1) * 255, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        pixels, present = inputs["pixels"], inputs["present"]
        last = self.last or pixels.is_cuda
        layout = torch.channels_last if last else torch.contiguous_format
        # In place, in a copy of our own: fresh memory costs more than the arithmetic.
        images = pixels.flatten(0, 1).to(torch.float32, copy=True, memory_format=layout)
        vectors = self.backbone(images.sub_(self.mean).div_(self.std)).unflatten(0, present.shape)
        if self.missing is not None:
            vectors = torch.where((present == 1).unsqueeze(-1), vectors, self.missing)
        return self.pooled(vectors, (present < 0).unsqueeze(-1))

    def train(self, mode: bool = True) -> Photos:
        """Set the mode, but leave what is frozen as it is at prediction."""
        super().train(mode)
        for module in self.stays:
            module.eval()
        return self

    def pooled(self, vectors: Tensor, over: Tensor) -> Tensor:
        """Pool float32 [n, k, d] over the photos of a row, but for those where `over` is true."""
        if self.pool == "concat":
            return vectors.flatten(1)
        if self.pool == "max":
            return vectors.masked_fill(over, -torch.inf).amax(dim=1)
        if self.score is None:
            return vectors.masked_fill(over, 0).sum(dim=1) / (~over).sum(dim=1)
        weights = self.score(vectors).masked_fill(over, -torch.inf).softmax(dim=1)
        return (weights * vectors).sum(dim=1)
