"""The admin commands as they stand on the wire, on every job server there is."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from geard.protocol import REQUEST, Command, encode
from tests.support.raw import Peer
from tests.support.servers import HOST, JobServerProcess
from tests.support.waiting import eventually


class Lines:
    """An admin connection."""

    def __init__(self, server: JobServerProcess) -> None:
        self.socket = socket.create_connection((HOST, server.port), 30)
        self._file = self.socket.makefile("rb")

    def ask(self, line: bytes) -> bytes:
        """The answer that is one line, its end included."""
        self.socket.sendall(line)
        return self._file.readline()

    def list(self, line: bytes) -> list[bytes]:
        """The answer that is a list."""
        rows = [self.ask(line)]
        while rows[-1] != b".\n":
            rows.append(self._file.readline())
        return rows[:-1]


@pytest.fixture
def admin(shared_job_server: JobServerProcess) -> Iterator[Lines]:
    lines = Lines(shared_job_server)
    yield lines
    lines.socket.close()


@pytest.fixture
def peer(shared_job_server: JobServerProcess) -> Iterator[Peer]:
    with Peer.connect(shared_job_server.address) as peer:
        yield peer


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name that no other test uses."""
    return request.node.originalname.encode()  # type: ignore[no-any-return]


def submit(peer: Peer, function: bytes, unique: bytes = b"", command: Command = Command.SUBMIT_JOB_BG) -> bytes:
    peer.send(command, function, unique, b"w")
    return peer.expect(Command.JOB_CREATED).handle


def rows_of(admin: Lines, command: bytes, function: bytes) -> list[bytes]:
    return [row for row in admin.list(command) if row.startswith(function + b"\t")]


INCOMPLETE = rb"ERR INVALID_ARGUMENTS An\+incomplete\+set\+of\+arguments\+was\+sent\+to\+this\+command\+%b\r\n"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b"version\n", rb"OK \S+\n"),
        (b"VERSION\r\n", rb"OK \S+\n"),
        (b"getpid\n", rb"OK \d+\n"),
        (b"verbose\n", rb"OK [A-Z]+\n"),
        (b"show\n", rb"ERR UNKNOWN_COMMAND Unknown\+server\+commandshow\r\n"),
        (b"show horses\n", rb"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"),
        (b"maxqueue\n", INCOMPLETE % b"maxqueue"),
        (b"create\n", INCOMPLETE % b"create"),
        (b"create function\n", INCOMPLETE % b"create"),
        (b"create function a b\n", INCOMPLETE % b"create"),
        (b"drop function\n", INCOMPLETE % b"drop"),
        (b"drop function nobody-named-this\n", rb"ERR function not found\r\n"),
        (b"cancel\n", rb"ERR UNKNOWN_COMMAND Unknown\+server\+commandcancel\r\n"),
        (b"cancel job H:nowhere:1\n", rb"ERR UNKNOWN_JOB\r\n"),
        (b"cancel call H:nowhere:1\n", rb"ERR UNKNOWN_ERROR\r\n"),
        (b"shutdown\n", rb"ERR UNKNOWN_COMMAND Unknown\+server\+commandshutdown\r\n"),
        (b"make coffee\n", rb"ERR UNKNOWN_COMMAND Unknown\+server\+commandmake\r\n"),
        (b"\n", rb"ERR UNKNOWN_COMMAND Unknown\+server\+command\r\n"),
    ],
)
def test_the_answer_of_one_line(admin: Lines, line: bytes, answer: bytes) -> None:
    got = admin.ask(line)
    assert re.fullmatch(answer, got), got


def test_commands_and_packets_share_a_connection(admin: Lines) -> None:
    admin.socket.sendall(b"version\n" + encode(REQUEST, Command.ECHO_REQ, b"hi\n") + b"getpid\n")
    assert admin.ask(b"").startswith(b"OK ")
    assert admin.ask(b"") == encode(b"\0RES", Command.ECHO_RES, b"hi\n")
    assert admin.ask(b"").startswith(b"OK ")


def test_status_counts_jobs_running_and_workers(admin: Lines, peer: Peer, function: bytes) -> None:
    submit(peer, function)
    submit(peer, function, command=Command.SUBMIT_JOB_HIGH)
    submit(peer, function, command=Command.SUBMIT_JOB_LOW_BG)
    assert rows_of(admin, b"status\n", function) == [function + b"\t3\t0\t0\n"]
    assert rows_of(admin, b"prioritystatus\n", function) == [function + b"\t1\t1\t1\t0\n"]
    peer.send(Command.CAN_DO, function)
    peer.send(Command.CAN_DO, function)  # counted twice, on gearmand too
    peer.send(Command.GRAB_JOB)
    handle = peer.expect(Command.JOB_ASSIGN).handle
    assert rows_of(admin, b"status\n", function) == [function + b"\t3\t1\t2\n"]
    assert rows_of(admin, b"prioritystatus\n", function) == [function + b"\t0\t1\t1\t2\n"]
    peer.send(Command.WORK_COMPLETE, handle, b"")
    peer.skip_to(Command.WORK_COMPLETE)
    peer.close()
    eventually(lambda: rows_of(admin, b"status\n", function) == [function + b"\t2\t0\t0\n"])


