"""Verbs for what is kept on disk: cache."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import mip
from mip.cli.terminal import echo


def cache(
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Default: the user's cache folder.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the cached photos.")] = False,
) -> None:
    """List the cached photos on disk, or remove them."""
    folder = folder or mip.images.default_cache_folder()
    if clear:
        echo(f"{folder}: {mip.images.clear_caches(folder):,} bytes removed")
    else:
        echo(mip.runs.files_table(str(folder), mip.images.list_caches(folder)))
