"""Fusion: branches joined to one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from attrs import evolve, field, frozen
from attrs.validators import ge, gt, le, lt, optional
from torch import Tensor, nn

from mip.branches import protocol
from mip.branches.protocol import Branch, Facts, layers_field, lazy_layers, sorted_by_name
from mip.branches.residual import Residual
from mip.data import Rows, Table
from mip.errors import FieldError, SpecError
from mip.fields import MinLength, choice
from mip.nn import Activation, BatchNorm, Function, TokenTransformer, check_num_heads
from mip.tree import Tree

METHODS = ("concat", "gated", "attention", "bilinear")
"""The ways to join vectors."""


EMBEDDING_DIM, DEPTH, NUM_HEADS = 64, 2, 4
"""The defaults of the methods that have these options."""


def residual_names(names: Iterable[str]) -> tuple[str, ...]:
    """Convert a list of names of branches to a tuple.

    >>> residual_names("photos")
    Traceback (most recent call last):
    mip.errors.FieldError: 'residual' must be a list of branches, not 'photos'
    """
    names = protocol.as_list(names, "residual", "branches")
    for k, name in enumerate(names):
        if name in names[:k]:
            raise FieldError("residual", f"names '{name}' twice")
    return names


@frozen
class Fusion:
    """How the vectors of branches become one. Linear `layers` follow, each with an `activation`,
    `batch_norm` and `dropout`.

    `method` is "concat", "gated" (a weighted sum; Arevalo et al. 2017), "attention" (one token per
    branch, `depth` transformer layers of `num_heads` heads) or "bilinear" (a product; Kim et al.
    2017). All but "concat" project each branch to `embedding_dim` first (default: 64, with 2 layers
    of 4 heads).

    `modality_dropout` is the probability that training replaces a branch of a row by a learned
    vector, though never all branches of a row (Neverova et al. 2016). The same vector then replaces
    any branch for which a row has no inputs, in training and prediction: no photo, no number, no
    category seen in training. (An image branch needs `missing = "learn"` for that; a kind of your
    own implements `absent`.)

    `residual` names branches that are not joined: after training, a penalized linear model of each
    is fitted to what the others leave over, in their order, and added to the logits (see
    `mip.runs.fit_residual`). Only the fusion of the whole model has logits to add to, so that only
    it may have `residual`. `residual_folds` are those that choose the penalty: the other branches
    are trained that many times more.

    >>> Fusion(method="attention", embedding_dim=30, num_heads=4)
    Traceback (most recent call last):
    mip.errors.FieldError: 'num_heads' must divide 30: 4
    """

    layers: tuple[int | Function, ...] = layers_field(kw_only=False)
    activation: Activation = choice("relu", kw_only=True)
    batch_norm: BatchNorm = choice("none", kw_only=True)
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    method: Literal["concat", "gated", "attention", "bilinear"] = choice("concat")
    embedding_dim: int | None = field(default=None, validator=optional([gt(0), le(65_536)]))
    depth: int | None = field(default=None, validator=optional([gt(0), le(64)]))
    num_heads: int | None = field(default=None, validator=optional([gt(0), le(1024)]))
    modality_dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    residual: tuple[str, ...] = field(default=(), converter=residual_names, kw_only=True)
    residual_folds: int = field(default=5, validator=[ge(2), le(100)], kw_only=True)

    def __attrs_post_init__(self) -> None:
        unused = ["depth", "num_heads"] if self.method != "attention" else []
        for name in ["embedding_dim", *unused] if self.method == "concat" else unused:
            if getattr(self, name) is not None:
                raise FieldError(name, f"must be left out: method '{self.method}' has none")
        if self.method == "attention":
            check_num_heads(self.num_heads or NUM_HEADS, self.embedding_dim or EMBEDDING_DIM)

    def module(self, names: Iterable[str]) -> nn.Module:
        """Build what joins the vectors of branches of these names: a dict of float32 [n, any] to
        [n, embedding_dim], or for "concat" to [n, their sum].
        """
        embedding_dim = self.embedding_dim or EMBEDDING_DIM
        if self.method == "gated":
            return Gated(names, embedding_dim)
        if self.method == "attention":
            depth, num_heads = self.depth or DEPTH, self.num_heads or NUM_HEADS
            return Attention(names, embedding_dim, depth, num_heads)
        return Bilinear(names, embedding_dim) if self.method == "bilinear" else Concat()


@frozen
class Fuse:
    """Several branches joined to one vector, by the options of `fusion`.

    In a spec these options are fields of the branch itself.
    """

    kind = "fuse"
    branch: Mapping[str, Branch] = field(converter=sorted_by_name, validator=MinLength(1))
    fusion: Fusion = field(default=Fusion(), metadata={"flat": True})

    @property
    def fused(self) -> dict[str, Branch]:
        """The branches that are joined: all but the residual ones."""
        return {k: part for k, part in self.branch.items() if k not in self.fusion.residual}

    def adapt(self, table: Rows) -> Facts:
        """Return the facts of each branch by name."""
        return {name: branch.adapt(table) for name, branch in self.branch.items()}

    def encode(self, facts: Facts, table: Table) -> dict[str, Tree]:
        """Return the tensors of each branch by name."""
        return {name: branch.encode(facts[name], table) for name, branch in self.branch.items()}

    def module(self, facts: Facts) -> FusionNet:
        """Build a module to float32 [n, last of the layers]; without layers to [n, embedding_dim],
        or for "concat" to [n, sum of the branches]. Residual branches are not part of it yet.
        """
        modules = {name: _module(name, part, facts[name]) for name, part in self.fused.items()}
        fusion, dropout = self.fusion.module(modules), None
        if self.fusion.modality_dropout:
            absent = {name: partial(protocol.absent, part) for name, part in self.fused.items()}
            dropout = ModalityDropout(absent, self.fusion.modality_dropout)
        return FusionNet(modules, fusion, lazy_layers(self.fusion), dropout)

    def residual_modules(self, facts: Facts) -> dict[str, nn.Module]:
        """Build the modules of the residual branches by name, in the order of their fits. They keep
        their initial values: they are fixed features.
        """
        return {
            name: _module(name, self.branch[name], facts[name]).requires_grad_(False)
            for name in self.fusion.residual
        }

    def residual(self, widths: Mapping[str, int], outputs: Any) -> Residual:
        """Build what the residual branches, vectors of these widths, add to logits."""
        absent = {name: partial(protocol.absent, self.branch[name]) for name in widths}
        return Residual(widths, outputs, absent)

    def absent(self, inputs: Mapping[str, Tree]) -> Tensor:
        """Mark the rows for which no branch has inputs: bool [n]."""
        parts = self.branch.items()
        return torch.stack([protocol.absent(part, inputs[name]) for name, part in parts]).all(dim=0)

    def blank(self, facts: Facts, n: int) -> dict[str, Tree]:
        """Make rows in which no branch has anything."""
        return {name: protocol.blank(part, facts[name], n) for name, part in self.branch.items()}

    def cache(self, facts: Facts, table: Table, folder: Path) -> dict[str, Tree]:
        """Encode, with the rows of branches that can be cached left on disk."""
        return {
            name: protocol.encode_cached(branch, facts[name], table, folder)
            for name, branch in self.branch.items()
        }

    def augment(self, inputs: Mapping[str, Tree], key: int, row_ids: Tensor) -> dict[str, Tree]:
        """Augment the inputs of each branch that can."""
        return {
            name: protocol.augment(branch, inputs[name], key, row_ids)
            for name, branch in self.branch.items()
        }

    def map_files(self, function: Callable[[str], str]) -> Fuse:
        """Replace the paths of the files that each branch reads."""
        branch = {name: protocol.map_files(part, function) for name, part in self.branch.items()}
        return evolve(self, branch=branch)

    def with_features(self, module: nn.Module, augmented: bool, folder: Path | None) -> Fuse:
        """Run the frozen parts of the branches' modules when rows are encoded."""
        branch = {
            name: protocol.with_features(
                part, module.get_submodule(f"branch.{name}"), augmented, folder
            )
            for name, part in self.branch.items()
        }
        is_same = all(branch[name] is part for name, part in self.branch.items())
        return self if is_same else evolve(self, branch=branch)

    def pretrain(self, module: nn.Module) -> None:
        """Load the pretrained weights of each branch that has some."""
        for name, branch in self.branch.items():
            protocol.pretrain(branch, module.get_submodule(f"branch.{name}"))


