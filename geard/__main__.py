"""The console script `geard`, and `python -m geard`.

Rules: nothing of weight is imported outside `main`, so that Ctrl-C ends a command quietly while it is still loading. On
the way out it is ignored: Python would die of one more by the signal, and not with our exit code, once its handlers are
gone or when a KeyboardInterrupt leaves `main`. A standard stream that is closed is opened on nothing: what is opened
next would have its number, and the log would be written into it.
"""

import os
import signal
import sys

from geard import exits
from geard.interrupt import interrupt


def main() -> None:
    """Run the command line."""
    try:
        try:
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in nohup
                signal.signal(signal.SIGINT, interrupt)
            _open_standard_streams()
            from geard.cli import main as command_line

            command_line()
        finally:
            _ignore_interrupts()
    except KeyboardInterrupt:
        _ignore_interrupts()
        sys.exit(exits.INTERRUPTED)


def _open_standard_streams() -> None:
    while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(lowest, True)
    os.close(lowest)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:  # it was closed when Python started
            stream = open(number, "w" if number else "r", encoding="utf-8", closefd=False)  # noqa: SIM115 - it stays open
            setattr(sys, name, stream)


def _ignore_interrupts() -> None:
    while True:
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return
        except KeyboardInterrupt:  # one that came before
            continue


if __name__ == "__main__":
    main()
