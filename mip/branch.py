"""Branches: what a model reads. A frozen class per kind, with three verbs each."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, instance_of, le, lt, min_len, optional
from torch import Tensor, nn

from mip import image
from mip.augmentation import Augment
from mip.cache import Lazy, keep
from mip.errors import DataError, MipWarning, SpecError, hint
from mip.layers import Embeddings, Fill, Fused, Photos, SmallResNet, cut
from mip.statistics import moments, normal, places, quantiles, words
from mip.table import Rows, Table
from mip.tree import Tree

Facts = dict[str, Any]
"""What a kind has learned of the training rows: JSON, nothing else."""

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


def names(columns: Iterable[str]) -> tuple[str, ...]:
    """Keep names of columns as a tuple; one name alone would fall apart into letters.

    >>> names("area")
    Traceback (most recent call last):
    ValueError: 'columns' must be a list of names, not 'area'
    """
    if isinstance(columns, str):
        raise ValueError(f"'columns' must be a list of names, not '{columns}'")
    return tuple(columns)


class Branch(Protocol):
    """The three verbs of a branch. Any frozen attrs class that has them is a kind.

    A kind that also has `augment(inputs, key, rows)` changes its inputs in training, one with
    `pretrain(module)` starts from given weights, one with `problems(rows)` names rows that
    cannot be used, one with `oddities(rows)` names what is not read as it stands, and one with
    `keep(facts, rows, folder)` leaves encoded rows on disk.
    """

    def adapt(self, rows: Rows) -> Facts:
        """Learn from training rows what encoding and building need; JSON-able."""
        ...

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Turn rows into tensors with one entry a row; total: NaN and the unseen are fine."""
        ...

    def module(self, facts: Facts) -> nn.Module:
        """Build the module: encoded inputs of n rows to float32 [n, width]."""
        ...


@frozen
class Continuous:
    """Numbers, a missing cell filled and flagged: standardised (after a signed logarithm for
    "log"), or for "quantile" spread like a normal distribution by their rank among the training
    rows.

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"area": ["70", "90", ""]}))
    >>> kind = Continuous(["area"]); facts = kind.adapt(rows)
    >>> facts
    {'mean': [80.0], 'std': [10.0], 'missing': [1]}
    >>> kind.encode(facts, rows).flatten().tolist()
    [-1.0, 1.0, nan]
    """

    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    scale: Literal["standard", "log", "quantile", "none"] = field(
        default="standard", validator=in_(("standard", "log", "quantile", "none"))
    )

    def adapt(self, rows: Rows) -> Facts:
        """Give mean, standard deviation (population) and count of missing cells by column; for
        "quantile" up to 257 quantiles of each, of a sample of 100,000 rows where there are more.
        """
        if self.scale == "quantile":
            marks, missing = quantiles(rows, self.columns)
            return {"quantiles": marks, "missing": missing}
        found = moments(self._numbers(chunk) for chunk in rows.chunks(self.columns))
        facts = {"missing": found.missing.tolist()}
        if self.scale == "none":
            return facts
        return {"mean": found.mean.tolist(), "std": found.std.tolist(), **facts}

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give float32 [n, columns]; NaN where a cell is missing, infinite or past float32."""
        scaled = self._scaled(facts, self._numbers(rows))
        limit = np.finfo(np.float32).max
        return torch.from_numpy(np.where(np.abs(scaled) <= limit, scaled, np.nan).astype("float32"))

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, columns + those with missing cells]."""
        return Fill([count > 0 for count in facts["missing"]])

    def oddities(self, rows: Table) -> Iterator[tuple[int, str]]:
        """Give (place, text) for every number that counts as missing though it is there."""
        for column in self.columns:
            for place in rows.beyond(column).tolist():
                yield place, f"'{column}' infinite or past float32, counts as missing"

    def _numbers(self, rows: Table) -> np.ndarray:
        values = np.stack([rows.numbers(column) for column in self.columns], axis=1)
        return np.sign(values) * np.log1p(np.abs(values)) if self.scale == "log" else values

    def _scaled(self, facts: Facts, values: np.ndarray) -> np.ndarray:
        if self.scale == "none":
            return values
        if self.scale == "quantile":
            pairs = zip(values.T, facts["quantiles"], strict=True)
            return np.stack([normal(column, marks) for column, marks in pairs], axis=1)
        return (values - np.array(facts["mean"])) / np.array(facts["std"])


