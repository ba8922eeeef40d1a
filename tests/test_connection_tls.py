"""TLS with certificates on both sides, through stunnel in front of gearmand; and each way it can be refused."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard.config import JobServer
from geard.connection import Connection
from geard.errors import CannotConnect, ConnectionLost
from geard.protocol import Command, Decoder, Packet, request, response
from tests.support.pool import BOTH_WAYS, Caller, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.tls import Certificates, Stunnel
from tests.support.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


@pytest.fixture(scope="module")
def stunnel(certificates: Certificates, server: JobServerProcess) -> Iterator[Stunnel]:
    with Stunnel(certificates, server.address) as stunnel:
        yield stunnel


def echo(connection: Connection, data: bytes = b"hello") -> Packet:
    """What the job server behind the connection answers."""
    connection.send(request(Command.ECHO_REQ, data))
    decoder = Decoder()
    while True:
        received = connection.receive(DEADLINE_SECONDS)
        assert received
        decoder.feed(received)
        for packet in decoder:
            return packet


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_both_sides_show_their_certificates(certificates: Certificates, stunnel: Stunnel, host: str) -> None:
    with Connection.dial(stunnel.server(certificates.tls(), host)) as connection:
        assert echo(connection).data == b"hello"
        assert " tls" in repr(connection)


def test_another_name_may_be_expected_or_none(certificates: Certificates, server: JobServerProcess) -> None:
    with Stunnel(certificates, server.address, "elsewhere") as stunnel:
        for tls in (certificates.tls(server_name="elsewhere.example"), certificates.tls(check_hostname=False)):
            with Connection.dial(stunnel.server(tls)) as connection:
                assert echo(connection).data == b"hello"


def refusal(server: JobServer) -> str:
    """Why the server cannot be used: in TLS 1.3 the server's word on our certificate comes after the handshake."""
    try:
        with Connection.dial(server) as connection:
            connection.receive(DEADLINE_SECONDS)
    except ConnectionLost as error:
        return str(error)
    return "not refused"


def test_a_server_that_nobody_we_trust_has_signed_is_refused(certificates: Certificates, stunnel: Stunnel) -> None:
    server = stunnel.server(certificates.tls(ca="nobody"))
    with pytest.raises(
        CannotConnect, match=rf"{server}: .*its certificate is refused: self-signed certificate in certificate chain"
    ):
        Connection.dial(server)


def test_a_server_with_another_name_is_refused(certificates: Certificates, server: JobServerProcess) -> None:
    with (
        Stunnel(certificates, server.address, "elsewhere") as stunnel,
        pytest.raises(CannotConnect, match="its certificate is refused: Hostname mismatch") as raised,
    ):
        Connection.dial(stunnel.server(certificates.tls()))
    assert not raised.value.refused


def test_an_expired_certificate_is_refused(certificates: Certificates, server: JobServerProcess) -> None:
    with (
        Stunnel(certificates, server.address, "expired") as stunnel,
        pytest.raises(CannotConnect, match="its certificate is refused: certificate has expired"),
    ):
        Connection.dial(stunnel.server(certificates.tls()))


@pytest.mark.parametrize(("client", "reason"), [(None, "CERTIFICATE_REQUIRED"), ("stranger", "UNKNOWN_CA")])
def test_a_server_that_refuses_our_certificate_says_why(
    certificates: Certificates, stunnel: Stunnel, client: str | None, reason: str
) -> None:
    server = stunnel.server(certificates.tls(client))
    told = refusal(server)
    assert str(server) in told
    assert reason in told


def test_a_plain_server_is_told_from_one_that_speaks_tls(certificates: Certificates) -> None:
    def answer_in_plain(peer: Peer, number: int) -> None:
        peer.socket.recv(1000)
        peer.send_bytes(b"ERR UNKNOWN_COMMAND Unknown+server+command\r\n")

    with ScriptedServer(answer_in_plain) as server:
        told = refusal(JobServer("localhost", server.port, certificates.tls()))
    assert "TLS failed: WRONG_VERSION_NUMBER" in told or "TLS failed: RECORD_LAYER_FAILURE" in told, told


def test_a_server_that_never_answers_the_handshake_is_given_up_in_time(certificates: Certificates) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = JobServer("127.0.0.1", silent.getsockname()[1], certificates.tls())
        with pytest.raises(CannotConnect, match=r"127\.0\.0\.1: no answer within 0\.3 s"):
            Connection.dial(server, timeout_seconds=0.3)


def test_files_that_cannot_be_read_are_named(certificates: Certificates, stunnel: Stunnel, tmp_path: Path) -> None:
    server = stunnel.server(certificates.tls("no-such-file"))
    with pytest.raises(CannotConnect, match=r"cannot use the TLS files \(.*no-such-file\.pem"):
        Connection.dial(server)


def test_a_server_name_that_is_no_name_is_a_failure_to_connect(certificates: Certificates, stunnel: Stunnel) -> None:
    with pytest.raises(CannotConnect):
        Connection.dial(stunnel.server(certificates.tls(server_name=".leading")))


