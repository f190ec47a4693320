"""Cells: what one of them means, whatever its type: a number, a word, a moment, images."""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from numbers import Real
from typing import Any

import numpy as np

BLANK = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-", "<na>"})
"""What stands for a missing number, in lower case. A category keeps its words ("NA" too)."""


ANSWERS: Mapping[str, float] = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), 1.0),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), -1.0),
}
"""The words that say yes and no, in lower case."""


FLOAT32 = float(np.finfo(np.float32).max)
"""The largest number that a model can be given."""


YEARS = (1678, 2261)
"""The first and the last year of the dates that are understood, in UTC: the whole years that
nanoseconds hold. Those beyond, such as 9999 for "no end", would spoil a mean.
"""


_WHOLE = re.compile(r"[-+]?\d+\.0+")


_YEAR = re.compile(r"[0-9]{4}")


_CENTURIES = 400 * 365 + 97
"""Days of 400 years, after which the calendar begins anew."""


def is_missing(cell: Any) -> bool:
    """Whether a cell holds nothing: None, NaN, NaT or pandas' NA.

    >>> is_missing(float("nan")), is_missing(Decimal("sNaN")), is_missing(""), is_missing([None])
    (True, True, False, False)
    """
    import pandas as pd

    if isinstance(cell, Decimal):  # pandas compares it, which a signalling NaN does not allow
        return cell.is_nan()
    return cell is None or pd.isna(cell) is True


def number(cell: Any) -> float | None:
    """Read a cell as a number: NaN where it is blank, infinite past float64, and None for what is
    no number. Digits are ASCII, and nothing stands between them.

    >>> [number(cell) for cell in (" 1e3 ", "-0.5", 10**400, Decimal("2.5"), True, "n/a")]
    [1000.0, -0.5, inf, 2.5, 1.0, nan]
    >>> [number(cell) for cell in ("1_000", "1,5", "0x10", "٣", 1j, [1], b"1")]
    [None, None, None, None, None, None, None]
    """
    if isinstance(cell, str):
        return _number_of_text(cell)
    if is_missing(cell):
        return math.nan
    if not isinstance(cell, (Real, Decimal, np.bool_)) or isinstance(cell, np.timedelta64):
        return None
    try:
        return float(cell)
    except OverflowError:  # of a whole number or a fraction
        return math.inf if math.floor(cell) > 0 else -math.inf


def _number_of_text(text: str) -> float | None:
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if value == value:
        return value
    return math.nan if text.strip().lower() in BLANK else None


def word(cell: Any) -> str:
    r"""Read a cell as a word: a whole number has no '.0', a set is sorted, and half of a surrogate
    pair, which no file can hold, is U+FFFD.

    >>> word(" Ulm "), word(3.0), word("3.00"), word({"b", "a"}), word("caf\ud83d")
    ('Ulm', '3', '3', '{a, b}', 'caf�')
    """
    if isinstance(cell, (set, frozenset)):
        return f"{{{', '.join(sorted(map(word, cell)))}}}"
    try:
        text = str(int(cell)) if _is_whole(cell) else str(cell).strip()
    except Exception:  # a whole number of more digits than Python writes, an object without text
        text = hex(cell) if isinstance(cell, int) else type(cell).__name__
    text = text if text.isascii() else _paired(text)
    return text[: text.index(".")] if _WHOLE.fullmatch(text) else text


def _is_whole(cell: Any) -> bool:
    return isinstance(cell, (float, np.floating)) and float(cell).is_integer()


