"""What limits a capability: its time, its greenlets, its native thread; and what a worker process does at its start."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import exits
from geard.config import Capability, Config
from geard.errors import ConfigError
from geard.messages import CannotStart
from geard.protocol import Command, response
from geard.worker import WorkerPool
from tests.support import capabilities
from tests.support.pool import (
    BOTH_WAYS,
    Caller,
    PoolInProcess,
    PoolInThreads,
    background,
    capability,
    pool_config,
    start_pool,
)
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import DEADLINE_SECONDS, eventually

COMPLETE, EXCEPTION = "WORK_COMPLETE", "WORK_EXCEPTION"
CAPABILITIES: dict[str, str | Capability] = {
    "limited": capability("sleep", timeout=0.2),
    "ample": capability("sleep", timeout=30),
    "threaded": capability("thread_name", thread=True),
    "unthreaded": capability("thread_name"),
    "native": capability("blocks_natively", thread=True, greenlets=2),
    "native limited": capability("blocks_natively", thread=True, timeout=0.2, greenlets=1),
    "threaded hands-on": capability("hands_on", thread=True),
    "threaded streams": capability("streams", thread=True),
    "threaded misbehave": capability("misbehave", thread=True),
    "few": capability("sleep", greenlets=2),
    "echo": "echo",
}


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as server:
        yield server


@pytest.fixture(scope="module", params=BOTH_WAYS)
def pool(request: pytest.FixtureRequest, server: JobServerProcess) -> Iterator[PoolInThreads | PoolInProcess]:
    with start_pool(request.param, server.address, CAPABILITIES) as pool:
        yield pool


@pytest.fixture
def caller(pool: PoolInThreads | PoolInProcess, server: JobServerProcess) -> Iterator[Caller]:
    with Caller(server.address) as caller:
        yield caller


# --- time ---------------------------------------------------------------------------------------------------------


def test_a_job_over_its_timeout_is_answered_in_time_and_said_so_once(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    caller.submit("limited", "1.5")
    caller.submit("ample", "1")
    late, ample = caller.packets()[-1], caller.packets()[-1]
    assert late.data == b"limited ran longer than its timeout of 0.2 s", "before the other ended"
    assert ample.data == b"1"
    eventually(lambda: "job failed: limited ran longer than its timeout of 0.2 s" in pool.log)


def test_a_job_within_its_timeout_has_its_result(caller: Caller) -> None:
    assert caller.run("ample", "0.01") == (COMPLETE, b"0.01")


def test_a_timeout_interrupts_the_function_where_it_waits(server: JobServerProcess) -> None:
    """In a worker process: its only greenlet is free again long before the function would have returned."""
    with (
        start_pool("process", server.address, {"only": capability("sleep", timeout=0.1, greenlets=1)}) as pool,
        Caller(server.address) as caller,
    ):
        caller.submit("only", "3600", "0")
        assert caller.packets()[-1].data == b"only ran longer than its timeout of 0.1 s"
        assert caller.packets()[-1].data == b"0"
        assert not pool.jobs()


def test_a_timeout_in_the_middle_of_sending_leaves_no_half_packet() -> None:
    """The job server does not read while the job has much to say, and its time ends. Then it reads all of it."""
    read_on = threading.Event()
    packets: list[tuple[Command, int]] = []

    def assign_then_read_late(peer: Peer, number: int) -> None:
        peer.skip_to(Command.PRE_SLEEP)
        peer.send_bytes(response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"limited", b"", b"200 100000"))
        read_on.wait(DEADLINE_SECONDS)
        while True:  # the decoder finds every packet that is not whole
            packet = peer.receive()
            packets.append((packet.command, len(packet.fields[-1]) if packet.fields else 0))
            if packet.command is Command.ECHO_REQ:
                peer.send(Command.ECHO_RES, packet.data)

    with (
        ScriptedServer(assign_then_read_late) as scripted,
        start_pool("process", scripted.address, {"limited": capability("streams", timeout=0.5)}) as pool,
    ):
        eventually(lambda: "ran longer than its timeout" in pool.log)
        read_on.set()
        pool.drain()
        assert pool.join() == []
    sizes = {size for command, size in packets if command is Command.WORK_DATA}
    assert sizes == {100_000}
    assert [command for command, _ in packets if command in (Command.WORK_COMPLETE, Command.WORK_EXCEPTION)] == [
        Command.WORK_EXCEPTION
    ]


# --- native threads -----------------------------------------------------------------------------------------------


def test_a_threaded_function_runs_in_a_native_thread_and_its_status_reaches_the_client(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    assert caller.story("threaded") == [("WORK_STATUS", b"3 4"), (COMPLETE, b"other")]
    if pool.mode == "process":
        assert caller.run("unthreaded") == (COMPLETE, b"main")


def test_a_threaded_function_talks_and_streams_as_any_other(caller: Caller) -> None:
    assert len(caller.story("threaded hands-on")) == 5
    story = caller.story("threaded streams", "60 65536")
    assert [data[:8] for _, data in story[1:-1]] == [b"%08d" % number for number in range(60)]


def test_c_code_that_blocks_in_a_thread_holds_up_no_other_job(caller: Caller) -> None:
    caller.submit("native", "0.5", "0.5")
    assert caller.run("echo", "meanwhile") == (COMPLETE, b"meanwhile")
    assert [caller.packets()[-1].data for _ in range(2)] == [b"0.5", b"0.5"]


def test_a_threaded_job_over_its_timeout_is_answered_while_its_thread_goes_on(caller: Caller) -> None:
    caller.submit("native limited", "1")
    assert caller.packets()[-1].data == b"native limited ran longer than its timeout of 0.2 s"
    assert caller.run("echo", "next") == (COMPLETE, b"next")


@pytest.mark.parametrize("kind", ["raise", "SystemExit", "KeyboardInterrupt", "BaseException", "recurse"])
def test_what_a_threaded_function_raises_ends_its_job_alone(caller: Caller, kind: str) -> None:
    assert caller.run("threaded misbehave", kind)[0] == EXCEPTION
    assert caller.run("threaded misbehave", "fine") == (COMPLETE, b"fine")


# --- how many at once ---------------------------------------------------------------------------------------------


def test_greenlets_of_its_own_limit_how_many_run_at_once_and_leave_the_others_alone(
    caller: Caller, server: JobServerProcess
) -> None:
    caller.submit("few", *["0.2"] * 6)
    eventually(lambda: server.status("few")[1] == 2)
    assert caller.run("echo", "meanwhile") == (COMPLETE, b"meanwhile")
    most = 0
    while (status := server.status("few"))[0]:
        most = max(most, status[1])
    assert most == 2
    assert all(caller.packets()[-1].data == b"0.2" for _ in range(6))


def test_no_more_jobs_are_taken_than_there_are_greenlets(server: JobServerProcess) -> None:
    with start_pool("threads", server.address, {"taken": "wait_for_gate"}, greenlets_per_server=3):
        capabilities.GATE.clear()
        background(server.address, "taken", *map(str, range(8)))
        eventually(lambda: server.status("taken")[1] == 3)
        assert server.status("taken")[0] == 8
        capabilities.GATE.set()
        eventually(lambda: server.status("taken")[0] == 0)


# --- start --------------------------------------------------------------------------------------------------------


def test_capabilities_are_found_in_python_path_and_run_in_the_working_directory(
    server: JobServerProcess, tmp_path: Path
) -> None:
    (tmp_path / "of_the_user.py").write_text("import os\ndef where(workload):\n    return os.getcwd()\n")
    config = Config(
        job_servers=pool_config(server.address, {}).job_servers,
        capabilities={"where": Capability("of_the_user.where")},
        python_path=(".",),
        working_directory=str(tmp_path),
    )
    pool = PoolInProcess(config)
    try:
        pool.start()
        with Caller(server.address) as caller:
            assert caller.run("where") == (COMPLETE, str(tmp_path).encode())
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"on_start": "tests.support.capabilities.fails_to_start"}, "on_start", "raised RuntimeError('no database')"),
        ({"on_start": "no_such_module.f"}, "on_start", "there is no module 'no_such_module'"),
    ],
)
def test_a_worker_process_that_cannot_start_says_why_and_exits_with_the_code_for_it(
    server: JobServerProcess, settings: dict[str, str], key: str, message: str
) -> None:
    pool = PoolInProcess(pool_config(server.address, {"echo": "echo"}, **settings))
    try:
        pool.start(wait=False)
        [problem] = pool.hear(CannotStart).problems
        assert (problem.key, message in problem.message) == (key, True)
        assert pool.process
        assert pool.process.wait(DEADLINE_SECONDS) == exits.CONFIG
    finally:
        pool.close()


def test_a_pool_without_capabilities_or_with_a_broken_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="no capabilities"):
        WorkerPool(Config())
    with pytest.raises(ConfigError, match=r"capabilities\.f: there is no module 'no_such_module'"):
        WorkerPool(Config(capabilities={"f": Capability("no_such_module.f")}))


def test_a_pool_is_a_context_manager_and_start_returns_what_stops_it(server: JobServerProcess) -> None:
    config = pool_config(server.address, {"of a program": Capability(lambda workload: workload * 2)})
    with WorkerPool(config) as pool, Caller(server.address) as caller:
        assert caller.run("of a program", "ab") == (COMPLETE, b"abab")
        assert repr(pool) == "<WorkerPool 0/5 running, 1 channels>"
    eventually(lambda: server.status("of a program")[2] == 0)
    stop = WorkerPool(config).start()
    with Caller(server.address) as caller:
        assert caller.run("of a program", "ab") == (COMPLETE, b"abab")
    stop()
    stop()
    eventually(lambda: server.status("of a program")[2] == 0)
