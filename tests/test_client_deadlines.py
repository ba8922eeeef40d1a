"""A caller's deadline holds wherever the job server lets him wait: for a connection, for others, to send, to read."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geard import Admin, Client, JobServer, JobTimeout
from geard.client.choice import CHOICES, Choose
from geard.connection import Connection
from geard.errors import CannotConnect, ConnectionLost, ServerTimeout
from geard.protocol import RESPONSE, Command, encode
from tests.support.lines import line_of
from tests.support.raw import Peer, ScriptedServer
from tests.support.tls import Certificates
from tests.support.waiting import eventually
from tests.test_client_faults import welcome

TIMEOUT = 0.3
SOON = 10.0
"""What ought to take TIMEOUT is over by then on a loaded machine, and what waits for another limit (30 s) is not."""


@contextlib.contextmanager
def soon() -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert TIMEOUT * 0.9 <= time.monotonic() - begun < SOON


def deaf(peer: Peer, number: int) -> None:
    """Welcomes, and reads nothing from then on."""
    welcome(peer)
    threading.Event().wait(60)


def silent(peer: Peer, number: int) -> None:
    """Reads all, and answers nothing."""
    while peer.socket.recv(1 << 20):
        pass


def dumb(peer: Peer, number: int) -> None:
    """Welcomes, and answers nothing from then on."""
    welcome(peer)
    silent(peer, number)


LARGE = bytes(30_000_000)  # more than the system keeps for a peer that does not read

CALLS: list[Callable[[Client], object]] = [
    lambda c: c.run("f", LARGE, timeout=TIMEOUT),
    lambda c: c.submit("f", LARGE, timeout=TIMEOUT),
    lambda c: c.submit_background("f", LARGE, timeout=TIMEOUT),
    lambda c: list(c.submit_many_background("f", [LARGE] * 3, timeout=TIMEOUT)),
    lambda c: list(c.map("f", [LARGE] * 3, pairs=True, timeout=TIMEOUT)),
    lambda c: c.echo(LARGE, timeout=TIMEOUT),
    lambda c: c.status("H:1", timeout=TIMEOUT),
    lambda c: c.status_unique("u", timeout=TIMEOUT),
    lambda c: c.wait("H:1", timeout=TIMEOUT),
    lambda c: c.option("exceptions", timeout=TIMEOUT),
]
NAMES = ["run", "submit", "background", "many", "map", "echo", "status", "unique", "wait", "option"]


@pytest.mark.parametrize("server", [deaf, dumb])
@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_job_server_that_reads_or_answers_nothing_holds_no_caller_over_its_deadline(
    server: Callable[[Peer, int], None], call: Callable[[Client], object]
) -> None:
    with ScriptedServer(server) as scripted, Client(scripted.address) as client:
        line_of(client).exchange()  # connected, however long that takes
        with soon(), pytest.raises(JobTimeout):
            call(client)


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_a_job_server_that_welcomes_nobody_neither(call: Callable[[Client], object]) -> None:
    with ScriptedServer(silent) as scripted, Client(scripted.address) as client, soon(), pytest.raises(CannotConnect):
        call(client)


def full_backlog(stack: contextlib.ExitStack) -> int:
    """The port of one that listens and does not accept; who comes now does not even get a connection."""
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    port: int = listener.getsockname()[1]
    for _ in range(3):
        filling = stack.enter_context(socket.socket())
        filling.setblocking(False)
        filling.connect_ex(("127.0.0.1", port))
    return port


def scripted(stack: contextlib.ExitStack, script: Callable[[Peer, int], None]) -> int:
    return stack.enter_context(ScriptedServer(script)).port


HOLDING_UP: dict[str, tuple[Callable[[contextlib.ExitStack], int], bytes, bool]] = {
    "mute": (lambda stack: scripted(stack, silent), b"x", False),
    "not accepting": (full_backlog, b"x", False),
    "reading nothing": (lambda stack: scripted(stack, deaf), LARGE, False),
    "answering nothing": (lambda stack: scripted(stack, dumb), b"x", False),
    "stalling in the handshake": (lambda stack: scripted(stack, silent), b"x", True),
}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.mark.parametrize("way", HOLDING_UP)
@pytest.mark.parametrize("choose", CHOICES)
def test_however_a_job_server_holds_them_up_one_caller_or_eight_are_back_in_time(
    choose: Choose, way: str, certificates: Certificates
) -> None:
    """Every limit but their own is a minute or more, or that of the connection's send, half a minute."""
    start, workload, with_tls = HOLDING_UP[way]
    with contextlib.ExitStack() as stack:
        server = JobServer("127.0.0.1", start(stack), certificates.tls() if with_tls else None)
        client = stack.enter_context(
            Client(server, choose=choose, connect_timeout_seconds=60, answer_timeout_seconds=60)
        )
        pool = stack.enter_context(ThreadPoolExecutor(8))

        def run(_: object) -> None:
            with soon(), pytest.raises((JobTimeout, CannotConnect)):
                client.run("f", workload, unique="u", timeout=TIMEOUT)

        def submit(_: object) -> None:
            with soon(), pytest.raises((JobTimeout, CannotConnect)):
                client.submit_background("f", workload, unique="u", timeout=TIMEOUT)

        run(None)
        list(pool.map(lambda number: (run, submit)[number % 2](None), range(8)))


