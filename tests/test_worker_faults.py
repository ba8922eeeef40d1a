"""A job server that misbehaves: its channel connects again, another one goes on meanwhile, and the log says it once."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from geard import connection
from geard.protocol import Command, response
from geard.worker import channel as channel_module
from geard.worker import pool as pool_module
from tests.support import capabilities
from tests.support.pool import BOTH_WAYS, Caller, PoolInProcess, background, pool_config, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, JobServerProcess, free_port
from tests.support.waiting import DEADLINE_SECONDS, eventually

Script = Callable[[Peer], None]


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


def read_on(peer: Peer) -> None:
    """Play dead, but read."""
    while True:
        peer.receive()


def serve(peer: Peer) -> None:
    """Behave: one job, `reverse` of `abc`, then none. Each answer that comes is kept in `peer.answers`."""
    given = False
    while True:
        packet = peer.receive()
        if packet.command is Command.GRAB_JOB_UNIQ and not given:
            given = True
            peer.send(Command.JOB_ASSIGN_UNIQ, b"H:good", b"reverse", b"", b"abc")
        elif packet.command is Command.GRAB_JOB_UNIQ:
            peer.send(Command.NO_JOB)
        elif packet.command is Command.ECHO_REQ:
            peer.send(Command.ECHO_RES, packet.data)
        elif packet.command is Command.WORK_COMPLETE:
            ANSWERS.append((packet.handle, packet.data))


ANSWERS: list[tuple[bytes, bytes]] = []


def close_at_once(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)


def close_in_a_packet(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"reverse", b"", b"xyz")[:-2])


def reset(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def rubbish(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    read_on(peer)


def request_magic(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(b"\0REQ" + struct.pack(">II", int(Command.NOOP), 0))
    read_on(peer)


def too_large_to_be_named(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(b"\0RES" + struct.pack(">II", int(Command.JOB_ASSIGN_UNIQ), 2_000_000) + b"x" * 20_000)
    read_on(peer)


def too_large_and_no_job(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(b"\0RES" + struct.pack(">II", int(Command.ECHO_RES), 2_000_000))
    read_on(peer)


def unasked_job(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"sleep", b"", b"0") * 2)
    read_on(peer)


def unasked_no_job(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send_bytes(response(Command.NO_JOB) * 2)
    read_on(peer)


def unasked_reply(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send(Command.JOB_CREATED, b"H:1")
    read_on(peer)


def unasked_farewell(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send(Command.ECHO_RES, b"drained")
    read_on(peer)


def error(peer: Peer) -> None:
    peer.skip_to(Command.GRAB_JOB_UNIQ)
    peer.send(Command.ERROR, b"SERVER_ERROR", b"out of order")
    read_on(peer)


FAULTS: dict[Script, str] = {
    close_at_once: "closed the connection",
    close_in_a_packet: "closed the connection",
    reset: "connection reset by peer",
    rubbish: "expected a Gearman packet, got b'HTTP/1.1 400",
    request_magic: "expected a Gearman packet, got b'\\x00REQ",
    too_large_to_be_named: "JOB_ASSIGN_UNIQ takes 4 fields, got b'xxx",
    too_large_and_no_job: "ECHO_RES of 2000012 bytes, over the limit of 1000000",
    unasked_job: "assigned a job that nobody asked for: b'H:1'",
    unasked_no_job: "sent a NO_JOB that nobody asked for",
    unasked_reply: "sent JOB_CREATED, which nobody asked for",
    unasked_farewell: "sent ECHO_RES, which nobody asked for",
    error: "answered SERVER_ERROR: out of order",
}
OFFERED = {"reverse": "reverse", "sleep": "sleep"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_channel_connects_again_and_the_others_go_on(server: JobServerProcess, mode: str, fault: Script) -> None:
    ANSWERS.clear()
    failing = 2
    with ScriptedServer(lambda peer, number: fault(peer) if number < failing else serve(peer)) as broken:
        settings = {"max_packet_bytes": 1_000_000}
        with (
            start_pool(mode, [broken.address, server.address], OFFERED, **settings) as pool,
            Caller(server.address) as caller,
        ):
            while broken.connections <= failing:
                assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba"), "the other channel goes on"
            eventually(lambda: (b"H:good", b"cba") in ANSWERS, what="the job of the server that has recovered")
            # A worker process hands its lines over without waiting: the last may come after the answer.
            told = eventually(lambda: told_of(broken.address, pool.log), what="the line of the last connection")
            assert [FAULTS[fault] in line for line in told].count(True) == told_times(told)
            pool.drain()
            assert pool.join() == []


def told_of(address: str, log: str) -> list[str]:
    """The lines about this job server, once the last says that it is connected."""
    told = [line for line in log.splitlines() if address in line]
    return told if told and f"connected to {address}" in told[-1] else []


def told_times(lines: list[str]) -> int:
    """Once for each time that the connection had worked before: a change of state each."""
    return max(1, sum("connected to" in line for line in lines) - 1)


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_server_that_is_down_at_the_start_is_told_once_and_served_when_it_comes(
    server: JobServerProcess, mode: str
) -> None:
    late = Gearmand()
    with start_pool(mode, [late.address, server.address], OFFERED) as pool, Caller(server.address) as caller:
        for _ in range(3):
            assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
        caller.run("sleep", "0.7")  # time for several attempts
        with late, Caller(late.address) as its_caller:
            assert its_caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
            told = f"cannot connect to {late.address}: 127.0.0.1: connection refused; trying again until it answers"
            assert pool.log.count(told) == 1
            eventually(lambda: f"connected to {late.address}" in pool.log)


def test_a_server_that_hangs_in_connect_holds_up_nobody_and_no_drain(server: JobServerProcess) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hanging, socket.socket() as first:
        address = f"127.0.0.1:{hanging.getsockname()[1]}"
        first.connect(hanging.getsockname())  # the queue is full: who connects now gets no answer
        pool = PoolInProcess(pool_config([address, server.address], OFFERED))
        try:
            pool.start(wait=False)
            with Caller(server.address) as caller:
                for _ in range(3):
                    assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
            pool.drain()
            assert pool.join() == []
            assert "no answer within" not in pool.log, "nobody waited for it"
        finally:
            pool.close()


@pytest.fixture
def quick_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed after a moment, in threads of this process."""
    monkeypatch.setattr(pool_module, "TICK_SECONDS", 0.02)
    monkeypatch.setattr(channel_module, "SILENT_TICKS", 5)


