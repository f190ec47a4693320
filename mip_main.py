"""The command `mip` while the library is being imported, which takes seconds."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def main() -> None:
    """Run the command line; a signal that comes before it has begun ends it in one line."""
    numbers = [number for number in _numbers() if signal.getsignal(number) != signal.SIG_IGN]
    for number in numbers:
        signal.signal(number, _end)
    from mip.cli import main as command

    try:
        command()
    except SystemExit as ended:
        if isinstance(ended.code, int) and ended.code > 128:
            # A thread that the signal came upon while it was started would be waited for, for ever.
            os._exit(ended.code)
        raise
    finally:
        # All is said, so that Ctrl-C has nothing to add while Python ends.
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _numbers() -> list[int]:
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def _end(number: int, frame: object) -> None:
    # An exception in the middle of an import may be taken for a module that is not there.
    with suppress(OSError):
        os.write(2, b"mip: stopped; nothing has begun\n")
    os._exit(128 + number)


if __name__ == "__main__":
    main()
