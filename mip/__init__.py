"""mip: mixed-input pipelines. Table columns and images in, one prediction out.

The imports stand in the order in which data travels; each module imports only those above it.
"""

from mip.errors import MipError
from mip.table import Table, from_frame
from mip.read import from_columns, read
from mip.shards import stream
from mip.split import folds, split
from mip.optim import adam, adamw, chain, clip_norm, cosine, one_cycle, sgd
from mip.spec import KINDS, dump, load_spec, parse
from mip.prepare import clean, parts
from mip.plan import adapt
from mip.net import build
from mip.sample import balance
from mip.pipe import augment, batch, collect, prefetch, sample, subset, to, transform
from mip.step import init, train_step
from mip.fit import Skip, Stop, fit, scan
from mip.store import load_checkpoint, save
from mip.hooks import checkpoint, early_stop, log, progress, validate
from mip.predict import evaluate, load, predictor
from mip.run import crossval, run

__version__ = "0.2.0"

__all__ = [
    "KINDS",
    "MipError",
    "Skip",
    "Stop",
    "Table",
    "adam",
    "adamw",
    "adapt",
    "augment",
    "balance",
    "batch",
    "build",
    "chain",
    "checkpoint",
    "clean",
    "clip_norm",
    "collect",
    "cosine",
    "crossval",
    "dump",
    "early_stop",
    "evaluate",
    "fit",
    "folds",
    "from_columns",
    "from_frame",
    "init",
    "load",
    "load_checkpoint",
    "load_spec",
    "log",
    "one_cycle",
    "parse",
    "parts",
    "predictor",
    "prefetch",
    "progress",
    "read",
    "run",
    "sample",
    "save",
    "scan",
    "sgd",
    "split",
    "stream",
    "subset",
    "to",
    "train_step",
    "transform",
    "validate",
]