def test_a_caller_that_reads_for_ever_does_not_hold_up_one_that_sends() -> None:
    """The one that reads sets the socket's timeout: to none at all."""

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        peer.send(Command.JOB_CREATED, b"H:" + peer.expect(Command.SUBMIT_JOB).function)
        threading.Event().wait(60)

    with ScriptedServer(script) as server, Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        reader = pool.submit(client.run, "slow", "")
        eventually(lambda: "1 running" in repr(client))
        with soon(), pytest.raises(JobTimeout, match="has not taken the request in time; the job's fate is unknown"):
            client.run("f", LARGE, timeout=TIMEOUT)
        with soon(), pytest.raises(JobTimeout, match="nothing of it was sent"):
            client.run("f", "after what is half sent", timeout=TIMEOUT)
        client.close()
        with pytest.raises(ConnectionLost):
            reader.result(30)


def test_a_caller_waits_for_one_that_sends_no_longer_than_its_own_deadline() -> None:
    with ScriptedServer(deaf) as server, Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        writer = pool.submit(client.submit_background, "f", LARGE)
        eventually(lambda: (exchange := line_of(client)._exchange) and exchange._pen.holder)
        with soon(), pytest.raises(JobTimeout, match="nothing of it was sent"):
            client.submit_background("f", "x", timeout=TIMEOUT)
        client.close()
        with pytest.raises(ConnectionLost):
            writer.result(30)


def test_large_jobs_that_cannot_be_sent_are_not_kept() -> None:
    with ScriptedServer(deaf) as server, Client(server.address) as client:
        line_of(client).exchange()
        for _ in range(20):
            with pytest.raises(JobTimeout):
                client.submit_background("f", LARGE, timeout=0.01 if "owed" in repr(client) else TIMEOUT)
        exchange = line_of(client)._exchange
        assert exchange is not None
        assert len(exchange._connection.unsent) <= len(LARGE) + 1000
        assert len(exchange._outbox) <= 2


def test_many_callers_that_connect_to_a_mute_job_server_wait_no_longer_than_one() -> None:
    with (
        ScriptedServer(silent) as server,
        Client(server.address, connect_timeout_seconds=1) as client,
        ThreadPoolExecutor(40) as pool,
    ):
        calls = [pool.submit(client.echo, b"x") for _ in range(40)]
        begun = time.monotonic()
        eventually(lambda: server.connections)
        with pytest.raises(CannotConnect):
            client.echo(b"x", timeout=0.1)
        for call in calls:
            with pytest.raises(CannotConnect, match="it accepts, but does not answer within 1 s"):
                call.result(30)
        assert time.monotonic() - begun < 20  # not 40


def byte_by_byte(data: bytes) -> Callable[[Peer, int], None]:
    def script(peer: Peer, number: int) -> None:
        for byte in data:
            peer.socket.sendall(bytes([byte]))
            time.sleep(0.05)
        threading.Event().wait(60)

    return script


def test_one_byte_at_a_time_is_no_answer_in_time() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        peer.receive()
        byte_by_byte(encode(RESPONSE, Command.ECHO_RES, bytes(1000)))(peer, number)

    with ScriptedServer(script) as server, Client(server.address) as client:
        line_of(client).exchange()
        with soon(), pytest.raises(JobTimeout):
            client.echo(b"x", timeout=TIMEOUT)


@pytest.mark.parametrize(
    "script", [silent, byte_by_byte(b"\x16\x03\x03\x40\x00" + bytes(1000))], ids=["silent", "byte by byte"]
)
def test_a_tls_handshake_takes_no_longer_than_connecting_may(
    tmp_path: Path, script: Callable[[Peer, int], None]
) -> None:
    tls = Certificates(tmp_path).tls()
    with ScriptedServer(script) as server, soon(), pytest.raises(CannotConnect, match=r"no answer within 0\.3 s"):
        Connection.dial(JobServer("127.0.0.1", server.port, tls), timeout_seconds=TIMEOUT)


def test_a_name_that_nobody_resolves_takes_no_longer_than_connecting_may(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(60))
    try:
        with soon(), pytest.raises(CannotConnect, match=r"cannot resolve the name: no answer within 0\.3 s"):
            Connection.dial(JobServer("somewhere"), timeout_seconds=TIMEOUT)
    finally:
        over.set()


@pytest.mark.parametrize(
    "script",
    [silent, byte_by_byte(b"function\t1\t1\t1\n" * 100), byte_by_byte(b"\n" * 1000)],
    ids=["silent", "byte by byte", "lines"],
)
def test_admin_waits_no_longer_than_it_may(script: Callable[[Peer, int], None]) -> None:
    with ScriptedServer(script) as server, Admin(server.address, timeout_seconds=TIMEOUT) as admin:
        with soon(), pytest.raises(ServerTimeout, match=r"did not answer within 0\.3 s"):
            admin.status()
        assert "not connected" in repr(admin)


def test_admin_waits_for_its_turn_no_longer_than_it_may() -> None:
    with ScriptedServer(silent) as server, Admin(server.address, timeout_seconds=1) as admin:
        with ThreadPoolExecutor(20) as pool:
            begun = time.monotonic()
            calls = [pool.submit(admin.status) for _ in range(20)]
            for call in calls:
                with pytest.raises(ServerTimeout):
                    call.result(30)
        assert time.monotonic() - begun < 10  # not 20


def test_a_stream_of_many_jobs_is_not_given_up_for_having_lasted_longer_than_one_answer_may() -> None:
    """What each answer may take is counted for each."""

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        for job in range(1000):
            peer.expect(Command.SUBMIT_JOB_BG)
            if not job % 100:
                time.sleep(0.1)
            peer.send(Command.JOB_CREATED, b"H:%d" % job)

    with ScriptedServer(script) as server, Client(server.address, answer_timeout_seconds=0.6) as client:
        assert len(list(client.submit_many_background("f", map(str, range(1000))))) == 1000
