"""The formats of table files, one per module.

A format is a function that reads files into one DataFrame, in the order of the files, and raises
DataError for what it cannot read. To add one, write such a function in a module here and give its
suffixes a line in `FORMATS`; tests/data/test_reading.py has a line per format too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.formats.csv_files import read_csv
from mip.data.formats.json_lines import read_json_lines
from mip.data.formats.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

FORMATS: Mapping[str, Callable[[Sequence[Path], str], pd.DataFrame]] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".tsv": read_csv,
}
"""The reader of each suffix, a function of the files and the table's name in error texts."""
