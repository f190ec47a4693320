"""Fusion: branches joined to one vector."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import attrs
import torch
from attrs import field, frozen
from attrs.validators import ge, gt, in_, le, lt, min_len, optional
from torch import Tensor, nn

from mip.branches.protocol import Branch, Facts, by_name, widths
from mip.data import Rows, Table
from mip.errors import SpecError
from mip.nn import MLP, Tokens, divides
from mip.tree import Tree, leaves

FUSIONS = ("concat", "gated", "attention", "bilinear")
"""The ways to join vectors."""


WIDTH, DEPTH, HEADS = 64, 2, 4
"""What a fusion has where nothing is said."""


@frozen
class Fusion:
    """How the vectors of branches become one. Linear `layers` with ReLU and `dropout` follow.

    `method` is "concat", "gated" (a weighted sum; Arevalo et al. 2017), "attention" (one token per
    branch, `depth` transformer layers of `num_heads` heads) or "bilinear" (a product; Kim et al.
    2017). All but "concat" project each branch to `embedding_dim` first (default: 64, with 2 layers
    of 4 heads).

    `modality_dropout` is the probability that training replaces a branch of a row by a learned
    vector, though never all branches of a row (Neverova et al. 2016). The same vector then replaces
    any branch for which a row has no inputs, in training and prediction: no photo, no number, no
    category seen in training. (An image branch needs `missing = "learn"` for that; a kind of your
    own implements `absent`.)

    >>> Fusion(method="attention", embedding_dim=30, num_heads=4)
    Traceback (most recent call last):
    ValueError: 'num_heads' must divide 30: 4
    """

    layers: tuple[int, ...] = widths()
    dropout: float = field(default=0.0, validator=[ge(0), lt(1)])
    method: Literal["concat", "gated", "attention", "bilinear"] = field(
        default="concat", validator=in_(FUSIONS)
    )
    embedding_dim: int | None = field(default=None, validator=optional([gt(0), le(65_536)]))
    depth: int | None = field(default=None, validator=optional([gt(0), le(64)]))
    num_heads: int | None = field(default=None, validator=optional([gt(0), le(1024)]))
    modality_dropout: float = field(default=0.0, validator=[ge(0), lt(1)])

    def __attrs_post_init__(self) -> None:
        strange = {"concat": ["embedding_dim", "depth", "num_heads"], "attention": []}
        for name in strange.get(self.method, ["depth", "num_heads"]):
            if getattr(self, name) is not None:
                raise ValueError(f"'{name}' must be left out: method '{self.method}' has none")
        if self.method == "attention":
            divides(self.num_heads or HEADS, self.embedding_dim or WIDTH)

    def module(self, names: Iterable[str]) -> nn.Module:
        """Build what joins vectors of these names: a dict of float32 [n, any] to [n, width]."""
        width = self.embedding_dim or WIDTH
        if self.method == "gated":
            return Gated(names, width)
        if self.method == "attention":
            return Attention(names, width, self.depth or DEPTH, self.num_heads or HEADS)
        return Bilinear(names, width) if self.method == "bilinear" else Concat()


@frozen
class Fuse:
    """Branches joined to one vector as a `Fusion` of these options says."""

    kind = "fuse"
    branch: Mapping[str, Branch] = field(converter=by_name, validator=min_len(1))
    layers: tuple[int, ...] = widths()
    dropout: float = 0.0
    method: Literal["concat", "gated", "attention", "bilinear"] = "concat"
    embedding_dim: int | None = None
    depth: int | None = None
    num_heads: int | None = None
    modality_dropout: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.how  # noqa: B018 - whose validators say what is wrong

    @property
    def how(self) -> Fusion:
        """All but the branches."""
        named = attrs.asdict(self, recurse=False)
        return Fusion(**{name: value for name, value in named.items() if name != "branch"})

    def adapt(self, rows: Rows) -> Facts:
        """Give each branch's facts by name."""
        return {name: branch.adapt(rows) for name, branch in self.branch.items()}

    def encode(self, facts: Facts, rows: Table) -> Tree:
        """Give each branch's tensors by name."""
        return {name: kind.encode(facts[name], rows) for name, kind in self.branch.items()}

    def module(self, facts: Facts) -> nn.Module:
        """Give float32 [n, last of the layers]; without layers [n, embedding_dim], or for "concat"
        [n, sum of the branches].
        """
        modules = {name: _built(name, kind, facts[name]) for name, kind in self.branch.items()}
        asked = {name: partial(absent, kind) for name, kind in self.branch.items()}
        hide = Hide(asked, self.modality_dropout) if self.modality_dropout else None
        return Fused(modules, self.how.module(modules), self.layers, self.dropout, hide)

    def absent(self, inputs: Mapping[str, Tree]) -> Tensor:
        """Say for which rows none of the branches has inputs: bool [n]."""
        gone = [absent(kind, inputs[name]) for name, kind in self.branch.items()]
        return torch.stack(gone).all(dim=0)

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


