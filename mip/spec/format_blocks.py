"""The formats of columns as TOML, with what is proposed beside them as comments."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from attrs import evolve, fields

from mip.data import ColumnFormat
from mip.errors import one_line, quote
from mip.spec.distinct_cells import DistinctCells
from mip.spec.guess_formats import FormatGuess
from mip.spec.guess_targets import TargetGuess
from mip.spec.toml_text import inline, key

FEW_ROWS = 3
"""A class with fewer rows is in no more than two of the three parts."""


def propose_for_rare_classes(
    formats: Mapping[str, FormatGuess], cells: DistinctCells, target: TargetGuess
) -> dict[str, FormatGuess]:
    """Propose to leave out the classes of the target that have too few rows to be in each part."""
    column = target.column
    if target.kind not in {"binary", "multiclass"} or column not in formats:
        return dict(formats)
    counts = cells.count(cells.texts())
    rare = sorted(word for word, n in counts.items() if n < FEW_ROWS)
    if not rare or len(counts) - len(rare) < 2:
        return dict(formats)
    listed = ", ".join(quote(word) for word in islice(rare, 5)) + ", …" * (len(rare) > 5)
    one = len(rare) == 1
    why = f"{'class' if one else 'classes'} {listed}: fewer than {FEW_ROWS} rows"
    note = (
        f"{why}, all or most in train, so {'it is' if one else 'they are'} hardly scored; leave "
        f"{'it' if one else 'them'} out (na_values = {inline(tuple(rare[:5]))}), or merge "
        f"{'it' if one else 'them'} with another class in the table"
    )
    found = formats[column]
    changed = evolve(found, notes=(*found.notes, note), proposed=tuple(rare), why_proposed=why)
    return {**formats, column: changed}


def format_blocks(formats: Mapping[str, FormatGuess]) -> list[str]:
    """Write a table `[data.columns.NAME]` for each column that is not plain."""
    return [_block(found) for found in formats.values() if not found.is_plain]


def _block(found: FormatGuess) -> str:
    plain = ColumnFormat()
    names = [field.name for field in fields(ColumnFormat)]
    changed = [name for name in names if getattr(found.form, name) != getattr(plain, name)]
    notes = [f"# {one_line(note)}" for note in found.notes]
    values = [f"{name} = {inline(getattr(found.form, name))}" for name in changed]
    if found.proposed:
        values.append(f"# na_values = {inline((*found.form.na_values, *found.proposed))}")
    return "\n".join([*notes, f"[data.columns.{key(found.column)}]", *values, ""])
