"""A drain: what runs or is assigned is finished and its result arrives, the rest stays queued, nothing runs twice."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard.protocol import Command
from tests.support import capabilities
from tests.support.pool import BOTH_WAYS, Caller, PoolInProcess, PoolInThreads, capability, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import JobServerProcess
from tests.support.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture(autouse=True)
def closed_gate() -> Iterator[None]:
    capabilities.GATE.clear()
    yield
    capabilities.GATE.set()  # for threads that wait at it


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_running_jobs_finish_and_queued_ones_stay(job_server: JobServerProcess, mode: str) -> None:
    with (
        start_pool(mode, job_server.address, {"sleep": "sleep"}, greenlets_per_server=10) as pool,
        Caller(job_server.address) as caller,
    ):
        handles = caller.submit("sleep", *(f"{number} 0.4" for number in range(15)))
        eventually(lambda: job_server.status("sleep")[1] == 10)
        pool.drain()
        ended = [caller.packets()[-1] for _ in range(10)]
        assert {packet.command for packet in ended} == {Command.WORK_COMPLETE}
        assert {packet.handle.decode() for packet in ended} <= set(handles)
        assert pool.join() == []
        eventually(lambda: job_server.status("sleep") == (5, 0, 0))


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_assigned_jobs_that_no_greenlet_has_begun_are_finished_too(gearmand: JobServerProcess, mode: str) -> None:
    """CPU-bound jobs in one process: most of a batch waits while one runs. Each runs once, whoever has it."""
    names = [f"{number} 0.004" for number in range(1000)]
    with (
        start_pool(mode, gearmand.address, {"spin": "spin"}, greenlets_per_server=50) as pool,
        Caller(gearmand.address) as caller,
    ):
        caller.submit("spin", *names)
        results = Counter(caller.packets()[-1].data.decode() for _ in range(100))  # by then it asks for many at once
        pool.drain()
        assert pool.join() == []
        eventually(lambda: gearmand.status("spin")[2] == 0)
        left, running, _ = gearmand.status("spin")
        assert running == 0
        assert 0 < left < 900
        with start_pool("threads", gearmand.address, {"spin": "spin"}):
            results.update(caller.packets()[-1].data.decode() for _ in range(900))
        assert (len(results), set(results.values())) == (1000, {1}), "each ran, and none twice"


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_no_job_is_handed_back_while_a_drain_goes_on(gearmand: JobServerProcess, mode: str) -> None:
    with (
        start_pool(mode, gearmand.address, {"sleep": "sleep"}, greenlets_per_server=20) as pool,
        start_pool("threads", gearmand.address, {"other": "echo"}),
        Caller(gearmand.address) as caller,
    ):
        caller.submit("sleep", *(f"{number} {0.1 + number / 40}" for number in range(20)))
        eventually(lambda: gearmand.status("sleep")[1] == 20)
        pool.drain()
        while (status := gearmand.status("sleep"))[0]:
            assert status[0] == status[1], "a job is queued again"
        assert pool.join() == []


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_what_is_abandoned_after_the_deadline_is_done_by_another_worker(gearmand: JobServerProcess, mode: str) -> None:
    with start_pool(mode, gearmand.address, {"job": "wait_for_gate"}) as pool, Caller(gearmand.address) as caller:
        [handle] = caller.submit("job", "mine")
        eventually(lambda: gearmand.status("job")[1] == 1)
        pool.drain(0.2)
        [abandoned] = pool.join()
        assert (abandoned.function, abandoned.handle, abandoned.server) == ("job", handle, gearmand.address)
        assert abandoned.seconds > 0
        with start_pool("threads", gearmand.address, {"job": "reverse"}):
            [packet] = caller.packets()
            assert (packet.handle.decode(), packet.data) == (handle, b"enim")


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_an_idle_pool_drains_without_a_word_from_the_server(gearmand: JobServerProcess, mode: str) -> None:
    with start_pool(mode, gearmand.address, {"a": "echo", "b": capability("echo", greenlets=3)}) as pool:
        eventually(lambda: gearmand.status("a")[2] == 1 and gearmand.status("b")[2] == 1)
        pool.drain()
        pool.drain()
        assert pool.join() == []
        eventually(lambda: gearmand.status("a")[2] == gearmand.status("b")[2] == 0)


@pytest.mark.parametrize("ways", ["TERM", "TERM twice", "the supervisor's end"])
def test_every_way_to_tell_a_worker_process_to_stop(gearmand: JobServerProcess, ways: str, tmp_path: Path) -> None:
    with start_pool("process", gearmand.address, {"f": "until_file"}) as pool, Caller(gearmand.address) as caller:
        assert isinstance(pool, PoolInProcess)
        assert pool.process
        caller.submit("f", f"waits {tmp_path}/go")
        eventually(pool.jobs)  # that the job server has handed it out is not enough
        if ways == "the supervisor's end":
            pool.hang_up()
        else:
            pool.process.send_signal(signal.SIGTERM)
            eventually(lambda: "draining, jobs in flight: 1" in pool.log)
        if ways == "TERM twice":
            pool.process.send_signal(signal.SIGTERM)
        else:
            (tmp_path / "go").touch()
            assert caller.packets()[-1].data == b"waits"
        assert pool.process.wait(DEADLINE_SECONDS) == 0
        eventually(lambda: gearmand.status("f") == (1 if ways == "TERM twice" else 0, 0, 0))


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_drain_never_takes_an_ability_back_and_ends_with_proof_that_all_was_read(mode: str) -> None:
    """CANT_DO or RESET_ABILITIES would have the job server hand the jobs in flight to others."""
    packets: list[Command] = []
    drain = threading.Event()

    def record(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:1", b"sleep", b"", b"0.3")
        drain.set()
        while True:
            packet = peer.receive()
            packets.append(packet.command)
            if packet.command is Command.ECHO_REQ:
                peer.send(Command.ECHO_RES, packet.data)

    with ScriptedServer(record) as scripted, start_pool(mode, scripted.address, {"sleep": "sleep"}) as pool:
        assert drain.wait(DEADLINE_SECONDS)
        eventually(pool.jobs)
        pool.drain()
        assert pool.join() == []
    assert packets[-2:] == [Command.WORK_COMPLETE, Command.ECHO_REQ]
    assert set(packets[:-2]) <= {Command.PRE_SLEEP, Command.GRAB_JOB_UNIQ}


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_job_assigned_in_answer_to_a_grab_that_is_still_owed_is_done_before_the_drain_ends(mode: str) -> None:
    drained = threading.Event()
    results: list[bytes] = []

    def assign_late(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.NOOP)  # we are heard; the grab stays owed
        assert drained.wait(DEADLINE_SECONDS)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:1", b"reverse", b"", b"abc")
        results.append(peer.skip_to(Command.WORK_COMPLETE).data)
        peer.send(Command.ECHO_RES, peer.skip_to(Command.ECHO_REQ).data)

    with ScriptedServer(assign_late) as scripted, start_pool(mode, scripted.address, {"reverse": "reverse"}) as pool:
        pool.drain()
        if pool.mode == "process":
            eventually(lambda: "draining" in pool.log)
        drained.set()
        assert pool.join() == []
    assert results == [b"cba"]


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_an_idle_worker_asks_for_a_delayed_job_that_wakes_nobody(gearmand: JobServerProcess, mode: str) -> None:
    with (
        start_pool(mode, gearmand.address, {"reverse": "reverse"}),
        Caller(gearmand.address) as caller,
        Peer.connect(gearmand.address) as client,
    ):
        assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
        client.send(Command.SUBMIT_JOB_EPOCH, b"reverse", b"later", b"%d" % (time.time() + 1), b"x")
        client.expect(Command.JOB_CREATED)
        assert gearmand.status("reverse")[0] == 1
        eventually(lambda: gearmand.status("reverse")[0] == 0, what="the delayed job")


def test_stop_of_a_pool_in_threads_abandons_what_takes_longer_than_its_shutdown_timeout(
    gearmand: JobServerProcess,
) -> None:
    with start_pool(
        "threads", gearmand.address, {"job": "wait_for_gate"}, shutdown_timeout_seconds=0.2
    ) as pool, Caller(gearmand.address) as caller:  # fmt: skip
        assert isinstance(pool, PoolInThreads)
        [handle] = caller.submit("job", "x")
        eventually(lambda: gearmand.status("job")[1] == 1)
        pool.pool.stop()
        assert f"abandoned job {handle} after" in pool.log
        eventually(lambda: gearmand.status("job") == (1, 0, 0))
