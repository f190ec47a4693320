"""Heads of every kind over a small table, and the rows that have a target for each."""

from __future__ import annotations

import numpy as np
import torch

import mip
from mip.heads import Binary, Count, Multiclass, Multilabel, Ordinal, Quantile, Regression

ROWS = 12
COLUMNS = {
    "area": np.linspace(30, 200, ROWS),
    "price": ["70", "95.5", "", "1e39", "NA", "0.01", "40", "1e30", "7", "1", "3", "70"],
    "visits": [0.0, 3.0, np.nan, 1.0, 0.0, 12.0, 2.0, 2.0, 0.0, 5.0, 1.0, 1000.0],
    "never": ["0"] * ROWS,
    "sold": ["yes", "no", "", "no", "no", "yes", "no", "no", "no", "yes", "no", "no"],
    "style": ["loft", "NA", "", "flat", "flat", "house", *["flat"] * 6],
    "stars": [10.0, 2.0, np.nan, 1.0, 1.0, 2.0, *[10.0] * 6],
    "size": ["small", "large", "", "mid", *["small", "mid"] * 4],
    "tags": [["sea", "sun"], ["sun"], None, [], ["Köln"], *[["sea"], []] * 3, ["sun"]],
    "words": ["sea; sun", "sun", "", ";", "Köln", *["sea", "sea;;Köln"] * 3, "sun"],
}
SIZES = ["tiny", "small", "mid", "large"]
QUANTILES = [0.025, 0.3, 0.6, 0.975]
HEADS = {
    "binary": Binary("sold"),
    "binary balanced": Binary("sold", "no", class_weight="balanced"),
    "binary focal": Binary("sold", focal_gamma=0.5),
    "binary smooth": Binary("sold", class_weight="balanced", focal_gamma=2.0, label_smoothing=0.1),
    "count": Count("visits"),
    "count of nothing": Count("never"),
    "multiclass": Multiclass("style"),
    "multiclass balanced": Multiclass("style", class_weight="balanced"),
    "multiclass focal": Multiclass("style", focal_gamma=0.5),
    "multiclass smooth": Multiclass(
        "style", class_weight="balanced", focal_gamma=2.0, label_smoothing=0.1
    ),
    "multiclass members": Multiclass("style", label_smoothing=0.1, layers=[5], members=3),
    "multilabel": Multilabel("tags"),
    "multilabel of words": Multilabel("words"),
    "ordinal": Ordinal("stars"),
    "ordinal members": Ordinal("stars", members=3),
    "ordinal in order": Ordinal("size", order=SIZES),
    "quantile": Quantile("price"),
    "quantile log": Quantile("price", QUANTILES, "log"),
    "quantile none": Quantile("visits", [0.5], "none"),
    "regression": Regression("price"),
    "regression huber": Regression("visits", loss="huber"),
    "regression log": Regression("price", "log", "log_cosh"),
    "regression members": Regression("price", layers=[5, 4], dropout=0.1, members=2),
    "regression none": Regression("visits", "none", "mae"),
}


TABLE = mip.from_columns(COLUMNS)


def rows_of(indices=range(ROWS)) -> mip.Table:
    return TABLE.take(list(indices))


def missing_of(head) -> list[int]:
    """The rows without a target."""
    return {"price": [2, 3, 4], "never": []}.get(head.column, [2])


def known_of(head) -> mip.Table:
    return rows_of(k for k in range(ROWS) if k not in missing_of(head))


def logits_of(head, facts, rows: int = ROWS, seed: int = 0) -> torch.Tensor:
    outputs, generator = head.outputs(facts), torch.Generator().manual_seed(seed)
    return torch.randn(rows, *([outputs] if outputs else []), generator=generator)
