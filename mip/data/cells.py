"""What one cell means, whatever its type: a number, a text, a date, or images.

Every source of rows uses these functions, so the same cell means the same in a CSV, a DataFrame and
an Arrow table.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

BLANKS = frozenset(
    {"", "na", "n/a", "n.a.", "nan", "null", "none", "<na>", "\\n", "1.#ind", "1.#qnan"}
    | {"#n/a", "#na", "#n/a n/a", "#div/0!", "#value!", "#ref!", "#name?", "#num!", "#null!"}
    | {"?", "-", "--", "---", "–", "—", ".", "..", "..."}
)
"""Texts that mean a missing number, in lower case. Categories are kept as they are, "NA" too."""


BOOLEAN_WORDS: Mapping[str, float] = {
    **dict.fromkeys(("1", "on", "t", "true", "y", "yes"), 1.0),
    **dict.fromkeys(("0", "f", "false", "n", "no", "off"), -1.0),
}
"""The texts that mean true (1) and false (-1), in lower case."""


IMAGE_SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".heic", ".heif", ".j2k", ".jp2", ".jpeg", ".jpg", ".png", ".tif"),
    *(".tiff", ".webp"),
)
"""The suffixes, in lower case, of the files that are images."""


FLOAT32_MAX = float(np.finfo(np.float32).max)
"""The largest number that a model can read."""


DATE_YEARS = (1678, 2261)
"""The first and the last year of the dates that are read, in UTC: the whole years that nanoseconds
can hold. Dates beyond, such as 9999-12-31 for "no end", would spoil a mean.
"""


_WHOLE_NUMBER = re.compile(r"[-+]?\d+\.0+")


_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_FOREIGN_SIGNS = str.maketrans("．，－＋٫٬", ".,-+.,")


def is_missing(cell: Any) -> bool:
    """Whether a cell is missing: None, NaN, NaT or pandas' NA.

    >>> is_missing(float("nan")), is_missing(Decimal("sNaN")), is_missing(""), is_missing([None])
    (True, True, False, False)
    """
    import pandas as pd

    if isinstance(cell, Decimal):  # pandas compares cells, and a signalling NaN forbids that
        return cell.is_nan()
    return cell is None or pd.isna(cell) is True


def parse_number(cell: Any) -> float | None:
    """Parse a cell as a number: NaN if it is blank, infinite if too large for float64, None if it
    is not a number. Digits are of any script, without separators; a duration is its seconds.

    >>> [parse_number(cell) for cell in (" 1e3 ", "-0.5", 10**400, Decimal("2.5"), True, "n/a")]
    [1000.0, -0.5, inf, 2.5, 1.0, nan]
    >>> [parse_number(cell) for cell in ("１２", timedelta(minutes=5))]
    [12.0, 300.0]
    >>> [parse_number(cell) for cell in ("1_000", "1,5", "0x10", 1j, [1], b"1")]
    [None, None, None, None, None, None]
    """
    if isinstance(cell, str):
        return _parse_text(cell)
    if is_missing(cell):
        return math.nan
    if isinstance(cell, timedelta):  # pandas' too
        return cell.total_seconds()
    if isinstance(cell, np.timedelta64):
        return float(cell / np.timedelta64(1, "s"))
    if not isinstance(cell, (Real, Decimal, np.bool_)):
        return None
    try:
        return float(cell)
    except OverflowError:  # an int or a Fraction too large for a float
        return math.inf if math.floor(cell) > 0 else -math.inf


def with_ascii_digits(text: str) -> str:
    """Write the digits of any script as 0 to 9, and the signs of a number beside them.

    >>> with_ascii_digits("－１２．５"), with_ascii_digits("٣٬٠٠٠"), with_ascii_digits("5 m²")
    ('-12.5', '3,000', '5 m²')
    """
    if not _FOREIGN_DIGIT.search(text):
        return text
    digits = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)
    return digits.translate(_FOREIGN_SIGNS)


def _parse_text(text: str) -> float | None:
    text = text if text.isascii() else with_ascii_digits(text.strip().replace("−", "-"))
    try:
        value = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if value == value:
        return value
    return math.nan if text.strip().lower() in BLANKS else None


def as_text(cell: Any) -> str:
    r"""Convert a cell to text: whole numbers have no '.0', sets are sorted, and half of a surrogate
    pair, which no file can hold, becomes U+FFFD.

    >>> as_text(" Ulm "), as_text(3.0), as_text("3.00"), as_text({"b", "a"}), as_text("caf\ud83d")
    ('Ulm', '3', '3', '{a, b}', 'caf�')
    """
    if isinstance(cell, (set, frozenset)):
        return f"{{{', '.join(sorted(map(as_text, cell)))}}}"
    try:
        text = str(int(cell)) if _is_whole_float(cell) else str(cell).strip()
    except Exception:  # an int too long for str, or an object whose __str__ raises
        text = hex(cell) if isinstance(cell, int) else type(cell).__name__
    text = text if text.isascii() else _replace_lone_surrogates(text)
    return text[: text.index(".")] if _WHOLE_NUMBER.fullmatch(text) else text


def _is_whole_float(cell: Any) -> bool:
    return isinstance(cell, (float, np.floating)) and float(cell).is_integer()


def _replace_lone_surrogates(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def as_date_text(cell: Any) -> str:
    """Convert a cell to the text of a date: a period becomes its first second, and a time with a
    zone is converted to UTC.

    >>> import pandas as pd
    >>> as_date_text(pd.Period("2024Q2")), as_date_text("2024-04")
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
        except OverflowError:  # in the first or last hours of what datetime can hold
            return str(cell.replace(tzinfo=None))
    return as_text(cell)


