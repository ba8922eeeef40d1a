"""The embedded job server under peers that ask for much, read nothing or send what nobody expects: its memory stays,
lists stay whole, and others are served."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import Admin
from geard.protocol import REQUEST, Command, encode, request
from tests.support.commands import geard
from tests.support.raw import Peer
from tests.support.servers import HOST, Embedded, JobServerProcess
from tests.support.waiting import eventually

MIB = 1024 * 1024


@pytest.fixture
def server() -> Iterator[Embedded]:
    with Embedded() as server:
        assert isinstance(server, Embedded)
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[Embedded]:
    """For tests that do not measure its memory."""
    with Embedded() as server:
        assert isinstance(server, Embedded)
        yield server


def memory(server: Embedded, key: str) -> int:
    """VmRSS or VmHWM (the peak), in bytes."""
    assert server.process
    lines = Path(f"/proc/{server.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def echo(peer: Peer) -> None:
    peer.send(Command.ECHO_REQ, b"x")
    peer.expect(Command.ECHO_RES)


def submit_many(peer: Peer, function: bytes, workloads: list[bytes], command: Command = Command.SUBMIT_JOB_BG) -> None:
    for number, workload in enumerate(workloads):
        peer.send(command, function, b"%d" % number, workload)
    for _ in workloads:
        peer.expect(Command.JOB_CREATED)


def test_lists_that_nobody_reads_are_not_made(server: Embedded) -> None:
    with (
        Peer.connect(server.address) as client,
        Peer.connect(server.address) as deaf,
        Admin(server.address) as admin,
    ):
        for number in range(2000):
            client.send(Command.CAN_DO, b"a-function-with-quite-a-long-name-%d" % number)
        echo(client)
        before = memory(server, "VmRSS")
        deaf.send_bytes(b"status\nworkers\nprioritystatus\n" * 2000)
        for _ in range(50):
            echo(client)
        assert len(admin.status()) == 2000
        assert memory(server, "VmHWM") < before + 8 * MIB


def test_jobs_that_are_grabbed_and_not_read_are_not_copied(server: Embedded) -> None:
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        submit_many(client, b"f", [b"w" * MIB] * 40)
        before = memory(server, "VmHWM")
        worker.send(Command.CAN_DO, b"f")
        worker.send_bytes(request(Command.GRAB_JOB) * 41)
        echo(client)
        assert server.status("f")[1] < 40, "the rest is assigned as it can be sent"
        assert memory(server, "VmHWM") < before + 12 * MIB
        for _ in range(40):
            assert len(worker.expect(Command.JOB_ASSIGN).workload) == MIB
        worker.expect(Command.NO_JOB)


def test_what_a_job_says_is_held_once_however_often_its_client_submitted_it(server: Embedded) -> None:
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        for _ in range(60):
            client.send(Command.SUBMIT_JOB, b"f", b"same", b"w")
        for _ in range(60):
            client.expect(Command.JOB_CREATED)
        worker.send(Command.CAN_DO, b"f")
        worker.send(Command.GRAB_JOB)
        handle = worker.expect(Command.JOB_ASSIGN).handle
        before = memory(server, "VmRSS")
        worker.send(Command.WORK_DATA, handle, b"d" * 3 * MIB)
        worker.send(Command.WORK_COMPLETE, handle, b"r")
        echo(worker)
        for _ in range(60):
            assert len(client.expect(Command.WORK_DATA).data) == 3 * MIB
        for _ in range(60):
            client.expect(Command.WORK_COMPLETE)
        assert memory(server, "VmHWM") < before + 40 * MIB


def test_a_client_that_leaves_its_results_unread_is_dropped_and_its_worker_is_not() -> None:
    with (
        Embedded("--max-packet", "64K") as server,
        Peer.connect(server.address) as worker,
        Peer.connect(server.address) as deaf,
    ):
        deaf.send(Command.SUBMIT_JOB, b"f", b"", b"w")
        deaf.expect(Command.JOB_CREATED)
        worker.send(Command.CAN_DO, b"f")
        worker.send(Command.GRAB_JOB)
        handle = worker.expect(Command.JOB_ASSIGN).handle
        deaf.send_bytes(b"status\n")  # what comes behind the answer counts, too
        for _ in range(200):
            worker.send_bytes(request(Command.WORK_DATA, handle, b"d" * 60_000))
        echo(worker)
        assert len(server.text("workers")) == 2
        worker.send(Command.WORK_COMPLETE, handle, b"")
        echo(worker)


def test_a_list_stays_whole_between_the_packets_that_come_meanwhile(server: Embedded) -> None:
    with Peer.connect(server.address) as worker, socket.create_connection((HOST, server.port), 30) as both:
        count = 40_000  # more than fits into the buffers of a socket
        for number in range(count):
            worker.send(Command.CAN_DO, b"function-with-some-length-to-its-name-which-fills-the-buffers-%d" % number)
        echo(worker)
        both.sendall(request(Command.SUBMIT_JOB, b"f", b"", b"w"))
        assert both.recv(MIB)
        both.sendall(b"status\n" + request(Command.ECHO_REQ, b"end"))
        worker.send(Command.CAN_DO, b"f")
        worker.send(Command.GRAB_JOB)
        handle = worker.expect(Command.JOB_ASSIGN).handle
        worker.send(Command.RESET_ABILITIES)  # hands the job back, and most functions are gone from the list
        worker.send(Command.CAN_DO, b"f")
        worker.send(Command.GRAB_JOB)
        assert worker.expect(Command.JOB_ASSIGN).handle == handle
        worker.send(Command.WORK_COMPLETE, handle, b"r")
        echo(worker)
        packets = [encode(b"\0RES", Command.ECHO_RES, b"end"), encode(b"\0RES", Command.WORK_COMPLETE, handle, b"r")]
        ends = b"".join(packets), b"".join(reversed(packets))
        data = b""
        while not data.endswith(ends):
            received = both.recv(MIB)
            assert received
            data += received
        rows = data[: -len(ends[0])].split(b"\n")
        assert rows[-2:] == [b".", b""]
        assert len(set(rows)) == len(rows)
        assert all(row.count(b"\t") == 3 for row in rows[:-2])
        assert 2 <= len(rows) <= count + 3


def test_a_client_with_many_jobs_goes_and_none_is_left(shared: Embedded) -> None:
    with Peer.connect(shared.address) as other:
        client = Peer.connect(shared.address)
        submit_many(client, b"f", [b"w"] * 5000, Command.SUBMIT_JOB)
        client.close()
        echo(other)
        eventually(lambda: shared.text("status") == [])


def test_maxqueue_with_what_is_no_number_is_an_error_and_the_connection_stays(shared: Embedded) -> None:
    with socket.create_connection((HOST, shared.port), 30) as admin:
        file = admin.makefile("rb")
        for word in (b"--5", b"9" * 5000):
            admin.sendall(b"maxqueue f %b\n" % word)
            assert file.readline().startswith(b"ERR INVALID_ARGUMENTS ")
        admin.sendall(b"version\n")
        assert file.readline().startswith(b"OK ")
    assert "Traceback" not in shared.log


def test_names_that_would_break_a_line_do_not_make_a_job_server_look_down(job_server: JobServerProcess) -> None:
    names = [b"a\tb", b"n\nm", b"\x1b[2J", b"ERR", b"plain"]
    with Peer.connect(job_server.address) as worker, Admin(job_server.address) as admin:
        worker.send(Command.SET_CLIENT_ID, b"id\nx\ty")
        for name in names:
            worker.send(Command.CAN_DO, name)
        echo(worker)
        assert sorted((row.total, row.workers) for row in admin.status() if row.workers) == [(0, 1)] * len(names)
        assert len(admin.priority_status()) >= len(names)
        assert next(len(row.functions) for row in admin.workers() if row.functions) >= len(names)
        for command in ("status", "workers"):
            done = geard(command, "-s", job_server.address)
            assert done.returncode == 0, done.stderr
            assert b"down" not in done.stdout
            assert rb"a\tb" in done.stdout
            assert b"\x1b" not in done.stdout


def test_gearadmin_reads_whatever_names_there_are(shared: Embedded) -> None:
    with Peer.connect(shared.address) as worker:
        worker.send(Command.CAN_DO, b"n\nm\t7")
        echo(worker)
        assert shared.text("status") == [r"n\nm\t7" + "\t0\t0\t1"]
        assert [row for row in shared.text("workers") if r"- : n\nm\t7" in row]


def test_rubbish_of_every_kind_ends_in_an_error_or_the_end_of_its_connection(shared: Embedded) -> None:
    bodies = [b"", b"\0", b"f", b"f\0", b"f\0u\0w", b"\xff" * 70, b"h\0-1\0" + b"9" * 40, b"\0\0\0\0\0\0\0\0\0"]
    with Peer.connect(shared.address) as other:
        for code in range(45):
            for body in bodies:
                with socket.create_connection((HOST, shared.port), 30) as peer:
                    peer.sendall(REQUEST + code.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body)
        echo(other)
    assert "bug in the job server" not in shared.log
    assert "Traceback" not in shared.log