def test_one_thread_sends_while_another_receives(certificates: Certificates, stunnel: Stunnel) -> None:
    count, data = 300, bytes(range(256)) * 64
    with Connection.dial(stunnel.server(certificates.tls())) as connection:

        def send() -> None:
            for number in range(count):
                connection.send(request(Command.ECHO_REQ, b"%06d" % number + data))

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        decoder = Decoder()
        packets: list[Packet] = []
        while len(packets) < count:
            received = connection.receive(DEADLINE_SECONDS)
            assert received
            decoder.feed(received)
            packets.extend(decoder)
        sender.join(DEADLINE_SECONDS)
    assert [packet.data for packet in packets] == [b"%06d" % number + data for number in range(count)]


def test_a_peer_that_reads_slowly_is_not_taken_for_one_that_reads_nothing(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However large the job is: of what it was given in one call, OpenSSL tells nothing until all of it has gone."""
    monkeypatch.setattr("geard.connection.SEND_TIMEOUT_SECONDS", 1.5)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.path("localhost"), certificates.path("localhost", "key"))
    size = 30_000_000

    def script(peer: Peer, number: int) -> None:
        with context.wrap_socket(peer.socket, server_side=True) as secure:
            begun, read = time.monotonic(), 0
            while read < size and (data := secure.recv(16384)):
                read += len(data)
                if time.monotonic() - begun < 3:
                    time.sleep(0.0025)
            received.append(read)

    received: list[int] = []
    with (
        ScriptedServer(script) as server,
        Connection.dial(JobServer("localhost", server.port, certificates.tls())) as ours,
    ):
        assert ours.send(bytes(size))
        eventually(lambda: received == [size])


def test_an_interrupted_connection_sends_nothing_in_plain_text(certificates: Certificates) -> None:
    """A send that waits for a slow peer when the connection is given up must not go on without its cipher."""
    context = server_context(certificates)
    received = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(DEADLINE_SECONDS)
        ended: list[str] = []

        def send() -> None:
            server = JobServer("localhost", listener.getsockname()[1], certificates.tls())
            with Connection.dial(server) as connection:
                connections.append(connection)
                try:
                    while True:
                        connection.send(b"SECRET" * 10_000)
                except ConnectionLost as error:
                    ended.append(str(error))

        connections: list[Connection] = []
        threading.Thread(target=send, daemon=True).start()
        raw, _ = listener.accept()
        raw.settimeout(DEADLINE_SECONDS)
        tls = context.wrap_socket(raw, server_side=True)
        assert tls.recv(6) == b"SECRET"
        assert connections[0].unsent
        connections[0].interrupt()
        below = socket.socket(fileno=tls.detach())
        below.settimeout(DEADLINE_SECONDS)
        with contextlib.suppress(ConnectionResetError):
            while data := below.recv(1 << 20):
                received += data
        below.close()
        eventually(lambda: ended)
    assert b"SECRET" not in received


def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.path("localhost"), certificates.path("localhost", "key"))
    return context


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_jobs_run_through_tls(
    certificates: Certificates, stunnel: Stunnel, server: JobServerProcess, mode: str
) -> None:
    function = f"reverse by {mode}"
    large = "x" * 3_000_000
    with (
        start_pool(mode, [stunnel.server(certificates.tls())], {function: "reverse", "streams": "streams"}) as pool,
        Caller(server.address) as caller,
    ):
        caller.submit(function, *(f"job {number}" for number in range(200)))
        results = {caller.packets()[-1].data for _ in range(200)}
        assert results == {f"job {number}"[::-1].encode() for number in range(200)}
        assert caller.run(function, large + "y") == ("WORK_COMPLETE", ("y" + large).encode())
        assert len(caller.story("streams", "40 65536")) == 42
        pool.drain()
        assert pool.join() == []


def test_a_server_that_does_not_read_holds_up_no_other_job_in_the_process(
    certificates: Certificates, gearmand: JobServerProcess
) -> None:
    """In a patched process: what waits to be sent through TLS must wait, not spin."""
    context = server_context(certificates)
    served: list[ssl.SSLSocket] = []

    def assign_and_read_no_more(peer: Peer, number: int) -> None:
        tls = context.wrap_socket(peer.socket, server_side=True)
        served.append(tls)
        tls.recv(1000)
        tls.sendall(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"streams", b"", b"400 65536"))
        threading.Event().wait(DEADLINE_SECONDS)

    with ScriptedServer(assign_and_read_no_more) as stuck:
        servers = (JobServer("localhost", stuck.port, certificates.tls()), gearmand.address)
        with start_pool("process", servers, {"streams": "streams", "reverse": "reverse"}) as pool:
            eventually(lambda: [job.function for job in pool.jobs()] == ["streams"])
            with Caller(gearmand.address) as caller:
                for _ in range(20):
                    assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
