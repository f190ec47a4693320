"""The columns of a table that a spec reads and predicts."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import evolve

from mip.branches import Image, branch_columns, leaf_branches, path_in_spec
from mip.data import AnyTable, Rows, Table, TableLike, as_table, digest_texts
from mip.errors import SpecError, hint
from mip.heads import column_heads
from mip.spec import Spec

IMAGE_COLUMNS = ("image", "file_name")
"""The names of the column of photos of a folder of images, without metadata and with it."""


def table_of(spec: Spec, rows: AnyTable | TableLike, name: str = "table") -> AnyTable:
    """Convert rows to a table whose file and cells are read as the spec says (`data.format` and
    `data.columns`). The photos of a folder of images are those that the spec reads, whether the
    folder has metadata or not (`IMAGE_COLUMNS`).
    """
    table = _with_image_column(spec, as_table(rows, name, {}, spec.data.format))
    return table.with_formats(spec.data.columns) if spec.data.columns else table


def _with_image_column(spec: Spec, table: AnyTable) -> AnyTable:
    for ours, other in (IMAGE_COLUMNS, IMAGE_COLUMNS[::-1]):
        is_same = ours in image_columns(spec) and other not in columns_of(spec)
        has_other = other in table.columns and ours not in table.columns
        if is_same and has_other and isinstance(table, Table):
            return evolve(table, frame=table.frame.rename(columns={other: ours}))
    return table


def target_columns(spec: Spec) -> list[str]:
    """Return the columns that a spec predicts, in the order of its heads."""
    return [head.column for _, head in column_heads(spec.head)]


def image_columns(spec: Spec) -> list[str]:
    """Return the columns from which a spec reads photos, in the order of its branches."""
    images = [branch for _, branch in leaf_branches(spec.root) if isinstance(branch, Image)]
    return [column for branch in images for column in branch.columns]


def columns_of(spec: Spec) -> list[str]:
    """Return the columns that a spec reads or predicts, sorted."""
    read = (column for _, branch in leaf_branches(spec.root) for column in branch_columns(branch))
    return sorted({*target_columns(spec), *read})


def check_columns(spec: Spec, table: Rows, target: bool = True) -> None:
    """Raise SpecError for a column of the spec that the table lacks, and for a target that a branch
    reads.
    """
    heads = column_heads(spec.head) if target else ()
    needed = [(f"{path}.column = '{head.column}'", head.column) for path, head in heads]
    for path, branch in leaf_branches(spec.root):
        for column in branch_columns(branch):
            needed.append((f"{path_in_spec(path)}.columns: '{column}'", column))
            if column in target_columns(spec):
                raise SpecError(f"{path_in_spec(path)}.columns: '{column}' is the target")
    for where, column in needed:
        if column not in table.columns:
            known = hint(column, table.columns)
            raise SpecError(f"{where} is not a column of {table.name}{known}")


def fingerprint(spec: Spec, table: Rows, digests: Mapping[str, str] | None = None) -> str:
    """Return a SHA-256 of everything that a spec reads of these rows. `digests` are those of their
    columns (`table.digest()`), if they are known.
    """
    columns = columns_of(spec)
    digests = digests or table.digest(columns)
    return digest_texts((column, digests[column]) for column in columns)
