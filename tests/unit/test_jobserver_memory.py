"""A job server without memory drops whom it cannot serve, loses no job of his, and serves the others."""

from __future__ import annotations

import logging
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent import socket as gevent_socket

from geard.jobserver import answers
from geard.jobserver.requests import HANDLERS
from geard.jobserver.rules import Rules
from geard.jobserver.server import JobServer
from geard.jobserver.state import Function, Job, Peer
from geard.jobserver.store import CannotStore, Store
from geard.protocol import Command, request, response


def test_a_result_that_there_is_no_memory_for_leaves_the_job_to_another_worker() -> None:
    rules, client, worker, other = Rules(), Peer(), Peer(), Peer()
    rules.submit(client, b"f", b"", b"w")
    rules.can_do(worker, b"f")
    job = rules.grab(worker, 0)
    assert job is not None
    with pytest.raises(TypeError):  # nor can a packet be made of None
        HANDLERS[Command.WORK_COMPLETE](rules, worker, [job.handle, None], 0)  # type: ignore[list-item]
    for _ in rules.depart(worker):
        pass
    rules.can_do(other, b"f")
    assert rules.grab(other, 0) is job
    client.outbox.clear()
    HANDLERS[Command.WORK_COMPLETE](rules, other, [job.handle, b"result"], 0)
    assert client.outbox == [answers.answer(Command.WORK_COMPLETE, job.handle, b"result")]
    assert not other.assigned


def test_a_turn_that_there_is_no_memory_to_store_is_refused_and_the_next_is_stored(tmp_path: Path) -> None:
    class Huge(Job):
        @property
        def number(self) -> int:
            raise MemoryError

    with closing(Store(str(tmp_path / "queue"))) as store:
        function = Function(b"f")
        jobs = [kind(b"H:x:%d" % number, function, b"", b"w", 1, True) for number, kind in enumerate((Job, Huge, Job))]
        with pytest.raises(CannotStore, match="MemoryError"):
            store.commit(jobs, [], 3)
        assert list(store.jobs()) == []
        store.commit(jobs[::2], [], 3)
        assert [job.number for job in store.jobs()] == [0, 2]


class NoMemory:
    """A socket that nothing can be sent to."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def send(self, data: bytes) -> int:
        raise MemoryError


def test_a_peer_that_there_is_no_memory_for_takes_no_other_with_it(caplog: pytest.LogCaptureFixture) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server = JobServer([listener])
    server.start()
    try:
        with gevent.Timeout(30):
            peers = [gevent_socket.create_connection(listener.getsockname()) for _ in range(3)]
            answer = response(Command.ECHO_RES, b"?")
            for peer in peers:
                peer.sendall(request(Command.ECHO_REQ, b"?"))
                assert peer.recv(100) == answer
            names = {connection.sock.getpeername(): connection for connection in server._connections}
            connections = [names[peer.getsockname()] for peer in peers]
            connections[1].sock = NoMemory(connections[1].sock)  # type: ignore[assignment]
            for connection in connections:  # all in one turn
                server.rules.send(connection, answers.NOOP)
            assert [peer.recv(100) for peer in peers] == [answers.NOOP, b"", answers.NOOP]
            assert len(server._connections) == 2
    finally:
        server.close()
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["ERROR"]
    assert "there is no memory" in caplog.text
    assert "Traceback" not in caplog.text
