"""The command `mip`, which a signal can end even while its modules are imported."""

from __future__ import annotations

import os
import signal

from mip.cli.signals import end_while_loading, set_handler


def main() -> None:
    """Run the command line. Importing it can take seconds; a signal then ends it in one line."""
    # Arrow's allocator would keep what is freed for later, half as much as a table takes.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "0")
    handled = set_handler(end_while_loading)
    from mip.cli.app import main as run_command

    try:
        run_command()
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > 128:
            # Python would wait, maybe forever, for a thread that the signal caught at its start.
            os._exit(ended.code)
        raise
    finally:
        # All output is written, so that Ctrl-C has nothing to add while Python ends.
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
