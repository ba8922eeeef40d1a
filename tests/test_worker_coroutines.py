"""`async def` capabilities, in worker processes and in plain threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from geard.config import Capability
from geard.protocol import Command
from tests.support import coroutines
from tests.support.pool import BOTH_WAYS, Caller, PoolInProcess, PoolInThreads, start_pool
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

Pool = PoolInProcess | PoolInThreads
MANY = 1500
STORIES = [  # function, workload, and what its client sees
    ("reverse", "abc", [("WORK_COMPLETE", b"cba")]),
    ("SERVICE", "abc", [("WORK_COMPLETE", b"cba")]),
    ("PARTIAL", "abc", [("WORK_COMPLETE", b"cba")]),
    (
        "hands_on",
        "",
        [
            ("WORK_STATUS", b"1 2"),
            ("WORK_DATA", b"piece"),
            ("WORK_WARNING", b"careful"),
            ("WORK_COMPLETE", b"done"),
        ],
    ),
    ("answers_itself", "", [("WORK_COMPLETE", b"early")]),
    ("spoken", "a b", [("WORK_DATA", b"a"), ("WORK_DATA", b"b"), ("WORK_COMPLETE", b"")]),
    ("streams", "50 100000", [("WORK_DATA", b"x" * 100_000)] * 50 + [("WORK_COMPLETE", b"")]),
    ("fails", "ValueError", [("WORK_EXCEPTION", b"ValueError")]),
    ("fails", "SystemExit", [("WORK_EXCEPTION", b"SystemExit")]),
    ("fails", "KeyboardInterrupt", [("WORK_EXCEPTION", b"KeyboardInterrupt")]),
    ("leaves_a_failing_task", "x", [("WORK_COMPLETE", b"x")]),
    ("cleans_up", "x", [("WORK_EXCEPTION", b"cleans_up ran longer than its timeout of 0.2 s")]),
    ("refuses_to_end", "x", [("WORK_EXCEPTION", b"refuses_to_end ran longer than its timeout of 0.2 s")]),
    ("who", "", [("WORK_COMPLETE", b"unique who")]),
    ("hands_off", "", [("WORK_COMPLETE", b"True")]),
    ("echo_over_tcp", "abc", [("WORK_COMPLETE", b"cba")]),
    ("program", "abc", [("WORK_COMPLETE", b"cba 0")]),
    ("runs_a_loop", "0", [("WORK_COMPLETE", b"0")]),
]
IN_PROCESSES = [
    ("forks", "returns", [("WORK_COMPLETE", b"0")]),
    ("forks", "awaits", [("WORK_COMPLETE", b"1")]),
    ("shares_out", "", [("WORK_COMPLETE", b"45")]),
]
OTHERS = ("cancelled", "meets")


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


@pytest.fixture(scope="module", params=BOTH_WAYS)
def pool(server: JobServerProcess, request: pytest.FixtureRequest) -> Iterator[Pool]:
    """One for all tests of a kind."""
    names = {function for function, _, _ in STORIES + IN_PROCESSES} | set(OTHERS)
    offered = {name: Capability(f"{coroutines.__name__}.{name}") for name in sorted(names)}
    for name in ("cleans_up", "refuses_to_end"):
        offered[name] = Capability(f"{coroutines.__name__}.{name}", timeout_seconds=0.2)
    offered["thread runs_a_loop"] = Capability(f"{coroutines.__name__}.runs_a_loop", thread=True)
    greenlets = MANY if request.param == "process" else 20
    with start_pool(request.param, server.address, offered, greenlets_per_server=greenlets) as pool:
        yield pool


@pytest.mark.parametrize(("function", "workload", "story"), STORIES)
def test_a_coroutine_does_what_a_function_does(
    pool: Pool, server: JobServerProcess, function: str, workload: str, story: list[tuple[str, bytes]]
) -> None:
    with Caller(server.address) as caller:
        assert caller.story(function, workload, unique=f"unique {function}") == story
        if function == "cleans_up":
            assert b"x" in caller.run("cancelled")[1]
        if function == "refuses_to_end":
            eventually(lambda: "goes on, though it was cancelled" in pool.log, what="the line of the log")


@pytest.mark.parametrize("pool", ["process"], indirect=True)  # a fork of ours would be one of pytest
@pytest.mark.parametrize(("function", "workload", "story"), IN_PROCESSES)
def test_a_coroutine_may_fork(
    pool: Pool, server: JobServerProcess, function: str, workload: str, story: list[tuple[str, bytes]]
) -> None:
    with Caller(server.address) as caller:
        assert caller.story(function, workload) == story


@pytest.mark.parametrize("pool", ["process"], indirect=True)  # in threads each job has one, whatever it runs
def test_thousands_run_at_once_without_a_native_thread_each(pool: Pool, server: JobServerProcess) -> None:
    with Caller(server.address) as caller:
        caller.submit("meets", *[str(MANY)] * MANY)
        ended = [caller.packets()[-1] for _ in range(MANY)]
        assert {packet.command for packet in ended} == {Command.WORK_COMPLETE}
        assert max(int(packet.fields[1]) for packet in ended) < 30


def test_two_jobs_that_run_loops_of_their_own_are_told_how(pool: Pool, server: JobServerProcess) -> None:
    with Caller(server.address) as caller:
        caller.submit("thread runs_a_loop", "0.2", "0.2")
        assert [caller.packets()[-1].command for _ in range(2)] == [Command.WORK_COMPLETE] * 2
        if isinstance(pool, PoolInProcess):
            caller.submit("runs_a_loop", "0.2", "0.2")
            refused, _ = caller.packets(), caller.packets()
            assert refused[-1].fields[1] == (
                b"RuntimeError: asyncio.run() cannot be called from a running event loop: another job runs one in this"
                b" thread. Make the function `async def`, or set `thread: true`"
            )


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_drain_lets_coroutines_finish(server: JobServerProcess, mode: str) -> None:
    offered: dict[str, str | Capability] = {
        f"{mode} {name}": Capability(f"{coroutines.__name__}.{name}") for name in ("waits_for_gate", "opens_gate_later")
    }
    with start_pool(mode, server.address, offered) as pool, Caller(server.address) as caller:
        caller.submit(f"{mode} opens_gate_later", f"{mode} 0.3")
        caller.submit(f"{mode} waits_for_gate", mode, mode)
        eventually(lambda: len(pool.jobs()) == 3, what="three jobs in flight")
        pool.drain()
        assert {caller.packets()[-1].command for _ in range(3)} == {Command.WORK_COMPLETE}
        assert pool.join() == []
