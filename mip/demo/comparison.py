"""The demo's comparison: three models beside the best errors that can be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from mip.branches import Image, leaf_branches
from mip.data import Table, read
from mip.demo.houses import BASE
from mip.errors import MipError
from mip.files import is_run
from mip.model import clean, parts, target_columns
from mip.output import check_output
from mip.plots import history as plot_history
from mip.prediction import evaluate
from mip.runs import Context, Job, run, text_table, write_table
from mip.spec import Spec, load_spec
from mip.train import History, Hook

if TYPE_CHECKING:
    import rich.table


def oracle_scores(folder: Path, table: Table) -> dict[str, float]:
    """Score three oracles on rows of a drawn folder: `table/mape`, `table/mae`, `pictures/mape`, ….

    The oracle "table" knows T of every row and nothing of P, "pictures" the opposite, and "both"
    knows T and P. What it does not know, each replaces by the one factor that minimises the error
    on these rows. MAPE is a fraction, MAE is in euros. On few rows a model can score slightly
    better by luck.
    """
    truth = read(Path(folder) / "truth.csv")
    positions = np.searchsorted(truth.numbers("row"), table.row_ids)
    t, p = (truth.numbers(name)[positions] for name in ("table", "pictures"))
    price = table.numbers("price")
    known = np.isfinite(price)
    scores = {}
    for oracle, terms in {"table": t, "pictures": p, "both": t + p}.items():
        guess, target = np.exp(BASE + terms[known]), price[known]
        relative = _best_multiple(guess, target, weights=guess / target) / target - 1
        absolute = _best_multiple(guess, target, weights=guess) - target
        scores[f"{oracle}/mape"] = float(np.abs(relative).mean())
        scores[f"{oracle}/mae"] = float(np.abs(absolute).mean())
    return scores


def _best_multiple(guess: np.ndarray, target: np.ndarray, weights: np.ndarray) -> np.ndarray:
    # The factor that minimises the sum of weights * |factor - target / guess| is a weighted median.
    ratio = target / guess
    order = np.argsort(ratio, kind="stable")
    total = np.cumsum(weights[order])
    return guess * ratio[order][np.searchsorted(total, total[-1] / 2)]


@frozen
class Result:
    """The result of a spec: its errors on the test part, and the best error for what it reads.

    `mape` and `oracle_mape`, that of the oracle which knows as much, are fractions; `mae` is in
    euros; `seconds` is the time of the run; `files` are those that it wrote.
    """

    name: str
    mape: float
    mae: float
    oracle_mape: float
    seconds: float
    files: tuple[Path, ...]


def compare(
    specs: Sequence[Path],
    out: Path,
    make_hooks: Callable[[Job], Sequence[Hook]] = lambda job: (),
    *,
    overwrite: bool = False,
    device: str | None = None,
) -> list[Result]:
    """Fit the specs one after another and score each on its test part.

    Each has a run folder in `out`, named like its file, with `model.safetensors`, `history.jsonl`
    and `predictions.csv` of the test rows; `losses.png` shows their losses. The tables are those
    that `draw` makes. `make_hooks` is called for every run, as in `run`, and `device` is that of
    `Context`. What an earlier comparison left in `out` is replaced; raises FileError for other
    files, unless `overwrite` is set.
    """
    out, specs = Path(out), [Path(path) for path in specs]
    if len({path.stem for path in specs}) < len(specs):
        raise MipError("compare: two specs have the same name")
    replaces = {path: overwrite or is_run(out / path.stem) for path in specs}
    check_output(out / "losses.png", any(replaces.values()))
    for path in specs:
        check_output(out / path.stem / "predictions.csv", replaces[path])
    contexts = {path: Context(base=path.parent, device=device) for path in specs}
    pairs = [
        _fit(path, out / path.stem, make_hooks, replaces[path], contexts[path]) for path in specs
    ]
    histories = {result.name: History(history.epochs) for result, history in pairs}
    plot_history(histories, metrics=["loss"], scale="log", path=out / "losses.png", overwrite=True)
    return [result for result, _ in pairs]


def _fit(
    path: Path,
    out: Path,
    make_hooks: Callable[[Job], Sequence[Hook]],
    overwrite: bool,
    context: Context,
) -> tuple[Result, History]:
    spec = load_spec(path)
    source = path.parent / spec.data.table
    table, _ = clean(spec, read(source))
    split = parts(spec, table, base=path.parent)
    done = run(spec, split, out=out, overwrite=overwrite, make_hooks=make_hooks, context=context)
    target = split.test[target_columns(spec)[0]].to_numpy()
    predictions = done.predict(split.test).assign(target=target).rename_axis("row")
    write_table(out / "predictions.csv", predictions, overwrite=overwrite)
    scores = evaluate(done.predict, split.test)
    result = Result(
        name=path.stem,
        mape=scores["mape"],
        mae=scores["mae"],
        oracle_mape=oracle_scores(source.parent, split.test)[f"{inputs_of(spec)}/mape"],
        seconds=done.seconds,
        files=tuple(sorted(file for file in out.iterdir() if file.is_file())),
    )
    return result, done.history


def inputs_of(spec: Spec) -> str:
    """Return what a spec's branches read: "table", "pictures" or "both"."""
    are_images = {isinstance(branch, Image) for _, branch in leaf_branches(spec.root)}
    return "both" if len(are_images) == 2 else "pictures" if True in are_images else "table"


def results_table(results: Iterable[Result]) -> rich.table.Table:
    """Make a table of the results for the terminal."""
    rows = [
        (r.name, f"{r.mape:.1%}", f"{r.oracle_mape:.1%}", f"{r.mae:,.0f}", f"{r.seconds:.0f}")
        for r in results
    ]
    columns = ("spec", "MAPE", "best reachable", "MAE (€)", "seconds")
    return text_table("errors on the test part", columns, rows)
