"""What newer job servers do otherwise than gearmand 1.1.20, which the other tests run against: by a scripted peer.

docs/gearmand-versions.md says which version does what, and where that is known from.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from geard import Admin, Client, JobFailed
from geard.config import JobServer
from geard.protocol import Command
from geard.worker import Worker
from tests.support.pool import capability, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.tls import Certificates
from tests.support.waiting import DEADLINE_SECONDS

ANSWERS = {  # what gearmand 2.2 answers to admin commands
    b"version": b"OK 2.2.0\n",
    b"getpid": b"OK 71\n",
    b"status": b"reverse\t2\t0\t1\n.\n",
    b"prioritystatus": b"reverse\t1\t1\t0\t1\n.\n",
    b"workers": b"35 127.0.0.1 - :\n36 127.0.0.1 worker-1 : reverse\n.\n",
    b"show jobs": b"H:vm:1\t0\t0\t1\nH:vm:2\t0\t0\t1\n.\n",
    b"show unique jobs": b"H:vm:1\tfirst\nH:vm:2\t\nH:vm:3\ta:7\tb\n.\n",
    b"verbose": b"OK ERROR\n",
    b"drop function reverse": b"ERR there are still connected workers or executing clients\n",
}


def answer_admin(peer: Peer, number: int = 0) -> None:
    """A job server for admin connections."""
    received = b""
    while data := peer.socket.recv(4096):
        received += data
        while b"\n" in received:
            line, received = received.split(b"\n", 1)
            peer.send_bytes(ANSWERS[line.strip()])


def greet(peer: Peer) -> None:
    """A new connection of a client."""
    peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)


def take_grabs(peer: Peer, least: int = 1) -> int:
    """The GRAB_JOBs up to a PRE_SLEEP: how many there were."""
    grabs = 0
    while True:
        packet = peer.receive()
        if packet.command is Command.PRE_SLEEP and grabs >= least:
            return grabs
        grabs += packet.command is Command.GRAB_JOB_UNIQ


def results(peer: Peer, wanted: int) -> list[tuple[bytes, bytes]]:
    """So many (handle, result); what the worker grabs meanwhile gets no job."""
    found: list[tuple[bytes, bytes]] = []
    while len(found) < wanted:
        packet = peer.receive()
        if packet.command is Command.WORK_COMPLETE:
            found.append((packet.handle, packet.data))
        elif packet.command is Command.GRAB_JOB_UNIQ:
            peer.send(Command.NO_JOB)
    return found


def until_it_hangs_up(peer: Peer) -> None:
    """Answer an idle worker that drains."""
    while True:
        packet = peer.receive()  # EOFError at the end
        if packet.command is Command.ECHO_REQ:
            peer.send(Command.ECHO_RES, packet.data)
        elif packet.command is Command.GRAB_JOB_UNIQ:
            peer.send(Command.NO_JOB)


def played(script: Callable[[Peer], None]) -> tuple[Callable[[Peer, int], None], list[str]]:
    """The script for the first connection, and a list that is not empty once it is through."""
    through: list[str] = []

    def play(peer: Peer, number: int) -> None:
        if number == 0:
            script(peer)
            through.append("through")
        until_it_hangs_up(peer)

    return play, through


def wait_for(through: list[str]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not through:
        assert time.monotonic() < deadline, "the script did not come to its end"
        time.sleep(0.01)


# --- admin -----------------------------------------------------------------------------------------------------------


def test_the_lists_of_newer_versions_are_read() -> None:
    with ScriptedServer(answer_admin) as server, Admin(server.address) as admin:
        assert admin.version() == "2.2.0"
        assert [(row.function, row.total, row.workers) for row in admin.status()] == [("reverse", 2, 1)]
        assert [(row.high, row.normal) for row in admin.priority_status()] == [(1, 1)]
        assert [row.functions for row in admin.workers()] == [(), ("reverse",)]
        assert [row.handle for row in admin.show_jobs()] == ["H:vm:1", "H:vm:2"]
        assert admin.show_unique_jobs() == ["first", "", "a:7\tb"]  # 2.2: each behind its job's handle


# --- workers ---------------------------------------------------------------------------------------------------------


def test_jobs_are_run_in_whatever_order_of_functions_they_are_assigned() -> None:
    """2.0: by priority over all functions of a connection, which take turns; 1.1: as the functions were registered."""
    order = [b"second", b"first", b"second", b"first"]

    def script(peer: Peer) -> None:
        assigned, done = 0, set[bytes]()
        while len(done) < len(order):
            packet = peer.receive()
            if packet.command is Command.WORK_COMPLETE:
                done.add(packet.handle)
            elif packet.command is Command.GRAB_JOB_UNIQ and assigned < len(order):
                peer.send(Command.JOB_ASSIGN_UNIQ, b"H:vm:%d" % assigned, order[assigned], b"u", b"w")
                assigned += 1
            elif packet.command is Command.GRAB_JOB_UNIQ:
                peer.send(Command.NO_JOB)
            elif packet.command is Command.PRE_SLEEP:
                peer.send(Command.NOOP)

    play, through = played(script)
    with (
        ScriptedServer(play) as server,
        start_pool("threads", server.address, {"first": "reverse", "second": "reverse"}, greenlets_per_server=1),
    ):
        wait_for(through)


def test_a_noop_without_a_job_and_one_when_a_delayed_job_is_due_are_both_taken() -> None:
    """2.0 wakes sleeping workers twice for a delayed job: when it is submitted, and when it is due."""

    def script(peer: Peer) -> None:
        for _ in range(3):  # as it falls asleep; as the job is submitted, twice, for two jobs
            for _ in range(take_grabs(peer)):
                peer.send(Command.NO_JOB)
            peer.send(Command.NOOP)
        for number in range(take_grabs(peer)):
            if number == 0:
                peer.send(Command.JOB_ASSIGN_UNIQ, b"H:vm:1", b"reverse", b"u", b"due")
            else:
                peer.send(Command.NO_JOB)
        assert results(peer, 1) == [(b"H:vm:1", b"eud")]

    play, through = played(script)
    with ScriptedServer(play) as server, start_pool("threads", server.address, {"reverse": "reverse"}):
        wait_for(through)
        assert server.connections == 1


def test_grab_job_all_brings_the_reducer_where_there_is_one() -> None:
    def script(peer: Peer, _: int) -> None:
        peer.skip_to(Command.GRAB_JOB_ALL)
        peer.send(Command.JOB_ASSIGN_ALL, b"H:vm:1", b"map", b"u", b"reduce", b"w\0w")
        peer.expect(Command.WORK_COMPLETE)
        peer.expect(Command.GRAB_JOB_ALL)
        peer.send(Command.NOOP)  # a hint, which may come at any time
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:vm:2", b"map", b"", b"w")
        peer.expect(Command.WORK_FAIL)
        peer.expect(Command.GRAB_JOB_ALL)
        peer.send(Command.NO_JOB)

    with ScriptedServer(script) as server, Worker.connect(server.address, {"map": len}, encoding="bytes") as worker:
        job = worker.grab(Command.GRAB_JOB_ALL)
        assert job is not None
        assert (job.reducer, job.unique, job.workload) == ("reduce", "u", b"w\0w")
        job.complete(b"done")
        worker.flush()
        job = worker.grab(Command.GRAB_JOB_ALL)
        assert job is not None
        assert (job.reducer, job.unique) == ("", "")
        job.fail()
        worker.flush()
        assert worker.grab(Command.GRAB_JOB_ALL) is None


# --- clients ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [b"H:vm:1\0", b"H:vm:1"])
def test_a_failure_is_heard_with_a_nul_behind_its_handle_and_without(ending: bytes) -> None:
    """Up to 2.0 at least, gearmand has a NUL behind the handle of the WORK_FAIL that it makes of a WORK_EXCEPTION."""

    def script(peer: Peer, _: int) -> None:
        greet(peer)
        peer.expect(Command.SUBMIT_JOB)
        peer.send(Command.JOB_CREATED, b"H:vm:1")
        peer.send_bytes(b"\0RES" + Command.WORK_FAIL.to_bytes(4, "big") + len(ending).to_bytes(4, "big") + ending)
        until_it_hangs_up(peer)

    with ScriptedServer(script) as server, Client(server.address, exceptions=False) as client, pytest.raises(JobFailed):
        client.run("f", "w", timeout=DEADLINE_SECONDS)


# --- TLS that the job server speaks itself ---------------------------------------------------------------------------


class TlsServer(ScriptedServer):
    """A job server whose one port speaks TLS to workers, clients and admins, and asks nobody for a certificate."""

    def __init__(self, script: Callable[[Peer, int], None], certificates: Certificates) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificates.path("localhost"), certificates.path("localhost", "key"))

        def within_tls(peer: Peer, number: int) -> None:
            peer.socket = context.wrap_socket(peer.socket, server_side=True)
            script(peer, number)

        super().__init__(within_tls)

    def __enter__(self) -> TlsServer:
        return self


def test_workers_clients_and_admins_speak_tls_with_the_job_server_itself(tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)

    def script(peer: Peer, number: int) -> None:
        if number == 0:
            answer_admin(peer)
        elif number == 1:
            greet(peer)
            peer.expect(Command.ECHO_REQ)
            peer.send(Command.ECHO_RES, b"x" * 300_000)  # in many records, which do not end where packets do
            until_it_hangs_up(peer)
        else:
            for _ in range(take_grabs(peer)):
                peer.send(Command.NO_JOB)
            peer.send(Command.NOOP)
            peer.skip_to(Command.GRAB_JOB_UNIQ)
            peer.send(Command.JOB_ASSIGN_UNIQ, b"H:vm:1", b"reverse", b"u", b"tls")
            assert results(peer, 1) == [(b"H:vm:1", b"slt")]
            through.append("through")
            until_it_hangs_up(peer)

    through: list[str] = []
    with TlsServer(script, certificates) as scripted:
        server = JobServer("localhost", scripted.port, certificates.tls(client=None))
        with Admin(server) as admin:
            assert (admin.version(), admin.show_unique_jobs()[0]) == ("2.2.0", "first")
        with Client(server, encoding="bytes", exceptions=False) as client:
            assert client.echo(b"hello", timeout=DEADLINE_SECONDS) == b"x" * 300_000
        with start_pool("threads", [server], {"reverse": capability("reverse", "bytes")}):
            wait_for(through)
