"""What a worker process counts: it comes with its heartbeats, and the supervisor's sums outlive the process."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from geard.config import Capability, config_from
from geard.messages import Heartbeat
from geard.stats.diff import Diff, FunctionDiff, ProcessDiff
from geard.stats.failures import Failure
from geard.supervisor import answers
from geard.supervisor.ask import ask
from geard.worker import WorkerPool
from tests.support.daemon import Daemon, submit
from tests.support.pool import Caller, PoolInProcess, background, capability, start_pool
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

SETTINGS = {"max_packet_bytes": 10_000, "keep_workloads": True}
OFFERED: dict[str, str | Capability] = {
    "echo": "echo",
    "streams": "streams",
    "misbehave": "misbehave",
    "answers_fail": "answers_fail",
    "answers_exception": "answers_exception",
    "late": capability("sleep", timeout=0.05),
    "idle": "echo",
}


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


def counted(pool: PoolInProcess) -> list[Diff]:
    return [beat.counted for beat in pool.said if isinstance(beat, Heartbeat) and beat.counted]


def summed(pool: PoolInProcess, name: str) -> FunctionDiff:
    """What all heartbeats together say of a function."""
    parts = [diff.functions[name] for diff in counted(pool) if name in diff.functions]
    durations: Counter[int] = Counter()
    waits: Counter[int] = Counter()
    for part in parts:
        durations.update(part.durations)
        waits.update(part.waits)
    return FunctionDiff(
        done=sum(part.done for part in parts),
        failed=sum(part.failed for part in parts),
        timed_out=sum(part.timed_out for part in parts),
        durations=dict(durations),
        duration_us=sum(part.duration_us for part in parts),
        waits=dict(waits),
        wait_us=sum(part.wait_us for part in parts),
        bytes_in=sum(part.bytes_in for part in parts),
        bytes_out=sum(part.bytes_out for part in parts),
    )


def failures(pool: PoolInProcess) -> dict[str, Failure]:
    return {failure.handle: failure for diff in counted(pool) for failure in diff.failures}


def test_each_job_is_counted_once_and_each_failure_is_told_with_its_reason(server: JobServerProcess) -> None:
    with start_pool("process", server.address, OFFERED, **SETTINGS) as pool, Caller(server.address) as caller:
        assert isinstance(pool, PoolInProcess)
        for number in range(50):
            caller.run("echo", f"{number:04d}")
        caller.run("streams", "3 80")
        jobs = [
            ("misbehave", "raise"),
            ("answers_fail", ""),
            ("answers_exception", ""),
            ("late", "10"),
            ("echo", "x" * 20_000),
            ("misbehave", "unprintable"),
        ]
        handles = [caller.submit(*job, unique=f"u-{number}")[0] for number, job in enumerate(jobs)]
        for _ in handles:
            caller.packets()
        pool.drain()
        assert pool.join() == []  # a last heartbeat goes before the end
        process = f"worker 1[{pool.process.pid if pool.process else 0}]"
        echo = summed(pool, "echo")
        assert (echo.done, echo.failed, echo.bytes_in, echo.bytes_out) == (50, 1, 200, 200)
        assert sum(echo.durations.values()) == sum(echo.waits.values()) == 51
        assert summed(pool, "streams").bytes_out >= 240
        late = summed(pool, "late")
        assert (late.done, late.failed, late.timed_out) == (0, 0, 1)
        assert late.duration_us >= 50_000
        assert all("idle" not in diff.functions for diff in counted(pool)), "what did nothing is not told"

        found = failures(pool)
        assert set(found) == set(handles)
        raised, fail, exception, ran_late, too_large, unprintable = (found[handle] for handle in handles)
        assert (raised.function, raised.unique, raised.type, raised.text) == (
            "misbehave", "u-0", "ValueError", "as it does")  # fmt: skip
        assert "in _raise" in raised.traceback
        assert (raised.server, raised.process, raised.workload) == (server.address, process, b"raise")
        assert abs(raised.time - time.time()) < 3600
        assert (fail.type, fail.text, fail.traceback) == ("", "", "")
        assert (exception.type, exception.text) == ("", "in my own words ☃")
        assert (ran_late.type, ran_late.text) == ("timeout", "late ran longer than its timeout of 0.05 s")
        assert "over the limit of 10000" in too_large.text
        assert unprintable.text == "its __str__ raised ValueError"

        last = counted(pool)[-1]
        assert sum(diff.servers[server.address].grabs for diff in counted(pool)) >= 56
        assert sum(diff.servers[server.address].no_jobs for diff in counted(pool)) >= 1
        assert last.process.memory_bytes > 2**20
        assert sum(diff.process.cpu_seconds for diff in counted(pool)) > 0


def test_what_cannot_be_written_as_json_does_not_silence_a_process(server: JobServerProcess) -> None:
    with start_pool("process", server.address, OFFERED) as pool, Caller(server.address) as caller:
        assert isinstance(pool, PoolInProcess)
        assert caller.run("misbehave", "surrogate")[0] == "WORK_EXCEPTION"
        [told] = eventually(lambda: list(failures(pool).values()))
        assert told.text == "half a pair: \\ud800"
        assert told.workload is None, "it is not kept unless that was asked for"
        assert pool.connected() == 1


def test_a_connection_made_again_is_counted(server: JobServerProcess) -> None:
    with Gearmand() as fragile, start_pool("process", [fragile.address, server.address], OFFERED) as pool:
        assert isinstance(pool, PoolInProcess)
        assert pool.connected() == 2
        fragile.kill()
        eventually(lambda: any(not diff.servers[fragile.address].connected for diff in counted(pool)))
        fragile.restart()
        eventually(lambda: sum(diff.servers[fragile.address].reconnects for diff in counted(pool)) == 1)
        assert sum(diff.servers[server.address].reconnects for diff in counted(pool)) == 0


def test_counters_never_fall_whatever_becomes_of_the_processes() -> None:
    with Gearmand() as gearmand, Daemon(gearmand, processes=2) as daemon:
        daemon.start()

        def done() -> int:
            snapshot = ask(daemon.socket, answers.STATS).snapshot
            assert snapshot
            function = snapshot.functions.get("count")
            return function.done if function else 0

        submit(gearmand, "count", *(f"job-{number}" for number in range(200)))
        eventually(lambda: done() == 200)
        for process in list(daemon.processes):
            os.kill(process.pid, signal.SIGKILL)
        daemon.wait_for("is ready", 4)
        assert done() == 200
        assert daemon.reload().returncode == 0
        submit(gearmand, "count", *(f"more-{number}" for number in range(100)))
        eventually(lambda: done() == 300)


def test_each_attempt_of_a_job_that_runs_again_is_counted(server: JobServerProcess) -> None:
    def flaky(workload: str) -> None:
        raise ValueError("boom")

    retry = {"times": 2, "wait": "10ms"}
    capabilities = {"flaky": {"function": flaky, "retry": retry}}
    with WorkerPool(config_from({"job_servers": [server.address], "capabilities": capabilities})) as pool:
        background(server.address, "flaky", "job")
        eventually(lambda: pool.failed == 3)
        [capability] = pool.capabilities
        taken = pool.tally.take(pool.channels, [capability], ProcessDiff())
        assert taken.functions["flaky"].failed == 3
        assert {failure.text for failure in taken.failures} == {"boom"}
