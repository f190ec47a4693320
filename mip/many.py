"""Many runs at once, and many models as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

from mip.predict import Ensemble, Predictor
from mip.spec import KINDS
from mip.step import State
from mip.store import save_models


def ensemble(models: Sequence[Predictor | Ensemble]) -> Ensemble:
    """Make one model of several with the same head; see `Ensemble`.

    The models of an ensemble among them count one each. Raises SpecError naming the first thing
    in which heads differ.
    """
    each = [one.members if isinstance(one, Ensemble) else (one,) for one in models]
    return Ensemble(tuple(chain.from_iterable(each)))


def save(path: str | Path, models: Ensemble, kinds: Mapping[str, type] = KINDS) -> None:
    """Write an ensemble into one safetensors file, which `mip.load` reads as it does a model's.
    Equal ensembles give equal bytes.
    """
    states = [State(dict(each.net.state_dict()), {}, optimizer=()) for each in models.members]
    save_models(path, list(zip(models.plans, states, strict=True)), kinds)
