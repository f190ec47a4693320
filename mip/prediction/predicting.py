"""One function that predicts, whatever the model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mip.errors import MipError
from mip.prediction.ensembles import Ensemble, HasModel, as_model, load
from mip.prediction.nets import check_model, copy_to, predict_net
from mip.prediction.predictors import Errors, Predictor


def predict(
    model: str | Path | Predictor | Ensemble | HasModel | nn.Module,
    rows: Any,
    *,
    top: int | None = None,
    errors: Errors = "coerce",
    device: str | None = None,
) -> Any:
    """Predict rows: a DataFrame with a row for each, or the outputs of a plain module.

    A model is a Predictor, an Ensemble, the path of a file that holds one, or a finished run or its
    folder. Its rows are a table, a DataFrame, the path of a file, columns, a dict of one row's
    cells or a list of such dicts; or photos: the path of one, a list of paths, or a folder. Those
    of a plain module are batches: see `mip.prediction.predict_net`. With `top`, the columns are the
    names and the probabilities of so many classes: see `mip.prediction.top_classes`.

    A row with a cell that cannot be read, or without a photo that the model needs, is missing, with
    the reason in a column `error`, whether it is alone, among others, or all are so. With
    `errors="raise"` the first such row raises DataError.

    `device` ("cpu", "cuda", "mps", "auto" …) is where a copy of the model computes; by default it
    computes where it is, a file's on the CPU. Raises MipError for what holds no rows or lacks
    columns of the model, for a device that this machine lacks, and for `top` of a model without
    classes.

    >>> import torch
    >>> predict(nn.Flatten(), [torch.ones(2, 1, 2), torch.zeros(1, 1, 2)]).shape
    torch.Size([3, 2])
    """
    model = as_model(model)
    if not isinstance(model, (str, Path)):
        check_model(model, "predict")
    if isinstance(model, nn.Module):
        if top is not None:
            raise MipError("predict: a plain module has no classes; torch.topk ranks its outputs")
        if errors != "coerce":
            raise MipError("predict: a plain module reads no cells, and has no `errors`")
        return predict_net(copy_to(model, device) if device else model, rows)
    if isinstance(model, (str, Path)):
        return load(model, device=device or "cpu")(rows, top=top, errors=errors)
    if not isinstance(model, (Predictor, Ensemble)):
        kind = f"not {type(model).__name__}"
        raise MipError(f"predict: the model comes first, predict(model, rows), {kind}")
    return (model.to(device) if device else model)(rows, top=top, errors=errors)
