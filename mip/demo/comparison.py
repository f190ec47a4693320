"""The demo's comparison: three models beside the best reachable errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from attrs import frozen

from mip.branches import Image as ImageBranch
from mip.branches import walk
from mip.data import Table, read
from mip.demo.houses import BASE
from mip.errors import MipError
from mip.files import is_run
from mip.model import clean, parts, target_columns
from mip.output import check_output
from mip.plots import plot_losses
from mip.predict import evaluate
from mip.runs import Context, Job, run, text_table, write_table
from mip.spec import Spec, load_spec
from mip.train import History, Hook

if TYPE_CHECKING:
    import rich.table


def floors(folder: Path, rows: Table) -> dict[str, float]:
    """Score three oracles on given rows of a drawn folder: `table/mape`, `table/mae`, ….

    The oracle "table" knows T of every row and nothing of P, "pictures" the other way round,
    and "both" knows T and P. For what it does not know, each takes the one factor that makes
    that very error smallest on these rows. MAPE is a fraction, MAE is in euros. On few rows a
    model can, by luck, come out a little below.
    """
    truth = read(Path(folder) / "truth.csv")
    lines = np.searchsorted(truth.numbers("row"), rows.row_ids)
    t, p = (truth.numbers(name)[lines] for name in ("table", "pictures"))
    price = rows.numbers("price")
    known = np.isfinite(price)
    guesses = {"table": t, "pictures": p, "both": t + p}
    return {
        name: score
        for oracle, terms in guesses.items()
        for name, score in _oracle(oracle, np.exp(BASE + terms[known]), price[known]).items()
    }


def _oracle(name: str, guess: np.ndarray, price: np.ndarray) -> dict[str, float]:
    mape = np.abs(_scaled(guess, price, guess / price) / price - 1).mean()
    mae = np.abs(_scaled(guess, price, guess) - price).mean()
    return {f"{name}/mape": float(mape), f"{name}/mae": float(mae)}


def _scaled(guess: np.ndarray, price: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # The sum of weight * |factor - price / guess| is least at the weighted median.
    ratio = price / guess
    order = np.argsort(ratio, kind="stable")
    total = np.cumsum(weight[order])
    return guess * ratio[order][np.searchsorted(total, total[-1] / 2)]


@frozen
class Row:
    """What a spec came to: errors on the test part, and the floor of what it can see.

    `mape` and `floor`, the MAPE of the matching oracle, are fractions; `mae` is in euros;
    `seconds` is the time of the run; `files` are those written for it.
    """

    name: str
    mape: float
    mae: float
    floor: float
    seconds: float
    files: tuple[Path, ...]


def compare(
    specs: Sequence[Path],
    out: Path,
    make_hooks: Callable[[Job], Sequence[Hook]] = lambda job: (),
    *,
    overwrite: bool = False,
) -> list[Row]:
    """Fit the specs one after another and score each on its test part.

    Each gets a run folder under `out`, named as its file, with `model.safetensors`,
    `history.jsonl` and `predictions.csv` of the test rows; `losses.png` shows them together.
    Tables are those that `draw` makes. `make_hooks` is called for every run, as in `run`. What an
    earlier comparison left in `out` is replaced; raises FileError for other files, unless
    `overwrite` is set.
    """
    out, specs = Path(out), [Path(path) for path in specs]
    if len({path.stem for path in specs}) < len(specs):
        raise MipError("compare: two specs have the same name")
    replaces = {path: overwrite or is_run(out / path.stem) for path in specs}
    check_output(out / "losses.png", any(replaces.values()))
    for path in specs:
        check_output(out / path.stem / "predictions.csv", replaces[path])
    pairs = [_fitted(path, out / path.stem, make_hooks, replaces[path]) for path in specs]
    histories = {row.name: history.epochs for row, history in pairs}
    plot_losses(out / "losses.png", histories, overwrite=True)
    return [row for row, _ in pairs]


def _fitted(
    path: Path, out: Path, make_hooks: Callable[[Job], Sequence[Hook]], overwrite: bool
) -> tuple[Row, History]:
    spec = load_spec(path)
    source = path.parent / spec.data.table
    rows, _ = clean(spec, read(source))
    cut = parts(spec, rows, base=path.parent)
    context = Context(base=path.parent)
    ended = run(spec, cut, out, overwrite=overwrite, make_hooks=make_hooks, context=context)
    predict = ended.predict
    scores = evaluate(predict, cut.test)
    target = cut.test[target_columns(spec)[0]].to_numpy()
    told = predict(cut.test).assign(target=target).rename_axis("row")
    write_table(out / "predictions.csv", told, overwrite=overwrite)
    floor = floors(source.parent, cut.test)[f"{sees(spec)}/mape"]
    files = tuple(sorted(each for each in out.iterdir() if each.is_file()))
    return Row(path.stem, scores["mape"], scores["mae"], floor, ended.seconds, files), ended.history


def sees(spec: Spec) -> str:
    """Say what a spec's branches read: "table", "pictures" or "both"."""
    found = {isinstance(leaf, ImageBranch) for _, leaf in walk(spec.root)}
    return "both" if len(found) == 2 else "pictures" if True in found else "table"


def table(rows: Iterable[Row]) -> rich.table.Table:
    """Lay rows out for the terminal, a line each, in the order given."""
    lines = [
        (row.name, f"{row.mape:.1%}", f"{row.floor:.1%}", f"{row.mae:,.0f}", f"{row.seconds:.0f}")
        for row in rows
    ]
    columns = ("spec", "MAPE", "best reachable", "MAE (€)", "seconds")
    return text_table("errors on the test part", columns, lines)