@pytest.mark.parametrize("part", [0, 5, 12, 20])
def test_half_a_packet_and_then_silence_is_a_dead_server(quick_clock: None, part: int) -> None:
    def fall_silent(peer: Peer, number: int) -> None:
        if number:
            serve(peer)
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"reverse", b"", b"xyz")[:part])
        read_on(peer)

    ANSWERS.clear()
    with ScriptedServer(fall_silent) as broken, start_pool("threads", broken.address, OFFERED) as pool:
        eventually(lambda: (b"H:good", b"cba") in ANSWERS)
        assert pool.log.count(f"{broken.address} has not answered for") == 1


def test_a_drain_ends_though_its_farewell_is_answered_with_anything_else(quick_clock: None) -> None:
    over = threading.Event()

    def evade(peer: Peer, _: int) -> None:
        while (packet := peer.receive()).command is not Command.ECHO_REQ:
            if packet.command is Command.GRAB_JOB_UNIQ:
                peer.send(Command.NO_JOB)
        while not over.wait(0.02):
            peer.send(Command.NOOP)

    with ScriptedServer(evade) as server, start_pool("threads", server.address, OFFERED) as pool:
        pool.drain()
        try:
            assert pool.join() == []
        finally:
            over.set()


def test_silence_while_all_greenlets_are_busy_costs_no_connection(quick_clock: None) -> None:
    """Nobody reads then: that a NOOP came in two pieces must not look like a dead server."""
    capabilities.GATE.clear()
    results: list[bytes] = []

    def split_a_noop(peer: Peer, number: int) -> None:
        assert number == 0, "it connected again"
        peer.skip_to(Command.PRE_SLEEP)
        noop = response(Command.NOOP)
        peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"wait", b"", b"result") + noop[:5])
        results.append(peer.skip_to(Command.WORK_COMPLETE).data)
        peer.send_bytes(noop[5:])
        serve(peer)

    with (
        ScriptedServer(split_a_noop) as scripted,
        start_pool("threads", scripted.address, {"wait": "wait_for_gate"}, greenlets_per_server=1) as pool,
    ):
        eventually(pool.jobs)
        clock = time.monotonic()
        eventually(lambda: time.monotonic() - clock > 0.5)  # many more ticks than a dead server is given
        capabilities.GATE.set()
        eventually(lambda: results == [b"result"])
    capabilities.GATE.clear()


