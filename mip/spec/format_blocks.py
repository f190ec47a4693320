"""The formats of columns as TOML, with what is proposed beside them as comments."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import fields

from mip.data import ColumnFormat
from mip.errors import one_line
from mip.spec.guess_formats import FormatGuess
from mip.spec.toml_text import inline, key


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
    if found.proposed_merge:
        values.append(f"# merge = {inline(found.proposed_merge)}")
    return "\n".join([*notes, f"[data.columns.{key(found.column)}]", *values, ""])
