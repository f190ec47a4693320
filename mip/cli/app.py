"""The command line: its verbs, and one line for every mistake."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import mip
from mip.cli import explain, keep, look, start, train, use
from mip.cli.signals import Stopped, signals
from mip.cli.synonyms import check_options, check_verb
from mip.cli.terminal import MAX_WARNINGS, drop_unwritten, note, print_warning, write_stdout
from mip.errors import MipError, one_line

VERBS: dict[str, tuple[Callable[..., None], ...]] = {
    "Start": (start.new, start.check, start.schema, start.demo_data, start.demo),
    "Train": (train.lr, train.fit, train.crossval, train.sweep, train.tune),
    "Use": (use.predict, use.evaluate, use.ensemble, use.calibrate, explain.embed),
    "Look": (look.show, look.baseline, explain.explain, look.replay),
    "Keep": (keep.cache,),
}
"""The verbs as `mip --help` groups them."""


def command_name(verb: Callable[..., None]) -> str:
    """Return the name of a verb on the command line.

    >>> command_name(start.demo_data)
    'demo-data'
    """
    return verb.__name__.replace("_", "-")


UsageError: Any = typer.BadParameter.__base__
"""What an argument that is missing or has a wrong value raises. Which package defines it depends on
the version of Typer.
"""


VALUES_LEFT_OUT = {"--pretrained": "DEFAULT"}
"""Options that may stand alone, and what they mean then."""


def with_values(words: Sequence[str]) -> list[str]:
    """Put a value behind each option that stands alone (`VALUES_LEFT_OUT`): before another option,
    or before a table.

    >>> with_values(["--pretrained", "--force"]), with_values(["--pretrained", "net.pt"])
    (['--pretrained', 'DEFAULT', '--force'], ['--pretrained', 'net.pt'])
    """
    completed = []
    for word, after in zip_longest(words, words[1:], fillvalue="-"):
        is_alone = after[:1] == "-" or (Path(after).exists() and not mip.nn.is_weights_file(after))
        left_out = [VALUES_LEFT_OUT[word]] if word in VALUES_LEFT_OUT and is_alone else []
        completed += [word, *left_out]
    return completed


class Verb(TyperCommand):
    """A command that suggests the intended option for an unknown one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words behind the verb."""
        args = with_values(args)
        params = [*self.params, self.get_help_option(ctx)]
        takes_value = {
            option: not getattr(param, "is_flag", False)
            for param in params
            if param is not None
            for option in (*param.opts, *param.secondary_opts)
            if option.startswith("-")
        }
        if not ctx.resilient_parsing:
            check_options(str(self.name), takes_value, args)
        return super().parse_args(ctx, args)


class GroupedHelp(TyperGroup):
    """A command whose help lists its verbs by group."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of verbs."""
        for title, verbs in VERBS.items():
            names = [command_name(verb) for verb in verbs]
            with formatter.section(title):
                formatter.write_dl([(n, self.commands[n].get_short_help_str(60)) for n in names])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb that the first word names."""
        if not ctx.resilient_parsing:  # as a shell does that completes half a line
            check_verb(args[0], self.commands)
        return super().resolve_command(ctx, args)


def _print_version(asked: bool) -> None:
    if asked:
        write_stdout(f"mip {mip.__version__}\n")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Train models on table columns and images together."""


def make_app() -> typer.Typer:
    """Make the command with all verbs."""
    app = typer.Typer(
        cls=GroupedHelp,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for verbs in VERBS.values():
        for verb in verbs:
            app.command(command_name(verb), cls=Verb)(verb)
    return app


def main() -> None:
    """Run the command line. A mistake, or a file that cannot be read or written, is one line and
    exit code 2; a signal is one line and exit code 128 + its number.
    """
    printed: list[str] = []
    warnings.showwarning = lambda message, *_, **__: print_warning(printed, str(message))
    try:
        with signals():
            words = sys.argv[1:] or ["--help"]
            _check_no_value_is_empty(words)
            sys.exit(make_app()(words, prog_name="mip", standalone_mode=False) or 0)
    except MipError as error:
        note(f"error: {error}")
        sys.exit(2)
    except UsageError as error:  # a value out of range, an argument that is missing
        note(f"error: {one_line(error.format_message())}")
        sys.exit(2)
    except OSError as error:
        if error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        note(f"error: {where}{error.strerror}")
        sys.exit(2)
    except Stopped as stopped:
        note(f"stopped; {stopped.what_is_kept}")
        sys.exit(128 + stopped.number)
    finally:
        if len(printed) > MAX_WARNINGS:
            note(f"warning: … and {len(printed) - MAX_WARNINGS} more")
        drop_unwritten()


def _check_no_value_is_empty(words: Sequence[str]) -> None:
    # An empty path would be taken for the current folder.
    for before, word in pairwise(["mip", *words]):
        if not word or re.fullmatch(r"--[\w-]+=", word):
            raise MipError(f"the value after '{word.rstrip('=') or before}' is empty")