def _paired(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def moment(cell: Any) -> str:
    """Read a cell as the word of a date: a period begins with its first second, and a time with a
    zone is UTC.

    >>> import pandas as pd
    >>> moment(pd.Period("2024Q2")), moment("2024-04")
    ('2024-04-01 00:00:00', '2024-04')
    """
    import pandas as pd

    if isinstance(cell, pd.Period):
        first = cell.asfreq("s", how="start")
        parts = first.year, first.month, first.day, first.hour, first.minute, first.second
        return "{:04}-{:02}-{:02} {:02}:{:02}:{:02}".format(*parts)
    if isinstance(cell, datetime) and cell.tzinfo:
        try:
            return str(cell.astimezone(UTC))
        except OverflowError:  # in the first or last hours that Python has
            return str(cell.replace(tzinfo=None))
    return word(cell)


def dates(words: Sequence[str]) -> np.ndarray:
    """Read ISO dates and times of the years 0 to 9999 as datetime64[us] in UTC, [n]: NaT for other
    words.

    >>> dates(["2024-01-01T12:00+02:00", "9999-12-31", "now", "2023-02-29"]).astype(str).tolist()
    ['2024-01-01T10:00:00.000000', '9999-12-31T00:00:00.000000', 'NaT', 'NaT']
    """
    import pandas as pd

    # Read 400 years nearer as often as needed, since not every pandas reads the far ones.
    turns = [(int(word[:4]) - 1700) // 400 if _YEAR.match(word) else None for word in words]
    near = [
        None if turn is None else f"{int(word[:4]) - 400 * turn}{word[4:]}"
        for word, turn in zip(words, turns, strict=True)
    ]
    texts = pd.Series(near, dtype=object)
    found = pd.to_datetime(texts, format="ISO8601", errors="coerce", utc=True).dt.tz_localize(None)
    days = np.array([turn or 0 for turn in turns], dtype=np.int64) * _CENTURIES
    return found.to_numpy().astype("datetime64[us]") + days.astype("timedelta64[D]")


def days(moments: np.ndarray) -> np.ndarray:
    """Give moments, datetime64 of any unit, as days since 1970: float64 [n], NaN for NaT.

    >>> days(np.array(["1970-01-02T12:00", "NaT"], dtype="datetime64[s]"))
    array([1.5, nan])
    """
    if moments.dtype == np.dtype("datetime64[ns]"):
        # Microseconds of three centuries are whole in a float64.
        moments = moments.astype("datetime64[us]")
    unit: Any = np.datetime_data(moments.dtype)[0]
    each = np.timedelta64(1, "D") / np.timedelta64(1, unit)
    return np.where(np.isnat(moments), np.nan, moments.astype(np.int64) / each)


def is_list(cell: Any) -> bool:
    """Whether a cell holds a list: also as an array of objects, which Parquet makes of one.

    >>> is_list(["a.png"]), is_list(np.array(["a.png"], dtype=object)), is_list(np.zeros(2))
    (True, True, False)
    """
    objects = isinstance(cell, np.ndarray) and cell.dtype == np.object_ and cell.ndim > 0
    return objects or isinstance(cell, (list, tuple))


def is_tensor(cell: Any) -> bool:
    """Whether a cell is a tensor of torch, which is not imported to find out."""
    torch = sys.modules.get("torch")
    return isinstance(cell, getattr(torch, "Tensor", ()))


def is_image(cell: Any) -> bool:
    """Whether a cell holds images themselves (an array, a file's bytes, a Pillow image, a dict as
    Hugging Face has them, or a list with one of these) rather than a word, a number or paths.

    >>> is_image(b"GIF89a"), is_image(["a.png", "b.png"]), is_image([np.zeros((8, 8))])
    (True, False, True)
    """
    if is_list(cell):
        with suppress(RecursionError):  # a list that holds itself
            return any(map(is_image, cell))
        return False
    held = (bytes, bytearray, memoryview, np.ndarray)
    return isinstance(cell, held) or is_tensor(cell) or _is_pillow(cell) or _is_file(cell)


def _is_pillow(cell: Any) -> bool:
    return type(cell).__module__.startswith("PIL.")  # so that no table has to import Pillow


def _is_file(cell: Any) -> bool:
    return isinstance(cell, Mapping) and bool(cell) and cell.keys() <= {"bytes", "path"}


def photo(cell: Any) -> Any:
    """Give a photo as a path, the bytes of a file, a Pillow image or pixels; None where there is
    none. Of a dict with `bytes` and `path` the path counts where there are no bytes.

    >>> from pathlib import Path
    >>> photo(Path("a.png")), photo({"bytes": bytearray(b"GIF"), "path": None}), photo("")
    ('a.png', b'GIF', None)
    """
    if isinstance(cell, str):
        return cell or None
    if _is_file(cell):
        data = cell.get("bytes")
        return photo(cell.get("path") if data is None else data)
    if isinstance(cell, os.PathLike):
        return os.fsdecode(cell)
    if isinstance(cell, (bytearray, memoryview)):
        return bytes(cell)
    return None if is_missing(cell) else cell


def photos_of(cell: Any) -> list[Any]:
    """Give the photos of a cell as a list: [None] where there is none.

    >>> photos_of("a.jpg"), photos_of(["a.jpg", "b.jpg"]), photos_of([]), photos_of(None)
    (['a.jpg'], ['a.jpg', 'b.jpg'], [None], [None])
    """
    return [*map(photo, cell if is_list(cell) else [cell])] or [None]


def array_of(cell: Any) -> np.ndarray:
    """Give what can be an array as one: also a tensor that a gradient hangs on, one of bfloat16,
    and one on another device.
    """
    if not is_tensor(cell):
        return np.asarray(cell)
    plain = cell.detach().cpu().to_dense()
    return (plain.float() if str(plain.dtype) == "torch.bfloat16" else plain).numpy()


def content(cell: Any) -> str:
    """Give a word for one cell, equal where the contents are."""
    if is_list(cell):
        with suppress(RecursionError):  # a list that holds itself
            return digest_of([map(content, cell)])
        return word(cell)
    if _is_file(cell):
        return content(photo(cell))
    if isinstance(cell, np.ndarray) or is_tensor(cell):
        array = array_of(cell)
        return _sha256(f"{array.dtype.str}{array.shape}", array.tobytes())
    if _is_pillow(cell):
        try:
            return _sha256(f"{cell.mode}{cell.size}{cell.getpalette()}", cell.tobytes())
        except Exception as error:  # closed before it was read, or broken: the decoder says so
            return _sha256("broken", f"{cell.mode}{cell.size}{type(error).__name__}".encode())
    return _sha256("bytes", bytes(cell)) if is_image(cell) else word(cell)


def _sha256(head: str, data: bytes) -> str:
    return hashlib.sha256(head.encode() + b"\x00" + data).hexdigest()


def digest_of(columns: Iterable[Iterable[str]]) -> str:
    """Fingerprint columns of words: one SHA-256 for all."""
    text = "\x1e".join("\x1f".join(words) for words in columns)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
