"""Photos: one backbone for all of a row's, pooled to one vector."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import Attribute, evolve, field, fields_dict, frozen
from attrs.converters import optional
from attrs.validators import ge, gt, in_, instance_of, le
from torch import Tensor, nn

from mip.branches.finetune import Finetune, batch_norms
from mip.branches.photo_features import PhotoFeatures, ViewFeatures, photo_features
from mip.branches.photo_net import PhotoNet, sized_backbone
from mip.branches.protocol import (
    Facts,
    LayerGroup,
    Problem,
    column_names,
    dropout_field,
    layer_sizes_field,
    layers_field,
    lazy_layers,
)
from mip.data import Rows, Table
from mip.errors import DataError, FieldError, MipWarning, SpecError
from mip.fields import MinLength, choice
from mip.images import (
    Augment,
    CachedRows,
    LazyRows,
    MissingImageError,
    Photos,
    check_photo,
    decode,
    decoder_version,
    find_deep_greys,
    guess_value_range,
    is_nearly_black,
    open_cache,
    photo_conversions,
    photos_of,
)
from mip.nn import (
    BUILT_IN,
    LEVELS,
    WEIGHTS_SUFFIXES,
    Activation,
    BatchNorm,
    Function,
    GlobalPool,
    backbone_error,
    check_online,
    checkpoint_blocks,
    file_digest,
    freeze_until,
    inner_model,
    is_weights_file,
    load_pretrained,
    read_tensors,
    source_of,
    split_after,
)

LOOKED_AT = 10
"""Photos of which the greys are looked at before training."""


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
    channels), "conv" (a stage of convolutions for each of `channels`; see `mip.nn.ConvStack` for
    `depth`, `stride`, `separable` and `max_pool`), the name of a torchvision classification model,
    "timm/" and the name of a timm model, if timm is installed, or a function that builds a module
    from float32 [n, 3, size, size] to [n, d] or to a feature map. `pretrained` names its weights (a
    tag for timm; "DEFAULT" for those the library recommends), or is the path of a file that holds
    them, which may hold more: safetensors, or a checkpoint of torch (.pt, .pth, .bin). Pixels are
    normalized as the weights expect: by `mean` and `std` of each channel, from 0 to 1, if these are
    given, otherwise as the library says. `freeze` freezes "all" of the backbone, or everything up
    to the named module; frozen batch norms use their running statistics. `finetune` says how the
    rest of a pretrained backbone is trained (`Finetune`). With `gradient_checkpointing` training
    needs less memory and more time (`mip.nn.checkpoint_blocks`).

    The features are those before the classifier, or those of the module `feature_layer`, which may
    also be "levels": the means and maxima of the backbone's maps at its last four resolutions. A
    feature map is averaged over the image (`global_pool` "avg"), its maximum is taken ("max"), or
    it is handed on ("none"). With `feature_norm` "batch" the features of a row are normalized
    by a batch norm without weights, as a frozen backbone's need it: their scales differ
    (He et al. 2022, A.1). `layers` follow as in a fusion; the net "conv" has the same
    `activation` and `batch_norm`.

    `missing` says what to do with rows whose photo is missing or broken: "error" raises, "drop"
    leaves the row out, "learn" replaces the photo by a learned vector, with a MipWarning if the
    file exists but is broken. `decoding = "scaled"` decodes large JPEGs at a fraction of their
    size: faster, with slightly different pixels. `value_range` are the values that are black and
    white in greys of 16 and 32 bits, of all photos; without it they are 0 and 65535, and 32 bits
    are an error.
    """

    kind = "image"
    columns: tuple[str, ...] = field(converter=column_names, validator=MinLength(1))
    size: int = field(default=64, validator=[instance_of(int), ge(8), le(1024)])
    backbone: str | Function = field(default="small")
    base_channels: int = field(default=16, validator=[gt(0), le(1024)])
    pretrained: str | None = field(default=None)
    pool: Literal["mean", "max", "concat", "attention"] = choice("mean")
    missing: Literal["error", "drop", "learn"] = choice("error")
    decoding: Literal["full", "scaled"] = choice("full")
    augmentation: Augment = Augment()
    channels: tuple[int, ...] = layer_sizes_field((16, 32, 64), min_layers=1)
    feature_layer: str | None = field(default=None)
    value_range: tuple[float, float] | None = field(
        default=None, converter=optional(tuple), kw_only=True
    )
    freeze: str | None = None
    finetune: Finetune | None = field(default=None, kw_only=True)
    gradient_checkpointing: bool = field(default=False, kw_only=True)
    depth: int = field(default=1, kw_only=True, validator=[gt(0), le(64)])
    stride: int = field(default=2, kw_only=True, validator=in_((1, 2)))
    separable: bool = field(default=False, kw_only=True)
    max_pool: bool = field(default=False, kw_only=True)
    global_pool: GlobalPool = choice("avg", kw_only=True)
    layers: tuple[int | Function, ...] = layers_field()
    activation: Activation = choice("relu", kw_only=True)
    batch_norm: BatchNorm = choice("none", kw_only=True)
    dropout: float = dropout_field()
    feature_norm: Literal["none", "batch"] = choice("none", kw_only=True)
    mean: tuple[float, ...] | None = field(default=None, converter=optional(tuple), kw_only=True)
    std: tuple[float, ...] | None = field(default=None, converter=optional(tuple), kw_only=True)

    @mean.validator
    @std.validator
    def _check_channels(self, attribute: Attribute, values: tuple[float, ...] | None) -> None:
        lowest = 0.0 if attribute.name == "std" else -math.inf
        if values and not (len(values) == 3 and all(lowest < x < math.inf for x in values)):
            above = " above 0" if attribute.name == "std" else ""
            raise FieldError(attribute.name, f"must be three numbers{above}: {[*values]}")

    @backbone.validator
    def _check_backbone(self, _: object, backbone: str | Function) -> None:
        if isinstance(backbone, str) and (error := backbone_error(backbone)):
            raise FieldError("backbone", f"= '{backbone}' {error}")

    @value_range.validator
    def _check_value_range(self, _: object, values: tuple[float, float] | None) -> None:
        if values is None or (len(values) == 2 and -math.inf < values[0] < values[1] < math.inf):
            return
        raise FieldError("value_range", f"must be two numbers, low and high: {[*values]}")

    def __attrs_post_init__(self) -> None:
        for name in self._unused():
            if getattr(self, name) != fields_dict(Image)[name].default:
                none = f"the {self.backbone_name} backbone has none"
                files = (
                    f" but files ({', '.join(WEIGHTS_SUFFIXES)})" if name == "pretrained" else ""
                )
                raise FieldError(name, f"must be left out: {none}{files}")
        if self.finetune and self.freeze == "all":
            none = "freeze = 'all' trains none of the backbone"
            raise FieldError("finetune", f"must be left out: {none}")
        if self.gradient_checkpointing and self.feature_layer is not None:
            whole = "with 'feature_layer' the backbone's blocks are taken apart"
            raise FieldError("gradient_checkpointing", f"must be left out: {whole}")
        if self.feature_layer == LEVELS and self.global_pool != "avg":
            raise FieldError("global_pool", f"must be left out: '{LEVELS}' have two pools")
        if self.of_library and self.global_pool != "avg" and self.feature_layer is None:
            cure = "needs 'feature_layer', the module that makes the map"
            raise FieldError("global_pool", f"= '{self.global_pool}' {cure}")

    def _unused(self) -> Iterator[str]:
        if self.backbone != "conv":
            yield from ("depth", "stride", "separable", "max_pool")
        if self.backbone in BUILT_IN and self.feature_layer != LEVELS:
            yield "feature_layer"
        if not self.of_library and self.weights_file is None:
            yield "pretrained"

    @property
    def backbone_name(self) -> str:
        """The name of the backbone in specs."""
        return self.backbone if isinstance(self.backbone, str) else self.backbone.name

    @property
    def of_library(self) -> bool:
        """Whether the backbone is a model of torchvision or timm."""
        return isinstance(self.backbone, str) and self.backbone not in BUILT_IN

    @property
    def weights_file(self) -> str | None:
        """The path of the file of weights, if they are in a file."""
        return self.pretrained if is_weights_file(self.pretrained) else None

    @property
    def tag(self) -> str | None:
        """The name of the library's weights, unless the backbone has none or those of a file."""
        return None if self.weights_file else self.pretrained

    def map_files(self, function: Callable[[str], str]) -> Image:
        """Return this branch with the path of its weights, if they are in a file, replaced."""
        return evolve(self, pretrained=function(self.weights_file)) if self.weights_file else self

    def adapt(self, table: Rows) -> Facts:
        """Return the mean and standard deviation by channel that the backbone expects, the largest
        number of photos in a cell of each column, and of a file of weights the digest, SHA-256.
        """
        most = [_most_photos(table, column) for column in self.columns]
        if self.value_range is None:
            for column in self.columns:
                _warn_of_dark_photos(table, column)
        if self.pool == "concat" and max(most) > 1:
            raise DataError(
                "pool 'concat' needs the same photos in every row, and no lists of them"
            )
        mean, std = self.normalization()
        facts: Facts = {"mean": [*(self.mean or mean)], "std": [*(self.std or std)], "most": most}
        if self.weights_file:
            facts["sha256"] = file_digest(self.weights_file)
        return facts

    def normalization(self) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation by channel, of pixels from 0 to 1, that the backbone
        expects unless the fields `mean` and `std` say otherwise.
        """
        if self.pretrained is None or not self.of_library:
            return [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]
        return source_of(self.backbone_name).normalization(self.tag)

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
            for row, photos in enumerate(photos_of(table, column)):
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
            scaled = self.decoding == "scaled"
            return decode(table.root, photo, self.size, scaled, self.value_range)
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

    def blank(self, facts: Facts, n: int) -> Photos:
        """Make rows without photos. A net that has not learned what stands for a missing photo sees
        one of the mean color instead.
        """
        k, color = sum(facts["most"]), (torch.tensor(facts["mean"]) * 255).round().to(torch.uint8)
        pixels = color.view(3, 1, 1).expand(n, k, 3, self.size, self.size)
        return {"pixels": pixels, "present": torch.zeros(n, k, dtype=torch.int8)}

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
            key=self.cache_key(facts),
            folder=folder,
        )
        return cached or LazyRows(table, encode)

    def cache_key(self, facts: Facts) -> tuple[Any, ...]:
        """Return all that decides about the pixels of a photo."""
        return (
            self.columns,
            facts["most"],
            self.size,
            self.decoding,
            self.missing,
            decoder_version(),
            *(self.value_range or ()),
        )

    def with_features(
        self, module: nn.Module, augmented: bool, folder: Path | None
    ) -> Image | PhotoFeatures | ViewFeatures:
        """Return a branch that encodes rows to what the frozen part of the module's backbone makes
        of their photos, if there is one.
        """
        if not (isinstance(module, PhotoNet) and (module.has_frozen_backbone or module.split)):
            return self
        augmented = augmented and self.augmentation != Augment()
        return photo_features(self, module, augmented, folder)

    def module(self, facts: Facts) -> PhotoNet:
        """Build a module to float32 [n, features], or [n, k * features] for pool "concat"; to
        [n, channels, h, w] if the feature map is handed on; with `layers` to [n, the last of them].
        """
        backbone, shape = sized_backbone(self)
        inner = inner_model(backbone)
        if self.gradient_checkpointing and not checkpoint_blocks(backbone):
            none = f"the {self.backbone_name} backbone has no blocks"
            raise SpecError(f"gradient_checkpointing must be left out: {none}")
        frozen = freeze_until(inner.train(), self.freeze)
        if self.finetune:
            if all(not param.requires_grad for param in inner.parameters()):
                text = f"trains nothing: freeze = '{self.freeze}' is all of the backbone"
                raise SpecError(f"finetune {text}")
            frozen += batch_norms(inner)
        return PhotoNet(
            backbone,
            shape,
            self.pool,
            self.global_pool,
            lazy_layers(self),
            mean=facts["mean"],
            std=facts["std"],
            learn_missing=self.missing == "learn",
            norm=nn.LazyBatchNorm1d(affine=False) if self.feature_norm == "batch" else None,
            frozen=frozen,
            channels_last=self.backbone in BUILT_IN,
            split=self._split(backbone),
        )

    def _split(self, backbone: nn.Module) -> tuple[nn.Module, nn.Module] | None:
        if self.freeze in {None, "all"} or inner_model(backbone) is not backbone:
            return None
        first, rest = split_after(backbone, str(self.freeze))
        trained = [any(p.requires_grad for p in part.parameters()) for part in (first, rest)]
        return (first, rest) if trained == [False, True] else None

    def param_groups(self, module: nn.Module) -> Sequence[LayerGroup]:
        """Return the layer groups of the backbone, if it is fine-tuned."""
        if self.finetune is None:
            return []
        inner = inner_model(module.get_submodule("backbone"))
        prefix = next(path for path, part in module.named_modules() if part is inner)
        return [
            group._replace(params=tuple(f"{prefix}.{path}" for path in group.params))
            for group in self.finetune.param_groups(inner)
        ]

    def augment(self, inputs: Photos, key: int, row_ids: Tensor) -> Photos:
        """Change the pixels of a training batch; random draws depend only on key and row id."""
        if self.augmentation == Augment():
            return inputs
        return {**inputs, "pixels": self.augmentation(inputs["pixels"], key, row_ids)}

    def pretrain(self, module: nn.Module) -> None:
        """Load the pretrained weights into a freshly built module.

        Raises DataError if neither the library's cache nor the network has them, or if a file lacks
        a part of the backbone, and FileError for a file that cannot be read.
        """
        backbone = module.get_submodule("backbone")
        if self.weights_file:
            tensors: Mapping[str, Tensor] = read_tensors(self.weights_file)
            if self.of_library:
                tensors = source_of(self.backbone_name).fitted(tensors, self.size)
            load_pretrained(backbone, tensors, self.weights_file)
        elif self.tag is not None:
            load_pretrained(backbone, self._library_weights(self.tag), self.backbone_name)

    def _library_weights(self, tag: str) -> Mapping[str, Tensor]:
        source = source_of(self.backbone_name)
        path = source.cache_path(tag)
        is_cached = path.is_file()
        try:
            if not is_cached:
                check_online()
            return source.state_dict(tag, self.size)
        except Exception as error:  # a network, a cache or a file may raise anything
            what, why = f"{self.backbone_name}: the weights '{tag}'", " ".join(str(error).split())
            if is_cached:
                raise DataError(f"{what} in {path} cannot be read: {why}") from error
            cure = 'pretrained = "FILE" takes them from a file'
            text = f"are not in {path}, and cannot be downloaded: {why}; {cure}"
            raise DataError(f"{what} {text}") from error

    def problems(self, table: Table) -> Iterator[Problem]:
        """Yield every photo that is missing, is no image or ends too early (`check_photo`), and
        under policy "drop" every one that cannot be decoded.
        """
        for column in self.columns:
            for row, photos in enumerate(photos_of(table, column)):
                for photo in photos:
                    if photo is None:
                        yield Problem(row, column, UNNAMED, Absence.UNNAMED.value)
                    elif error := self._error(table.root, photo):
                        yield Problem(row, column, str(error), absence_of(error).value)

    def _error(self, root: Path | None, photo: Any) -> DataError | None:
        try:
            if self.missing == "drop":
                decode(root, photo, 8, value_range=self.value_range)
            else:
                check_photo(root, photo)
        except DataError as error:
            return error
        return None

    def conversions(self, table: Table) -> Iterator[tuple[int, str]]:
        """Yield (row, text) for every photo whose pixels are not used exactly as stored."""
        for column in self.columns:
            for row, photos in enumerate(photos_of(table, column)):
                for photo in photos:
                    with suppress(DataError):  # `problems` names a photo that cannot be read
                        changes = [] if photo is None else photo_conversions(table.root, photo)
                        yield from ((row, f"'{column}' {change}") for change in changes)


def _warn_of_dark_photos(table: Rows, column: str) -> None:
    """Warn of photos with greys of 16 bits that use a small part of them, by looking at a few."""
    greys = find_deep_greys(next(table.chunks([column])), [column], LOOKED_AT)
    _, whitest = greys.get("16-bit", (0, 0))
    if is_nearly_black(whitest):
        _, white = guess_value_range(0, whitest)
        text = f"greys of 16 bits that end at {whitest:g} are nearly black"
        cure = f"value_range = [0, {white:g}] makes {white:g} white"
        warnings.warn(f"{table.name}: column '{column}': {text}; {cure}", MipWarning, stacklevel=4)


def _most_photos(table: Rows, column: str) -> int:
    rows = (photos for chunk in table.chunks([column]) for photos in photos_of(chunk, column))
    return max(map(len, rows))
