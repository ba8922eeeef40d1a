"""A process beside the workers, with stand-ins for it that end, hang, and keep ending."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

import gevent

from geard.supervisor.beside import Beside
from tests.support.waiting import DEADLINE_SECONDS

HEAD = (
    "import os, socket, sys, time\nlink = socket.socket(fileno=int(sys.argv[1]))\n"
    "link.setblocking(True)\nlines = link.makefile('rb')\n"
)
ECHO = "for line in lines:\n    link.sendall(line)\n"


def until(probe: Callable[[], object]) -> None:
    """Let the loop turn until the probe is true."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not probe():
        assert time.monotonic() < deadline
        gevent.sleep(0.005)


def beside(code: str, heard: list[bytes]) -> Beside:
    command = [sys.executable, "-c", HEAD + code]
    return Beside(
        "helper",
        lambda descriptor: [*command, str(descriptor)],
        first_line=lambda: b"hello\n",
        on_line=heard.append,
        jitter=lambda: 0.0,
    )


def is_there(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


def test_it_is_told_its_first_line_whenever_it_starts_and_ends_when_told_to() -> None:
    heard: list[bytes] = []
    helper = beside(ECHO, heard)
    helper.start()
    first = helper.pid
    assert first
    until(lambda: heard == [b"hello"])
    os.kill(first, 9)
    until(lambda: heard == [b"hello", b"hello"])
    helper.send_line(b"more\n")
    until(lambda: heard[2:] == [b"more"])
    second = helper.pid
    assert second not in (None, first)
    helper.stop()
    until(lambda: helper.pid is None)
    gevent.sleep(0.05)
    assert helper.pid is None
    assert second is not None
    assert not is_there(second)


def test_one_that_keeps_dying_is_made_to_wait() -> None:
    heard: list[bytes] = []
    helper = beside("link.sendall(b'begun\\n')\n", heard)
    helper.start()
    until(lambda: len(heard) == 3)  # the second is started at once, the third half a second later
    begin = time.monotonic()
    until(lambda: len(heard) == 4)
    assert time.monotonic() - begin > 0.5
    helper.stop()


def test_one_that_does_not_end_is_killed() -> None:
    heard: list[bytes] = []
    helper = beside("link.sendall(b'begun\\n')\ntime.sleep(600)\n", heard)
    helper.start()
    until(lambda: heard)
    pid = helper.pid
    assert pid
    helper.stop()
    helper.stop()
    until(lambda: helper.pid is None)
    assert not is_there(pid)
