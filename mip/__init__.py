"""mip: mixed-input pipelines. Table columns and images in, one prediction out.

The names below stand in the order in which data travels; each module imports only those above.
"""

from mip.branch import Branch, Categorical, Continuous, Fuse, Image
from mip.errors import DataError, FileError, MipError, MipWarning, SpecError
from mip.fit import Event, History, Skip, Stop, fit, scan
from mip.head import Binary, Head, Multiclass, Regression
from mip.hooks import checkpoint, console, early_stop, log, progress, record, validate
from mip.net import build, summary
from mip.optim import Optimizer, adam, adamw, chain, clip_norm, constant, cosine, one_cycle, sgd
from mip.pipe import Pipe, augment, batch, collect, prefetch, sample, to, transform
from mip.plan import Batch, Plan, adapt
from mip.predict import Predictor, evaluate, load, predictor
from mip.prepare import Parts, clean, parts
from mip.run import crossval, run
from mip.spec import KINDS, Spec, dump, load_spec, parse
from mip.step import State, Step, eval_step, init, train_step
from mip.store import load_checkpoint, save, save_checkpoint
from mip.table import (
    Table,
    digest,
    from_frame,
    read,
    read_csv,
    read_parquet,
    split,
    split_by,
    with_folds,
)
