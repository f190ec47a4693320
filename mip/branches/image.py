"""Photos: a backbone for all of a row's, pooled to one vector."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, instance_of, le, min_len
from torch import Tensor, nn

from mip import image
from mip.augmentation import Augment
from mip.branch import Facts, names
from mip.cache import Lazy, keep
from mip.errors import DataError, MipWarning, hint
from mip.layers import Photos, SmallResNet, cut
from mip.table import Rows, Table
from mip.tree import Tree

NONE = "no image is named"
"""Why there is no photo where a cell is blank."""


def state(reason: str) -> str:
    """Say in a few words what is wrong with a photo that cannot be had for this reason.

    >>> state(NONE), state("a.jpg is missing"), state("a.jpg is truncated")
    ('no image named', 'image file missing', 'image broken')
    """
    if reason == NONE:
        return "no image named"
    return "image file missing" if reason.endswith("is missing") else "image broken"


@frozen
class Image:
    """Photos: one image column or several, one backbone for all, pooled to one vector a row.

    A cell holds a photo (a path, bytes, a PIL image, pixels) or a list of them, none included.
    `backbone` is "small" (a residual net of `width`, 2 * `width`, 4 * `width` channels) or the
    name of any torchvision classification model; `weights` names its pretrained weights
    ("DEFAULT" for the best). `missing` says what to do with a row whose photo is absent or
    broken: "error" names it, "drop" leaves the row out, "learn" gives it a learned vector, with
    a MipWarning for a photo that is there and broken. `decoding = "scaled"` decodes large JPEGs
    at a fraction of their size: faster, and not quite the same pixels.
    """

    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    size: int = field(default=64, validator=[instance_of(int), ge(8), le(1024)])
    backbone: str = field(default="small")
    width: int = field(default=16, validator=[gt(0), le(1024)])
    weights: str | None = field(default=None)
    pool: Literal["mean", "max", "concat", "attention"] = field(
        default="mean", validator=in_(("mean", "max", "concat", "attention"))
    )
    missing: Literal["error", "drop", "learn"] = field(
        default="error", validator=in_(("error", "drop", "learn"))
    )
    decoding: Literal["full", "scaled"] = field(default="full", validator=in_(("full", "scaled")))
    augmentation: Augment = Augment()

    @backbone.validator
    def _known(self, _: Any, name: str) -> None:
        if name != "small" and name not in _backbones():
            known = hint(name, ["small", *_backbones()])
            raise ValueError(f"'backbone' = '{name}' is not a backbone{known}")

    @weights.validator
    def _fitting(self, _: Any, name: str | None) -> None:
        if name is not None and self.backbone == "small":
            raise ValueError("'weights' must be left out: the small backbone has none")

    def adapt(self, rows: Rows) -> Facts:
        """Give the mean and standard deviation that the backbone expects, by channel, and
        the most photos that a cell of each column holds.
        """
        most = [_most(rows, column) for column in self.columns]
        if self.pool == "concat" and max(most) > 1:
            raise DataError(
                "pool 'concat' needs the same photos in every row, and no lists of them"
            )
        if self.weights is None:
            return {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "most": most}
        preset = _weights(self.backbone, self.weights).transforms()
        return {"mean": list(preset.mean), "std": list(preset.std), "most": most}

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

    def keep(self, facts: Facts, rows: Table, folder: Path) -> Any:
        """Give what `encode` gives as rows of a file in the folder, decoded when first taken."""
        k = sum(facts["most"])
        shapes = {
            "present": (torch.int8, (k,)),
            "pixels": (torch.uint8, (k, 3, self.size, self.size)),
        }
        how = (self.size, self.decoding, self.missing)
        key = (self.columns, facts["most"], *how, image.version())
        encode = partial(self.encode, facts)
        return keep(rows, self.columns, encode, shapes, key, folder) or Lazy(rows, encode)

    def _places(self, most: list[int], rows: Table) -> Iterator[tuple[int, int, str, Any]]:
        first = np.cumsum([0, *most])
        for j, column in enumerate(self.columns):
            for i, cell in enumerate(rows.cells(column)):
                photos = image.listed(cell)
                if len(photos) > most[j]:
                    told = f"{len(photos)} photos, of which the first {most[j]} count"
                    warnings.warn(f"{rows.where(i, column)}: {told}", MipWarning, stacklevel=2)
                for place, each in enumerate(photos[: most[j]], start=int(first[j])):
                    yield i, place, column, each

    def _photo(self, rows: Table, place: int, column: str, cell: Any) -> Tensor | None:
        try:
            if cell is None:
                raise DataError(NONE)
            return image.decode(rows.root, cell, self.size, self.decoding == "scaled")
        except DataError as error:
            where = f"{rows.where(place, column)}: {error}"
            if self.missing != "learn":
                raise DataError(where) from error
            if state(str(error)) == "image broken":
                warnings.warn(f"{where}; it counts as missing", MipWarning, stacklevel=2)
            return None

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, features], or [n, k * features] for pool "concat"."""
        backbone = SmallResNet(self.width) if self.backbone == "small" else _backbone(self.backbone)
        with torch.no_grad():
            features = backbone.eval()(torch.zeros(1, 3, self.size, self.size)).shape[1]
        return Photos(backbone.train(), features, self.pool, facts["mean"], facts["std"])

    def augment(self, inputs: Tree, key: int, rows: Tensor) -> Tree:
        """Change the pixels of a training batch; a row's draws depend on key and row alone."""
        if self.augmentation == Augment():
            return inputs
        return {**inputs, "pixels": self.augmentation(inputs["pixels"], key, rows)}

    def pretrain(self, module: Any) -> None:
        """Load the named torchvision weights into a freshly built module."""
        if self.weights is not None:
            wanted = module.backbone.state_dict()
            given = _weights(self.backbone, self.weights).get_state_dict(check_hash=True)
            module.backbone.load_state_dict({name: given[name] for name in wanted})

    def problems(self, rows: Table) -> Iterator[tuple[int, str, str]]:
        """Give (place, column, reason) for every photo that is absent, and under policy "drop"
        for every one that cannot be decoded.
        """
        for column in self.columns:
            for place, cell in enumerate(rows.cells(column)):
                for photo in image.listed(cell):
                    reason = self._reason(rows, photo)
                    if reason:
                        yield place, column, reason

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every photo whose pixels are not used as they are stored."""
        for column in self.columns:
            for place, cell in enumerate(rows.cells(column)):
                for photo in filter(lambda each: each is not None, image.listed(cell)):
                    with suppress(DataError):  # one that cannot be had is named by `problems`
                        for trait in image.traits(rows.root, photo):
                            yield place, f"'{column}' {trait}"

    def _reason(self, rows: Table, cell: Any) -> str | None:
        if cell is None:
            return NONE
        try:
            if isinstance(cell, str):
                image.locate(rows.root, cell)
            if self.missing == "drop":
                image.decode(rows.root, cell, 8)
        except DataError as error:
            return str(error)
        return None


def _most(rows: Rows, column: str) -> int:
    cells = (cell for chunk in rows.chunks([column]) for cell in chunk.cells(column))
    return max(len(image.listed(cell)) for cell in cells)


def _backbones() -> list[str]:
    import torchvision

    return torchvision.models.list_models(module=torchvision.models)


def _weights(backbone: str, name: str) -> Any:
    import torchvision

    known = torchvision.models.get_model_weights(backbone)
    if name not in {*known.__members__, "DEFAULT"}:
        raise DataError(f"{backbone} has no weights '{name}'{hint(name, known.__members__)}")
    return known[name] if name != "DEFAULT" else known.DEFAULT


def _backbone(name: str) -> nn.Module:
    import torchvision

    # These two would otherwise give a second output in training, and warn of their start.
    odd = name in {"googlenet", "inception_v3"}
    extra = {"aux_logits": False, "init_weights": True} if odd else {}
    return cut(torchvision.models.get_model(name, weights=None, **extra))
