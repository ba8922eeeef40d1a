"""`rate`: jobs are taken at its pace, and what is over it stays in the job server. Bounds follow from the time that
really passed: a busy machine makes them wider, never wrong."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from geard.config import Capability
from geard.config.model import Rate
from geard.protocol import Command
from geard.worker import WorkerPool
from geard.worker.bucket import SLACK_SECONDS
from tests.support.daemon import Daemon
from tests.support.pool import BOTH_WAYS, MODULE, Caller, background, pool_config, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually
from tests.test_worker_grabs import Accountant


def paced(rate: Rate, function: str = "echo") -> Capability:
    return Capability(f"{MODULE}.{function}", rate=rate)


def most(rate: Rate, seconds: float, processes: int = 1) -> float:
    """So many jobs may have come in this time."""
    return rate.per_second * (seconds + SLACK_SECONDS) + rate.burst + processes + 1


def test_jobs_come_at_the_rate_and_others_at_once(job_server: JobServerProcess) -> None:
    rate = Rate(60, 1)
    with (
        start_pool("process", job_server.address, {"paced": paced(rate), "echo": "echo"}),
        Caller(job_server.address) as caller,
    ):
        began = time.monotonic()
        caller.submit("paced", *map(str, range(90)))
        with Caller(job_server.address) as other:
            assert other.run("echo", "hello") == ("WORK_COMPLETE", b"hello")
        for _ in range(90):
            assert caller.packet().command is Command.WORK_COMPLETE
        assert most(rate, time.monotonic() - began) >= 90


def test_processes_share_a_rate_also_when_their_number_changes(gearmand: JobServerProcess) -> None:
    rate = Rate(40, 1)
    capabilities = {"count": {"function": "caps.count", "rate": "40/s"}}
    with Daemon(gearmand, processes=2, capabilities=capabilities) as daemon:
        daemon.start()
        began = time.monotonic()
        background(gearmand.address, "count", *map(str, range(50)))
        eventually(lambda: len(daemon.runs) == 50, what="all jobs")
        assert most(rate, time.monotonic() - began, 2) >= 50
        daemon.signal(signal.SIGTTIN)
        eventually(lambda: [one.state for one in daemon.processes] == ["ready"] * 3, what="a third process")
        began = time.monotonic()
        background(gearmand.address, "count", *map(str, range(50, 100)))
        eventually(lambda: len(daemon.runs) == 100, what="all jobs")
        assert most(rate, time.monotonic() - began, 3) >= 50
        lines = (daemon.directory / "runs").read_text().splitlines()
        assert len({line.split()[1] for line in lines}) == 3, "each of them has taken some"
        assert set(daemon.runs.values()) == {1}
        assert daemon.stop() == 0


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_channel_without_tokens_neither_asks_nor_sleeps(mode: str) -> None:
    rate = Rate(8, 1)
    accountant = Accountant([b"%d" % number for number in range(1000)], b"paced")
    began = time.monotonic()
    with (
        ScriptedServer(accountant.play) as scripted,
        start_pool(mode, scripted.address, {"paced": paced(rate)}) as pool,
    ):
        eventually(lambda: len(accountant.results) >= 12)
        taken, seconds = sum(accountant.batches), time.monotonic() - began
        assert taken <= most(rate, seconds)
        commands = [packet.command for packet in accountant.packets]
        assert commands.count(Command.PRE_SLEEP) <= taken
        assert len(commands) <= 3 * taken + 5 + 2 * seconds, "each job costs its grab and result, and no more is said"
        pool.drain()
        assert pool.join() == []
    assert len(accountant.results) == 1000 - len(accountant.jobs), "what was taken is done"


def test_what_is_over_the_rate_stays_for_others(gearmand: JobServerProcess) -> None:
    with start_pool("threads", gearmand.address, {"f": paced(Rate(1, 3600))}) as slow:
        background(gearmand.address, "f", *map(str, range(50)))
        eventually(lambda: slow.counters() == (1, 0), what="the one that it may take")
        with start_pool("threads", gearmand.address, {"f": "echo"}) as fast:
            eventually(lambda: gearmand.status("f")[0] == 0, what="all of them")
            eventually(lambda: fast.counters() == (49, 0), what="all that were over")
        assert slow.counters() == (1, 0)


def test_job_servers_share_a_rate_and_none_is_starved(gearmand: JobServerProcess, embedded: JobServerProcess) -> None:
    rate = Rate(60, 1)
    with Caller(gearmand.address) as one, Caller(embedded.address) as two:
        one.submit("f", *map(str, range(200)))
        two.submit("f", *map(str, range(200)))
        began = time.monotonic()
        with start_pool("threads", [gearmand.address, embedded.address], {"f": paced(rate)}) as pool:
            for _ in range(10):
                assert one.packet().command is Command.WORK_COMPLETE
                assert two.packet().command is Command.WORK_COMPLETE
            done, seconds = sum(pool.counters()), time.monotonic() - began
            assert 20 <= done <= most(rate, seconds)


def test_a_job_server_that_owes_an_answer_does_not_keep_the_others_waiting(gearmand: JobServerProcess) -> None:
    def mute(peer: Peer, number: int) -> None:
        peer.socket.settimeout(None)
        while True:
            peer.receive()

    with (
        ScriptedServer(mute) as scripted,
        WorkerPool(
            pool_config([scripted.address, gearmand.address], {"f": paced(Rate(2, 1))}, shutdown_timeout_seconds=0.2)
        ),
        Caller(gearmand.address) as caller,
    ):
        caller.submit("f", "1", "2", "3")
        assert [caller.packet().command for _ in range(3)] == [Command.WORK_COMPLETE] * 3


def test_a_job_that_runs_again_counts_too(gearmand: JobServerProcess, tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text("""
seen = set()
def fails_once(workload):
    if workload not in seen:
        seen.add(workload)
        raise OSError(workload)
    return workload
""")
    rate = {"function": "flaky.fails_once", "rate": "30/s", "retry": {"times": 1, "wait": "1ms"}}
    with Daemon(gearmand, python_path=[str(tmp_path)], capabilities={"f": rate}) as daemon:
        daemon.start()
        with Caller(gearmand.address) as caller:
            began = time.monotonic()
            caller.submit("f", *map(str, range(25)))
            for _ in range(25):
                assert caller.packet().command is Command.WORK_COMPLETE
            assert most(Rate(30, 1), time.monotonic() - began) >= 49  # the last may run again at once
