"""What a fork of a worker process may do: run on from os.fork() to its end, and nothing of geard.

Rule: whoever calls user code in a worker process asks `end_if_forked` once it is back. In the process itself that is
a look at a flag; in a child that user code forked and let return, it is the child's end.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Final, NoReturn


class State:
    """`forked`: whether this process is a child that user code has forked off a worker process."""

    forked = False


STATE: Final = State()


def end_if_forked(error: BaseException | None = None) -> None:
    """End this process if it is a forked child whose user code has returned, or raised `error`."""
    if STATE.forked:
        end(error)


def end(error: BaseException | None = None) -> NoReturn:
    """End a forked child with the exit code that Python would have given it. No exit handlers run: they are the
    worker process's."""
    code = 0
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if error.code is not None and not isinstance(error.code, int):
            print(error.code, file=sys.stderr)
    elif error is not None:
        code = 1
        traceback.print_exception(error)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue  # nobody reads it any more
    os._exit(code & 0xFF)
