"""Verbs for what is kept on disk: cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.terminal import say


def cache(
    folder: Annotated[Path | None, typer.Option(metavar="DIR", help="Default: the user's.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove what is there.")] = False,
) -> None:
    """List the cached photos on disk, or remove them."""
    where = folder or mip.images.default_cache_folder()
    if clear:
        say(f"{where}: {mip.images.clear_caches(where):,} bytes removed")
    else:
        say(mip.runs.files_table(f"{where}", mip.images.list_caches(where)))
