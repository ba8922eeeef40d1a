"""The blocking connection on real sockets: where it connects, and how each way to fail is told."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from geard import connection
from geard.config import JobServer, parse_address
from geard.connection import Connection
from geard.errors import CannotConnect, ConnectionLost, ServerTimeout
from tests.support.servers import free_port
from tests.support.waiting import DEADLINE_SECONDS, eventually


class Listener:
    """A socket that listens, and what it accepted. A context manager."""

    def __init__(self, host: str = "127.0.0.1", backlog: int = 10) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.create_server((host, 0), family=family, backlog=backlog)
        self.server = JobServer(host, self.socket.getsockname()[1])

    def accept(self) -> socket.socket:
        self.socket.settimeout(DEADLINE_SECONDS)
        accepted, _ = self.socket.accept()
        accepted.settimeout(DEADLINE_SECONDS)
        return accepted

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    """A connection and its other end, which has read nothing yet."""
    with Listener() as listener, Connection.dial(listener.server) as ours, listener.accept() as theirs:
        yield ours, theirs


def read_all(sock: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = sock.recv(1 << 20)
        assert data, "the connection ended early"
        received += data
    return bytes(received)


# --- dialling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_ip_versions_carry_data_both_ways(host: str) -> None:
    with Listener(host) as listener, Connection.dial(listener.server) as ours, listener.accept() as theirs:
        ours.send(b"there")
        assert read_all(theirs, 5) == b"there"
        theirs.sendall(b"back")
        assert ours.receive() == b"back"
        assert repr(ours) == f"<Connection {listener.server}>"
    assert repr(ours).endswith(" closed>")


def test_a_connection_that_is_dropped_closes_no_descriptor_twice() -> None:
    """Between the two, the number may have become that of another thread's file."""
    with Listener() as listener:
        ours = Connection.dial(listener.server)
        socket_of_ours = ours._socket
        del ours
        os.fstat(socket_of_ours.fileno())
        socket_of_ours.close()


def test_a_name_is_resolved() -> None:
    with Listener() as listener, Connection.dial(JobServer("localhost", listener.server.port)), listener.accept():
        pass


def resolves_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    found = [(socket.AF_INET6 if ":" in a[0] else socket.AF_INET, socket.SOCK_STREAM, 6, "", a) for a in addresses]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_each_address_of_a_name_is_tried_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    with Listener() as listener:
        port = listener.server.port
        resolves_to(monkeypatch, ("::1", port), ("127.0.0.2", port), ("127.0.0.1", port))
        with Connection.dial(JobServer("three.example", port)) as ours, listener.accept() as theirs:
            ours.send(b"x")
            assert read_all(theirs, 1) == b"x"


def test_when_no_address_answers_each_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    resolves_to(monkeypatch, ("::1", port), ("127.0.0.1", port))
    with pytest.raises(CannotConnect) as raised:
        Connection.dial(JobServer("two.example", port))
    assert str(raised.value) == (
        f"cannot connect to two.example:{port}: ::1: connection refused; 127.0.0.1: connection refused"
    )
    assert raised.value.refused
    assert raised.value.job_created is False


def test_a_name_nobody_knows_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(
        CannotConnect,
        match=r"cannot connect to nobody.example:4730: cannot resolve the name: name or service not known",
    ) as raised:
        Connection.dial(JobServer("nobody.example"))
    assert not raised.value.refused


@pytest.mark.parametrize("host", ["a..b", ".leading", "x" * 70])
def test_a_name_that_can_be_none_is_a_failure_to_connect_like_any_other(host: str) -> None:
    with pytest.raises(CannotConnect, match="cannot resolve the name"):
        Connection.dial(JobServer(host))


def test_a_server_that_does_not_answer_the_connect_is_given_up_in_time() -> None:
    with Listener(backlog=0) as listener, socket.socket() as first:
        first.connect(("127.0.0.1", listener.server.port))  # the queue is full now: the next SYN is dropped
        with pytest.raises(CannotConnect, match=r"127\.0\.0\.1: no answer within 0\.3 s") as raised:
            Connection.dial(listener.server, timeout_seconds=0.3)
        assert not raised.value.refused


def test_the_socket_does_not_wait_to_send_and_finds_a_dead_peer(pair: tuple[Connection, socket.socket]) -> None:
    ours, _ = pair
    assert isinstance(ours._socket, socket.socket)
    assert ours._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert ours._socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


# --- receiving ----------------------------------------------------------------------------------------------------


