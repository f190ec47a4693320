"""Ensembles: several models as one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from mip.files import save_models
from mip.predict.predictors import Ensemble, Predictor
from mip.train import State


def ensemble(models: Sequence[Predictor | Ensemble]) -> Ensemble:
    """Make one model of several with the same head; see `Ensemble`.

    The models of an ensemble among them count one each. Raises SpecError naming the first thing
    in which heads differ.
    """
    each = [one.members if isinstance(one, Ensemble) else (one,) for one in models]
    return Ensemble(tuple(chain.from_iterable(each)))


def save_ensemble(path: str | Path, models: Ensemble, *, overwrite: bool = False) -> None:
    """Write an ensemble into one safetensors file, which `mip.load` reads as it does a model's.
    Equal ensembles give equal bytes. Raises FileError where the file exists already, unless
    `overwrite` says to replace it.
    """
    states = [State(dict(each.net.state_dict()), {}, optimizer=()) for each in models.members]
    pairs = list(zip(models.plans, states, strict=True))
    save_models(path, pairs, overwrite=overwrite)
