"""Optimizers as pairs of functions (init, update), what stands around them, and schedules: all
of them by one name.
"""

from mip.compositions import accumulate, clip_norm, clip_value, ema, lookahead, swa
from mip.optimizer import (
    Optimizer,
    OptimizerSpec,
    Params,
    chain,
    decayed,
    masked,
    matrices,
    partition,
)
from mip.optimizers.adafactor import Adafactor, adafactor
from mip.optimizers.adagrad import Adagrad, adagrad
from mip.optimizers.adam import Adam, AdamW, adam, adamw
from mip.optimizers.from_torch import from_torch
from mip.optimizers.lamb import Lamb, lamb
from mip.optimizers.lion import Lion, lion
from mip.optimizers.muon import Muon, muon
from mip.optimizers.nadam import NAdam, nadam
from mip.optimizers.radam import RAdam, radam
from mip.optimizers.rmsprop import RMSprop, rmsprop
from mip.optimizers.schedule_free import ScheduleFree, schedule_free
from mip.optimizers.sgd import SGD, sgd
from mip.schedules import (
    Constant,
    Cosine,
    Exponential,
    Hyper,
    InverseSqrt,
    Joined,
    Linear,
    MultiStep,
    OneCycle,
    Part,
    Polynomial,
    Schedule,
    ScheduleSpec,
    WarmRestarts,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    joined,
    linear,
    multi_step,
    one_cycle,
    polynomial,
    warm_restarts,
    warmed,
)

__all__ = [
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Exponential",
    "Hyper",
    "InverseSqrt",
    "Joined",
    "Lamb",
    "Linear",
    "Lion",
    "MultiStep",
    "Muon",
    "NAdam",
    "OneCycle",
    "Optimizer",
    "OptimizerSpec",
    "Params",
    "Part",
    "Polynomial",
    "RAdam",
    "RMSprop",
    "SGD",
    "Schedule",
    "ScheduleFree",
    "ScheduleSpec",
    "WarmRestarts",
    "accumulate",
    "adafactor",
    "adagrad",
    "adam",
    "adamw",
    "chain",
    "clip_norm",
    "clip_value",
    "constant",
    "cosine",
    "decayed",
    "ema",
    "exponential",
    "from_torch",
    "inverse_sqrt",
    "joined",
    "lamb",
    "linear",
    "lion",
    "lookahead",
    "masked",
    "matrices",
    "multi_step",
    "muon",
    "nadam",
    "one_cycle",
    "partition",
    "polynomial",
    "radam",
    "rmsprop",
    "schedule_free",
    "sgd",
    "swa",
    "warm_restarts",
    "warmed",
]
