"""geard.Worker, for those who build their own pool: every packet of a worker, on each job server."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from geard import Worker
from geard.config import Capability
from geard.connection import Connection
from geard.errors import CannotConnect, CapabilityError, ConnectionLost, InvalidRequest, ProtocolError, ServerError
from geard.protocol import Command, response
from geard.worker import Job
from tests.support import capabilities
from tests.support.pool import ROOT, Caller, background
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import JobServerProcess, free_port
from tests.support.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture
def caller(job_server: JobServerProcess) -> Iterator[Caller]:
    with Caller(job_server.address) as caller:
        yield caller


def test_work_does_one_job_at_a_time(job_server: JobServerProcess, caller: Caller) -> None:
    with Worker.connect(job_server.address, {"reverse": capabilities.reverse}) as worker:
        assert repr(worker) == f"<Worker {job_server.address}: reverse>"
        caller.submit("reverse", "ab", "cd")
        first, second = worker.work(), worker.work()
        assert first
        assert second
        assert {first.workload, second.workload} == {b"ab", b"cd"}
        assert first.answered
        assert {caller.packets()[-1].data for _ in range(2)} == {b"ba", b"dc"}
        assert worker.work(timeout_seconds=0.05) is None
    eventually(lambda: job_server.status("reverse")[2] == 0)


def test_work_waits_for_a_job_and_a_delayed_one_too(job_server: JobServerProcess, caller: Caller) -> None:
    with Worker.connect(job_server.address, {"reverse": capabilities.reverse}) as worker:
        assert worker.grab() is None
        worker.pre_sleep()
        caller.submit("reverse", "ab")
        assert worker.sleep(DEADLINE_SECONDS)
        assert worker.work(timeout_seconds=DEADLINE_SECONDS)
        with Peer.connect(job_server.address) as client:
            client.send(Command.SUBMIT_JOB_EPOCH, b"reverse", b"", b"%d" % (time.time() + 1), b"later")
            client.expect(Command.JOB_CREATED)
            job = worker.work(timeout_seconds=DEADLINE_SECONDS)
            assert job
            assert job.workload == b"later"


def test_conventions_are_those_of_the_pool(job_server: JobServerProcess, caller: Caller) -> None:
    offered: dict[str, Callable[..., Any] | Capability] = {
        "hands on": capabilities.hands_on,
        "generator": capabilities.spoken,
        "raises": Capability(lambda workload: 1 // 0),
        "json": Capability(capabilities.type_of, encoding="json"),
        "limited": Capability(capabilities.sleep, timeout_seconds=0.05),
    }
    with Worker.connect(job_server.address, offered) as worker:
        for function, workload, endings in (
            ("hands on", "", ["WORK_STATUS", "WORK_DATA", "WORK_WARNING", "WORK_STATUS", "WORK_COMPLETE"]),
            ("generator", "a b", ["WORK_DATA", "WORK_DATA", "WORK_COMPLETE"]),
            ("raises", "", ["WORK_EXCEPTION"]),
            ("json", "[1]", ["WORK_COMPLETE"]),
            ("limited", "0.3", ["WORK_EXCEPTION"]),
        ):
            caller.submit(function, workload)
            assert worker.work(timeout_seconds=DEADLINE_SECONDS)
            assert [packet.command.name for packet in caller.packets()] == endings


def test_grab_brings_handle_and_unique_and_the_caller_answers(job_server: JobServerProcess, caller: Caller) -> None:
    with Worker.connect(job_server.address, {"f": capabilities.echo}) as worker:
        [handle] = caller.submit("f", "w", unique="mine")
        job = worker.grab()
        assert job
        assert (job.handle, job.unique, job.workload, job.reducer) == (handle, "mine", b"w", "")
        job.status(1, 2)
        job.complete("done by hand")
        worker.flush()
        assert [packet.command for packet in caller.packets()] == [Command.WORK_STATUS, Command.WORK_COMPLETE]


def test_each_way_to_grab(job_server: JobServerProcess, caller: Caller) -> None:
    with Worker.connect(job_server.address, {"f": capabilities.echo}) as worker:
        for command, unique in ((Command.GRAB_JOB, ""), (Command.GRAB_JOB_UNIQ, "u"), (Command.GRAB_JOB_ALL, "u")):
            caller.submit("f", "w", unique="u")
            job = worker.work(grab=command, timeout_seconds=DEADLINE_SECONDS)
            assert job
            assert job.unique == unique
            assert caller.packets()[-1].data == b"w"
        with pytest.raises(InvalidRequest, match="CAN_DO does not grab a job: expected GRAB_JOB, "):
            worker.grab(Command.CAN_DO)


def test_grab_all_brings_the_reducer(job_server: JobServerProcess) -> None:
    with (
        Worker.connect(job_server.address, {"map": capabilities.echo}) as worker,
        Peer.connect(job_server.address) as client,
    ):
        client.send(Command.SUBMIT_REDUCE_JOB_BACKGROUND, b"map", b"u", b"the reducer", b"", b"w")
        client.expect(Command.JOB_CREATED)
        job = worker.grab(Command.GRAB_JOB_ALL)
        assert job
        assert (job.reducer, job.unique, job.workload) == ("the reducer", "u", b"w")
        job.complete()
        worker.flush()


def test_abilities_come_and_go(job_server: JobServerProcess) -> None:
    def workers(function: str) -> int:
        return job_server.status(function)[2]

    with Worker.connect(job_server.address) as worker:
        worker.can_do("a", capabilities.echo)
        worker.can_do("a", capabilities.reverse)
        worker.can_do_timeout("b", capabilities.echo, 60)
        worker.can_do("c", capabilities.echo)
        eventually(lambda: (workers("a"), workers("b"), workers("c")) == (1, 1, 1))
        worker.cant_do("a")
        eventually(lambda: (workers("a"), workers("b")) == (0, 1))
        worker.reset_abilities()
        eventually(lambda: (workers("b"), workers("c")) == (0, 0))
        assert worker.grab() is None
        worker.can_do("a", capabilities.reverse)
        eventually(lambda: workers("a") == 1)


def test_a_function_taken_back_is_no_longer_served(job_server: JobServerProcess) -> None:
    with Worker.connect(job_server.address, {"a": capabilities.reverse, "b": capabilities.echo}) as worker:
        background(job_server.address, "a", "x")
        worker.cant_do("a")
        background(job_server.address, "b", "y")
        job = worker.work(timeout_seconds=DEADLINE_SECONDS)
        assert job
        assert job.function == "b"
        assert job_server.status("a")[0] == 1


def test_an_answer_that_came_after_can_do_timeout_is_logged_and_the_job_done_again(
    gearmand: JobServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    with Worker.connect(gearmand.address) as worker, Caller(gearmand.address) as caller:
        worker.can_do_timeout("slow", capabilities.echo, 1)
        caller.submit("slow", "w")
        job = worker.grab()
        assert job
        eventually(lambda: gearmand.status("slow")[1] == 0, what="the job queued again")
        job.complete("too late")
        worker.flush()
        again = worker.work(timeout_seconds=DEADLINE_SECONDS)
        assert again
        assert again.handle == job.handle, "it was given to us once more"
        assert caller.packets()[-1].data == b"w"
        assert f"{gearmand.address} no longer knows a job that we answered" in caplog.text
        assert worker.work(timeout_seconds=0.05) is None


def test_the_client_id_is_what_workers_shows(job_server: JobServerProcess) -> None:
    with Worker.connect(job_server.address, {"a": capabilities.echo}, client_id="a name of my own"):
        eventually(lambda: any("a name of my own : a" in line for line in job_server.text("workers")))
    with Worker.connect(job_server.address, {"a": capabilities.echo}) as worker:
        eventually(lambda: any("-geard : a" in line for line in job_server.text("workers")))
        worker.set_client_id("renamed")
        eventually(lambda: any("renamed : a" in line for line in job_server.text("workers")))


def test_echo_comes_back(job_server: JobServerProcess) -> None:
    with Worker.connect(job_server.address) as worker:
        assert worker.echo(b"any\0bytes\xff") == b"any\0bytes\xff"


def test_all_yours_is_refused_by_the_server_and_the_connection_goes_on(job_server: JobServerProcess) -> None:
    with Worker.connect(job_server.address) as worker:
        worker.all_yours()
        with pytest.raises(ServerError, match="INVALID_COMMAND"):
            worker.sleep(DEADLINE_SECONDS)
        assert worker.echo(b"still there") == b"still there"


def test_closing_hands_a_grabbed_job_to_another_worker(job_server: JobServerProcess, caller: Caller) -> None:
    caller.submit("f", "w")
    with Worker.connect(job_server.address, {"f": capabilities.echo}) as worker:
        assert worker.grab()
    with Worker.connect(job_server.address, {"f": capabilities.reverse}) as worker:
        assert worker.work(timeout_seconds=DEADLINE_SECONDS)
        assert caller.packets()[-1].data == b"w"


def test_errors_are_raised_where_they_are_found(gearmand: JobServerProcess) -> None:
    with pytest.raises(CannotConnect, match="connection refused"):
        Worker.connect(f"127.0.0.1:{free_port()}")
    with pytest.raises(InvalidRequest, match="not an address"):
        Worker.connect("not an address")
    with pytest.raises(CapabilityError):
        Worker.connect(gearmand.address, {"f": Capability("no_such_module.f")})
    with Worker.connect(gearmand.address, {"f": capabilities.echo}) as worker:
        gearmand.kill()
        with pytest.raises(ConnectionLost, match=gearmand.address):
            worker.work()


def test_a_server_that_says_what_nobody_asked_for_or_goes_in_the_middle_of_a_job() -> None:
    def play(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        if number == 0:
            peer.send(Command.JOB_CREATED, b"H:1")
        elif number == 1:
            peer.send_bytes(b"rubbish from somewhere")
        else:
            peer.send_bytes(response(Command.NOOP) + response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"f", b"", b"w"))

    def outlive(job: Job, workload: str) -> str:
        eventually(lambda: scripted._peers[2].socket.fileno() == -1)

        def is_lost() -> bool:
            job.status(1, 2)  # what is sent to one that has closed is refused, but a moment later
            return job.session.lost

        eventually(is_lost)
        return "for nobody"

    with ScriptedServer(play) as scripted:
        for error in ("sent JOB_CREATED, which nobody asked for", "expected a Gearman packet"):
            with (
                Worker.connect(scripted.address, {"f": capabilities.echo}) as worker,
                pytest.raises(ProtocolError, match=error),
            ):
                worker.work()
        with Worker.connect(scripted.address, {"f": outlive}) as worker, pytest.raises(ConnectionLost):
            worker.work()


def test_a_job_for_a_function_it_does_not_have_is_failed_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    failed: list[bytes] = []

    def play(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:1", b"unknown", b"", b"")
        failed.append(peer.skip_to(Command.WORK_FAIL).handle)
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.NO_JOB)
        peer.receive()

    with ScriptedServer(play) as scripted, Worker.connect(scripted.address, {"f": capabilities.echo}) as worker:
        assert worker.grab() is None
    assert failed == [b"H:1"]
    assert "no such function here: failed" in caplog.text


@pytest.mark.parametrize("exceptions", [True, False])
def test_a_job_over_max_packet_is_failed_and_the_next_one_done(
    job_server: JobServerProcess, caller: Caller, caplog: pytest.LogCaptureFixture, exceptions: bool
) -> None:
    offered = {"f": Capability(capabilities.echo, exceptions=exceptions)}
    with Worker.connect(job_server.address, offered, max_packet_bytes=1000) as worker:
        handles = caller.submit("f", "x" * 1000, "next")
        for grab in (Command.GRAB_JOB, Command.GRAB_JOB_ALL):
            job = worker.work(grab=grab)
            assert job
            assert job.workload == b"next"
            large, following = caller.packets()[-1], caller.packets()[-1]
            assert large.command is (Command.WORK_EXCEPTION if exceptions else Command.WORK_FAIL)
            assert large.handle.decode() == handles[0]
            assert not exceptions or b"bytes, over the limit of 1000 (max_packet)" in large.data
            assert (following.command, following.data) == (Command.WORK_COMPLETE, b"next")
            assert f"f {handles[0]}: too large for this worker: JOB_ASSIGN" in caplog.text
            handles = caller.submit("f", "x" * 1000, "next") if grab is Command.GRAB_JOB else []


def test_a_connection_whose_abilities_cannot_be_told_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Connection] = []

    def dial(server: Any) -> Connection:
        made.append(Connection(socket.socket(), server))
        monkeypatch.setattr(made[0], "send", lambda data: None)
        return made[0]

    monkeypatch.setattr(Connection, "dial", dial)
    with pytest.raises(CapabilityError):
        Worker.connect("127.0.0.1:1", {"f": Capability("no_such_module.f")})
    assert made[0].closed


def test_it_works_in_a_patched_process_without_holding_up_other_greenlets(gearmand: JobServerProcess) -> None:
    code = f"""
import gevent
from geard import Worker
from tests.support import capabilities

ticks = []
def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.01)
gevent.spawn(tick)
with Worker.connect({gearmand.address!r}) as worker:
    assert worker.work(timeout_seconds=0.2) is None
    assert len(ticks) > 1, ticks
    worker.can_do("reverse", capabilities.reverse)
    worker.work()
"""
    command = [sys.executable, "-c", "from gevent import monkey; monkey.patch_all()\n" + code]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        eventually(lambda: gearmand.status("reverse")[2] == 1)
        with Caller(gearmand.address) as caller:
            assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
        _, stderr = process.communicate(timeout=DEADLINE_SECONDS)
        assert process.returncode == 0, stderr.decode()
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
