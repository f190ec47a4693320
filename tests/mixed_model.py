"""A mixed model: photos and numbers."""

from __future__ import annotations

import numpy as np

import mip


def mixed():
    """The spec and the rows of the mixed model: a whole ResNet-34 with layers behind it beside
    seven numbers.
    """
    frame = {f"x{k}": np.arange(4.0) + k for k in range(7)}
    photos = [np.zeros((9, 9, 3), np.uint8)] * 4
    rows = mip.from_columns({**frame, "photo": photos, "price": [1.0, 2, 3, 4]})
    spec = mip.parse(f"""
        [branch.photos]
        kind = "fuse"
        layers = [50, 20, 10]
        [branch.photos.branch.net]
        kind = "image"
        columns = ["photo"]
        backbone = "resnet34"
        feature_layer = "fc"
        [branch.table]
        kind = "tabular"
        continuous = {list(frame)}
        network = {{ kind = "mlp", layers = [10, 4] }}
        [head]
        kind = "regression"
        column = "price"
        layers = [7]
    """)
    return spec, rows
