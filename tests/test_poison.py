"""Jobs that kill their process, with innocent ones beside them, under a real daemon."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from geard.client import Client
from geard.errors import JobException
from tests.support.daemon import Daemon, submit
from tests.support.pool import Caller
from tests.support.servers import Embedded, Gearmand, JobServerProcess
from tests.support.waiting import eventually

INNOCENT = 50
POISON = '''
import ctypes, os, signal

BEGUN = os.path.join(os.path.dirname(__file__), "begun")


def poison(workload):
    """Kills its process, once all innocent jobs run that did not yet when it began first."""
    while len(open(BEGUN).readlines()) < int(workload.split()[1]):
        time.sleep(0.01)
    DEATHS[workload.split()[0]]()


DEATHS = {
    "exit": lambda: os._exit(0),
    "segfault": lambda: ctypes.string_at(0),
    "oom": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


def innocent(workload):
    """Runs to its end when it runs alone, or when the poison is through."""
    descriptor = os.open(BEGUN, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{workload}\\n".encode())
    os.close(descriptor)
    time.sleep(0.05 if open(BEGUN).read().split().count(workload) == 1 else 0)
    while open(BEGUN).read().split().count(workload) == 1 and not os.path.exists(RELEASE):
        time.sleep(0.05)
    record(workload)
    return workload
'''


def start(server: JobServerProcess, **config: object) -> Daemon:
    daemon = Daemon(server, greenlets_per_server=INNOCENT + 10, **config)
    caps = daemon.directory / "caps.py"
    caps.write_text(caps.read_text() + POISON)
    (daemon.directory / "begun").touch()
    daemon.write_config(capabilities=daemon.config["capabilities"] | {n: f"caps.{n}" for n in ("poison", "innocent")})
    return daemon


class Waiting:
    """A client that waits for its poisoned job in the foreground."""

    def __init__(self, server: JobServerProcess, workload: str) -> None:
        self.answer: object = None
        self._server, self._workload = server, workload
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with Client(self._server.address) as client:
            try:
                self.answer = client.run("poison", self._workload)
            except JobException as error:
                self.answer = error.text

    def wait(self) -> str:
        self._thread.join(60)
        assert isinstance(self.answer, str), self.answer
        return self.answer


def begun(daemon: Daemon) -> list[str]:
    return (Path(daemon.directory) / "begun").read_text().split()


@pytest.mark.parametrize(
    ("job_server", "death", "words", "processes"),
    [
        (Gearmand, "exit", "exited with code 0", 1),
        (Gearmand, "segfault", "was killed by SIGSEGV", 2),
        (Embedded, "oom", "was killed by SIGKILL", 2),
    ],
)
def test_a_job_that_kills_its_process_fails_and_the_others_run_twice_at_most(
    job_server: type[JobServerProcess], death: str, words: str, processes: int
) -> None:
    names = [f"innocent-{number}" for number in range(INNOCENT)]
    with job_server() as server, start(server, processes=processes) as daemon:
        daemon.start()
        submit(server, "innocent", *names)
        client = Waiting(server, f"{death} {INNOCENT}")
        text = client.wait()
        assert f"3 dead processes: the process that it ran in {words}, with nothing else in it" in text
        (daemon.directory / "release").touch()
        eventually(lambda: set(daemon.runs) == set(names), what="the end of all innocent jobs")
        assert set(daemon.runs.values()) == {1}
        assert max(Counter(begun(daemon)).values()) <= 2
        assert server.status("poison")[0] == 0
        daemon.wait_for("job failed: poison was given up")
        assert daemon.log.count("job failed: poison was given up") == 1
        deaths = [line for line in daemon.log.splitlines() if f") {words} after" in line]
        assert len(deaths) == 1, "no other worker process was given the job before it knew"
        assert daemon.stop() == 0


def test_a_reload_and_a_stop_wait_for_what_is_set_apart() -> None:
    """A long innocent job is in flight with the poison, and runs on in a process with nothing else meanwhile."""
    with Gearmand() as server, start(server) as daemon:
        daemon.start()
        submit(server, "innocent", "short")
        submit(server, "hold", "long 0")
        daemon.wait_running(2)
        client = Waiting(server, "segfault 1")
        daemon.wait_for("that makes 2 of 3")
        assert daemon.reload().returncode == 0
        assert "was given up" in client.wait()
        eventually(lambda: daemon.runs["short"] == 1, what="the end of the short job")
        submit(server, "count", "new")
        eventually(lambda: daemon.runs["new"] == 1, what="a job of the new generation")
        daemon.signal(signal.SIGTERM)
        daemon.wait_for("stopping within")
        daemon.release()
        assert daemon.wait() == 0
        assert daemon.runs == {"short": 1, "long": 1, "new": 1}
        assert begun(daemon).count("short") <= 2


def test_what_runs_with_nothing_else_does_not_run_again_when_its_client_has_data_of_it() -> None:
    """It retries as anywhere: a client would get the first piece once more with each attempt."""
    with Gearmand() as server, Daemon(server) as daemon:
        caps = daemon.directory / "caps.py"
        caps.write_text(caps.read_text() + HALFWAY)
        retried = {"function": "caps.halfway", "retry": {"times": 3, "wait": "10ms..10ms"}}
        daemon.write_config(capabilities=daemon.config["capabilities"] | {"halfway": retried})
        daemon.start()
        with Caller(server.address) as caller:
            assert caller.story("halfway") == [("WORK_DATA", b"piece"), ("WORK_EXCEPTION", b"OSError: halfway")]
        assert "cannot run again: its client has data of it already" in daemon.log
        assert daemon.runs == {"killed": 1, "alone": 1}


HALFWAY = '''


def halfway(workload):
    """Kills its process, and the next time fails when its client has a piece of the result."""
    if not open(RUNS).read():
        record("killed")
        os._exit(0)
    record("alone")
    yield "piece"
    raise OSError("halfway")
'''
