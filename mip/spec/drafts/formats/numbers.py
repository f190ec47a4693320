"""How the numbers of a column are written, guessed from its cells."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from attrs import evolve, fields, frozen

from mip.data import ColumnFormat, with_ascii_digits
from mip.spec.drafts.distinct_cells import without_blanks
from mip.spec.toml_text import inline

_CURRENCIES = "AUD BRL CAD CHF CNY CZK DKK EUR GBP HKD HUF INR JPY MXN NOK NZD PLN RUB SEK SGD USD"
_CURRENCY = rf"[A-Z]{{0,3}}[$€£¥₹₽₩₺₪₫₱฿₦]|{_CURRENCIES.replace(' ', '|')}"
_PREFIX = rf"{_CURRENCY}|Rs\.?|Fr\.?|kr\.?|~|≈"
# A unit has no digit but that of an area or a volume, and nothing that joins several values.
_SUFFIX = r"[^\d\s.,;:|/\\\-+_()\[\]'\"#=][^\d,;:|\\\[\]=]{0,13}[23]?"
_CELL = re.compile(
    rf"\s*(?P<open>\()?[-+−]?\s*(?P<prefix>{_PREFIX})?\s*[-−]?\s*"
    r"(?P<number>[.,]?\d(?:[\d.,'’_\s]*\d)?(?:[eE][-+]?\d+)?)(?:[.,][-–—]{1,2})?"
    rf"\s*[-−]?\s*(?P<suffix>{_SUFFIX})?\s*(?(open)\))\s*"
)
_POWERS = {
    **dict.fromkeys(("k", "tsd", "thousand"), 3),
    **dict.fromkeys(("m", "mn", "mln", "mio", "million"), 6),
    **dict.fromkeys(("b", "bn", "bln", "mrd", "billion"), 9),
    **dict.fromkeys(("tn", "trillion"), 12),
}
_MULTIPLIER = re.compile(rf"(?P<name>(?:{'|'.join(_POWERS)})\b\.?)\s*(?P<unit>.*)", re.IGNORECASE)
_ZERO_FIRST = re.compile(r"-?0\d+")
_DIGIT = re.compile(r"\d")
_ORDINALS = frozenset({"st", "nd", "rd", "th"})
_MONEY = re.compile(rf"{_CURRENCY}|円|원|zł|Kč|Ft")
_WHOLE_MONEY = frozenset({"¥", "円", "JPY", "₩", "원", "KRW", "₫", "Ft", "HUF"})
"""Units of money that have no decimals in practice."""


MISSING_WORDS = frozenset(
    """
    unknown|unbekannt|missing|not available|not known|no data|none|nil|tbd|tba|k.a.|k. a.|nc|nr|n.d.
    |not applicable|no value|empty|blank|undefined|void|x|xx|xxx|*|**|***|??|???
    """.replace("\n", "")
    .replace("    ", "")
    .split("|")
)
"""Words that stand for a missing number in any number of cells, in lower case, besides BLANKS."""


FEW = 0.1
"""The share of the cells that may be no numbers or dates in a column of them."""


MAX_LENGTH = 50
"""The length of the longest text that may be a number."""


def has_digit(text: str) -> bool:
    """Whether a text has a digit, of any script."""
    return bool(_DIGIT.search(text))


def are_most(counts: Mapping[str, int], test: Callable[[str], Any]) -> bool:
    """Whether nine of ten cells pass a test; `counts` has their texts with how often they occur.

    >>> are_most({"7": 9, "x": 1}, str.isdigit), are_most({"7": 8, "x": 2}, str.isdigit)
    (True, False)
    """
    left = FEW * sum(counts.values())
    for text, n in counts.items():
        if not test(text):
            left -= n
            if left < 0:
                return False
    return True


@frozen
class Writing:
    """A way to write numbers or dates that suits a column, and the texts that it cannot read."""

    form: ColumnFormat
    odd: tuple[str, ...] = ()
    rivals: tuple[ColumnFormat, ...] = ()
    """The ways that suit the column too, and mean other values."""
    why: str = ""
    """Why the form is taken and none of its rivals."""

    @property
    def full_form(self) -> ColumnFormat:
        """The form, with the texts that it cannot read as missing ones."""
        return evolve(self.form, na_values=sorted(self.odd))

    def select(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Keep the texts that are read as numbers or dates."""
        known = without_blanks(counts)
        return {text: n for text, n in known.items() if text not in self.odd}