class Fused(nn.Module):
    """Run each branch on its own input, fuse the vectors, then linear layers.

    Takes a dict of inputs, name to tree of tensors with n rows; gives float32 [n, last width],
    or what the fusion gives without layers.
    """

    def __init__(
        self,
        branches: Mapping[str, nn.Module],
        fusion: nn.Module,
        layers: Sequence[int] = (),
        dropout: float = 0.0,
        hide: Hide | None = None,
    ) -> None:
        super().__init__()
        self.branch = nn.ModuleDict(dict(branches))
        self.hide = hide
        self.fusion = fusion
        self.layers = MLP(layers, dropout)

    def forward(self, inputs: Mapping[str, Tree]) -> Tensor:
        vectors = {name: module(inputs[name]) for name, module in self.branch.items()}
        if self.hide is not None:
            vectors = self.hide(vectors, inputs)
        return self.layers(self.fusion(vectors))


class Concat(nn.Module):
    """Side by side: a dict of float32 [n, any] to float32 [n, their sum]."""

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return torch.cat(list(vectors.values()), dim=1)


class Project(nn.Module):
    """Bring each vector to one width, linearly: a dict of float32 [n, any] to [n, names, width]."""

    def __init__(self, names: Iterable[str], width: int) -> None:
        super().__init__()
        self.linear = nn.ModuleDict({name: nn.LazyLinear(width) for name in names})

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return torch.stack([layer(vectors[name]) for name, layer in self.linear.items()], dim=1)


class Gated(nn.Module):
    """Sum the branches, weighted by gates that see all of them (gated multimodal units).

    Takes a dict of float32 [n, any]; gives float32 [n, width]. Each number has a gate of its own,
    a softmax over the branches: for two it is the paper's sigmoid (Arevalo et al. 2017).
    """

    def __init__(self, names: Iterable[str], width: int) -> None:
        super().__init__()
        self.project = Project(names, width)
        self.gate = nn.LazyLinear(len(self.project.linear) * width)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        values = self.project(vectors).tanh()
        gates = self.gate(torch.cat(list(vectors.values()), dim=1)).view_as(values)
        return (gates.softmax(dim=1) * values).sum(dim=1)


class Attention(nn.Module):
    """Make each branch a token and let them attend: a dict of float32 [n, any] to [n, width]."""

    def __init__(self, names: Iterable[str], width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.project = Project(names, width)
        self.tokens = Tokens(width, depth, heads)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return self.tokens(self.project(vectors))


class Bilinear(nn.Module):
    """Multiply the branches: a dict of float32 [n, any] to float32 [n, width].

    Low-rank bilinear pooling with tanh (Kim et al. 2017), over as many factors as there are
    branches; the paper's last projection is the layer that comes behind.
    """

    def __init__(self, names: Iterable[str], width: int) -> None:
        super().__init__()
        self.project = Project(names, width)

    def forward(self, vectors: Mapping[str, Tensor]) -> Tensor:
        return self.project(vectors).tanh().prod(dim=1)


class Hide(nn.Module):
    """Modality dropout: a learned vector for each branch, which stands for a row's branch that
    has no inputs, and in training for others by chance, but never for all that are there.

    `absent` tells of each branch's inputs which rows have none: bool [n]. Takes a dict of float32
    [n, any] and the branches' inputs; gives such a dict.
    """

    def __init__(self, absent: Mapping[str, Callable[[Tree], Tensor]], drop: float) -> None:
        super().__init__()
        self.absent, self.drop = dict(absent), drop
        self.stand = nn.ModuleDict({name: Stand() for name in absent})

    def forward(
        self, vectors: Mapping[str, Tensor], inputs: Mapping[str, Tree]
    ) -> dict[str, Tensor]:
        gone = [self.absent[name](inputs[name]) for name in self.stand]
        hidden = self.hidden(torch.stack(gone))
        pairs = zip(self.stand.items(), hidden, strict=True)
        return {name: stand(vectors[name], rows) for (name, stand), rows in pairs}

    def hidden(self, gone: Tensor) -> Tensor:
        """Say which to hide of bool [branches, n], those without inputs among them."""
        if not self.training:
            return gone
        draws = torch.rand(gone.shape, device=gone.device).masked_fill(gone, -1)
        spared = draws == draws.amax(dim=0)
        return gone | ((draws < self.drop) & ~spared)


class Stand(nn.Module):
    """A learned vector in place of others: float32 [n, d] and bool [n] to float32 [n, d]."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.UninitializedParameter()

    def forward(self, vectors: Tensor, hidden: Tensor) -> Tensor:
        if isinstance(self.vector, nn.UninitializedParameter):
            self.vector.materialize(vectors.shape[1:])
            nn.init.zeros_(self.vector)
        return torch.where(hidden.unsqueeze(1), self.vector, vectors)


def absent(branch: Branch, inputs: Tree) -> Tensor:
    """Say for which rows a branch has no inputs: encoded inputs of n rows to bool [n]. A kind
    without the verb `absent` has inputs in every row, whatever its tensors hold.

    >>> from mip.branches.categorical import Categorical; from mip.branches.stub import Stub
    >>> absent(Categorical(["town"]), torch.tensor([[0], [2]]))
    tensor([ True, False])
    >>> absent(Stub(1), torch.tensor([[torch.nan], [0.0]]))
    tensor([False, False])
    """
    if hasattr(branch, "absent"):
        return branch.absent(inputs)
    leaf = next(leaf for _, leaf in leaves(inputs))
    return torch.zeros(len(leaf), dtype=torch.bool, device=leaf.device)
