"""What the tests share: a small table with photos, specs of it, and what training needs."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from toolz import pipe

import mip
from mip.errors import hint
from mip.spec.kinds import plays
from mip.train import State, Step
from mip.tree import leaves

# The number of threads changes the last bits, so every process of the tests has the same: one,
# or as many as OMP_NUM_THREADS says, which their children inherit.
if "OMP_NUM_THREADS" not in os.environ:
    torch.set_num_threads(1)

# Weights that the machine has cached would be used by `mip new`.
os.environ["TORCH_HOME"] = str(Path(__file__).with_name("no-weights"))

# A suite that is started in the background ignores Ctrl-C, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# The examples are the same in every run, so that a test that passed passes again; `make slow` looks
# for others.
settings.register_profile(
    "quick",
    deadline=None,
    max_examples=15,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "thorough", settings.get_profile("quick"), max_examples=400, derandomize=False
)
settings.load_profile("quick")

# While tests are collected, nothing becomes garbage but much is made.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave what was imported and collected to itself: it stays until the end."""
    gc.freeze()
    gc.enable()


ROWS = 11
"""Rows of the small table: with batches of 4, an epoch of two whole batches and a shorter one."""

PHOTO = """
[branch.photo]
kind = "image"
columns = ["front"]
size = 8
base_channels = 2
"""
"""A branch that reads nothing but one photo."""

BRANCHES = """
[branch.photos]
kind = "image"
columns = ["front", "back"]
size = 8
base_channels = 2
pool = "attention"
missing = "learn"
augmentation = { flip = true, shift = 0.2, brightness = 0.3 }

[branch.place]
kind = "categorical"
columns = ["town"]
unseen_rate = 0.3

[branch.rooms]
kind = "fuse"
layers = [6]
dropout = 0.5

[branch.rooms.branch.sizes]
kind = "continuous"
columns = ["area", "rooms"]
"""

HEADS = {
    "regression": '[head]\nkind = "regression"\ncolumn = "price"\nlayers = [5]\ndropout = 0.2\n',
    "binary": '[head]\nkind = "binary"\ncolumn = "sold"\n',
    "multiclass": '[head]\nkind = "multiclass"\ncolumn = "style"\n',
    "joint": """
[head]
kind = "joint"
[head.head.price]
kind = "regression"
column = "price"
[head.head.style]
kind = "multiclass"
column = "style"
""",
}

NUMBERS = """
[branch.sizes]
kind = "continuous"
columns = ["area", "rooms"]

[branch.place]
kind = "categorical"
columns = ["town"]
"""
"""Branches without photos, for tests that are about something else."""


def known(role: type) -> str:
    """List the kinds of a role as the errors of specs do."""
    names = [name for name, kind in mip.KINDS.items() if plays(kind, role)]
    return hint("", names).strip()


def spec_of(head: str = "regression", branches: str = BRANCHES, train: str = "") -> mip.spec.Spec:
    """Make a spec of the small table."""
    return mip.parse(branches + HEADS[head] + train)


def frame_of(rows: int = ROWS, seed: int = 0) -> pd.DataFrame:
    """Make the rows of the small table, with blanks where the world has them."""
    rng = np.random.default_rng(seed)
    area = rng.uniform(30, 200, rows).round(1)
    rooms = rng.integers(1, 6, rows)
    price = (area * 1000 + rooms * 5000).round(0)
    blank = pd.Series(area).astype(str).where(np.arange(rows) % 5 != 3, "")
    return pd.DataFrame(
        {
            "area": blank,
            "rooms": rooms,
            "town": rng.choice(["Bonn", "Köln", "Ulm"], rows),
            "front": [f"photos/{k % ROWS}.png" for k in range(rows)],
            "back": [f"photos/{k % ROWS}.jpg" if k % 4 else "" for k in range(rows)],
            "price": price,
            "sold": np.where(np.arange(rows) % 2, "yes", "no"),
            "style": np.array(["flat", "house", "loft"])[np.arange(rows) % 3],
        }
    )


