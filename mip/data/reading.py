"""Reading a table from a file, its shards, or a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mip.data.checks import check_filled
from mip.data.csv_format import PLAIN, CsvFormat
from mip.data.formats import FORMATS
from mip.data.formats.csv_files import read_csv
from mip.data.formats.image_folder import read_image_folder
from mip.data.formats.part_files import read_one_by_one
from mip.data.memory import from_frame
from mip.data.parts import parts_of_files
from mip.data.paths import METADATA, display_name, table_files
from mip.data.table import Table
from mip.errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read(path: str | Path, csv: CsvFormat = PLAIN) -> Table:
    """Read a table from a file, a folder, or the files that match a pattern.

    A file is `.csv`, `.tsv`, `.jsonl` (or `.ndjson`), `.parquet` or, with the extra `excel`,
    `.xlsx`. A pattern such as "data/part-*.parquet", with wildcards (`*`, `?`, `[…]`) in its last
    part, names shards: they are concatenated in the order of their names, and row ids continue from
    file to file. A folder holds images and a table `metadata.csv`, `.jsonl` or `.parquet` whose
    column `file_name` names them (also one in each of train, valid and test), or Parquet shards, or
    train.csv and test.csv, or else images alone (`read_image_folder`): loose, in class folders, or
    in class folders below train, valid and test. Image paths are relative to the folder that the
    files are in.

    Where the names of all files, or of their folders, say train and another part, as in
    "train-00000-of-00002.parquet" and "test/metadata.csv", `part` is that of each row. Columns that
    only the files of valid or test lack are blank in their rows, with a MipWarning.

    `csv` says how CSV files are written; `sniff_csv` recognises it. Their cells are text, and the
    spec says what each column means: "00123" stays as it is, and whether "NA" is a category or a
    missing number depends on the kind that reads it. The cells of JSON lines keep their types,
    lists included; a key that an object lacks is a missing cell.

    Raises DataError if there is no such file, it has no rows, it cannot be read as a table, or its
    shards have different columns.
    """
    path = Path(path)
    try:
        files = table_files(path)
        if not files:
            return read_image_folder(path)
        name, root = display_name(path), path if path.is_dir() else path.parent
        parts = parts_of_files(files, root)
        are_metadata = path.is_dir() and files[0].stem == METADATA
        if parts or are_metadata:
            read_file = partial(_read_files, name=name, csv=csv)
            frame = read_one_by_one(files, root, read_file, parts, are_metadata)
        else:
            frame = _read_files(files, name, csv)
        return check_filled(from_frame(frame, root, name))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error}") from error


def _read_files(files: Sequence[Path], name: str, csv: CsvFormat) -> pd.DataFrame:
    read_files = FORMATS[files[0].suffix.lower()]
    return read_files(files, name, csv) if read_files is read_csv else read_files(files, name)
