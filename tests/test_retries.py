"""Jobs that fail and run again, and jobs that failed for good, on real job servers."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geard import Fail, Job, Reject, Retry, WorkerPool, config_from, exits
from geard.client import Client, Task
from geard.deadletters.again import submit_again
from geard.deadletters.letter import DeadLetter
from geard.deadletters.store import ALL, DeadLetters
from geard.errors import JobException
from geard.worker import attempts
from tests.support.daemon import Daemon
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

FLAKY = '''
import random
from geard import Reject


def flaky(job, workload):
    """Fails at random, always for some, and records its end."""
    name, chance = workload.split()
    if name.endswith("7"):
        raise Reject("a seven")
    if random.random() < float(chance) and not job.is_last_attempt:
        raise OSError("not this time")
    record(name)
    return name
'''


@pytest.fixture
def client(job_server: JobServerProcess) -> Iterator[Client]:
    with Client(job_server.address) as client:
        yield client


@pytest.fixture
def dead(tmp_path: Path) -> DeadLetters:
    return DeadLetters(str(tmp_path / "dead.sqlite"), create=False)


@pytest.fixture
def serve(job_server: JobServerProcess, dead: DeadLetters) -> Iterator[Callable[..., WorkerPool]]:
    """A pool that serves `f`, with dead letters, stopped after the test."""
    pools: list[WorkerPool] = []

    def start(function: Callable[..., Any], *, greenlets: int = 2, **spec: Any) -> WorkerPool:
        capability = {"function": function, **spec}
        config = {"job_servers": [job_server.address], "greenlets_per_server": greenlets, "dead_letters": dead.path}
        pools.append(WorkerPool(config_from(config | {"capabilities": {"f": capability}})))
        pools[-1].start()
        return pools[-1]

    yield start
    for pool in pools:
        pool.stop()


class Flaky:
    """Fails until its n-th attempt."""

    def __init__(self, succeeds_at: int, error: BaseException | None = None) -> None:
        self.attempts: list[int] = []
        self.uniques: set[str] = set()
        self.is_last: list[bool] = []
        self._succeeds_at = succeeds_at
        self._error = error or ValueError("boom")

    def __call__(self, job: Job, workload: str) -> str:
        self.attempts.append(job.attempt)
        self.uniques.add(job.unique)
        self.is_last.append(job.is_last_attempt)
        if job.attempt < self._succeeds_at:
            raise self._error
        return f"{workload} at {job.attempt}"


def test_a_job_that_a_client_waits_for_runs_again_and_the_client_sees_one_outcome(
    serve: Callable[..., WorkerPool], client: Client
) -> None:
    flaky = Flaky(3)
    serve(flaky, retry={"times": 5, "wait": "10ms..50ms"})
    assert client.run("f", "done", unique="mine", timeout=60) == "done at 3"
    assert flaky.attempts == [1, 2, 3]
    assert flaky.uniques == {"mine"}


def test_after_its_last_attempt_the_client_gets_the_error_and_the_letter_is_kept(
    serve: Callable[..., WorkerPool], client: Client, dead: DeadLetters
) -> None:
    flaky = Flaky(99)
    serve(flaky, retry={"times": 2, "wait": "10ms"}, dead_letter=True)
    with pytest.raises(JobException, match="ValueError: boom"):
        client.run("f", "work", unique="mine", timeout=60)
    assert flaky.is_last == [False, False, True]
    (letter,) = dead.find()
    assert (letter.function, letter.workload, letter.unique, letter.attempts) == ("f", b"work", "mine", 3)
    assert letter.error == "ValueError: boom"
    assert "raise self._error" in letter.traceback
    assert 0 < letter.last_at - letter.first_at < 60 or letter.first_at == int(letter.first_at)


@pytest.mark.parametrize(("error", "kept"), [(Fail("no way"), 0), (Reject("never"), 1), (KeyError("k"), 0)])
def test_some_errors_end_it_at_once(
    serve: Callable[..., WorkerPool], client: Client, dead: DeadLetters, error: BaseException, kept: int
) -> None:
    flaky = Flaky(99, error)
    serve(flaky, retry={"times": 5, "wait": "10ms", "not_on": ["KeyError"]})
    with pytest.raises(JobException, match=type(error).__name__):
        client.run("f", "work", timeout=60)
    assert flaky.attempts == [1]
    assert (dead.count() if kept else 0) == kept
    assert os.path.exists(dead.path) == bool(kept)


def test_the_function_may_say_how_long_to_wait(serve: Callable[..., WorkerPool], client: Client) -> None:
    flaky = Flaky(2, Retry("busy", after=0.05))
    serve(flaky, retry={"times": 5, "wait": "1h"})
    assert client.run("f", "done", timeout=60) == "done at 2"


def test_parked_jobs_hold_no_greenlet(serve: Callable[..., WorkerPool], client: Client) -> None:
    release = threading.Event()

    def f(job: Job, workload: str) -> str:
        if workload == "slow" and not release.is_set():
            raise Retry(after=0.2)
        return workload

    pool = serve(f, greenlets=2, retry=1000)
    waiting = [client.submit("f", "slow") for _ in range(20)]
    eventually(lambda: pool.parked == 20, what="20 parked jobs")
    assert [client.run("f", "quick", timeout=60) for _ in range(20)] == ["quick"] * 20
    release.set()
    assert [task.result(60) for task in waiting] == ["slow"] * 20


def test_a_background_job_waits_in_the_job_server_under_a_unique_of_its_own(
    serve: Callable[..., WorkerPool], client: Client, job_server: JobServerProcess
) -> None:
    flaky = Flaky(2)
    pool = serve(flaky, retry={"times": 3, "wait": "2s"})
    client.submit_background("f", "work", unique="mine")
    eventually(lambda: flaky.attempts == [1], what="the first attempt")
    eventually(lambda: job_server.status("f")[:2] == (1, 0), what="the job waiting in the job server")
    assert pool.parked == 0
    (unique,) = job_server.text("show unique jobs")
    attempt = attempts.read(unique.encode())
    assert (attempt.number, attempt.unique) == (2, b"mine")
    eventually(lambda: flaky.attempts == [1, 2], what="the second attempt")
    eventually(lambda: job_server.status("f")[0] == 0, what="its end")
    assert flaky.uniques == {"mine"}


def test_a_job_without_a_unique_is_parked_since_nobody_can_tell_who_waits_for_it(
    serve: Callable[..., WorkerPool], job_server: JobServerProcess
) -> None:
    from geard.protocol import Command
    from tests.support.raw import Peer

    flaky = Flaky(2)
    pool = serve(flaky, retry={"times": 3, "wait": "2s"})
    with Peer.connect(job_server.address) as peer:
        peer.send(Command.SUBMIT_JOB, b"f", b"", b"work")
        peer.expect(Command.JOB_CREATED)
        eventually(lambda: pool.parked == 1, what="a parked job")
        assert peer.expect(Command.WORK_COMPLETE).fields[1] == b"work at 2"


def test_a_drain_does_not_wait_for_parked_jobs_and_hands_them_back(
    serve: Callable[..., WorkerPool], client: Client
) -> None:
    pool = serve(Flaky(99), retry={"times": 3, "wait": "1h"})
    task = client.submit("f", "work")
    eventually(lambda: pool.parked == 1, what="a parked job")
    pool.stop()
    serve(Flaky(1))
    assert task.result(60) == "work at 1"


def test_jobs_that_wait_to_run_again_outlive_pools_that_come_and_go(
    serve: Callable[..., WorkerPool], client: Client, job_server: JobServerProcess
) -> None:
    ran: set[str] = set()
    names = {f"b{number}" for number in range(150)}

    def f(workload: str) -> None:
        time.sleep(random.random() * 0.02)
        if random.random() < 0.6:
            raise OSError("not this time")
        ran.add(workload)

    for name in names:
        client.submit_background("f", name, unique=name)
    for _ in range(8):
        pool = serve(f, greenlets=10, retry={"times": 500, "wait": "0s..50ms"})
        time.sleep(random.random() * 0.2)  # any moment will do
        pool.drain()
        assert pool.join(time.monotonic() + 15), pool.channels
        pool.stop()
    serve(f, greenlets=10, retry={"times": 500, "wait": "0s..50ms"})
    eventually(lambda: ran == names, what="the end of all jobs")


def test_what_a_client_has_data_of_does_not_run_again(serve: Callable[..., WorkerPool], client: Client) -> None:
    def f(job: Job, workload: str) -> None:
        job.data("half of it")
        raise ValueError("boom")

    serve(f, retry={"times": 3, "wait": "10ms"})
    task: Task = client.submit("f", "work")
    with pytest.raises(JobException, match="boom"):
        task.result(60)


def test_a_piece_that_could_not_be_sent_is_not_with_the_client(
    serve: Callable[..., WorkerPool], client: Client
) -> None:
    def flaky(job: Job, workload: str) -> str:
        if job.attempt == 1:
            job.data(object())
        return "done"

    serve(flaky, retry={"times": 2, "wait": "0s..0s"})
    assert client.run("f", "x", unique="u") == "done"


def test_a_wait_beyond_all_calendars_holds_up_no_other_job(serve: Callable[..., WorkerPool], client: Client) -> None:
    def patient(job: Job, workload: str) -> str:
        if job.attempt == 1:
            raise Retry(after=float(workload))
        return "done"

    pool = serve(patient, retry={"times": 2})
    client.submit_background("f", "1e12", unique="waits here")
    client.submit_background("f", "1e12")
    eventually(lambda: pool.parked == 2)
    assert client.run("f", "0.1", unique="u", timeout=30) == "done"


def test_a_letter_that_cannot_be_kept_for_any_reason_leaves_its_job_in_the_log(
    job_server: JobServerProcess, client: Client, dead: DeadLetters, caplog: pytest.LogCaptureFixture
) -> None:
    def keep(letter: DeadLetter) -> None:
        raise RecursionError("too deep")

    config = {
        "job_servers": [job_server.address],
        "dead_letters": dead.path,
        "capabilities": {"f": {"function": Flaky(2), "dead_letter": True}},
    }
    with WorkerPool(config_from(config), keep=keep), pytest.raises(JobException, match="ValueError: boom"):
        client.run("f", "the workload")
    assert "is not kept: too deep; its workload: b'the workload'" in caplog.text


def test_a_job_over_its_timeout_runs_again_in_plain_threads_too(
    serve: Callable[..., WorkerPool], client: Client, dead: DeadLetters
) -> None:
    over = threading.Event()

    def slow(job: Job, workload: str) -> str:
        if job.attempt <= int(workload):
            over.wait(60)
        return f"at {job.attempt}"

    pool = serve(slow, greenlets=3, timeout=1, retry={"times": 1, "wait": "0s..0s"}, dead_letter=True)
    try:
        assert client.run("f", "1", unique="slow once", timeout=30) == "at 2"
        with pytest.raises(JobException, match="ran longer than its timeout of 1 s"):
            client.run("f", "2", unique="slow twice", timeout=30)
        [letter] = dead.find()
        assert (letter.unique, letter.attempts) == ("slow twice", 2)
    finally:
        over.set()
    eventually(lambda: (pool.done, pool.failed) == (1, 3), what="each attempt counted once")


def test_a_letter_whose_unique_was_no_text_is_submitted_again_under_another(
    job_server: JobServerProcess, client: Client, tmp_path: Path
) -> None:
    no_text = (b"\xff" * 40).decode(errors="replace")  # as a letter has it: three times as long
    with DeadLetters(str(tmp_path / "letters")) as letters:
        for unique in ("first", no_text, "last"):
            letters.add([DeadLetter("f", b"w", unique, "H:1", job_server.address, 1, 1.0, 1.0, "ValueError: x", "")])
        assert [letter.unique for letter in submit_again(client, letters, ALL)] == ["last", no_text, "first"]
        assert letters.count() == 0
    assert job_server.status("f")[0] == 3


def test_more_than_can_be_parked_fail_or_wait_in_the_job_server(
    serve: Callable[..., WorkerPool], client: Client, job_server: JobServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = serve(Flaky(99), retry={"times": 3, "wait": "1s"})
    monkeypatch.setattr(pool.aftermath.parking, "_most", 0)
    with pytest.raises(JobException, match="boom"):
        client.run("f", "work", timeout=60)
    client.submit_background("f", "work", unique="later")
    eventually(lambda: job_server.text("show unique jobs"), what="the delayed job")


@pytest.fixture
def daemon(job_server: JobServerProcess, tmp_path: Path) -> Iterator[Daemon]:
    capabilities = {
        "count": "caps.count",
        "flaky": {"function": "caps.flaky", "retry": {"times": 20, "wait": "50ms..3s"}, "dead_letter": True},
        "late": {"function": "caps.sleep", "timeout": "50ms", "dead_letter": True},
    }
    with Daemon(job_server, capabilities=capabilities, dead_letters=str(tmp_path / "dead.sqlite")) as daemon:
        with (daemon.directory / "caps.py").open("a") as code:
            code.write(FLAKY)
        yield daemon


def test_a_timeout_is_a_failure_and_the_letter_is_kept_by_one_process(daemon: Daemon, client: Client) -> None:
    daemon.start()
    for number in range(3):
        with pytest.raises(JobException, match="longer than its timeout"):
            client.run("late", f"job-{number} 30", timeout=60)
    listed = daemon.geard("dead", "list")
    assert listed.returncode == exits.DONE, listed.stderr
    assert listed.stdout.count("late ran longer than its timeout of 0.05 s") == 3
    assert "3 of 3 dead letters" in listed.stderr
    shown = daemon.geard("dead", "show", "2")
    assert "workload:     job-1 30" in shown.stdout
    assert daemon.geard("dead", "drop", "2").stderr == "dropped: 1\n"
    assert daemon.geard("dead", "drop").returncode == exits.USAGE
    assert "is not in the range" in daemon.geard("dead", "drop", str(2**63)).stderr
    daemon.write_config(capabilities={"late": "caps.sleep", "count": "caps.count"})
    assert daemon.reload().returncode == exits.DONE
    with sqlite3.connect(daemon.config["dead_letters"]) as letters:
        letters.execute("UPDATE letters SET workload = ? WHERE id = 1", [b"job-9 0"])
    assert daemon.geard("dead", "retry", "1").stderr == "submitted again: 1\n"
    eventually(lambda: daemon.runs["job-9"] == 1, what="the job that was run again")
    assert "1 of 1 dead letters" in daemon.geard("dead", "list").stderr
    assert daemon.stop() == exits.DONE


def test_where_letters_cannot_be_kept_the_job_is_logged_whole_and_the_daemon_goes_on(
    daemon: Daemon, client: Client
) -> None:
    directory = Path(daemon.config["dead_letters"])
    directory.mkdir()
    daemon.start()
    with pytest.raises(JobException, match="longer than its timeout"):
        client.run("late", "precious 30", timeout=60)
    daemon.wait_for("its workload: b'precious 30'")
    assert "]: __main__: " not in daemon.log, "a line of the keeper's begins with what is wrong"
    (keeper,) = [pid for pid in daemon.children if "dead letters" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(keeper, signal.SIGKILL)
    daemon.wait_for("the keeper of dead letters runs", times=2)
    directory.rmdir()
    with pytest.raises(JobException, match="longer than its timeout"):
        client.run("late", "kept 30", timeout=60)
    with DeadLetters(str(directory), create=False) as letters:
        assert [letter.workload for letter in letters.find()] == [b"kept 30"]
    assert client.run("count", "goes-on", timeout=60) == "goes-on"


def test_jobs_that_fail_at_random_end_done_or_in_the_dead_letters_though_workers_are_killed(
    daemon: Daemon, client: Client
) -> None:
    daemon.write_config(processes=2)
    daemon.start()
    names = [f"b{number}" for number in range(300)]
    for name in names:
        client.submit_background("flaky", f"{name} 0.5", unique=name)
    waiting = [client.submit("flaky", f"f{number} 0.5", unique=f"f{number}") for number in range(100)]
    kills = 0
    for _ in range(2):
        time.sleep(0.3)
        workers = [pid for pid in daemon.children if "worker" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)
        kills += 1
        daemon.signal(signal.SIGHUP)
    for number, task in enumerate(waiting):
        if number % 10 == 7:
            with pytest.raises(JobException, match="a seven"):
                task.result(120)
        else:
            assert task.result(120) == f"f{number}"
    wanted = {name for name in names if not name.endswith("7")} | {f"f{n}" for n in range(100) if n % 10 != 7}
    eventually(lambda: wanted <= set(daemon.runs), within=120, what="the end of all jobs")
    assert set(daemon.runs) == wanted
    with DeadLetters(daemon.config["dead_letters"], create=False) as letters:
        eventually(lambda: {each.unique for each in letters.find()} >= {n for n in names if n.endswith("7")})
    doubled = [name for name, count in daemon.runs.items() if count > 1]
    assert len(doubled) <= kills * 2 * 50  # each kill may have cost what was in flight in that process
