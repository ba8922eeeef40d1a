"""The embedded job server alone: what it does better than gearmand, its limits, and how it takes abuse."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from geard import exits
from geard.protocol import Command, request
from tests.support.raw import Peer
from tests.support.servers import HOST, Embedded, free_port, need
from tests.support.waiting import eventually

Start = Callable[..., Embedded]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts embedded job servers, and stops them after the test."""
    servers: list[Embedded] = []

    def start(*options: str) -> Embedded:
        server = Embedded(*options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.__exit__(None, None, None)


@pytest.fixture(scope="module")
def server() -> Iterator[Embedded]:
    with Embedded() as server:
        assert isinstance(server, Embedded)
        yield server


def refused(*options: str) -> tuple[int, str]:
    """How a job server that cannot start ends, and what it says."""
    done = subprocess.run(
        [sys.executable, "-m", "geard", "jobserver", *options], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def submit(peer: Peer, function: bytes, unique: bytes = b"", command: Command = Command.SUBMIT_JOB_BG) -> bytes:
    peer.send(command, function, unique, b"w")
    return peer.expect(Command.JOB_CREATED).handle


def assert_closed(peer: Peer) -> None:
    def to_the_end() -> None:
        while True:
            peer.receive()

    with pytest.raises((EOFError, ConnectionError)):
        to_the_end()


# --- better than gearmand -----------------------------------------------------------------------------------------


def test_sleepers_are_woken_when_a_delayed_job_falls_due_and_not_before(server: Embedded) -> None:
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        worker.send(Command.CAN_DO, b"later")
        worker.send(Command.PRE_SLEEP)
        due = int(time.time()) + 2
        client.send(Command.SUBMIT_JOB_EPOCH, b"later", b"", b"%d" % due, b"w")
        handle = client.expect(Command.JOB_CREATED).handle
        worker.expect(Command.NOOP)
        assert time.time() >= due
        worker.send(Command.GRAB_JOB)
        assert worker.expect(Command.JOB_ASSIGN).handle == handle


def test_can_do_timeout_is_kept_for_each_job(server: Embedded) -> None:
    """gearmand has one timer for a connection: the second job would be the only one."""
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        worker.send(Command.CAN_DO_TIMEOUT, b"timed", b"1000")
        handles = {submit(client, b"timed") for _ in range(2)}
        for _ in range(2):
            worker.send(Command.GRAB_JOB)
            worker.expect(Command.JOB_ASSIGN)
        eventually(lambda: server.status("timed") == (2, 0, 1))
        for _ in range(2):
            worker.send(Command.GRAB_JOB)
        assert {worker.expect(Command.JOB_ASSIGN).handle for _ in range(2)} == handles


def test_a_late_answer_counts_while_no_other_worker_has_the_job(server: Embedded) -> None:
    """In gearmand a worker that always takes too long gets the job again and again, and JOB_NOT_FOUND."""
    with (
        Peer.connect(server.address) as worker,
        Peer.connect(server.address) as client,
        Peer.connect(server.address) as other,
    ):
        worker.send(Command.CAN_DO_TIMEOUT, b"late", b"1000")
        first = submit(client, b"late", command=Command.SUBMIT_JOB)
        second = submit(client, b"late", command=Command.SUBMIT_JOB)
        for _ in range(2):
            worker.send(Command.GRAB_JOB)
            worker.expect(Command.JOB_ASSIGN)
        eventually(lambda: server.status("late") == (2, 0, 1))
        worker.send(Command.WORK_STATUS, first, b"1", b"2")
        assert client.expect(Command.WORK_STATUS).fields == [first, b"1", b"2"]
        worker.send(Command.WORK_COMPLETE, first, b"late")
        assert client.expect(Command.WORK_COMPLETE).fields == [first, b"late"]
        other.send(Command.CAN_DO, b"late")
        other.send(Command.GRAB_JOB)
        assert other.expect(Command.JOB_ASSIGN).handle == second, "the first is done"
        worker.send(Command.WORK_COMPLETE, second, b"too late")
        assert worker.expect(Command.ERROR).code == b"JOB_NOT_FOUND"
        other.send(Command.WORK_COMPLETE, second, b"right")
        assert client.expect(Command.WORK_COMPLETE).fields == [second, b"right"]


def test_high_goes_before_normal_before_low_whatever_the_function_and_functions_take_turns(server: Embedded) -> None:
    """As in gearmand 2; in 1.1 one busy function starves a worker's others."""
    names = [b"order1", b"order2", b"order3"]
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        for name in names:
            worker.send(Command.CAN_DO, name)
            for command in (Command.SUBMIT_JOB_LOW_BG, Command.SUBMIT_JOB_BG, Command.SUBMIT_JOB_HIGH_BG):
                for number in range(2):
                    submit(client, name, b"%d %b %d" % (command, name, number), command)
        got = []
        for _ in range(18):
            worker.send(Command.GRAB_JOB_UNIQ)
            got.append(worker.expect(Command.JOB_ASSIGN_UNIQ))
        priorities = [int(job.unique.split()[0]) for job in got]
        order = [Command.SUBMIT_JOB_HIGH_BG] * 6 + [Command.SUBMIT_JOB_BG] * 6 + [Command.SUBMIT_JOB_LOW_BG] * 6
        assert priorities == order
        for start in range(0, 18, 3):
            assert sorted(job.function for job in got[start : start + 3]) == names


@pytest.mark.parametrize(("retries", "lost"), [("0", True), ("unlimited", False)])
def test_no_retries_and_unlimited_retries_are_two_things(start: Start, retries: str, lost: bool) -> None:
    server = start("--job-retries", retries)
    with Peer.connect(server.address) as client:
        handle = submit(client, b"f", command=Command.SUBMIT_JOB)
        with Peer.connect(server.address) as worker:
            worker.send(Command.CAN_DO, b"f")
            worker.send(Command.GRAB_JOB)
            assert worker.expect(Command.JOB_ASSIGN).handle == handle
        if lost:
            assert client.expect(Command.WORK_FAIL).handle == handle
            assert server.text("show jobs") == []
        else:
            eventually(lambda: server.text("show jobs") == [f"{handle.decode()}\t1\t0\t0"])


def test_a_background_job_outlives_the_foreground_client_that_joined_it(server: Embedded) -> None:
    """gearmand loses it."""
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        handle = submit(client, b"joined", b"u")
        with Peer.connect(server.address) as other:
            other.send(Command.SET_CLIENT_ID, b"joiner")
            assert submit(other, b"joined", b"u", Command.SUBMIT_JOB) == handle
        eventually(lambda: not any("joiner" in row for row in server.text("workers")))
        worker.send(Command.CAN_DO, b"joined")
        worker.send(Command.GRAB_JOB)
        assert worker.expect(Command.JOB_ASSIGN).handle == handle


def test_a_function_with_jobs_is_not_dropped(server: Embedded) -> None:
    with Peer.connect(server.address) as client:
        submit(client, b"kept")
        assert server.text("drop function kept") == ["ERR there are still connected workers or executing clients"]
        assert server.status("kept") == (1, 0, 0)


# --- limits -------------------------------------------------------------------------------------------------------


def test_max_queue_is_the_limit_of_every_function(start: Start) -> None:
    server = start("--max-queue", "1")
    with Peer.connect(server.address) as client:
        submit(client, b"f")
        submit(client, b"g")
        client.send(Command.SUBMIT_JOB_BG, b"f", b"", b"w")
        assert client.expect(Command.ERROR).fields == [b"QUEUE_ERROR", b"Job queue is full"]
        assert server.text("maxqueue f 2") == ["OK"]
        submit(client, b"f")


def test_a_packet_over_the_limit_and_a_stall_in_one_end_their_connection(start: Start) -> None:
    server = start("--max-packet", "64K", "--stall-timeout", "1s")
    with Peer.connect(server.address) as idle, Peer.connect(server.address) as huge:
        huge.send_bytes(request(Command.ECHO_REQ, b"x" * 70_000)[:20])
        assert_closed(huge)
        with Peer.connect(server.address) as stalled:
            stalled.send_bytes(request(Command.ECHO_REQ, b"hello")[:14])
            assert_closed(stalled)
        idle.send(Command.ECHO_REQ, b"")  # it was idle for as long
        idle.expect(Command.ECHO_RES)


def test_a_peer_that_does_not_read_is_not_read_from_and_dropped(start: Start) -> None:
    server = start("--stall-timeout", "1s")
    with Peer.connect(server.address) as deaf, Peer.connect(server.address) as other:
        with pytest.raises(ConnectionError):
            deaf.send_bytes(request(Command.ECHO_REQ, b"x" * 1_000_000) * 200)
        other.send(Command.ECHO_REQ, b"")
        other.expect(Command.ECHO_RES)
        assert _peak_memory_bytes(server) < 150 * 1024 * 1024


def _peak_memory_bytes(server: Embedded) -> int:
    assert server.process
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def test_connections_over_the_limit_are_closed_until_others_go(start: Start) -> None:
    server = start("--max-connections", "2")
    with _let_in(server) as first:
        with _let_in(server), Peer.connect(server.address) as third:
            assert_closed(third)
        _let_in(server).close()
        first.send(Command.ECHO_REQ, b"")
        first.expect(Command.ECHO_RES)


def _let_in(server: Embedded) -> Peer:
    """A connection that is served; the job server may not have noticed yet that others went."""

    def served() -> Peer | None:
        peer = Peer.connect(server.address)
        try:
            peer.send(Command.ECHO_REQ, b"")
            peer.expect(Command.ECHO_RES)
        except (EOFError, ConnectionError):
            peer.close()
            return None
        return peer

    peer = eventually(served, what="being let in")
    assert peer
    return peer


# --- start and stop -----------------------------------------------------------------------------------------------


def test_term_stops_it_cleanly_and_the_port_is_free_at_once(start: Start) -> None:
    server = start()
    assert server.process
    with Peer.connect(server.address) as client:
        submit(client, b"f")
        server.process.terminate()
        assert server.process.wait(30) == exits.DONE
        assert_closed(client)
    server.start()


def test_a_taken_port_is_one_line(server: Embedded) -> None:
    code, said = refused("--listen", server.address)
    assert code == exits.UNAVAILABLE
    assert said == f"geard: cannot listen on {server.address}: address already in use\n"


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--listen", "::1:4730"], exits.USAGE, "an IPv6 address goes in brackets"),
        (["--max-packet", "much"], exits.USAGE, "'much' is not a size"),
        (["--job-retries", "-1"], exits.USAGE, "a number from 0 up, or unlimited"),
        (["--check-args", "--max-packet", "much"], exits.USAGE, "'much' is not a size"),
        (["--check-args", "--tls-certificate", "/nowhere.pem"], exits.CONFIG, "/nowhere.pem"),
        (["--tls-key", "key.pem"], exits.USAGE, "need --tls-certificate"),
        (["--listen", "127.0.0.1:1", "--tls-certificate", "/nowhere.pem"], exits.CONFIG, "/nowhere.pem"),
        (["--queue", "/nowhere/queue"], exits.CONFIG, "the folder must exist"),
        (["--queue", ""], exits.CONFIG, "the queue file has no name"),
    ],
)
def test_an_option_that_cannot_be_is_one_clear_message(options: list[str], code: int, said: str) -> None:
    if "--queue" in options or "--tls-certificate" in options:
        options = [*options, "--listen", f"{HOST}:{free_port()}"]
    got = refused(*options)
    assert got[0] == code, got
    assert said in got[1]