def to_days(dates: np.ndarray) -> np.ndarray:
    """Convert datetime64 of any unit to days since 1970: float64 [n], NaN for NaT.

    >>> to_days(np.array(["1970-01-02T12:00", "NaT"], dtype="datetime64[s]"))
    array([1.5, nan])
    """
    if dates.dtype == np.dtype("datetime64[ns]"):
        # In microseconds, three centuries are whole numbers of a float64.
        dates = dates.astype("datetime64[us]")
    unit: Any = np.datetime_data(dates.dtype)[0]
    units_per_day = np.timedelta64(1, "D") / np.timedelta64(1, unit)
    return np.where(np.isnat(dates), np.nan, dates.astype(np.int64) / units_per_day)


def is_list(cell: Any) -> bool:
    """Whether a cell holds a list, or the array of objects that Parquet lists become in pandas.

    >>> is_list(["a.png"]), is_list(np.array(["a.png"], dtype=object)), is_list(np.zeros(2))
    (True, True, False)
    """
    objects = isinstance(cell, np.ndarray) and cell.dtype == np.object_ and cell.ndim > 0
    return objects or isinstance(cell, (list, tuple))


def is_tensor(cell: Any) -> bool:
    """Whether a cell is a torch tensor; torch is not imported to find out."""
    torch = sys.modules.get("torch")
    return isinstance(cell, getattr(torch, "Tensor", ()))


def is_image(cell: Any) -> bool:
    """Whether a cell holds image data (an array, the bytes of a file, a Pillow image, a dict in
    Hugging Face's form, or a list with one of these) rather than text, a number or paths.

    >>> is_image(b"GIF89a"), is_image(["a.png", "b.png"]), is_image([np.zeros((8, 8))])
    (True, False, True)
    """
    if isinstance(cell, str):  # of every cell of most tables, so it is asked first
        return False
    if is_list(cell):
        with suppress(RecursionError):  # a list that holds itself
            return any(map(is_image, cell))
        return False
    types = (bytes, bytearray, memoryview, np.ndarray)
    return isinstance(cell, types) or is_tensor(cell) or _is_pillow(cell) or _is_file_dict(cell)