def draw_photos(folder: Path, count: int = ROWS) -> None:
    """Draw different photos of odd sizes: PNG and JPEG."""
    rng = np.random.default_rng(1)
    (folder / "photos").mkdir(parents=True, exist_ok=True)
    for k in range(count):
        pixels = rng.integers(0, 256, (9 + k, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"{k}.png")
        Image.fromarray(pixels[::-1].copy()).save(folder / "photos" / f"{k}.jpg", quality=90)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the photos and `houses.csv`."""
    folder = tmp_path_factory.mktemp("houses")
    draw_photos(folder)
    frame_of().to_csv(folder / "houses.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def table(folder: Path) -> mip.Table:
    """The small table, read from its file."""
    return mip.read(folder / "houses.csv")


@pytest.fixture(scope="session", params=["regression", "binary", "multiclass"])
def head(request: pytest.FixtureRequest) -> str:
    """The name of each head over one column in turn."""
    return request.param


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are written as the numbers of their lines: to render one takes half a second."""

    def sketch(fig: Any, suffix: str = "png") -> bytes:
        lines = [line.get_xydata().tolist() for axes in fig.axes for line in axes.get_lines()]
        return b"\x89PNG" + repr(lines).encode()

    monkeypatch.setattr("mip.plots.canvas.render", sketch)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sketched: None):
    """The command line as a function of its words: exit code, standard output and error."""
    from mip.cli.app import main

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mip", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return call


class Setup(NamedTuple):
    """What training needs before its first step."""

    plan: mip.model.Plan
    net: torch.nn.Module
    step: Step
    state: State
    batches: mip.pipe.Pipe


def set_up(spec: Any, table: mip.Table, seed: int = 0, workers: int = 0, rows: int = 4) -> Setup:
    """Make a plan, its net, a shuffled and augmented pipe, and a step: AdamW after clipping."""
    plan = mip.adapt(spec, table)
    net = mip.build(plan, seed=seed)
    optimizer = mip.chain(mip.clip_norm(1.0), mip.adamw(mip.one_cycle(1e-2, steps=50)))
    step = mip.train_step(net, plan.loss, optimizer)
    batches = pipe(
        table,
        mip.sample(shuffle=True, seed=seed),
        mip.batch(rows),
        mip.transform(plan.encode, workers),
        mip.augment(plan.augment, seed),
    )
    return Setup(plan, net, step, mip.init(net, optimizer, seed=seed), batches)


def fold(step: Step, batches: Any, state: State, steps: int) -> State:
    """Fold the pure step over a pipe, plainly: what `fit` must equal."""
    stream = batches.iter_from(state.step)
    for _ in range(steps):
        state, _ = step(state, next(stream))
    return state


def exactly(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Hold predictions to the bit: for the same rows in batches of the same shape."""
    pd.testing.assert_frame_equal(actual, expected, check_exact=True)


def nearly(actual: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Hold predictions within 1e-5 of the largest number of their column.

    More cannot be asked across batches: kernels choose the order of their sums by the shape of a
    batch and by a row's place in it, and no two kinds of CPU choose alike.
    """
    for name in expected.select_dtypes("number"):
        size = expected[name].abs().max()
        pd.testing.assert_series_equal(actual[name], expected[name], rtol=0, atol=1e-5 * size)
    words = expected.select_dtypes(exclude="number")
    pd.testing.assert_frame_equal(actual[words.columns], words)


def bits(tree: Any) -> dict[str, tuple]:
    """Turn a tree of tensors, or a state, into bytes by path; NaN equals NaN here."""
    if isinstance(tree, State):
        named = {"params": tree.params, "buffers": tree.buffers, "optimizer": tree.optimizer}
        return {**bits(named), "step": (tree.step,), "seed": (tree.seed,)}
    return {
        path: (leaf.dtype, leaf.shape, leaf.detach().cpu().contiguous().numpy().tobytes())
        for path, leaf in leaves(tree)
    }


def in_a_copy(function: Callable[[], Any]) -> tuple[int, Any]:
    """Call a function in a forked copy of this process, without a start and imports: the exit code
    and what the function gave, None where the process ended before. It must not compute with torch,
    whose threads a copy lacks.
    """
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=lambda: theirs.send(function()))
    process.start()
    theirs.close()
    try:
        given = ours.recv()
    except EOFError:
        given = None
    process.join()
    return process.exitcode or 0, given


def within(seconds: float, function: Callable[[], Any]) -> Any:
    """Give what a function gives or raises, and fail when it takes longer: nothing may hang."""
    box: list[Any] = []

    def work() -> None:
        try:
            box.append((function(), None))
        except BaseException as error:
            box.append((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        pytest.fail(f"still running after {seconds} seconds")
    value, error = box[0]
    if error is not None:
        raise error
    return value
