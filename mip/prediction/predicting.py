"""One function that predicts, whatever the model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from mip.prediction.ensembles import Ensemble, load
from mip.prediction.nets import predict_net
from mip.prediction.predictors import Predictor


def predict(model: str | Path | Predictor | Ensemble | nn.Module, rows: Any) -> Any:
    """Predict rows: a DataFrame with a row for each, or the outputs of a plain module.

    A model is a Predictor or an Ensemble, or the path of a file that holds one; its rows are
    anything that it reads. Those of a plain module are batches: see `mip.prediction.predict_net`.

    >>> import torch
    >>> predict(nn.Flatten(), [torch.ones(2, 1, 2), torch.zeros(1, 1, 2)]).shape
    torch.Size([3, 2])
    """
    if isinstance(model, nn.Module):
        return predict_net(model, rows)
    return (load(model) if isinstance(model, (str, Path)) else model)(rows)