def guess_number_writing(
    counts: Mapping[str, int], decimal_comma: bool | None = None
) -> Writing | None:
    """Guess how numbers are written: the way that reads the most cells, if nine of ten are numbers;
    `counts` has the texts of the cells with how often they occur.

    Where "1,234" or "1.234" can be read in two ways, the numbers without a separator may decide;
    if not, the other columns of the table do, if they have a `decimal_comma` or, False, a decimal
    point. Otherwise money has no three decimals, a comma separates thousands, and a point is
    decimal. If some numbers have a percent sign and the others are below 1, these are fractions.

    >>> describe(guess_number_writing(Counter(["$1,200", "$950.50", "n/a"])).form)
    'thousands = ",", unit = "$"'
    >>> guess_number_writing(Counter(["1,234", "5,678"])).rivals[0].decimal
    ','
    >>> guess_number_writing(Counter(["1.544", "958", "2.300", "74"])).form.thousands
    '.'
    >>> guess_number_writing(Counter(["1,5 kg", "12 kg"])).form.unit
    'kg'
    >>> describe(guess_number_writing(Counter(["$1.2M", "$350k", "$12"])).form)
    'unit = "$", multipliers = { k = 1_000, M = 1_000_000 }'
    >>> describe(guess_number_writing(Counter(["39%", "12%", "0.2"])).form)
    'multipliers = { "%" = 0.01 }'
    """
    known = without_blanks(counts)
    looks = find_numbers(known)
    total = sum(n for text, n in known.items() if text.lower() not in MISSING_WORDS)
    if sum(n for _, _, n in looks) < (1 - FEW) * total or not looks:
        return None
    multipliers = _find_multipliers(looks)
    unit = _join_units(_count_units(looks, multipliers))
    numbers = {found["number"] for _, found, _ in looks}
    texts = [text for text, _, _ in looks]
    best: list[ColumnFormat] = []
    most = 0
    for thousands, decimal in _separators("".join(numbers), decimal_comma):
        form = ColumnFormat(decimal, thousands, unit, multipliers)
        n_read = sum(known[text] for text in texts if form.parse_number(text) is not None)
        if n_read > most:
            best, most = [], n_read
        if n_read == most:
            best.append(form)
    if not best or most < (1 - FEW) * total:
        return None
    form, why = _choose(best, numbers, decimal_comma)
    odd = tuple(text for text in known if form.parse_number(text) is None)
    rivals = [
        other
        for other in best
        if why and any(form.parse_number(text) != other.parse_number(text) for text in texts)
    ]
    return Writing(_with_fractions(form, texts), odd, tuple(rivals), why)


def _choose(
    forms: Sequence[ColumnFormat], numbers: Collection[str], decimal_comma: bool | None
) -> tuple[ColumnFormat, str]:
    """Choose whether a mark separates thousands or is decimal; say why, where there is doubt."""
    with_thousands = [form for form in forms if form.thousands in {",", "."}]
    without = [form for form in forms if not form.thousands]
    if not with_thousands or not without:
        return forms[0], ""
    grouped, fraction = with_thousands[0], without[0]
    mark, units = grouped.thousands, {*grouped.unit.split("|")}
    if units & _WHOLE_MONEY:
        return grouped, ""
    if largest := _largest_below_thousands(numbers, mark):
        name = "comma" if mark == "," else "point"
        return grouped, f"numbers without a {name} go up to {largest}, so the others are larger"
    if decimal_comma is not None:
        return (fraction if decimal_comma == (mark == ",") else grouped), "as in other columns"
    if any(map(_MONEY.fullmatch, units)):
        return grouped, "amounts of money have no three decimals"
    if mark == ",":
        return grouped, "three digits follow each comma"
    return fraction, "a point is decimal"