def test_a_server_that_stops_reading_is_given_up_and_no_greenlet_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """In threads, where a send blocks until the system gives the peer up."""
    soon = [
        (*option[:2], 300 if option[1] == socket.TCP_USER_TIMEOUT else option[2]) for option in connection._KEEPALIVE
    ]
    monkeypatch.setattr(connection, "_KEEPALIVE", soon)

    def stop_reading(peer: Peer, number: int) -> None:
        if number:
            serve(peer)
        peer.skip_to(Command.PRE_SLEEP)
        peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"streams", b"", b"400 65536"))
        threading.Event().wait(DEADLINE_SECONDS)

    ANSWERS.clear()
    offered = {"streams": "streams", "reverse": "reverse"}
    with ScriptedServer(stop_reading) as broken, start_pool("threads", broken.address, offered) as pool:
        eventually(lambda: (b"H:good", b"cba") in ANSWERS, what="a job on the next connection")
        eventually(lambda: not pool.jobs(), what="the end of the job that streamed")
        pool.drain()
        assert pool.join() == []
    # The system tells one thread why, in its recv or send; another one's send finds but a broken pipe, perhaps first.
    reasons = (f"{broken.address} does not answer", f"lost {broken.address}: broken pipe")
    assert any(f"{reason}; connecting again" in pool.log for reason in reasons)


@pytest.mark.parametrize(
    "flood",
    [
        response(Command.NOOP),
        response(Command.ECHO_RES, b"look"),
        response(Command.ERROR, b"JOB_NOT_FOUND", b"who?"),
    ],
    ids=["NOOPs", "echoes", "errors"],
)
def test_a_job_server_that_never_stops_talking_holds_up_no_other(server: JobServerProcess, flood: bytes) -> None:
    def talk(peer: Peer, _: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        threading.Thread(target=ignore, args=(peer,), daemon=True).start()
        while True:
            peer.send_bytes(flood * 20_000)

    def ignore(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            while peer.socket.recv(65536):
                pass

    with (
        ScriptedServer(talk) as talker,
        start_pool("process", [server.address, talker.address], {"reverse": "reverse"}),
        Caller(server.address) as caller,
    ):
        for _ in range(10):
            assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_job_for_a_function_we_do_not_have_is_failed_and_logged(mode: str) -> None:
    failed: list[bytes] = []

    def assign_another(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:9", b"unknown", b"", b"")
        failed.append(peer.skip_to(Command.WORK_FAIL).handle)
        serve(peer)

    ANSWERS.clear()
    with ScriptedServer(assign_another) as scripted, start_pool(mode, scripted.address, OFFERED) as pool:
        eventually(lambda: (b"H:good", b"cba") in ANSWERS, what="the next job on the same connection")
        assert failed == [b"H:9"]
        assert scripted.connections == 1
        assert "no such function here: failed" in pool.log


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_job_that_the_server_no_longer_knows_is_logged_and_nothing_more(mode: str) -> None:
    def forget(peer: Peer, number: int) -> None:
        assert number == 0, "it connected again"
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:1", b"reverse", b"", b"xyz")
        peer.skip_to(Command.WORK_COMPLETE)
        peer.send(Command.ERROR, b"JOB_NOT_FOUND", b"Job given in work result not found")
        serve(peer)

    ANSWERS.clear()
    with ScriptedServer(forget) as scripted, start_pool(mode, scripted.address, OFFERED) as pool:
        eventually(lambda: (b"H:good", b"cba") in ANSWERS)
        assert f"{scripted.address} no longer knows a job that we answered" in pool.log


# --- killed and started again -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_job_server_killed_with_jobs_in_flight_gets_new_jobs_done_after_its_return(mode: str) -> None:
    gate = {name: name for name in ("wait_for_gate", "open_gate", "close_gate")}
    with Gearmand() as server, start_pool(mode, server.address, OFFERED | gate) as pool:
        with Caller(server.address) as caller:
            assert caller.run("close_gate")[0] == "WORK_COMPLETE"
        background(server.address, "wait_for_gate", *"1234")
        eventually(lambda: sum(job.seconds > 0 for job in pool.jobs()) == 4, what="four running jobs")
        server.kill()
        eventually(
            lambda: f"{server.address} closed the connection" in pool.log or f"lost {server.address}" in pool.log
        )
        assert "; connecting again; lost to others, jobs in flight: 4" in pool.log
        server.start()
        with Caller(server.address) as caller:
            assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
            assert caller.run("open_gate")[0] == "WORK_COMPLETE"
        dropped = f"dropped: the connection to {server.address} is gone"
        eventually(lambda: pool.log.count(dropped) == 4, what="the results of the lost jobs in the log")
        eventually(lambda: not pool.jobs())
        assert pool.connected() == 1
        with Caller(server.address) as caller:
            assert [caller.run("reverse", "abc") for _ in range(10)] == [("WORK_COMPLETE", b"cba")] * 10
        assert server.status("wait_for_gate") == (0, 0, 1), "nobody answered for jobs of another life"


def test_a_free_port_that_is_nobodys_is_no_reason_to_wait_with_a_drain() -> None:
    with start_pool("process", f"127.0.0.1:{free_port()}", OFFERED) as pool:
        pool.drain()
        assert pool.join() == []
