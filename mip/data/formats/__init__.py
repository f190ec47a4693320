"""The formats of table files, one per module.

A format is a function of files and a name for errors. It reads them into one DataFrame, in the
order of the files, and raises DataError for what it cannot read; that of CSV also takes a
`CsvFormat`. To add one, write such a function in a module here and give its suffixes a line in
`FORMATS`; tests/data/test_reading.py has a line per format too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mip.data.formats.csv_files import read_csv
from mip.data.formats.excel import read_excel
from mip.data.formats.json_lines import read_json_lines
from mip.data.formats.parquet import read_parquet

if TYPE_CHECKING:
    import pandas as pd

FORMATS: Mapping[str, Callable[..., pd.DataFrame]] = {
    ".csv": read_csv,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".tsv": read_csv,
    ".xlsx": read_excel,
}
"""The reader of each suffix, a function of the files and the table's name in error texts."""
