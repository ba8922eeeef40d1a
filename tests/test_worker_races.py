"""What may happen between two steps of another thread: each made to happen, on the parts themselves."""

from __future__ import annotations

import logging
import socket
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from geard.config import Capability, JobServer
from geard.connection import Connection
from geard.protocol import REQUEST, Command, Decoder, Packet, request
from geard.worker.capability import bind
from geard.worker.channel import Channel
from geard.worker.job import Job
from geard.worker.run import run
from geard.worker.session import OUTBOX_LIMIT_BYTES, Session
from geard.worker.window import GrabWindow
from tests.support.waiting import DEADLINE_SECONDS


@pytest.fixture
def ends() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(DEADLINE_SECONDS)
    with Connection(ours, JobServer("there")) as connection, theirs:
        yield connection, theirs


def session_on(connection: Connection, **decisions: Any) -> Session:
    """A session that asks for no jobs."""
    defaults = {"grabs_due": lambda owed: 0, "finished": lambda: False, "wake_writer": lambda: None}
    session = Session(connection, max_packet_bytes=1 << 20, window=GrabWindow(1), **defaults | decisions)
    session.asleep = True
    return session


def job_on(session: Session, function: Any = str) -> Job:
    return Job(session, bind("f", Capability(function), "utf-8"), b"H:1", b"u", b"w", 0.0)


def packets_at(sock: socket.socket, count: int) -> list[Packet]:
    decoder = Decoder(REQUEST)
    packets: list[Packet] = []
    while len(packets) < count:
        decoder.feed(sock.recv(1 << 20))
        packets.extend(decoder)
    return packets


def test_a_streaming_job_goes_on_when_all_it_sent_is_taken_just_as_it_decides_to_wait(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, theirs = ends
    session = session_on(connection)

    class WriterInBetween(threading.Event):
        def clear(self) -> None:
            session.flush()
            super().clear()

    session._room = WriterInBetween()
    session._room.set()
    reader = threading.Thread(target=lambda: packets_at(theirs, 1), daemon=True)
    reader.start()
    sender = threading.Thread(
        target=lambda: session.send(request(Command.WORK_DATA, b"H:1", b"x" * OUTBOX_LIMIT_BYTES)), daemon=True
    )
    sender.start()
    sender.join(DEADLINE_SECONDS)
    assert not sender.is_alive()
    reader.join(DEADLINE_SECONDS)


def test_a_drain_says_farewell_after_a_result_that_came_at_the_last_moment(
    ends: tuple[Connection, socket.socket],
) -> None:
    """Or the connection would be closed with the result unsent, and another worker would run the job again."""
    connection, theirs = ends
    answers = [request(Command.WORK_COMPLETE, b"H:1", b"late")]

    def finished() -> bool:
        if answers:  # another thread's job ends right here
            session.answer(answers.pop())
        return True

    session = session_on(connection, finished=finished)
    session.open([request(Command.WORK_STATUS, b"H:1", b"1", b"2")])
    session.flush()
    assert [packet.command.name for packet in packets_at(theirs, 3)] == ["WORK_STATUS", "WORK_COMPLETE", "ECHO_REQ"]


def test_the_clock_that_all_channels_share_never_sends_by_itself(ends: tuple[Connection, socket.socket]) -> None:
    """A job server that does not read would hold up the clock of all others."""
    connection, theirs = ends
    woken: list[bool] = []
    session = session_on(connection, grabs_due=lambda owed: 1 - owed, wake_writer=lambda: woken.append(True))
    session.ask_again()
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    assert woken
    session.flush()
    theirs.settimeout(DEADLINE_SECONDS)
    assert [packet.command.name for packet in packets_at(theirs, 2)] == ["GRAB_JOB_UNIQ", "PRE_SLEEP"]


def channel_to(server: JobServer, client_id: str = "me", **options: Any) -> Channel:
    capability = bind("f", Capability(str), "utf-8")
    return Channel(
        server, {b"f": capability}, greenlets=2, client_id=client_id, max_packet_bytes=1 << 20, **options
    )  # fmt: skip


def test_a_drain_in_the_midst_of_connecting_leaves_no_connection_open(ends: tuple[Connection, socket.socket]) -> None:
    connection, theirs = ends

    class DrainInBetween(str):
        __slots__ = ()

        def encode(self, *_: Any) -> bytes:
            channel.drain()
            return b"me"

    channel = channel_to(JobServer("there"), DrainInBetween("me"), dial=lambda server: connection)
    channel.serve()
    assert theirs.recv(100) == b"", "the connection is closed, and nobody was told of abilities"
    assert repr(channel).startswith("<Channel there:4730 drained 0/2 running")


def test_a_job_that_is_to_run_again_is_one_that_has_just_come(ends: tuple[Connection, socket.socket]) -> None:
    """It has not waited for a greenlet all the while; and should it end its process, it is known who had it."""
    connection, _ = ends
    channel = Channel(connection.server, {}, greenlets=1, client_id="", max_packet_bytes=1 << 20, clock=lambda: 42.0)
    told: list[Job] = []
    channel.assigned = told.extend
    job = job_on(session_on(connection))
    channel._resume(job)
    assert (told, job.received) == ([job], 42.0)


def test_jobs_that_end_while_the_pool_abandons_the_rest_do_not_spoil_it(
    ends: tuple[Connection, socket.socket],
) -> None:
    session = session_on(ends[0])
    channel = channel_to(JobServer("there"))
    channel._busy.update(job_on(session) for _ in range(2000))
    over = threading.Event()

    def come_and_go() -> None:
        jobs = [job_on(session) for _ in range(100)]
        while not over.is_set():
            for job in jobs:
                channel._busy.add(job)
            for job in jobs:
                channel._busy.discard(job)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threading.Thread(target=come_and_go, daemon=True).start()
        for _ in range(1000):
            assert len(channel.abandon()) >= 2000
    finally:
        over.set()
        sys.setswitchinterval(interval)


class Interrupts(logging.Handler):
    """A log handler of the user's that is interrupted, as one that writes to a network may be."""

    def handle(self, record: logging.LogRecord) -> bool:
        raise KeyboardInterrupt


def test_a_job_that_fails_is_answered_even_if_its_failure_cannot_be_logged(
    ends: tuple[Connection, socket.socket],
) -> None:
    connection, theirs = ends

    def fail(workload: str) -> str:
        raise ValueError("no")

    session = session_on(connection)
    logger, handler = logging.getLogger("geard.worker"), Interrupts()
    logger.addHandler(handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(job_on(session, fail))
    finally:
        logger.removeHandler(handler)
    session.flush()
    [packet] = packets_at(theirs, 1)
    assert (packet.command, packet.data) == (Command.WORK_EXCEPTION, b"ValueError: no")