def test_workers_lists_every_connection_with_its_name_and_functions(admin: Lines, peer: Peer, function: bytes) -> None:
    peer.send(Command.SET_CLIENT_ID, b"a worker")
    peer.send(Command.CAN_DO, function + b"1")
    peer.send(Command.CAN_DO, function + b"2")
    peer.send(Command.ECHO_REQ, b"")
    peer.expect(Command.ECHO_RES)
    rows = admin.list(b"workers\n")
    [row] = [row for row in rows if function in row]
    assert re.fullmatch(rb"\d+ 127\.0\.0\.1 a worker : %b2 %b1\n" % (function, function), row)
    assert any(re.fullmatch(rb"\d+ 127\.0\.0\.1 - :\n", row) for row in rows)


def test_show_jobs_and_their_uniques(admin: Lines, peer: Peer, function: bytes) -> None:
    background = submit(peer, function, b"unique of show jobs")
    foreground = submit(peer, function, command=Command.SUBMIT_JOB)
    rows = admin.list(b"show jobs\n")
    assert background + b"\t0\t0\t1\n" in rows
    assert foreground + b"\t0\t0\t0\n" in rows
    assert b"unique of show jobs\n" in admin.list(b"show unique jobs\n")


@pytest.mark.parametrize("state", ["waiting", "running"])
def test_a_cancelled_job_fails_for_its_client_and_is_not_run(
    admin: Lines, peer: Peer, shared_job_server: JobServerProcess, function: bytes, state: str
) -> None:
    function += state.encode()
    with Peer.connect(shared_job_server.address) as worker:
        worker.send(Command.CAN_DO, function)
        handle = submit(peer, function, command=Command.SUBMIT_JOB)
        if state == "running":
            worker.send(Command.GRAB_JOB)
            worker.expect(Command.JOB_ASSIGN)
        assert admin.ask(b"cancel job " + handle + b"\n") == b"OK\r\n"
        assert peer.expect(Command.WORK_FAIL).handle == handle
        if state == "running":
            worker.send(Command.WORK_COMPLETE, handle, b"in vain")
        worker.send(Command.GRAB_JOB)
        worker.expect(Command.NO_JOB)
        assert rows_of(admin, b"status\n", function) == [function + b"\t0\t0\t1\n"]


def test_maxqueue_refuses_what_is_over_the_limit(admin: Lines, peer: Peer, function: bytes) -> None:
    submit(peer, function, b"1")
    assert admin.ask(b"maxqueue " + function + b" 2\n") == b"OK\r\n"
    submit(peer, function, b"2")
    for command in (Command.SUBMIT_JOB, Command.SUBMIT_JOB_HIGH_BG, Command.SUBMIT_JOB_LOW):
        peer.send(command, function, b"3", b"w")
        assert peer.expect(Command.ERROR).fields == [b"QUEUE_ERROR", b"Job queue is full"]
    submit(peer, function, b"1")  # it is there already
    assert admin.ask(b"maxqueue " + function + b"\n") == b"OK\r\n"
    submit(peer, function, b"3")


def test_maxqueue_by_priority(admin: Lines, peer: Peer, function: bytes) -> None:
    submit(peer, function, b"1")
    assert admin.ask(b"maxqueue " + function + b" 0 5 1\n") == b"OK\r\n"
    submit(peer, function, b"2", Command.SUBMIT_JOB_HIGH_BG)
    submit(peer, function, b"3", Command.SUBMIT_JOB_BG)
    peer.send(Command.SUBMIT_JOB_LOW_BG, function, b"4", b"w")
    assert peer.expect(Command.ERROR).code == b"QUEUE_ERROR"


def test_create_and_drop_a_function(admin: Lines, peer: Peer, function: bytes) -> None:
    create = b"create function " + function + b"\r\n"  # with \n alone, gearmand loses the last letter
    assert admin.ask(create) == b"OK\r\n"
    assert rows_of(admin, b"status\n", function) == [function + b"\t0\t0\t0\n"]
    drop = b"drop function " + function + b"\n"
    peer.send(Command.CAN_DO, function)
    peer.send(Command.ECHO_REQ, b"")
    peer.expect(Command.ECHO_RES)
    assert admin.ask(drop) == b"ERR there are still connected workers or executing clients\r\n"
    peer.close()
    eventually(lambda: rows_of(admin, b"status\n", function) == [function + b"\t0\t0\t0\n"])
    assert admin.ask(drop) == b"OK\r\n"
    assert rows_of(admin, b"status\n", function) == []
