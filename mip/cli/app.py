"""The command line: thin verbs over the library, one line for every mistake."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Annotated

import typer
from typer.core import TyperGroup

import mip
from mip.cli import keep, look, start, train, use
from mip.cli.signals import Stopped, signals
from mip.cli.terminal import WARNINGS, drop_unwritten, emit, note, show_warning
from mip.errors import MipError

VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (start.new, start.check, start.schema, start.demo_data, start.demo),
    "Train": (train.lr, train.fit, train.crossval, train.sweep),
    "Use": (use.predict, use.evaluate, use.ensemble),
    "Look": (look.show, look.baseline, look.replay),
    "Keep": (keep.cache,),
}
"""The verbs as `mip --help` groups them."""


def command_name(verb: Callable[..., None]) -> str:
    """Name a verb on the command line.

    >>> command_name(start.demo_data)
    'demo-data'
    """
    return verb.__name__.replace("_", "-")


class GroupedHelp(TyperGroup):
    """A command whose help lists its verbs by group."""

    def format_commands(self, ctx, formatter):  # type: ignore[no-untyped-def]
        """Write a section for each group of verbs."""
        for title, verbs in VERBS.items():
            names = [command_name(verb) for verb in verbs]
            with formatter.section(title):
                formatter.write_dl([(n, self.commands[n].get_short_help_str(60)) for n in names])


def _print_version(asked: bool) -> None:
    if asked:
        emit(f"mip {mip.__version__}\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Train models on table columns and images together."""


def make_app() -> typer.Typer:
    """Make the command of all verbs."""
    app = typer.Typer(
        cls=GroupedHelp,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for verb in (verb for verbs in VERBS.values() for verb in verbs):
        app.command(command_name(verb))(verb)
    return app


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 2, and so is a file that
    cannot be read or written. A signal is one line and 128 + its number.
    """
    shown: list[str] = []
    warnings.showwarning = lambda message, *_, **__: show_warning(shown, str(message))
    try:
        with signals():
            _check_words(sys.argv[1:])
            make_app()(prog_name="mip")
    except MipError as error:
        note(f"error: {error}")
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        note(f"error: {where}{error.strerror}")
        sys.exit(2)
    except Stopped as stop:
        number, kept = stop.args
        note(f"stopped; {kept}")
        sys.exit(128 + number)
    finally:
        if len(shown) > WARNINGS:
            note(f"warning: … and {len(shown) - WARNINGS} more")
        drop_unwritten()


def _check_words(words: Sequence[str]) -> None:
    # A path that is empty would be taken for the current folder.
    for before, word in pairwise(["mip", *words]):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            raise MipError(f"the value after '{word.rstrip('=') or before}' is empty")
