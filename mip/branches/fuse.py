"""Fusion: branches joined to one vector."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen
from attrs.validators import ge, lt, min_len
from torch import Tensor, nn

from mip.branch import Branch, Facts, by_name, positive
from mip.errors import SpecError
from mip.layers import Fused
from mip.table import Rows, Table
from mip.tree import Tree


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