def test_a_timeout_is_no_end_of_the_connection(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair
    assert ours.receive(0.01) is None
    theirs.sendall(b"late")
    assert ours.receive(DEADLINE_SECONDS) == b"late"


def test_the_peers_end_is_a_lost_connection_after_all_it_sent(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair
    theirs.sendall(b"last words")
    theirs.close()
    assert ours.receive() == b"last words"
    with pytest.raises(ConnectionLost, match=rf"^{ours.server} closed the connection$"):
        ours.receive()


def test_what_has_arrived_is_had_without_waiting(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair
    assert ours.receive_at_once() is None
    theirs.sendall(b"here")
    assert eventually(ours.receive_at_once) == b"here"
    assert ours.receive_at_once() is None
    theirs.close()
    with pytest.raises(ConnectionLost, match="closed the connection"):
        eventually(ours.receive_at_once)


def test_a_reset_is_a_lost_connection(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    theirs.close()
    with pytest.raises(ConnectionLost, match=rf"^lost {ours.server}: connection reset by peer$"):
        ours.receive()
    with pytest.raises(ConnectionLost, match=r"broken pipe"):
        ours.send(b"x")


def test_a_closed_connection_says_so_and_closes_twice(pair: tuple[Connection, socket.socket]) -> None:
    ours, _ = pair
    ours.close()
    ours.close()
    ours.interrupt()
    with pytest.raises(ConnectionLost, match="bad file descriptor"):
        ours.receive(1.0)
    with pytest.raises(ConnectionLost, match="bad file descriptor"):
        ours.send(b"x")


def test_an_interrupt_ends_a_receive_that_blocks_in_another_thread(pair: tuple[Connection, socket.socket]) -> None:
    ours, _ = pair
    ended = ending_of(lambda: ours.receive())
    ours.interrupt()
    assert "closed the connection" in eventually(lambda: ended)[0]


# --- sending ------------------------------------------------------------------------------------------------------

LARGE = bytes(range(256)) * 64 * 1024  # more than the system takes for a peer that does not read


def ending_of(call: Any) -> list[str]:
    """Make the call in a thread; the error that ends it."""
    ended: list[str] = []

    def run() -> None:
        try:
            call()
        except ConnectionLost as error:
            ended.append(f"{type(error).__name__}: {error}")
        else:
            ended.append("no error")

    threading.Thread(target=run, daemon=True).start()
    return ended


def test_an_interrupt_ends_a_send_that_blocks_in_another_thread(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair
    ended = ending_of(lambda: ours.send(LARGE))
    theirs.recv(1)  # it is under way
    ours.interrupt()
    assert "ConnectionLost" in eventually(lambda: ended)[0]


def test_a_large_send_arrives_whole_at_a_slow_reader_whose_own_timeout_is_short(
    pair: tuple[Connection, socket.socket],
) -> None:
    ours, theirs = pair
    assert ours.receive(0.01) is None  # the receiver's timeout is not the sender's
    ended = ending_of(lambda: ours.send(LARGE))
    threading.Event().wait(0.05)  # several timeouts long
    assert read_all(theirs, len(LARGE)) == LARGE
    assert eventually(lambda: ended) == ["no error"]


def test_a_peer_that_takes_nothing_is_given_up(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = pair
    monkeypatch.setattr(connection, "SEND_TIMEOUT_SECONDS", 0.2)
    assert ours.receive(0.01) is None
    with pytest.raises(ServerTimeout, match=rf"{ours.server} has taken no data for"):
        ours.send(LARGE)


def test_a_peer_that_takes_nothing_is_given_up_by_a_sender_without_a_timeout_too(
    pair: tuple[Connection, socket.socket],
) -> None:
    """A channel's reader blocks without a timeout; then it is the system that gives up."""
    ours, _ = pair
    assert isinstance(ours._socket, socket.socket)
    ours._socket.settimeout(None)
    ours._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)  # ms
    ended = ending_of(lambda: ours.send(LARGE))
    assert "ServerTimeout" in eventually(lambda: ended)[0]


class Struck(Exception):
    """What a signal handler raises."""


def test_a_send_cut_short_by_an_interrupt_goes_on_where_it_stopped(pair: tuple[Connection, socket.socket]) -> None:
    ours, theirs = pair

    def strike(number: int, frame: FrameType | None) -> None:
        raise Struck

    old = signal.signal(signal.SIGALRM, strike)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.03)
            with pytest.raises(Struck):
                ours.send(b"") if ours.unsent else ours.send(LARGE)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    assert 0 < len(ours.unsent) < len(LARGE)
    ended = ending_of(lambda: ours.send(b"and the next"))
    assert read_all(theirs, len(LARGE) + 12) == LARGE + b"and the next"
    assert eventually(lambda: ended) == ["no error"]
    assert ours.unsent == b""


def test_addresses_are_shown_as_they_are_written() -> None:
    assert str(parse_address("[::1]:4730")) == "[::1]:4730"
    with pytest.raises(CannotConnect, match=r"cannot connect to \[::1\]:"):
        Connection.dial(JobServer("::1", free_port()))
