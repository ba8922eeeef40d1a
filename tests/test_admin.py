"""Admin against a real job server, and against one that misbehaves."""

from __future__ import annotations

import pytest

from geard import Admin
from geard.client.admin import FunctionStatus, JobStatus, PriorityStatus
from geard.errors import CannotConnect, ConnectionLost, InvalidRequest, ProtocolError, ServerError, ServerTimeout
from geard.protocol import Command
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import JobServerProcess, free_port


def test_an_operator_sees_functions_jobs_and_workers(job_server: JobServerProcess) -> None:
    with Peer.connect(job_server.address) as peer, Admin(job_server.address) as admin:
        peer.send(Command.SET_CLIENT_ID, b"build host 7")
        peer.send(Command.CAN_DO, b"resize")
        peer.send(Command.SUBMIT_JOB_HIGH_BG, b"mail", b"u1", b"x")
        handle = peer.expect(Command.JOB_CREATED).handle.decode()
        peer.send(Command.SUBMIT_JOB_LOW_BG, b"resize", b"u2", b"x")
        running = peer.expect(Command.JOB_CREATED).handle.decode()
        peer.send(Command.GRAB_JOB)
        peer.expect(Command.JOB_ASSIGN)

        assert {row for row in admin.status() if row.function} == {
            FunctionStatus("mail", total=1, running=0, workers=0),
            FunctionStatus("resize", total=1, running=1, workers=1),
        }
        assert PriorityStatus("mail", high=1, normal=0, low=0, workers=0) in admin.priority_status()
        assert [row.functions for row in admin.workers() if row.client_id == "build host 7"] == [("resize",)]
        assert set(admin.show_jobs()) == {JobStatus(handle, 0, False, True), JobStatus(running, 0, False, True)}
        assert sorted(admin.show_unique_jobs()) == ["u1", "u2"]


def test_an_operator_changes_what_the_job_server_holds(job_server: JobServerProcess) -> None:
    with Peer.connect(job_server.address) as peer, Admin(job_server.address) as admin:
        peer.send(Command.SUBMIT_JOB_BG, b"mail", b"", b"x")
        handle = peer.expect(Command.JOB_CREATED).handle.decode()
        admin.max_queue("mail", 1)
        peer.send(Command.SUBMIT_JOB_BG, b"mail", b"", b"x")
        peer.expect(Command.ERROR)
        admin.max_queue("mail", 5, 5, 5)
        peer.send(Command.SUBMIT_JOB_BG, b"mail", b"", b"x")
        peer.expect(Command.JOB_CREATED)
        admin.max_queue("mail")
        admin.cancel_job(handle)
        assert all(row.ignored for row in admin.show_jobs() if row.handle == handle)
        admin.create_function("spare")
        assert "spare" in {row.function for row in admin.status()}
        admin.drop_function("spare")
        assert "spare" not in {row.function for row in admin.status()}


def test_the_job_server_tells_its_version_pid_and_log_level(gearmand: JobServerProcess) -> None:
    with Admin(gearmand.address) as admin:
        assert admin.version().startswith("1.1.20")
        assert gearmand.process is not None
        assert admin.getpid() == gearmand.process.pid
        assert admin.verbose() == "ERROR"
        assert repr(admin) == f"<Admin {gearmand.address}>"
    assert repr(admin) == f"<Admin {gearmand.address} not connected>"


def test_a_refusal_is_an_error_and_the_connection_goes_on(job_server: JobServerProcess) -> None:
    with Admin(job_server.address) as admin:
        with pytest.raises(ServerError, match="UNKNOWN_JOB"):
            admin.cancel_job("H:nowhere:1")
        with pytest.raises(ServerError, match="not found"):
            admin.drop_function("nowhere")
        assert admin.show_jobs() == []


@pytest.mark.parametrize("limits", [(1, 2), (-1,), (1, 2, 3, 4)])
def test_limits_that_mean_nothing_are_refused_before_anything_is_sent(limits: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="max_queue takes one limit, or three"):
        Admin(f"127.0.0.1:{free_port()}").max_queue("f", *limits)


def test_no_job_server_is_one_error_with_the_address() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(CannotConnect, match=f"cannot connect to {address}: 127.0.0.1: connection refused"):
        Admin(address).status()


def test_a_silent_job_server_is_given_up_and_the_next_question_is_not_answered_with_the_old_answer() -> None:
    def script(peer: Peer, number: int) -> None:
        assert peer.socket.recv(100).split() == [b"status" if number == 0 else b"version"]
        peer.send_bytes(b"foo\t1\t" if number == 0 else b"OK 7\n")
        peer.socket.recv(100)

    with ScriptedServer(script) as server, Admin(server.address, timeout_seconds=0.2) as admin:
        with pytest.raises(ServerTimeout, match=r"did not answer within 0\.2 s"):
            admin.status()
        admin.timeout_seconds = 30
        assert admin.version() == "7"


@pytest.mark.parametrize(("answer", "error"), [(b"220 smtp ready\n.\n", ProtocolError), (b"", ConnectionLost)])
def test_something_else_on_the_port_is_an_error_at_once(answer: bytes, error: type[Exception]) -> None:
    def script(peer: Peer, number: int) -> None:
        peer.socket.recv(100)
        peer.send_bytes(answer)

    with ScriptedServer(script) as server, Admin(server.address) as admin, pytest.raises(error, match=server.address):
        admin.status()
