"""Image folders: photos, in class folders or loose, all in one part or in folders of parts."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath

from attrs import evolve

from mip.data.cells import IMAGE_SUFFIXES, as_text
from mip.data.formats import FORMATS
from mip.data.memory import from_columns
from mip.data.parts import check_no_stray, part_name
from mip.data.paths import display_name, walk_files
from mip.data.table import Table
from mip.errors import DataError, MipWarning

NOTE_SUFFIXES = (
    *(".csv", ".db", ".html", ".ini", ".json", ".jsonl", ".log", ".md", ".py", ".safetensors"),
    *(".toml", ".tsv", ".txt", ".xml", ".yaml", ".yml"),
)
"""The suffixes of files that often lie beside photos, and that nobody takes for one."""


def read_image_folder(folder: str | Path) -> Table:
    """Read a folder of images: column `image` (a path relative to it, also the label of the row),
    and `part` and `label` if its folders name these.

    If all folders at the top are named after parts (`part_name`: train, val, Test, …), `part` is
    train, valid or test, and class folders are those inside. `label` is the name of the class
    folder, however deep the image is in it; an image beside class folders has none. If there are
    only loose images, there is no column `label`.

    Images are recognised by suffix (`IMAGE_SUFFIXES`) and sorted by path; hidden files and
    `__MACOSX` are skipped, and so are notes (`NOTE_SUFFIXES`). Other files and linked folders are
    not read either, with a MipWarning that names them. A class folder without images yields no row.
    Raises DataError if there is no image, for an image or a folder of images beside the
    folders of the parts, and for two class folders whose names are one text ("1" and "1.0").
    """
    folder = Path(folder)
    images, ignored = find_images(folder)
    if notes := ignored + _deeper(images, folder):
        warnings.warn(
            f"{folder}: {len(images)} image{'s' * (len(images) > 1)}{notes}",
            MipWarning,
            stacklevel=2,
        )
    names = [path.as_posix() for path in images]
    columns: dict[str, list[str | None]] = {"image": [*names]}
    has_parts = _has_parts({path.parts[0] for path in images if len(path.parts) > 1}, folder)
    labels = [_folder_at(int(has_parts), path) for path in images]
    _check_distinct(filter(None, labels), folder)
    columns |= {"label": labels} if any(labels) else {}
    columns |= {"part": [_part_of(path, folder) for path in images]} if has_parts else {}
    table = from_columns(columns, folder, display_name(folder))
    return evolve(table, frame=table.frame.set_axis(names))


def find_images(folder: Path) -> tuple[list[Path], str]:
    """Find the images below a folder that is no table, sorted, by their paths relative to it; and
    say what may be images and is not read.

    Raises DataError if there is no image, naming tables that can be read by themselves.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    paths = sorted(walk_files(folder))
    images = [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    ignored = _ignored(paths) + _links(folder)
    if not images:
        tables = [str(folder / path) for path in paths if path.suffix.lower() in FORMATS]
        others = f"; give one of its tables: {', '.join(tables[:3])}" if tables else ignored
        raise DataError(f"{folder}: holds neither .parquet files nor images{others}")
    return images, ignored


def _ignored(paths: Sequence[PurePath]) -> str:
    """Describe the files that may be photos but are not read, by suffix."""
    known = {*IMAGE_SUFFIXES, *NOTE_SUFFIXES}
    suffixes = [path.suffix.lower() for path in paths]
    kinds = Counter(suffix or "no suffix" for suffix in suffixes if suffix not in known)
    files = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(8))
    return f"; files that are not read: {files}" if files else ""


def _links(folder: Path) -> str:
    folders = [Path(place, name) for place, names, _ in os.walk(folder) for name in sorted(names)]
    links = [path.name for path in folders if path.is_symlink()]
    return f"; links to folders are not followed: {', '.join(links[:8])}" if links else ""


def _deeper(images: Sequence[PurePath], folder: Path) -> str:
    """Say that the classes may be a folder deeper, if there is one folder, and it holds several."""
    tops = {path.parts[:-1][:1] for path in images}
    inside = {path.parts[:2] for path in images if len(path.parts) > 2}
    if len(tops) > 1 or len(inside) < 2:
        return ""
    top = min(inside)[0]
    return f"; all are in {top!r}: if its folders are the classes, read {folder / top}"


def _has_parts(tops: Iterable[str], folder: Path) -> bool:
    parts = {name: part_name(name) for name in tops}  # a class may be called train
    cure = "move it into one of them, or away"
    check_no_stray(folder, parts, "folders of the parts", cure)
    return bool(parts) and all(parts.values())


def _check_distinct(labels: Iterable[str], folder: Path) -> None:
    names: dict[str, str] = {}
    for label in sorted(labels):
        if (other := names.setdefault(as_text(label), label)) != label:
            raise DataError(
                f"{folder}: the class folders {other!r} and {label!r} would be one class, "
                f"{as_text(label)!r}: rename one of them"
            )


def _folder_at(depth: int, path: PurePath) -> str | None:
    return path.parts[depth] if len(path.parts) > depth + 1 else None


def _part_of(path: PurePath, folder: Path) -> str | None:
    if len(path.parts) == 1:
        raise DataError(f"{folder}: {path} is in none of the folders of the parts")
    return part_name(path.parts[0])
