"""A result over the client's limit: its caller is told both sizes, and nothing else on the connection is harmed."""

from __future__ import annotations

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from geard import Client, JobException, ResultTooLarge
from geard.client.task import Status
from geard.protocol import RESPONSE, Command, Packet, encode
from tests.support.lines import line_of
from tests.support.raw import Peer, ScriptedServer
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import JobServerProcess
from tests.test_client_faults import welcome

LIMIT = 10_000
SIZES = r"of 20\d\d\d bytes, over the limit of 10000 \(max_packet_bytes\)"
LARGE = bytes(20_000)


def grow(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_COMPLETE, job.handle, LARGE)


def test_a_result_over_the_limit_is_an_error_of_its_caller_alone(job_server: JobServerProcess) -> None:
    with (
        RawWorker(job_server.address, {"reverse": reverse, "grow": grow}),
        Client(job_server.address, max_packet_bytes=LIMIT, encoding="bytes") as client,
        ThreadPoolExecutor(5) as pool,
    ):
        exchange = line_of(client).exchange()
        beside = [pool.submit(client.run, "nobody", b"waiting", timeout=60)]
        texts = [b"ab%d" % number for number in range(20)]
        beside += [pool.submit(lambda: [client.run("reverse", text, timeout=60) for text in texts]) for _ in range(3)]
        for _ in range(5):
            with pytest.raises(ResultTooLarge, match=f"grow: too large for this client: WORK_COMPLETE {SIZES}"):
                client.run("grow", b"", timeout=60)
        pairs = list(client.map("reverse", [b"ab", LARGE, b"cd"], pairs=True, timeout=60))
        assert [type(result) for _, result in pairs] == [bytes, ResultTooLarge, bytes]
        with pytest.raises(ResultTooLarge, match=f"the answer is too large for this client: ECHO_RES {SIZES}"):
            client.echo(LARGE)
        assert client.echo(b"next") == b"next"
        with RawWorker(job_server.address, {"nobody": reverse}):
            assert beside[0].result(60) == b"gnitiaw"
        assert all(call.result(60) for call in beside)
        assert line_of(client)._exchange is exchange, "on one connection"


def test_a_piece_a_warning_or_an_exception_over_the_limit_is_told_where_it_came() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        for job in range(3):
            handle = b"H:%d" % job
            peer.expect(Command.SUBMIT_JOB)
            peer.send(Command.JOB_CREATED, handle)
            peer.send(Command.WORK_STATUS, handle, b"1", b"2")
            peer.send(Command.WORK_WARNING, handle, LARGE)
            peer.send(Command.WORK_STATUS, handle, b"1", bytes(30_000))
            peer.send(Command.WORK_DATA, handle, LARGE)
            peer.send(Command.WORK_DATA, handle, b"small")
            peer.send(Command.WORK_EXCEPTION if job == 1 else Command.WORK_COMPLETE, handle, LARGE if job else b"")
            peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)

    with ScriptedServer(script) as server, Client(server.address, max_packet_bytes=LIMIT) as client:
        task = client.submit("f", "x")
        assert client.echo(b"read") == b"read"
        assert task.progress == Status(1, 2)
        events = task.events()
        assert next(events) == Status(1, 2)
        with pytest.raises(ResultTooLarge, match=f"WORK_WARNING {SIZES}"):
            next(events)
        with pytest.raises(ResultTooLarge, match=f"f: too large for this client: WORK_DATA {SIZES}"):
            task.result(30)
        with pytest.raises(ResultTooLarge, match=f"WORK_EXCEPTION {SIZES}") as caught:
            client.run("f", "x")
        assert not isinstance(caught.value, JobException)
        assert client.echo(b"read") == b"read"
        with pytest.raises(ResultTooLarge, match=f"WORK_COMPLETE {SIZES}"):
            client.run("f", "x")
        assert client.echo(b"in order") == b"in order"
        assert server.connections == 1


def test_the_caller_is_told_before_the_body_has_come_and_none_of_it_is_held() -> None:
    told = threading.Event()
    size = 40_000_000

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        peer.expect(Command.SUBMIT_JOB)
        peer.send(Command.JOB_CREATED, b"H:1")
        header = encode(RESPONSE, Command.WORK_COMPLETE, b"H:1", b"")
        peer.send_bytes(header[:8] + (4 + size).to_bytes(4) + b"H:1\0")
        told.wait(30)
        for _ in range(size // 1_000_000):
            peer.send_bytes(bytes(1_000_000))
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)

    with ScriptedServer(script) as server, Client(server.address, max_packet_bytes=LIMIT) as client:
        with pytest.raises(ResultTooLarge, match=f"WORK_COMPLETE of {size + 16} bytes"):
            client.run("f", "x", timeout=30)
        tracemalloc.start()
        try:
            told.set()
            assert client.echo(b"behind the body", timeout=30) == b"behind the body"
            assert tracemalloc.get_traced_memory()[1] < 5_000_000
        finally:
            tracemalloc.stop()