@frozen
class Categorical:
    """Words: an embedding per column; 0 is the bucket of the unseen, the rare and the missing.

    `width` is each embedding's (default: min(50, round(1.6 * categories ** 0.56))); values with
    fewer than `least` training rows are rare; `unseen` is the share of cells that training
    shows as unseen, so that the bucket is learned.

    >>> import pandas as pd; from mip.table import from_frame
    >>> rows = from_frame(pd.DataFrame({"zip": ["85255", "36372", "85255"]}))
    >>> kind = Categorical(["zip"]); facts = kind.adapt(rows)
    >>> facts
    {'words': [['36372', '85255']]}
    >>> kind.encode(facts, from_frame(pd.DataFrame({"zip": [85255, 99999]}))).tolist()
    [[2], [0]]
    """

    columns: tuple[str, ...] = field(converter=names, validator=min_len(1))
    width: int | None = field(default=None, validator=optional([gt(0), le(4096)]))
    least: int = field(default=1, validator=ge(1))
    unseen: float = field(default=0.05, validator=[ge(0), lt(1)])

    def adapt(self, rows: Rows) -> Facts:
        """Give the sorted words of each column that stand in at least `least` rows."""
        return {"words": [self._words(words(rows, column)) for column in self.columns]}

    def _words(self, counts: Mapping[str, int]) -> list[str]:
        return sorted(word for word, count in counts.items() if count >= self.least)

    def encode(self, facts: Facts, rows: Table) -> Tensor:
        """Give int64 [n, columns]: 1 + place in the vocabulary, or 0."""
        pairs = zip(self.columns, facts["words"], strict=True)
        codes = [places(rows, column, known) for column, known in pairs]
        return torch.from_numpy(np.stack(codes, axis=1) + 1)

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, sum of the embedding widths]."""
        sizes = [1 + len(words) for words in facts["words"]]
        widths = [self.width or min(50, round(1.6 * size**0.56)) for size in sizes]
        return Embeddings(sizes, widths, self.unseen)

    def unknown(self, facts: Facts, rows: Table) -> Iterator[tuple[str, list[str]]]:
        """Give (column, words) for every column with words that training did not see."""
        for column, known in zip(self.columns, facts["words"], strict=True):
            fresh = sorted(words(rows, column).keys() - set(known))
            if fresh:
                yield column, fresh


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


def by_name(branches: Mapping[str, Branch]) -> dict[str, Branch]:
    """Sort branches by name, so that their order in a file cannot matter."""
    return dict(sorted(branches.items()))


@frozen
class Fuse:
    """Branches joined to one vector, then linear layers of the given widths with ReLU."""

    branch: Mapping[str, Branch] = field(converter=by_name, validator=min_len(1))
    layers: tuple[int, ...] = field(default=(), converter=tuple)
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    @layers.validator
    def _positive(self, _: Any, widths: tuple[int, ...]) -> None:
        positive(widths)

    def adapt(self, rows: Rows) -> Facts:
        """Give each branch's facts by name."""
        return {name: branch.adapt(rows) for name, branch in self.branch.items()}

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give each branch's tensors by name."""
        return {name: kind.encode(facts[name], rows) for name, kind in self.branch.items()}

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, last width], or the branches' sum without layers."""
        modules = {name: _built(name, kind, facts[name]) for name, kind in self.branch.items()}
        return Fused(modules, self.layers, self.dropout)

    def keep(self, facts: Facts, rows: Table, folder: Path) -> Tree:
        """Encode as `encode` does, but leave on disk what a branch can keep there."""
        return {
            name: kind.keep(facts[name], rows, folder)
            if hasattr(kind, "keep")
            else kind.encode(facts[name], rows)
            for name, kind in self.branch.items()
        }

    def augment(self, inputs: Tree, key: int, rows: Tensor) -> Tree:
        """Let each branch that can change its inputs."""
        able = {name: kind for name, kind in self.branch.items() if hasattr(kind, "augment")}
        changed = {name: kind.augment(inputs[name], key, rows) for name, kind in able.items()}
        return {**inputs, **changed}

    def pretrain(self, module: Any) -> None:
        """Let each branch that can load its weights."""
        for name, branch in self.branch.items():
            if hasattr(branch, "pretrain"):
                branch.pretrain(module.branch[name])


def _built(name: str, branch: Branch, facts: Facts) -> nn.Module:
    try:
        return branch.module(facts)
    except SpecError as error:  # from a branch below, which has said its name
        raise SpecError(f"{name}.{error}") from error
    except Exception as error:  # whatever a backbone raises, the user needs the path
        raise SpecError(f"{name}: the module cannot be built: {error}") from error


def positive(widths: tuple[int, ...]) -> None:
    """Raise ValueError unless every width lies between 1 and 65,536."""
    if not all(1 <= width <= 65_536 for width in widths):
        raise ValueError(f"'layers' must hold widths of 1 to 65536: {list(widths)}")


def walk(branch: Branch, path: str = "") -> Iterator[tuple[str, Branch]]:
    """Walk the leaves of a tree of branches with their dotted paths.

    >>> [path for path, leaf in walk(Fuse({"b": Continuous(["x"]), "a": Continuous(["y"])}))]
    ['a', 'b']
    """
    if not isinstance(branch, Fuse):
        yield path, branch
        return
    for name, child in branch.branch.items():
        yield from walk(child, f"{path}.{name}" if path else name)


def at(facts: Facts, path: str) -> Facts:
    """Find a leaf's facts by its dotted path."""
    for name in path.split("."):
        facts = facts[name]
    return facts
