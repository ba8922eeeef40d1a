"""A worker process that comes to use too much memory: it sees so itself, and loses nothing over it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geard.config import Capability, Config
from geard.messages import OverMemory, Ready
from geard.worker.memory import LOOK_SECONDS, watch_memory
from tests.support.daemon import CAPABILITIES, Daemon, submit
from tests.support.pool import Caller, PoolInProcess, background, capability, pool_config, start_pool
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

HOARD = (
    CAPABILITIES
    + """

HOARD = []


def hoard(workload):
    # `name megabytes`: keeps so much, and ends a while later
    name, megabytes = workload.split()
    HOARD.append(bytearray(b"x" * 1_000_000 * int(megabytes)))
    time.sleep(1)
    record(name)
"""
)
MIB = 2**20


class Watched:
    """What watch_memory does of a process that uses this much, look after look."""

    def __init__(self, used: list[int], soft: int | None = None, hard: int | None = None) -> None:
        self.told = self.looks = self.stopped_at = 0
        self._used: Iterator[int] = iter(used)
        config = Config(max_memory_bytes=soft, max_memory_hard_bytes=hard)
        try:
            watch_memory(config, used[0], sleep=self._sleep, tell=self._tell, stop=self._stop, used_bytes=self._next)
        except StopIteration:
            return

    def _sleep(self, seconds: float) -> None:
        assert seconds == LOOK_SECONDS
        self.looks += 1

    def _tell(self) -> None:
        self.told += 1

    def _stop(self, used: int) -> None:
        self.stopped_at = used

    def _next(self) -> int:
        return next(self._used)


def test_without_a_limit_nothing_is_looked_at() -> None:
    assert Watched([1]).looks == 0


def test_near_the_limit_the_supervisor_is_told_each_time_and_at_the_hard_one_the_process_stops() -> None:
    watched = Watched([10, 50, 89, 90, 95, 150, 200, 300], soft=100, hard=200)
    assert (watched.told, watched.stopped_at) == (3, 200)


def test_a_hard_limit_below_what_a_fresh_process_uses_is_not_kept_and_said_so(caplog: pytest.LogCaptureFixture) -> None:
    watched = Watched([300 * MIB] * 5, hard=200 * MIB)
    assert (watched.looks, watched.stopped_at) == (0, 0)
    assert "max_memory_hard (200 MiB) is not kept: a fresh process uses 300 MiB" in caplog.text


def test_over_the_hard_limit_no_job_is_taken_though_the_supervisor_says_nothing(gearmand: JobServerProcess) -> None:
    offered = {"hoard": "hoard", "sleep": "sleep"}
    pool = PoolInProcess(pool_config(gearmand.address, offered, max_memory_hard_bytes=150 * MIB))
    try:
        pool.start()
        assert 10 * MIB < pool.hear(Ready).memory_bytes < 150 * MIB
        background(gearmand.address, "sleep", "in-flight 2")
        background(gearmand.address, "hoard", "200")
        assert pool.hear(OverMemory).memory_bytes > 150 * MIB
        background(gearmand.address, "sleep", *(f"later-{number} 0" for number in range(5)))
        assert pool.join() == [], "it finished what it had"
        eventually(lambda: gearmand.status("sleep")[:2] == (5, 0))
    finally:
        pool.close()


def test_a_daemon_over_the_hard_limit_runs_each_job_once_and_goes_on_in_a_fresh_process() -> None:
    with (
        Gearmand() as gearmand,
        Daemon(gearmand, capabilities={"hoard": "caps.hoard", "sleep": "caps.sleep"}, max_memory_hard="150M") as daemon,
    ):
        (daemon.directory / "caps.py").write_text(HOARD)
        daemon.start()
        first = daemon.processes[0].pid
        innocent = [f"job-{number}" for number in range(50)]
        submit(gearmand, "sleep", *(f"{name} 1.5" for name in innocent[:25]))
        submit(gearmand, "hoard", "greedy 200")
        submit(gearmand, "sleep", *(f"{name} 0.1" for name in innocent[25:]))
        daemon.wait_for("(max_memory_hard)")
        eventually(lambda: set(daemon.runs) == {*innocent, "greedy"})
        eventually(lambda: [process.pid for process in daemon.processes] not in ([], [first]))
        submit(gearmand, "sleep", "after 0")
        eventually(lambda: daemon.runs["after"] == 1)
        assert set(daemon.runs.values()) == {1}


def test_a_result_that_there_is_no_memory_to_send_fails_its_job_and_no_other(gearmand: JobServerProcess) -> None:
    offered: dict[str, str | Capability] = {"large": capability("too_large_to_send", "bytes"), "reverse": "reverse"}
    with start_pool("process", gearmand.address, offered) as pool, Caller(gearmand.address) as caller:
        assert caller.run("large", "100") == ("WORK_EXCEPTION", b"MemoryError")
        assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
        assert pool.counters() == (1, 1)


def test_results_that_there_is_no_memory_to_send_in_one_write_are_sent_one_by_one(gearmand: JobServerProcess) -> None:
    offered: dict[str, str | Capability] = {"together": capability("together", "bytes"), "reverse": "reverse"}
    with start_pool("process", gearmand.address, offered), Caller(gearmand.address) as caller:
        caller.submit("together", *["4 30"] * 4)
        for _ in range(4):
            [packet] = caller.packets()
            assert (packet.command.name, len(packet.fields[1])) == ("WORK_COMPLETE", 30_000_000)
        assert caller.run("reverse", "abc") == ("WORK_COMPLETE", b"cba")
