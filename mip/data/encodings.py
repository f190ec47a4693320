"""In which encoding a text file is: what its bytes leave no doubt of, and what they may be."""

from __future__ import annotations

import codecs
import io
import re
import unicodedata
from collections import deque
from functools import partial
from itertools import chain, islice, pairwise
from pathlib import Path

from mip.errors import DataError, quote

BLOCK_BYTES = 1 << 20
"""The bytes that are decoded at a time."""


SAMPLE_LINES = 1000
"""The lines with letters that ASCII lacks by which an encoding is judged."""


UTF_8 = "utf-8"


WESTERN = "cp1252"
"""The encoding of Western Windows, and of what is not Unicode and looks like it."""


OTHERS = (
    *("cp1250", "iso8859-2", "cp1251", "koi8-r", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp874", "shift_jis", "gb18030", "euc_kr", "big5", "euc_jp"),
)
"""The encodings that are proposed for other files, of equally likely ones the first."""


UNFIT = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})
"""Python's codecs of text that no table file is in."""


COMMON = {
    "gb18030": ("gb2312", 0xB0, 0xD7),
    "shift_jis": ("shift_jis", 0x88, 0x97),
    "euc_jp": ("euc_jp", 0xB0, 0xCF),
    "big5": ("big5", 0xA4, 0xC6),
}
"""Where the common ideographs of an encoding are: a codec, and the first and last leading byte."""


MIN_ODD = 3
"""Text is in another encoding if this many characters are out of place, and a tenth of all."""


_MARKS = frozenset("\u2018\u2019\u201c\u201d\u2013\u2014\u2026\xa0\xad\xb0\xb7\xd7")
_WORDS = re.compile(r"[^\W\d_]+")
_INSIDE = re.compile(r"(?<=[^\W\d_])[^\x00-\x7f\w](?=[^\W\d_])")
_RUN = re.compile(r"[^\x00-\x7f]{3,}")


def encoding_error(name: str) -> str:
    """Return why a table cannot be in an encoding of this name, or "".

    >>> encoding_error("koi8-r"), encoding_error("rot13"), encoding_error("utf9")
    ('', "= 'rot13' is no encoding of files", "= 'utf9' is no encoding of Python")
    """
    try:
        known = codecs.lookup(name).name
        io.TextIOWrapper(io.BytesIO(), known)  # refuses codecs of bytes, such as base64
    except (LookupError, ValueError) as error:
        where = "files" if "not a text encoding" in str(error) else "Python"
        return f"= '{name}' is no encoding of {where}"
    return f"= '{name}' is no encoding of files" if known in UNFIT else ""


def find_encoding(path: Path) -> str | None:
    """Return the encoding of a file: UTF-16 or UTF-8, by its mark or its bytes, or else cp1252, if
    what it reads looks like words; None for any other.
    """
    with path.open("rb") as file:
        sample = file.read(10_000)
        if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return "utf-16"
        if b"\0" in sample:  # ASCII in UTF-16 has a zero in every second place
            return "utf-16-le" if sample[1::2].count(0) > sample[::2].count(0) else "utf-16-be"
        blocks = chain([sample], iter(partial(file.read, BLOCK_BYTES), b""))
        try:
            deque(codecs.iterdecode(blocks, UTF_8), maxlen=0)
        except UnicodeDecodeError:
            odd = _odd_share(_foreign_lines(path), WESTERN)
            return WESTERN if odd < 0.1 else None
    return UTF_8


def certain_encoding(path: Path) -> str | None:
    """Return the encoding of which the bytes of a file leave no doubt: UTF-16 with its mark, or
    UTF-8 with its mark or letters that ASCII lacks. None for another file.
    """
    with path.open("rb") as file:
        blocks = iter(partial(file.read, BLOCK_BYTES), b"")
        if all(map(bytes.isascii, blocks)):
            return None
    found = find_encoding(path)
    return found if found in {UTF_8, "utf-16"} else None


def unknown_encoding(path: Path) -> str:
    """Say what a file that `find_encoding` does not know may be in: a word in each encoding."""
    lines = _foreign_lines(path)
    odd = {name: _odd_share(lines, name) for name in OTHERS}
    least = min(odd.values())
    likely = [name for name in sorted(OTHERS, key=odd.__getitem__) if odd[name] < least + 0.2][:4]
    if least > 0.5:
        return "is in an encoding that is not recognised; save it as UTF-8"
    shown = ", ".join(f"{name} ({quote(foreign_word(path, name), 20)})" for name in likely)
    cure = f"mip new --encoding {likely[0]}, or data.format.encoding = '{likely[0]}'"
    return f"is neither in UTF-8 or UTF-16 nor in {WESTERN}, but perhaps in {shown}: {cure}"


def known_encoding(path: Path) -> str:
    """Return the encoding of a file. Raises DataError naming the likeliest if it is not known."""
    found = find_encoding(path)
    if found is None:
        raise DataError(f"{path.name}: {unknown_encoding(path)}")
    return found


def foreign_word(path: Path, encoding: str) -> str:
    """Return the longest of the first words of a file that have letters that ASCII lacks."""
    words = _WORDS.findall(_foreign_lines(path).decode(encoding, errors="replace"))
    return max((word for word in words[:200] if not word.isascii()), key=len, default="")


def _foreign_lines(path: Path) -> bytes:
    with path.open("rb") as file:
        return b"".join(islice((line for line in file if not line.isascii()), SAMPLE_LINES))


def _odd_share(data: bytes, encoding: str) -> float:
    """Return the share of the characters beyond ASCII that no word has where they are; 1 if the
    bytes are not in this encoding at all.
    """
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return 1.0
    n_all = sum(not char.isascii() for char in text) or 1
    odd = sum(_is_odd(char, encoding) for char in text if not char.isascii())
    odd += sum(char not in _MARKS for char in _INSIDE.findall(text))
    odd += sum(map(_n_odd_letters, _WORDS.findall(text)))
    return min(odd / n_all, 1.0) if odd >= MIN_ODD else 0.0


def _is_odd(char: str, encoding: str) -> bool:
    """Whether a character is hardly ever written: a control, a half-width one, a rare ideograph."""
    name = unicodedata.name(char, "")
    if name.startswith("CJK UNIFIED") and encoding in COMMON:
        codec, first, last = COMMON[encoding]
        data = char.encode(codec, errors="ignore")
        return not data or not first <= data[0] <= last
    return not name or name.startswith(("BOX", "HALFWIDTH", "CJK UNIFIED"))


def _n_odd_letters(word: str) -> int:
    """Count the letters beyond ASCII of a word, if it is none: of mixed scripts or cases, or Latin
    with three of them in a row.

    >>> [_n_odd_letters(word) for word in ("na\u00efve", "\u00cf\u00f0\u00e8\u00e2", "pI\u0416")]
    [0, 4, 1]
    """
    n_foreign = sum(not char.isascii() for char in word)
    if not n_foreign:
        return 0
    scripts = {_script(char) for char in word}
    is_mixed = len(scripts) > 1 or any(a.islower() and b.isupper() for a, b in pairwise(word))
    runs = _RUN.findall(word) if scripts == {"LATIN"} else []
    return n_foreign if is_mixed or any(len({*run}) > 1 for run in runs) else 0


def _script(char: str) -> str:
    script = unicodedata.name(char, "").partition(" ")[0]
    is_japanese = script in {"CJK", "HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA"}
    return "CJK" if is_japanese else script
