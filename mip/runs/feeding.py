"""The pipes of a run: in memory if the rows fit, cached or streamed otherwise.

Frozen parts of the net run while rows are encoded, once for all epochs (`feature_plan`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from attrs import evolve
from toolz import identity, pipe

from mip.branches import Augments, Fuse, having
from mip.data import Shards, Table
from mip.errors import DataError, SpecError
from mip.images import default_cache_folder
from mip.model import (
    Net,
    Plan,
    can_mix,
    columns_of,
    cutmix,
    has_photos,
    mixup,
    random_choice,
    with_features,
)
from mip.pipe import Pipe, augment, batch, collect, prefetch, sample, to, transform
from mip.prediction import Ensemble, Predictor, evaluate
from mip.runs.context import DEFAULT_CONTEXT, Context
from mip.tree import Tree, concat, count_rows

MEMORY_BYTES = 2 << 30
"""Encoded rows of up to this size are kept in memory; more are read again in each epoch."""


ENCODE_CHUNK_BYTES = 1 << 20
"""Rows are encoded in chunks of about this size, but of at least 64 rows."""


FEATURE_CHUNK_ROWS = 16
"""Rows of which features are computed in one piece, which is a step of the progress shown."""


def feature_plan(
    plan: Plan, net: Net, table: Table | Shards, context: Context, *, augmented: bool = False
) -> Plan:
    """Return the plan that encodes the rows of a table for a net: with the frozen parts of the net
    run, if that is the same in every epoch. It is not for shards, which are encoded anew in each,
    nor if training mixes pixels; nor are maps kept that fit less well in memory than the pixels do.
    For training rows the plan is `augmented`.
    """
    mixes = augmented and (plan.spec.train.mixup or plan.spec.train.cutmix)
    if mixes or not context.use_features or isinstance(table, Shards):
        return plan
    folder = context.feature_folder
    encoding = with_features(plan, net.body, table, augmented=augmented, folder=folder)
    fits = len(table) * encoding.row_bytes <= MEMORY_BYTES
    return encoding if fits or encoding.row_bytes <= plan.row_bytes else plan


def scoring_predictor(
    predict: Predictor | Ensemble, rows: Table | Shards, context: Context
) -> Predictor | Ensemble:
    """Return a predictor that scores rows by the features that the context keeps, if it does, and
    keeps those that it computes; otherwise the predictor itself. The numbers are the same up to
    rounding.
    """
    if context.feature_folder is None or not isinstance(predict, Predictor) or not len(rows):
        return predict
    plan = feature_plan(predict.plan, predict.net, rows, context)
    if plan.encoder:
        with suppress(DataError):  # of a row that cannot be encoded, which the predictor names
            rows_pipe(plan, rows, predict.batch_size, context)
    return evolve(predict, plan=plan)


def score_rows(
    predict: Predictor | Ensemble, rows: Table | Shards, context: Context
) -> dict[str, float]:
    """Score a model on rows, as `mip.evaluate` does, by a `scoring_predictor`."""
    return evaluate(scoring_predictor(predict, rows, context), rows)


def train_pipe(plan: Plan, table: Table | Shards, context: Context = DEFAULT_CONTEXT) -> Pipe:
    """Build the training pipe: shuffled, augmented, mixed; encoded once if the rows fit in memory.
    Residual branches are left out, for training does not read them.

    Raises SpecError for cutmix or mixup if no branch reads what they mix.
    """
    plan, train = plan.fused, plan.spec.train
    rows = _encoded_rows(plan, table, train.batch_size, context)
    drop_last = count_batches(len(table), train.batch_size) * train.batch_size < len(table)
    shuffled = evolve(sample(shuffle=True, seed=train.seed)(rows), drop_last=drop_last)
    return pipe(shuffled, *_augmenting(plan), *_mixing(plan), *_moving(context))


def count_batches(n_rows: int, batch_size: int) -> int:
    """Count the batches of an epoch of training: batch norm has no variance over one row, so that a
    last batch of one is left to another epoch.

    >>> [count_batches(n_rows, 4) for n_rows in (1, 4, 5, 6)]
    [1, 1, 1, 2]
    """
    n_full, rest = divmod(n_rows, batch_size)
    return n_full + (rest > 0 and not (n_full and rest == 1))


def _augmenting(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    # A stage that changes nothing takes several times as long as gathering a small batch.
    augmenting = having(plan.root, Augments)
    # A fusion has the verb only to ask the branches inside it.
    changes = any(not isinstance(branch, Fuse) for _, branch in augmenting)
    return [augment(plan.augment, plan.spec.train.seed)] if changes else []


def _mixing(plan: Plan) -> list[Callable[[Pipe], Pipe]]:
    train, n_classes = plan.spec.train, plan.spec.head.outputs(plan.facts["head"])
    if train.cutmix and not has_photos(plan.example()):
        raise SpecError(
            f"train.cutmix = {train.cutmix:g} pastes photos, but no branch reads any; "
            "use train.mixup for numbers"
        )
    if train.mixup and not can_mix(plan.example()):
        raise SpecError(
            f"train.mixup = {train.mixup:g} mixes photos and numbers, but no branch reads any: "
            "only the targets would be mixed"
        )
    alphas = ((mixup, train.mixup), (cutmix, train.cutmix))
    mixers = [mixer(alpha, n_classes) for mixer, alpha in alphas if alpha]
    return [augment(random_choice(*mixers), train.seed)] if mixers else []


def _moving(context: Context) -> list[Callable[[Pipe], Pipe]]:
    # Rows are encoded on the CPU.
    device = context.resolved_device()
    return [] if torch.device(device).type == "cpu" else [to(device)]


def rows_pipe(
    plan: Plan, table: Table | Shards, batch_size: int, context: Context = DEFAULT_CONTEXT
) -> Pipe:
    """Build a pipe over encoded rows in their order.

    They are kept in memory if they fit; otherwise their photos are cached on disk, and with a
    cache folder in the context they always are. Shards are encoded as they are read.
    """
    return pipe(_encoded_rows(plan, table, batch_size, context), *_moving(context))


def _encoded_rows(plan: Plan, table: Table | Shards, batch_size: int, context: Context) -> Pipe:
    workers, row_bytes = plan.spec.train.workers, plan.row_bytes
    if isinstance(table, Shards):
        return pipe(_encoded_shards(plan, table), batch(batch_size))
    fits = len(table) * row_bytes <= MEMORY_BYTES
    if plan.encoder:  # which keeps a core busy for each worker
        workers = max(workers, torch.get_num_threads())
    chunk_rows = FEATURE_CHUNK_ROWS if plan.encoder else max(64, ENCODE_CHUNK_BYTES // row_bytes)
    if fits and not context.cache:
        encoded = pipe(table, batch(chunk_rows), transform(plan.encode, workers))
    else:
        cached = plan.cache(table, context.cache or default_cache_folder())
        encoded = pipe(cached, batch(chunk_rows), transform(identity, workers))
    if fits:
        rows = _collect_features(encoded, context) if plan.encoder else collect(encoded)
        return pipe(rows, batch(batch_size))
    return pipe(evolve(encoded, batch_size=batch_size), prefetch(2))


def _collect_features(encoded: Pipe, context: Context) -> Tree:
    chunks, done = [], 0
    for rows in encoded:
        chunks.append(rows)
        done += len(rows.row)
        context.on_features(done, count_rows(encoded.source))
    return concat(chunks)


def _encoded_shards(plan: Plan, shards: Shards) -> Pipe:
    read = shards.select(columns_of(plan.spec))
    if shards.window * plan.row_bytes <= MEMORY_BYTES // 16:
        return Pipe(read.map(plan.encode))
    # An encoded window of photos would not fit, so that its rows wait as cells.
    return pipe(read, transform(plan.encode, plan.spec.train.workers), prefetch(2))
