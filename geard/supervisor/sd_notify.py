"""systemd's notify protocol, the part a service needs: one datagram for each change of state (see sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from typing import Final

from geard.printable import printable

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
MOST_STATUS_BYTES: Final = 2048
"""systemd ignores a message of over 4096 bytes, with the READY=1 that is in it."""
WATCHDOG: Final = "WATCHDOG=1"


class SdNotify:
    """Tells the service manager about us; does nothing where there is none."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None  # kept: who has no descriptors left can still say that it lives
        self.watchdog_seconds = _watchdog_seconds(environ) if address else None
        """The service manager kills us when it hears no WATCHDOG=1 for so long; None: it does not watch."""

    def send(self, *assignments: str) -> None:
        """Send these. Never blocks and never fails: a service manager that does not listen is no reason to stop."""
        if not self._address:
            return
        try:
            if self._socket is None:
                kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.sendto("\n".join(assignments).encode(), self._address)
        except OSError:
            return  # its queue is full, or it is gone, or there is no descriptor to be had yet


def reloading() -> tuple[str, str]:
    """That a reload begins now. The time is what tells systemd which reload a later READY=1 ends."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def extend_timeout(seconds: float) -> str:
    """That starting or stopping goes on and may take so much longer."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}"


def status(text: str) -> str:
    """The line that `systemctl status` shows."""
    line = printable(" ".join(text.split())).encode()
    cut = line if len(line) <= MOST_STATUS_BYTES else line[:MOST_STATUS_BYTES] + "…".encode()
    return f"STATUS={cut.decode(errors='ignore')}"


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    microseconds = environ.get("WATCHDOG_USEC", "")
    ours = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(microseconds) / 1_000_000 if microseconds.isdigit() and ours else None
