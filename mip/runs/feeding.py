"""The pipes of a run: in memory where the rows fit, cached or streamed otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from attrs import evolve
from toolz import identity, pipe

from mip.branches import Augments, Fuse, having
from mip.data import Shards, Table
from mip.errors import SpecError
from mip.images import default_cache_folder
from mip.model import Plan, can_mix, columns_of, cutmix, either, has_photos, mixup
from mip.pipe import Pipe, augment, batch, collect, prefetch, sample, to, transform
from mip.tree import leaves

MEMORY = 2 << 30
"""Encoded rows of up to so many bytes are kept in memory; more are read anew each epoch."""


PIECE = 1 << 20
"""Rows are encoded at once up to so many bytes, and 64 rows at least."""


def train_pipe(
    plan: Plan, table: Table | Shards, device: str = "cpu", cache: str | Path | None = None
) -> Pipe:
    """Lay the pipe that trains: shuffled, augmented, mixed, encoded once if it fits in memory.

    Raises SpecError for cutmix where no branch has photos.
    """
    how = plan.spec.train
    rows = _encoded_rows(plan, table, how.batch_size, cache)
    # Batch norm has no variance over one row; a last batch of one is left to another epoch.
    drop_last = len(table) >= how.batch_size and len(table) % how.batch_size == 1
    shuffled = evolve(sample(shuffle=True, seed=how.seed)(rows), drop_last=drop_last)
    return pipe(shuffled, *_augmenting(plan), *_mixing(plan), *_moving(device))


def _augmenting(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    # A stage that changes nothing takes several times as long as gathering a small batch.
    asked = having(plan.spec.root, Augments)
    able = any(not isinstance(branch, Fuse) for _, branch in asked)  # which asks those it holds
    return [augment(plan.augment, plan.spec.train.seed)] if able else []


def _moving(device: str) -> list[Callable[[Pipe], Pipe]]:
    # Rows are encoded on the CPU.
    return [] if torch.device(device).type == "cpu" else [to(device)]


def _mixing(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    how, classes = plan.spec.train, plan.spec.head.outputs(plan.facts["head"])
    if how.cutmix and not has_photos(plan.example()):
        raise SpecError(
            f"train.cutmix = {how.cutmix:g} pastes photos, and no branch reads any; "
            "train.mixup mixes numbers"
        )
    if how.mixup and not can_mix(plan.example()):
        raise SpecError(
            f"train.mixup = {how.mixup:g} mixes photos and numbers, and no branch reads any: "
            "only the targets would be mixed"
        )
    asked = ((mixup, how.mixup), (cutmix, how.cutmix))
    ways = [way(alpha, classes) for way, alpha in asked if alpha]
    return [augment(either(*ways), how.seed)] if ways else []


def rows_pipe(
    plan: Plan,
    table: Table | Shards,
    rows: int,
    device: str = "cpu",
    cache: str | Path | None = None,
) -> Pipe:
    """Lay a pipe over encoded rows in their order: in memory if they fit, otherwise with their
    photos kept on disk. With a folder `cache` photos are kept there in either case. Shards are
    encoded as they are read.
    """
    return pipe(_encoded_rows(plan, table, rows, cache), *_moving(device))


def _encoded_rows(plan: Plan, table: Table | Shards, rows: int, cache: str | Path | None) -> Pipe:
    workers = plan.spec.train.workers
    if isinstance(table, Shards):
        return pipe(_encoded(plan, table), batch(rows))
    fits, some = len(table) * _row_bytes(plan) <= MEMORY, batch(max(64, PIECE // _row_bytes(plan)))
    if fits and not cache:
        encoded = pipe(table, some, transform(plan.encode, workers))
    else:
        cached = plan.cache(table, cache or default_cache_folder())
        encoded = pipe(cached, some, transform(identity, workers))
    if fits:
        return pipe(collect(encoded), batch(rows))
    return pipe(evolve(encoded, batch_size=rows), prefetch(2))


def _encoded(plan: Plan, shards: Shards) -> Pipe:
    read = shards.select(columns_of(plan.spec))
    if shards.window * _row_bytes(plan) <= MEMORY // 16:
        return Pipe(read.map(plan.encode))
    # A window of photos would not fit, so that its rows wait as cells.
    return pipe(read, transform(plan.encode, plan.spec.train.workers), prefetch(2))


def _row_bytes(plan: Plan) -> int:
    return sum(leaf.numel() * leaf.element_size() for _, leaf in leaves(plan.example()))
