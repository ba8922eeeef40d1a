"""Middleware, on_start's counterpart, and the client that jobs share: in threads and in worker processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import Capability, Client, Config, InvalidRequest, Job, WorkerPool, config_from, exits
from geard.client import Event, Warning  # noqa: A004
from geard.config.model import Retry
from geard.errors import JobException
from geard.worker.capability import resolve_all
from tests.support import around
from tests.support.pool import BOTH_WAYS, PoolInProcess, PoolInThreads, pool_config, start_pool
from tests.support.servers import JobServerProcess
from tests.support.waiting import DEADLINE_SECONDS

Pool = PoolInThreads | PoolInProcess
HERE = around.__name__
CAPABILITIES = {
    "plain": Capability(f"{HERE}.plain"),
    "thread": Capability(f"{HERE}.plain", thread=True),
    "pieces": Capability(f"{HERE}.pieces"),
    "later": Capability(f"{HERE}.later"),
    "pieces_later": Capability(f"{HERE}.pieces_later"),
    "awaited": Capability(f"{HERE}.later", middleware=(f"{HERE}.awaiting",)),
    "fails": Capability(f"{HERE}.fails", middleware=(f"{HERE}.saw",)),
    "caught": Capability(f"{HERE}.fails", middleware=(f"{HERE}.instead",)),
    "follow": Capability(f"{HERE}.follow"),
    "follow_in_thread": Capability(f"{HERE}.follow", thread=True),
    "follow_later": Capability(f"{HERE}.follow_later"),
    "follow_in_fork": Capability(f"{HERE}.follow_in_fork"),
    "will_retry": Capability(f"{HERE}.will_retry", retry=Retry(times=1, on=("OSError",))),
    "slow": Capability(f"{HERE}.slow", middleware=(f"{HERE}.saw",), timeout_seconds=0.05),
    "slow_later": Capability(f"{HERE}.slow_later", middleware=(f"{HERE}.saw",), timeout_seconds=0.05),
}
MIDDLEWARE = (f"{HERE}.outer", f"{HERE}.inner")


@pytest.fixture(scope="module", params=BOTH_WAYS)
def pool(request: pytest.FixtureRequest, shared_job_server: JobServerProcess) -> Iterator[Pool]:
    with start_pool(request.param, shared_job_server.address, CAPABILITIES, middleware=MIDDLEWARE) as pool:
        yield pool


@pytest.fixture
def client(pool: Pool, shared_job_server: JobServerProcess) -> Iterator[Client]:
    with Client(shared_job_server.address) as client:
        yield client


@pytest.mark.parametrize(
    ("function", "result"),
    [
        ("plain", "outer(inner(hi in inner of plain))"),
        ("thread", "outer(inner(hi in inner of thread))"),
        ("later", "outer(inner(hi in inner of later))"),
        ("pieces", "hiouter(inner(!))"),
        ("pieces_later", "hiouter(inner(None))"),
        ("awaited", "outer(inner(awaiting(hi in inner of awaited)))"),
        ("caught", "outer(inner(instead of ValueError))"),
    ],
)
def test_middleware_is_around_every_kind_of_function(client: Client, function: str, result: str) -> None:
    assert client.run(function, "hi", timeout=DEADLINE_SECONDS) == result


def test_middleware_sees_what_the_function_raised(client: Client) -> None:
    seen: list[Event] = []
    with pytest.raises(JobException, match="ValueError: boom"):
        client.run("fails", "boom", timeout=DEADLINE_SECONDS, on_event=seen.append)
    assert seen == [Warning("ValueError: boom")]


@pytest.mark.parametrize("function", ["slow", "slow_later"])
def test_middleware_sees_a_time_limit_as_a_timeout(pool: Pool, client: Client, function: str) -> None:
    seen: list[Event] = []
    with pytest.raises(JobException, match="ran longer than its timeout"):
        client.run(function, "", timeout=DEADLINE_SECONDS, on_event=seen.append)
    if pool.mode == "process" or function == "slow_later":  # a thread cannot be interrupted
        assert seen == [Warning(f"JobTimeout: {function} ran longer than its timeout of 0.05 s")]


@pytest.mark.parametrize("function", ["follow", "follow_in_thread", "follow_later", "follow_in_fork"])
def test_jobs_submit_further_ones_with_the_client_of_the_process(pool: Pool, client: Client, function: str) -> None:
    if pool.mode == "threads" and function == "follow_in_fork":
        return  # a process with threads is not to be forked
    result = "outer(inner(follow(outer(inner(hi in inner of plain)))))"
    assert list(client.map(function, ["hi"] * 3, concurrency=2)) == [result] * 3


def test_the_client_of_jobs_is_closed_when_there_is_none_any_more(shared_job_server: JobServerProcess) -> None:
    held: list[Client] = []

    def hold(job: Job, workload: str) -> str:
        held.append(job.client)
        return str(job.client.echo(b"x"))

    pool = WorkerPool(config_from({"job_servers": [shared_job_server.address], "capabilities": {"hold": hold}}))
    with pool, Client(shared_job_server.address) as client:
        assert client.run("hold", "", timeout=DEADLINE_SECONDS) == "b'x'"
    with pytest.raises(InvalidRequest, match="the client is closed"):
        held[0].echo(b"x")


def test_middleware_can_know_whether_a_job_will_run_again(client: Client) -> None:
    result = client.run("will_retry", "", timeout=DEADLINE_SECONDS)
    assert result == "outer(inner(False True False False))"


def test_without_middleware_nothing_is_around_a_function() -> None:
    (bound,), problems = resolve_all(Config(capabilities={"plain": Capability(around.plain)}))
    assert not problems
    assert bound.layers.around(bound.invoke) is bound.invoke


@pytest.mark.parametrize(
    ("common", "own", "key", "said"),
    [
        (["no_such_module.f"], [], "middleware[0]", "there is no module 'no_such_module'"),
        ([f"{HERE}.outer", f"{HERE}.no_call"], [], "middleware[1]", "cannot be called with a job and a call"),
        ([], [f"{HERE}.pieces_of"], "capabilities.f.middleware[0]", "is a generator"),
        ([f"{HERE}.awaiting"], [], "capabilities.f", "awaiting is async, and the function is not"),
    ],
)
def test_what_is_wrong_with_middleware_is_told_with_its_place(
    common: list[str], own: list[str], key: str, said: str
) -> None:
    config = config_from(
        {"middleware": common, "capabilities": {"f": {"function": f"{HERE}.plain", "middleware": own}}}
    )
    (problem,) = resolve_all(config)[1]
    assert problem.key == key
    assert said in problem.message


def test_plain_middleware_cannot_be_within_async(tmp_path: Path) -> None:
    spec = Capability(around.later, middleware=(around.awaiting, around.outer))
    (problem,) = resolve_all(Config(capabilities={"f": spec}))[1]
    assert "outer is not async, and stands within" in problem.message


def test_geard_check_tells_the_line_of_bad_middleware(tmp_path: Path) -> None:
    config = tmp_path / "geard.yaml"
    config.write_text(
        "capabilities:\n  reverse: geard.examples.reverse\nmiddleware:\n  - geard.examples.revers\n"
        "on_stop: geard.examples.reverse\n"
    )
    done = subprocess.run([sys.executable, "-m", "geard", "check", "-c", str(config)], capture_output=True, text=True)
    assert done.returncode == exits.CONFIG
    assert f"{config}:4:5: middleware[0]: " in done.stderr
    assert f"{config}:5:1: on_stop: geard.examples.reverse cannot be called without arguments" in done.stderr


# --- on_stop ------------------------------------------------------------------------------------------------------


def stopped(server: JobServerProcess, on_stop: str) -> str:
    """The log of a worker process that ran one job and was drained."""
    config = pool_config(server.address, {"plain": CAPABILITIES["plain"]}, on_stop=f"{HERE}.{on_stop}")
    pool = PoolInProcess(config)
    try:
        pool.start()
        with Client(server.address) as client:
            client.run("plain", "", timeout=DEADLINE_SECONDS)
        pool.drain(0.5 if on_stop == "stop_never" else None)
        pool.join()
        return pool.log
    finally:
        pool.close()


def test_on_stop_is_called_after_the_drain(
    shared_job_server: JobServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ON_STOP", str(tmp_path / "note"))
    stopped(shared_job_server, "stop")
    assert (tmp_path / "note").read_text() == "stopped"


@pytest.mark.parametrize(("on_stop", "said"), [("stop_badly", "SystemExit: no way"), ("stop_never", "has not ended")])
def test_whatever_on_stop_does_the_process_ends(shared_job_server: JobServerProcess, on_stop: str, said: str) -> None:
    assert said in stopped(shared_job_server, on_stop)
