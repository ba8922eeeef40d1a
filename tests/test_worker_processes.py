"""Capabilities that fork and start processes, in any way Python has: their jobs work, and no other job is touched."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from geard.config import Capability, JobServer
from geard.messages import CannotStart
from geard.protocol import Command
from tests.support import forks
from tests.support.pool import Caller, PoolInProcess, StartedPool, pool_config
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.tls import Certificates, Stunnel
from tests.support.waiting import eventually

INNOCENT = 50
METHODS = ("fork", "spawn", "forkserver")
SUM_OF_SQUARES = b"328350"
STARTERS = {  # function -> its workloads, and the result of each
    "fork": {"abc": b"cba 7"},
    "to_the_end": {"abc": b"cba 0 to the end"},
    "program": {"abc": b"cba"},
    "process": dict.fromkeys(METHODS, b"49 0"),
    "pool": dict.fromkeys(METHODS, SUM_OF_SQUARES),
    "executor": dict.fromkeys(METHODS, SUM_OF_SQUARES),
}
QUICK_STARTERS = {function: dict([next(iter(results.items()))]) for function, results in STARTERS.items()}


def capabilities(*functions: str) -> dict[str, str | Capability]:
    """Each of tests.support.forks as it is, and once more in a native thread: `thread NAME`."""
    plain = {name: Capability(f"{forks.__name__}.{name}") for name in functions}
    threads = {f"thread {name}": Capability(f"{forks.__name__}.{name}", thread=True) for name in functions}
    return {**plain, **threads}


def process(server: JobServerProcess | JobServer, *functions: str, on_start: str | None = None) -> StartedPool:
    servers = server.address if isinstance(server, JobServerProcess) else [server]
    config = pool_config(servers, capabilities(*functions), greenlets_per_server=100, on_start=on_start)
    return StartedPool(PoolInProcess(config))


def run_each_once(
    server: JobServerProcess, starters: dict[str, dict[str, bytes]], directory: Path, through: JobServer | None = None
) -> None:
    """Jobs of all starters, plain and in a thread, beside innocent ones; the worker comes `through` another address."""
    expected = Counter(result for results in starters.values() for result in results.values() for _ in range(2))
    with (
        process(through or server, "innocent", *starters) as pool,
        Caller(server.address) as others,
        Caller(server.address) as caller,
    ):
        others.submit("innocent", *[f"{directory} {number}" for number in range(INNOCENT)])
        for function, results in starters.items():
            caller.submit(function, *results)
            caller.submit(f"thread {function}", *results)
        ended = [caller.packets()[-1] for _ in range(expected.total())]
        assert Counter(packet.fields[1] for packet in ended) == expected, pool.log
        (directory / "release").touch()
        assert {others.packets()[-1].command for _ in range(INNOCENT)} == {Command.WORK_COMPLETE}
        assert Counter((directory / "runs").read_text().split()) == {str(number): 1 for number in range(INNOCENT)}
        assert pool.log.count("connected to") == 1, "no word of a child reached the job server"
        pool.drain()
        assert pool.join() == []


def test_whatever_starts_processes_works_beside_fifty_jobs_that_each_run_once(
    job_server: JobServerProcess, tmp_path: Path
) -> None:
    run_each_once(job_server, STARTERS if isinstance(job_server, Gearmand) else QUICK_STARTERS, tmp_path)


def test_over_tls_a_child_does_not_end_the_session_that_it_has_a_copy_of(
    gearmand: JobServerProcess, tmp_path: Path
) -> None:
    starters = {**{name: STARTERS[name] for name in ("fork", "program")}, "process": {"fork": b"49 0"}}
    certificates = Certificates(tmp_path)
    with Stunnel(certificates, gearmand.address) as stunnel:
        run_each_once(gearmand, starters, tmp_path, through=stunnel.server(certificates.tls()))


@pytest.mark.parametrize("thread", ["", "thread "])
def test_a_child_that_returns_from_the_job_ends_without_a_word(gearmand: JobServerProcess, thread: str) -> None:
    with process(gearmand, "child_returns") as pool, Caller(gearmand.address) as caller:
        for workload, code in {"returns": b"0", "raises": b"1", "exits": b"5"}.items():
            assert caller.story(f"{thread}child_returns", workload) == [("WORK_COMPLETE", code)]
        assert pool.log.count("ValueError: in the child") == 1
        assert "job failed" not in pool.log


def test_a_child_that_returns_from_on_start_is_no_second_worker_process(gearmand: JobServerProcess) -> None:
    with process(gearmand, "square", on_start=f"{forks.__name__}.starts_with_a_fork") as pool:
        assert isinstance(pool, PoolInProcess)
        assert not [message for message in pool.said if isinstance(message, CannotStart)]
        assert pool.log.count("connected to") == 1


@pytest.mark.parametrize("end", ["drain", "kill"])
def test_a_child_dies_with_its_worker_process(gearmand: JobServerProcess, end: str) -> None:
    with process(gearmand, "child_outlives", "leaves_a_pool") as pool, Caller(gearmand.address) as caller:
        assert isinstance(pool, PoolInProcess)
        assert pool.process
        assert caller.run("leaves_a_pool") == ("WORK_COMPLETE", b"9")
        pids = [int(caller.run(function)[1]) for function in ("child_outlives", "thread child_outlives")]
        assert all(map(is_running, pids))
        if end == "drain":
            pool.drain()
            pool.join()
        else:
            pool.process.send_signal(signal.SIGKILL)
        eventually(lambda: not any(map(is_running, pids)), what="the end of the children")


def test_a_child_has_the_signals_of_a_fresh_process(gearmand: JobServerProcess) -> None:
    with process(gearmand, "child_outlives") as pool, Caller(gearmand.address) as caller:
        child = int(caller.run("child_outlives")[1])
        fresh = set(range(1, 32)) - {signal.SIGPIPE, signal.SIGXFSZ}  # those two are Python's own
        eventually(lambda: ignored(child).isdisjoint(fresh), what="the signals of a fresh process")
        os.kill(child, signal.SIGTERM)
        eventually(lambda: not is_running(child), what="the end of the child")
        assert pool.jobs() == []


@pytest.mark.parametrize("thread", ["", "thread "])
def test_a_child_that_is_terminated_at_once_ends(gearmand: JobServerProcess, thread: str) -> None:
    with process(gearmand, "terminates"), Caller(gearmand.address) as caller:
        assert caller.run(f"{thread}terminates") == ("WORK_COMPLETE", b"-15 -15 -15 -15 -15")


def test_a_lock_that_a_native_thread_held_wakes_who_waits_for_it(gearmand: JobServerProcess) -> None:
    with process(gearmand, "holds_a_lock", "wants_a_lock"), Caller(gearmand.address) as caller:
        caller.submit("thread holds_a_lock", "held")
        caller.submit("thread wants_a_lock", "by a thread")
        caller.submit("wants_a_lock", "by a greenlet")
        assert {caller.packets()[-1].fields[1] for _ in range(3)} == {b"held", b"by a thread", b"by a greenlet"}


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def ignored(pid: int) -> set[int]:
    """The signals that a process ignores."""
    status = Path(f"/proc/{pid}/status").read_text()
    mask = int(status.partition("SigIgn:")[2].split()[0], 16)
    return {number for number in range(1, 64) if mask >> (number - 1) & 1}
