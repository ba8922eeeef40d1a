"""The link to a worker process, with stand-ins for it that say the wrong thing, nothing, or too much."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable

import gevent
import pytest

from geard.config import Config
from geard.messages import Drain, DumpStacks, FromChild, Heartbeat, ListJobs, Ready, Start, dump
from geard.supervisor.process import WorkerProcess
from tests.support.waiting import DEADLINE_SECONDS

START = Start(Config(), 1, 1)
HEAD = (
    "import os, socket, subprocess, sys, time\nlink = socket.socket(fileno=int(sys.argv[1]))\nlink.setblocking(True)\n"
)
READY = dump(Ready(("a:1",)))
BEAT = dump(Heartbeat(0, 50, 7, 0, (), (), 0))


class Link:
    """A worker process that runs `code`, and what is heard of it."""

    def __init__(self, code: str, start: Start = START) -> None:
        self.heard: list[FromChild] = []
        self.ends: list[int] = []
        command = [sys.executable, "-c", HEAD + code]
        self.process = WorkerProcess(
            start, self.heard.append, self._ended, command=lambda descriptor: [*command, str(descriptor)]
        )

    def _ended(self, status: int) -> None:
        self.ends.append(status)

    def until(self, probe: Callable[[], object]) -> None:
        """Let the loop turn until the probe is true."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not probe():
            assert time.monotonic() < deadline, (self.heard, self.ends)
            gevent.sleep(0.005)


def test_all_that_a_process_said_is_heard_before_its_end() -> None:
    link = Link(f"link.sendall({READY!r} + {BEAT!r} * 5000)\nos._exit(3)")
    link.until(lambda: link.ends)
    assert link.ends == [3]
    assert len(link.heard) == 5001
    assert link.heard[0] == Ready(("a:1",))


def test_a_message_in_pieces_is_one_message() -> None:
    pieces = f"for byte in {READY!r}:\n    link.sendall(bytes([byte]))\n    time.sleep(0.001)\n"
    link = Link(pieces)
    link.until(lambda: link.ends)
    assert link.heard == [Ready(("a:1",))]


@pytest.mark.parametrize("rubbish", [b"hello\n", b"{}\n", b'{"type":"Unknown"}\n', b"\xff\xfe\n", b"null\n"])
def test_a_process_that_sends_what_nobody_can_read_is_killed(rubbish: bytes) -> None:
    link = Link(f"link.sendall({READY + rubbish + BEAT!r})\ntime.sleep(600)")
    link.until(lambda: link.ends)
    assert link.ends == [-signal.SIGKILL]
    assert link.heard == [Ready(("a:1",))]


def test_a_process_that_reads_nothing_never_blocks_the_supervisor() -> None:
    link = Link("time.sleep(600)")
    for _ in range(50_000):
        link.process.send(DumpStacks())
    gevent.sleep(0.01)
    link.process.kill()
    link.until(lambda: link.ends)
    assert link.ends == [-signal.SIGKILL]


def test_messages_arrive_in_order_also_behind_a_config_that_fills_the_socket() -> None:
    start = Start(Config(python_path=tuple(f"/srv/{n}" for n in range(100_000))), 1, 1)
    count = (
        "time.sleep(0.2)\nreceived = b''\nwhile received.count(b'\\n') < 3:\n    received += link.recv(1 << 20)\n"
        "lines = received.split(b'\\n')\nos._exit(42 if b'Drain' in lines[1] and b'ListJobs' in lines[2] else 1)\n"
    )
    link = Link(count, start)
    link.process.send(Drain(1.0))
    link.process.send(ListJobs())
    link.until(lambda: link.ends)
    assert link.ends == [42]


def test_the_end_is_noticed_though_something_that_it_started_holds_the_socket() -> None:
    program = "subprocess.Popen(['sleep', '600'], pass_fds=(link.fileno(),))\nos._exit(1)"
    link = Link(program)
    link.until(lambda: link.ends)
    assert link.ends == [1]


def test_what_is_sent_to_a_process_that_is_gone_is_dropped() -> None:
    link = Link("os._exit(0)")
    link.until(lambda: link.ends)
    link.process.send(Drain(0.0))
    link.process.signal(signal.SIGUSR2)
    link.process.kill()
    gevent.sleep(0.01)
    assert link.ends == [0]
