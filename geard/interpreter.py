"""The interpreters that geard starts: fresh ones, each with a module of geard as its program.

Rules:
- Where gevent's patch is needed it comes before all imports: `python -m geard.x` imports `geard` before `x`.
- A file in the current directory, which may be called logging.py, must not stand in for Python's own: -P.
- systemd's protocol is spoken by the process that systemd has started, and by none that this one starts.
"""

from __future__ import annotations

import os
import sys
from typing import Final

NOT_INHERITED: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


def plain(module: str, *arguments: object) -> list[str]:
    """The command that runs the module as it is."""
    return [sys.executable, "-P", "-m", module, *map(str, arguments)]


def patched(module: str, *arguments: object) -> list[str]:
    """The command that patches, and then runs the module."""
    return plain("gevent.monkey", "--module", module, *arguments)


def environment() -> dict[str, str]:
    """What such a process has of this one's environment."""
    return {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