def _largest_below_thousands(numbers: Iterable[str], mark: str) -> int:
    """Return the largest number without a mark, if it shows that the mark separates thousands: it
    is below 1000, and too large to be a neighbour of the others, if theirs were decimal. Otherwise
    return 0.
    """
    heads = [number.partition(mark)[0] for number in numbers if mark in number]
    largest_head = max((int(head) for head in heads if head.isdecimal()), default=0)
    bare = [int(number) for number in numbers if number.isdecimal() and int(number)]
    largest = max(bare, default=0)
    return largest if len(bare) > 1 and min(99, largest_head) < largest < 1000 else 0


def _with_fractions(form: ColumnFormat, texts: Iterable[str]) -> ColumnFormat:
    """Read percents as fractions if they stand beside such."""
    if form.unit != "%":
        return form
    plain = evolve(form, unit="")
    numbers = {text: form.parse_number(text) or 0 for text in texts}
    bare = [abs(numbers[text]) for text in texts if plain.parse_number(text) is not None]
    if sum(bare) > 0 and max(bare) <= 1 < max(numbers.values()) and {*bare} - {0, 1}:
        return evolve(plain, multipliers={"%": 0.01})
    return form


def find_numbers(counts: Mapping[str, int]) -> list[tuple[str, re.Match[str], int]]:
    """Find the texts that look like a number with or without a unit, and how often they occur."""
    return [
        (text, found, n)
        for text, n in counts.items()
        if len(text) <= MAX_LENGTH and (found := _CELL.fullmatch(_ascii(text)))
    ]


def _ascii(text: str) -> str:
    return text if text.isascii() else with_ascii_digits(text)


def _find_multipliers(looks: Sequence[tuple[str, re.Match[str], int]]) -> dict[str, float]:
    """Find the multipliers of a column, "k" and "M", with their factors.

    A small m or b is one beside others only, since it may be a metre. Numbers with a unit that no
    multiplied number has ("34M" and "28F") tell that all are units.
    """
    multiplied = dict[str, set[str]]()
    others = {""}
    for _, found, _ in looks:
        multiplier, unit = _split_suffix(found)
        (multiplied.setdefault(multiplier, set()) if multiplier else others).add(unit)
    if multiplied.keys() <= {"m", "b"} or not others <= {"", *chain(*multiplied.values())}:
        return {}
    return {name: 10.0 ** _power(name) for name in sorted(multiplied, key=_power)}


def _split_suffix(found: re.Match[str]) -> tuple[str, str]:
    """Split what stands beside a number into a multiplier, if there may be one, and the unit."""
    times = _MULTIPLIER.fullmatch(found["suffix"] or "")
    after = times["unit"] if times else found["suffix"]
    return times["name"] if times else "", _unit(found["prefix"], after)


def _unit(prefix: str | None, suffix: str | None) -> str:
    return "|".join(filter(None, (prefix, suffix))).strip()


def _power(multiplier: str) -> int:
    return _POWERS[multiplier.lower().removesuffix(".")]


def _count_units(
    looks: Sequence[tuple[str, re.Match[str], int]], multipliers: Collection[str] = ()
) -> Counter[str]:
    """Count the units; one that stands beside a single number only ("5more") is none."""
    units, numbers = Counter[str](), dict[str, set[str]]()
    for _, found, n in looks:
        multiplier, unit = _split_suffix(found)
        if multiplier not in multipliers:
            unit = _unit(found["prefix"], found["suffix"])
        units[unit] += n
        numbers.setdefault(unit, set()).add(found["number"])
    alone = [unit for unit in units if unit and len(numbers[unit]) == 1 and "" in units]
    return Counter({unit: n for unit, n in units.items() if unit not in alone})


def find_units(counts: Mapping[str, int]) -> Counter[str]:
    """Count the units of cells that look like numbers.

    >>> find_units({"5 kg": 2, "7 kg": 1, "9 lb": 1})
    Counter({'kg': 3, 'lb': 1})
    """
    return _count_units(find_numbers(counts))


def _join_units(units: Mapping[str, int]) -> str:
    """Return the unit of most cells, with those that differ in a plural, a point or a case, or as
    the ends of ordinals do.
    """
    if "th" in units and units.keys() <= _ORDINALS | {""}:
        return "|".join(sorted(_ORDINALS))
    common = _singular(max(units, key=lambda unit: (unit != "", units[unit])))
    return "|".join(sorted(unit for unit in units if unit and _singular(unit) == common))


def _singular(unit: str) -> str:
    return unit.lower().replace(".", "").removesuffix("s")


