"""The command `mip`, and what ends it while its modules are imported, which can take seconds."""

from __future__ import annotations

import os
import signal

from mip.cli.signals import SIGNALS, end_while_loading


def main() -> None:
    """Run the command line; a signal that comes before it has begun ends it in one line."""
    numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
    for number in heard:
        signal.signal(number, end_while_loading)
    from mip.cli.app import main as command

    try:
        command()
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > 128:
            # A thread that the signal came upon while it was started would be waited for, for ever.
            os._exit(ended.code)
        raise
    finally:
        # All is said, so that Ctrl-C has nothing to add while Python ends.
        for number in heard:
            signal.signal(number, signal.SIG_DFL)


if __name__ == "__main__":
    main()