def _module(name: str, branch: Branch, facts: Facts) -> nn.Module:
    try:
        return branch.module(facts)
    except SpecError as error:  # of a nested branch, whose path it begins with
        raise SpecError(f"branch.{name}.{error}") from error
    except Exception as error:  # a backbone may raise anything; the path tells which one
        raise SpecError(f"branch.{name}: the module cannot be built: {error}") from error


class FusionNet(nn.Module):
    """Run each branch on its own inputs, flatten feature maps, join the vectors, then layers.

    Takes a dict of inputs, name to tree of tensors with n rows; returns float32 [n, last of the
    layers], or the output of the fusion if there are no layers. Branches that are put into `branch`
    later are residual ones, which the fusion does not read.
    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        fusion: nn.Module,
        layers: nn.Module,
        modality_dropout: ModalityDropout | None = None,
    ) -> None:
        super().__init__()
        self.branch = nn.ModuleDict(dict(branches))
        self.fused = tuple(branches)
        self.hide = modality_dropout  # `hide` is part of the names of parameters in files
        self.fusion = fusion
        self.layers = layers

    def forward(self, inputs: Mapping[str, Tree]) -> Tensor:
        return self.join(self.vectors(inputs))

    def vectors(self, inputs: Mapping[str, Tree]) -> dict[str, Tensor]:
        """Run the branches that are joined, of those that have inputs: float32 [n, d] by name, with
        learned vectors where `modality_dropout` puts them.
        """
        vectors = {name: self.vector(name, inputs) for name in self.fused if name in inputs}
        return self.hide(vectors, inputs) if self.hide is not None and vectors else vectors

    def join(self, vectors: Mapping[str, Tensor]) -> Tensor:
        """Join what `vectors` returns: float32 [n, out_features]."""
        joined: Tensor = self.layers(self.fusion({name: vectors[name] for name in self.fused}))
        return joined

    def vector(self, name: str, inputs: Mapping[str, Tree]) -> Tensor:
        """Run one branch on its inputs: float32 [n, d]."""
        vector: Tensor = self.branch[name](inputs[name]).flatten(1)
        return vector


class Concat(nn.Module):
    """Concatenate: a dict of float32 [n, any] to float32 [n, their sum]."""

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(list(vectors.values()), dim=1)


class Project(nn.Module):
    """Project each vector to one size: a dict of float32 [n, any] to [n, branches, size]."""

    def __init__(self, names: Iterable[str], size: int) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({name: nn.LazyLinear(size) for name in names})

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([layer(vectors[name]) for name, layer in self.linear.items()], dim=1)


class Gated(nn.Module):
    """Sum the branches, weighted by gates that see all of them (gated multimodal units).

    Takes a dict of float32 [n, any]; returns float32 [n, embedding_dim]. Every number has its own
    gate, a softmax over the branches; for two branches this is the paper's sigmoid (Arevalo et al.
    2017).
    """

    def __init__(self, names: Iterable[str], embedding_dim: int) -> None:
        super().__init__()
        self.project = Project(names, embedding_dim)
        self.gate = nn.LazyLinear(len(self.project.linear) * embedding_dim)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        values = self.project(vectors).tanh()
        gates = self.gate(torch.cat(list(vectors.values()), dim=1)).view_as(values)
        return (gates.softmax(dim=1) * values).sum(dim=1)


class Attention(nn.Module):
    """Run a transformer over one token per branch: a dict of float32 [n, any] to
    [n, embedding_dim].
    """

    def __init__(
        self, names: Iterable[str], embedding_dim: int, depth: int, num_heads: int
    ) -> None:
        super().__init__()
        self.project = Project(names, embedding_dim)
        self.tokens = TokenTransformer(embedding_dim, depth, num_heads)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return self.tokens(self.project(vectors))


class Bilinear(nn.Module):
    """Multiply the branches: a dict of float32 [n, any] to float32 [n, embedding_dim].

    Low-rank bilinear pooling with tanh (Kim et al. 2017), with one factor per branch. The paper's
    final projection is the layer that follows.
    """

    def __init__(self, names: Iterable[str], embedding_dim: int) -> None:
        super().__init__()
        self.project = Project(names, embedding_dim)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return self.project(vectors).tanh().prod(dim=1)


class ModalityDropout(nn.Module):
    """Replace branches of rows by learned vectors: those without inputs, and in training others
    with probability `p`, but never all branches of a row that have inputs.

    `absent` marks, by name, the rows of a branch's inputs that have none: bool [n]. Takes a dict of
    float32 [n, any] and the branches' inputs; returns such a dict.
    """

    def __init__(self, absent: Mapping[str, Callable[[Tree], Tensor]], p: float) -> None:
        super().__init__()
        self.absent, self.p = dict(absent), p
        # `stand` is part of the names of parameters in files.
        self.stand = nn.ModuleDict({name: Placeholder() for name in absent})

    def forward(
        self, vectors: Mapping[str, Tensor], inputs: Mapping[str, Tree]
    ) -> dict[str, Tensor]:
        absent = torch.stack([self.absent[name](inputs[name]) for name in vectors])
        pairs = zip(vectors.items(), self.draw(absent), strict=True)
        return {name: self.stand[name](vector, hidden) for (name, vector), hidden in pairs}

    def draw(self, absent: Tensor) -> Tensor:
        """Choose which branches to hide, all absent ones among them: bool [branches, n]."""
        if not self.training:
            return absent
        draws = torch.rand(absent.shape, device=absent.device).masked_fill(absent, -1)
        spared = draws == draws.amax(dim=0)
        return absent | ((draws < self.p) & ~spared)


class Placeholder(nn.Module):
    """Replace vectors by a learned one: float32 [n, d] and bool [n] to float32 [n, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.UninitializedParameter()

    def forward(self, vectors: Tensor, hidden: Tensor) -> Tensor:
        if isinstance(self.vector, nn.UninitializedParameter):
            self.vector.materialize(vectors.shape[1:])
            nn.init.zeros_(self.vector)
        return torch.where(hidden.unsqueeze(1), self.vector, vectors)