def _is_pillow(cell: Any) -> bool:
    return type(cell).__module__.startswith("PIL.")  # without importing Pillow


def _is_file_dict(cell: Any) -> bool:
    return isinstance(cell, Mapping) and bool(cell) and cell.keys() <= {"bytes", "path"}


def as_photo(cell: Any) -> Any:
    """Convert a cell to a path, the bytes of a file, a Pillow image or pixels; None if there is no
    photo. For a dict with `bytes` and `path`, the path counts if there are no bytes.

    >>> from pathlib import Path
    >>> as_photo(Path("a.png")), as_photo({"bytes": bytearray(b"GIF"), "path": None}), as_photo("")
    ('a.png', b'GIF', None)
    """
    if isinstance(cell, str):
        return cell or None
    if _is_file_dict(cell):
        data = cell.get("bytes")
        return as_photo(cell.get("path") if data is None else data)
    if isinstance(cell, os.PathLike):
        return os.fsdecode(cell)
    if isinstance(cell, (bytearray, memoryview)):
        return bytes(cell)
    return None if is_missing(cell) else cell


def with_paths(cell: Any, root: str | Path | None) -> Any:
    """Replace the names of photos in a cell by their absolute paths, if they are files inside
    `root`; what else a cell holds is left as it is.

    >>> with_paths("Ulm", None), with_paths("no-such-photo.png", None)
    ('Ulm', 'no-such-photo.png')
    """
    if is_list(cell):
        each = [_photo_path(part, root) for part in cell]
        return each if any(isinstance(part, Path) for part in each) else cell
    return _photo_path(cell, root)


def _photo_path(cell: Any, root: str | Path | None) -> Any:
    if isinstance(cell, str) and cell.lower().endswith(IMAGE_SUFFIXES):
        with suppress(OSError, ValueError):  # what cannot be looked up stays a text
            base = os.path.realpath(root or ".")
            path = Path(os.path.realpath(os.path.join(base, cell)))
            return path if path.is_relative_to(base) and path.is_file() else cell
    return cell


def as_photos(cell: Any) -> list[Any]:
    """Return the photos of a cell as a list: [None] if there is no photo.

    >>> as_photos("a.jpg"), as_photos(["a.jpg", "b.jpg"]), as_photos([]), as_photos(None)
    (['a.jpg'], ['a.jpg', 'b.jpg'], [None], [None])
    """
    return [*map(as_photo, cell if is_list(cell) else [cell])] or [None]


def as_array(cell: Any) -> np.ndarray:
    """Convert a cell to an array; tensors may need gradients, be bfloat16 or on another device."""
    if not is_tensor(cell):
        return np.asarray(cell)
    tensor = cell.detach().cpu().to_dense()
    return (tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor).numpy()


def content_key(cell: Any) -> str:
    """Return a text for a cell; cells of equal content have equal texts."""
    if is_list(cell):
        with suppress(RecursionError):  # a list that holds itself
            return digest_texts([map(content_key, cell)])
        return as_text(cell)
    if _is_file_dict(cell):
        return content_key(as_photo(cell))
    if isinstance(cell, np.ndarray) or is_tensor(cell):
        array = as_array(cell)
        return _sha256(f"{array.dtype.str}{array.shape}", array.tobytes())
    if _is_pillow(cell):
        try:
            return _sha256(f"{cell.mode}{cell.size}{cell.getpalette()}", cell.tobytes())
        except Exception as error:  # closed before it was read, or broken: decoding reports it
            return _sha256("broken", f"{cell.mode}{cell.size}{type(error).__name__}".encode())
    return _sha256("bytes", bytes(cell)) if is_image(cell) else as_text(cell)


def _sha256(header: str, data: bytes) -> str:
    return hashlib.sha256(header.encode() + b"\x00" + data).hexdigest()


def digest_texts(columns: Iterable[Iterable[str]]) -> str:
    """Compute one SHA-256 of columns of texts."""
    text = "\x1e".join("\x1f".join(texts) for texts in columns)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