def _separators(numbers: str, decimal_comma: bool | None) -> Iterator[tuple[str, str]]:
    """Yield the separators of thousands and of decimals that may be meant, the likeliest first."""
    points = [("", "."), (",", ".")]
    commas = [("", ","), (".", ",")]
    pairs = [*reversed(commas), *points] if decimal_comma else [*points, *reversed(commas)]
    for thousands, decimal in pairs:
        if (thousands in numbers) and (decimal == "." or "," in numbers or thousands == "."):
            yield thousands, decimal
    has_mark = "." in numbers or "," in numbers
    for thousands, pattern in {" ": r"\s", "'": "['’]", "_": "_"}.items():
        if re.search(pattern, numbers):
            yield from ((thousands, mark) for mark in (".," if has_mark else [""]))


def describe(form: ColumnFormat) -> str:
    """Describe a format as TOML does: its fields that are not the default.

    >>> describe(ColumnFormat(thousands=",", unit="m2"))
    'thousands = ",", unit = "m2"'
    """
    plain = ColumnFormat()
    names = [
        field.name for field in fields(ColumnFormat) if field.name not in {"na_values", "merge"}
    ]
    changed = [name for name in names if getattr(form, name) != getattr(plain, name)]
    return ", ".join(f"{name} = {inline(getattr(form, name))}" for name in changed)


def has_leading_zeros(texts: Iterable[str]) -> bool:
    """Whether some of the texts are digits that begin with a zero, as codes do and amounts do not.

    >>> has_leading_zeros(["12", "007"]), has_leading_zeros(["0", "0.5"])
    (True, False)
    """
    return any(_ZERO_FIRST.fullmatch(text) for text in texts if text.startswith(("0", "-0")))


@frozen
class Sentinel:
    """A value that may mean a missing one: how many rows have it, and the range of the others."""

    value: float
    count: int
    low: float
    high: float


def find_sentinels(values: np.ndarray, counts: np.ndarray) -> list[Sentinel]:
    """Find numbers that stand apart from all others and often, such as -999; values are float64 [n]
    without NaN, and `counts`, int64 [n], the rows that have them.

    They are the lowest or the highest, in at least two rows and 2% of all. They are further away
    than the others spread; half as far is enough for 0, and a quarter for nines and for the one
    negative number.

    >>> years = np.array([1950.0, 1961, 1972, 1985, 1999, 2010, -999, 0])
    >>> found = find_sentinels(years, np.array([3, 3, 3, 3, 3, 3, 3, 2]))
    >>> [(sentinel.value, sentinel.count) for sentinel in found]
    [(-999.0, 3), (0.0, 2)]
    """
    found: list[Sentinel] = []
    distinct, inverse = np.unique(values, return_inverse=True)
    counts = np.bincount(inverse, weights=counts).astype(np.int64)
    while len(distinct) > 2:
        apart = [k for k in (0, len(distinct) - 1) if _stands_apart(distinct, counts, k)]
        if len(distinct) <= 5:  # as few may be codes
            apart = [k for k in apart if _is_nines(distinct[k]) and abs(distinct[k]) >= 99]
        if not apart:
            break
        k = apart[0]
        others = np.delete(distinct, k)
        found.append(Sentinel(float(distinct[k]), int(counts[k]), 0.0, 0.0))
        distinct, counts = others, np.delete(counts, k)
    low, high = (distinct[0], distinct[-1]) if len(distinct) else (0.0, 0.0)
    return [evolve(sentinel, low=float(low), high=float(high)) for sentinel in found]


def _is_nines(value: float) -> bool:
    return set(f"{abs(value):.15g}") == {"9"}


def _stands_apart(distinct: np.ndarray, counts: np.ndarray, k: int) -> bool:
    if counts[k] < max(2, 0.02 * counts.sum()):
        return False
    value, others = distinct[k], np.delete(distinct, k)
    spread, gap = others[-1] - others[0], np.abs(others - value).min()
    if not np.isfinite(spread):
        return False
    is_nines = _is_nines(value)
    if value < 0 <= others[0] and (is_nines or value == -1):
        return True
    needed = 0.25 if is_nines else 0.5 if value == 0 else 1.0
    return bool(gap > needed * spread)
