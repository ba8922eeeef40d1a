"""HTTP clients of a monitor that are rude or many: they are told or hung up on, and cost nobody else anything."""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from geard.supervisor import answers
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST
from tests.support.waiting import eventually

RESET = struct.pack("ii", 1, 0)
HOST_LINE = b"Host: localhost\r\n"


@contextmanager
def descriptors(most: int) -> Iterator[None]:
    """A process that is started within may have so many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("head", "resets"),
    [
        (b"GET / HTTP/1.1\r\nHost: loc", True),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 3000 + b"\r\n", False),
        (b"GET / HTTP/1.1\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", False),
        (b"POST /drop HTTP/1.1\r\n" + HOST_LINE + b"Content-Length: many\r\n\r\n", False),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", False),
    ],
    ids=["half a head, then a reset", "headers without end", "a header without end", "no length", "TLS"],
)
def test_a_head_that_is_none_is_no_error_of_ours(tmp_path: Path, head: bytes, resets: bool) -> None:
    with (
        FakeSupervisor(str(tmp_path / "s.sock")) as supervisor,
        MonitorProcess(supervisor.path, [f"{HOST}:1"]) as monitor,
    ):
        eventually(lambda: monitor.get("/health/live")[0] == 200, what="the daemon's answer")
        before = monitor.log
        with socket.create_connection((HOST, monitor.port), 30) as client:
            client.sendall(head)
            if resets:
                eventually(lambda: has_read(client), what="the monitor's hands on it")
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            else:
                assert client.recv(65536).startswith(b"HTTP/1.1 400 ")
        assert monitor.get("/functions")[0] == 200
        assert monitor.log == before


def has_read(client: socket.socket) -> bool:
    """Whether the other side has read all that was sent."""
    name = ":".join((socket.inet_aton(HOST)[::-1].hex().upper(), f"{client.getsockname()[1]:04X}"))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4] for row in rows if row[2] == name]
    return bool(queues) and queues[0].endswith(":00000000")


def test_however_many_connect_the_monitor_can_ask_its_supervisor(tmp_path: Path) -> None:
    def asked() -> int:
        return [request.command for request in supervisor.asked].count(answers.STATS)

    with FakeSupervisor(str(tmp_path / "s.sock")) as supervisor, ExitStack() as stack:
        with descriptors(256):
            monitor = stack.enter_context(MonitorProcess(supervisor.path, [f"{HOST}:1"]))
        for _ in range(300):
            stack.enter_context(socket.create_connection((HOST, monitor.port), 30))
        before = asked()
        eventually(lambda: asked() > before + 2, what="more questions")
        assert "Too many open files" not in monitor.log
