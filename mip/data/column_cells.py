"""What the cells of a whole column mean, by the rules for one cell (`cells.py`).

Cells that are written plainly are read all at once, by kernels that give what the rule gives. Of
the others, each distinct cell is read once, by the rule.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from mip.data.cells import BLANKS, as_text, is_image, is_list, is_missing

if TYPE_CHECKING:
    import pandas as pd

Read = TypeVar("Read")

HEAD_ROWS = 1000
"""The rows by which a column whose cells repeat is told from others."""


_BLANKS = {None, "NaN", *BLANKS, *map(str.upper, BLANKS), *map(str.title, BLANKS)}

# Blanks around it, any letter that is not ASCII, or the zeros of a whole number.
_UNTIDY = r"^ | $|[^ -~]|^[-+]?[0-9]+\.0+$"


def holds_text(cells: pd.Series) -> bool:
    """Whether a column holds texts, and nothing but texts and missing cells."""
    import pandas as pd

    return isinstance(cells.dtype, pd.StringDtype)


def spread_evenly(n: int, most: int) -> np.ndarray:
    """Choose positions of n rows, evenly spread from the first to the last: int64 [`most`], or [n]
    if there are fewer.

    >>> spread_evenly(10, 4), spread_evenly(2, 4)
    (array([0, 3, 6, 9]), array([0, 1]))
    """
    return np.linspace(0, n - 1, min(n, most)).astype(np.int64)


def holds_objects(cells: pd.Series) -> bool:
    """Whether some cells of a column are images or lists.

    >>> import pandas as pd
    >>> holds_objects(pd.Series(["a.png"])), holds_objects(pd.Series([["a.png"], None]))
    (False, True)
    """
    return cells.dtype == object and any(is_image(cell) or is_list(cell) for cell in cells)


def missing_cells(cells: pd.Series) -> np.ndarray:
    """Mark the cells that are missing: bool [n]."""
    try:
        return cells.isna().to_numpy()
    except ArithmeticError:  # pandas compares cells, and a signalling NaN of Decimal forbids that
        return np.array([is_missing(cell) for cell in cells], dtype=bool)


def factorize(cells: pd.Series, read: Callable[[Any], Read]) -> tuple[np.ndarray, list[Read]]:
    """Read each distinct cell once: returns codes, int64 [n], which index the list of what was
    read, in the order of the rows, with -1 for a missing cell.

    >>> import pandas as pd
    >>> factorize(pd.Series(["b", "a", None, "b"]), str.upper)
    (array([ 0,  1, -1,  0]), ['B', 'A'])
    """
    import pandas as pd

    if cells.dtype == object:  # equal keys can have different texts here: True, 1 and 1.0
        return np.where(missing_cells(cells), -1, np.arange(len(cells))), [*map(read, cells)]
    codes, uniques = pd.factorize(cells, use_na_sentinel=True)
    return codes, [*map(read, uniques.tolist())]


def texts_of(cells: pd.Series) -> np.ndarray:
    """Convert cells to text as `as_text` does, object [n]: "" for a missing cell.

    >>> import pandas as pd
    >>> texts_of(pd.Series([" Ulm", "3.0", None])).tolist()
    ['Ulm', '3', '']
    """
    import pandas as pd

    if cells.dtype != object and cells.iloc[:HEAD_ROWS].duplicated().mean() > 0.5:
        codes, distinct = pd.factorize(cells, use_na_sentinel=True)
        return np.append(_texts(pd.Series(distinct)), "")[codes]
    return _texts(cells)


def _texts(cells: pd.Series) -> np.ndarray:
    if cells.dtype == np.float64:
        return float_texts(cells.to_numpy())
    if not holds_text(cells):
        codes, distinct = factorize(cells, as_text)
        return np.array([*distinct, ""], dtype=object)[codes]
    texts = np.array(cells.fillna(""), dtype=object)
    untidy = cells.str.contains(_UNTIDY, na=False).to_numpy()
    texts[untidy] = [*map(as_text, texts[untidy])]
    return texts


def float_texts(values: np.ndarray) -> np.ndarray:
    """Convert floats, float64 [n], to text as `as_text` does, object [n]: "" for NaN.

    >>> float_texts(np.array([3.0, 0.5, np.nan, np.inf])).tolist()
    ['3', '0.5', '', 'inf']
    """
    texts, size = np.full(len(values), "", dtype=object), np.abs(values)
    whole = (values == np.round(values)) & (size < 1e15)
    # Where neither Python nor Arrow write an exponent.
    plain = (size >= 1e-4) & (size < 1e10) & ~whole
    others = ~(whole | plain | np.isnan(values))
    texts[whole] = _write(values[whole].astype(np.int64))
    texts[plain] = _write(values[plain])
    texts[others] = [*map(as_text, values[others].tolist())]
    return texts


def _write(numbers: np.ndarray) -> np.ndarray | list[str]:
    try:
        import pyarrow as pa
    except ImportError:
        return [*map(str, numbers.tolist())]
    return pa.array(numbers).cast(pa.string()).to_numpy(zero_copy_only=False)


def parse_plain(cells: pd.Series, kind: Literal["number", "date"]) -> np.ndarray | None:
    """Parse texts that all are plain numbers, or ISO dates, or blanks, as the rule for a cell does
    and many times as fast: float64 or datetime64[us] in UTC, [n], missing for a blank. Return None
    for other texts, and if Arrow does not hold them.

    >>> import pandas as pd
    >>> parse_plain(pd.Series(["1e3", "-0.5", "NA"]), "number")
    array([ 1.e+03, -5.e-01,     nan])
    >>> parse_plain(pd.Series(["1_000", "1"]), "number")
    """
    if not holds_text(cells) or cells.array.dtype.storage != "pyarrow":
        return None
    import pyarrow as pa
    import pyarrow.compute as pc

    dates = pa.timestamp("us"), pa.timestamp("us", "UTC")
    texts = pa.array(cells)
    blank = pc.is_in(texts, pa.array(list(_BLANKS), texts.type))
    known = pc.if_else(blank, pa.scalar(None, texts.type), texts)
    for dtype in dates if kind == "date" else [pa.float64()]:
        with suppress(pa.ArrowInvalid):
            values = np.asarray(known.cast(dtype))
            if (np.isnan(values) == np.asarray(blank)).all():  # nan(1) is a number to Arrow
                return values
    return None