def test_it_serves_the_socket_that_systemd_opened() -> None:
    listener = socket.create_server((HOST, 0))
    port = listener.getsockname()[1]
    activated = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
        "os.execv(sys.executable, [sys.executable, '-m', 'geard', 'jobserver'])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", activated, str(listener.fileno())],
        pass_fds=[listener.fileno()],
        stderr=subprocess.PIPE,
    ) as process:
        listener.close()
        try:
            with Peer.connect(f"{HOST}:{port}") as peer:  # waits in the backlog until it is up
                peer.send(Command.ECHO_REQ, b"")
                peer.expect(Command.ECHO_RES)
        finally:
            process.terminate()
        assert process.wait(30) == exits.DONE


def test_systemd_understands_every_line_of_the_units_and_finds_little_exposed(tmp_path: Path) -> None:
    need("systemd-analyze")
    units = [tmp_path / "geard-jobserver.service", tmp_path / "geard-jobserver.socket"]
    for unit in units:
        text = (Path(__file__).parents[1] / "systemd" / unit.name).read_text()
        unit.write_text(text.replace("/opt/geard/bin/geard", "/bin/true"))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(units[0])]
    exposed = subprocess.run(command, capture_output=True, text=True)
    assert exposed.returncode == 0, exposed.stdout[-300:]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ca.pem and, signed by it for 127.0.0.1, peer.pem and peer.key."""
    need("openssl")
    folder = tmp_path_factory.mktemp("tls")
    usage = "-addext keyUsage=critical,keyCertSign,cRLSign"
    (folder / "san").write_text(f"subjectAltName=IP:{HOST}\nauthorityKeyIdentifier=keyid\n")
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca.key -out ca.pem {usage}",
        "req -newkey rsa:2048 -nodes -subj /CN=peer -keyout peer.key -out peer.csr",
        "x509 -req -in peer.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out peer.pem",
    ):
        subprocess.run(["openssl", *command.split()], cwd=folder, check=True, capture_output=True)
    return folder


def test_tls_with_client_certificates(authority: Path) -> None:
    names = {name: str(authority / name) for name in ("ca.pem", "peer.pem", "peer.key")}
    options = ["--tls-certificate", names["peer.pem"], "--tls-key", names["peer.key"], "--tls-ca", names["ca.pem"]]
    port = free_port()
    command = [sys.executable, "-m", "geard", "jobserver", "--listen", f"{HOST}:{port}", "--stall-timeout", "1s"]
    with subprocess.Popen([*command, *options], stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: _accepts(port))
            context = ssl.create_default_context(cafile=names["ca.pem"])
            with pytest.raises((OSError, EOFError)):  # no certificate of ours
                _echo(Peer(context.wrap_socket(socket.create_connection((HOST, port)), server_hostname=HOST), b"\0RES"))
            context.load_cert_chain(names["peer.pem"], names["peer.key"])
            _echo(Peer(context.wrap_socket(socket.create_connection((HOST, port)), server_hostname=HOST), b"\0RES"))
            with Peer.connect(f"{HOST}:{port}") as silent:  # never shakes hands
                assert_closed(silent)
        finally:
            process.terminate()
        assert process.wait(30) == exits.DONE


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((HOST, port)).close()
    except ConnectionRefusedError:
        return False
    return True


def _echo(peer: Peer) -> None:
    with peer:
        for size_bytes in (0, 3_000_000):
            peer.send(Command.ECHO_REQ, b"x" * size_bytes)
            assert len(peer.expect(Command.ECHO_RES).data) == size_bytes


def test_importing_the_rules_loads_neither_sockets_nor_gevent() -> None:
    code = (
        "import sys, geard.jobserver.requests, geard.jobserver.rules;"
        "sys.exit(', '.join({'gevent', 'socket', 'sqlite3', 'ssl'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert (done.returncode, done.stderr) == (0, "")
