"""A supervisor that answers what a test wants, on a real control socket, from a thread; and numbers to answer with."""

from __future__ import annotations

import math
import os
import socket
import threading
import time
from typing import Any

from geard import exits
from geard.messages import RunningJob
from geard.scheduler.states import ScheduleState
from geard.stats.diff import Diff, FunctionDiff, ServerDiff
from geard.stats.failures import Failure
from geard.stats.histogram import bucket_of
from geard.stats.snapshot import Build, GenerationStats, ProcessStats, Snapshot
from geard.stats.totals import Totals
from geard.supervisor import answers
from geard.supervisor.answers import Answer, JobPage, JobView, Request

TRACEBACK = """Traceback (most recent call last):
  File "/opt/geard/lib/images.py", line 41, in resize
    picture = Image.open(path)
  File "/opt/geard/lib/store.py", line 17, in open
    raise FileNotFoundError(f"no object {path} in the store")
FileNotFoundError: no object img/2291.jpg in the store"""


def process(pid: int, **fields: Any) -> ProcessStats:
    """A worker process that does well."""
    known: dict[str, Any] = {
        "number": pid % 10, "generation": 3, "state": "ready", "capability": "", "age_seconds": 7300.0,
        "heard_seconds": 0.4, "held_by": "", "memory_bytes": 61 << 20, "cpu_seconds": 312.0,
        "loop_lag_seconds": 0.002, "longest_hold_seconds": 0.012, "running": 12, "greenlets": 50,
        "done": 120_000, "failed": 12, "connected": ("127.0.0.1:4730",), "disconnected": (),
    }  # fmt: skip
    return ProcessStats(pid, **(known | fields))


class FakeSupervisor:
    """A context manager. What it answers is in its attributes, and may be changed while it runs."""

    def __init__(self, path: str, server: str = "127.0.0.1:4730") -> None:
        self.path = path
        self.server = server
        self.totals = Totals()
        self.processes: tuple[ProcessStats, ...] = (process(4711), process(4712), process(4713))
        self.jobs: list[JobView] = []
        self.stack = 'File "/opt/geard/lib/images.py", line 44, in resize\n    time.sleep(1)'
        self.schedules: tuple[ScheduleState, ...] = ()
        self.last_refusal = ""
        self.paused: set[str] = set()
        self.deaths = 0
        self.mute = False
        self._going: dict[str, tuple[float, float, float]] = {}
        self._counted_at = 0
        self.asked: list[Request] = []
        self.reload_answer = Answer(exits.DONE, "generation 4 serves")
        self._listener = socket.socket(socket.AF_UNIX)
        self._closed = threading.Event()

    # --- numbers --------------------------------------------------------------------------------------------------

    def count(self, function: str, *, done: int = 0, failed: int = 0, running: int = 0, ms: float = 20.0) -> None:
        """A heartbeat's worth of one function, by a process of its own."""
        us = int(ms * 1000)
        durations = {bucket_of(us): max(done - done // 10, 0), bucket_of(us * 6): done // 10}
        diff = FunctionDiff(done, failed, 0, durations, done * us, {bucket_of(300): done}, done * 300, running=running)
        self.totals.add(function, Diff({function: diff}, {self.server: ServerDiff(True, grabs=done)}))

    def fail(self, function: str, text: str, kind: str = "FileNotFoundError", **fields: Any) -> None:
        """One failure."""
        known: dict[str, Any] = {
            "handle": "H:mail1:2291", "unique": "img-2291", "server": self.server, "time": time.time(),
            "traceback": TRACEBACK, "process": "worker 2[4712]", "workload_bytes": 2048,
        }  # fmt: skip
        self.totals.failures.add(Failure(function=function, type=kind, text=text, **(known | fields)))

    def past(self, seconds: int, functions: dict[str, tuple[float, float, float]]) -> None:
        """History up to now: per function jobs per second, failures per second, and milliseconds, with some waves."""
        now = int(time.time())
        for second in range(now - seconds, now):
            self._second(second, functions)
        self.totals.tick(now)

    def _second(self, second: int, functions: dict[str, tuple[float, float, float]]) -> None:
        self.totals.tick(second)
        wave = 1 + 0.3 * math.sin(second / 70) + 0.12 * math.sin(second / 7) + 0.06 * math.sin(second * 1.7)
        for name, (rate, failing, ms) in functions.items():
            rate_now, busy = int(rate * wave), math.ceil(rate * wave * ms / 1000)
            failed = int(failing) + (second % 20 == 0 if failing else 0)
            self.count(name, done=rate_now, failed=failed, running=busy, ms=ms * (0.8 + 0.2 * wave))

    def keep_on(self, functions: dict[str, tuple[float, float, float]]) -> None:
        """The same for each second from now on."""
        self._going, self._counted_at = functions, int(time.time())

    def run_jobs(self, count: int, function: str = "resize", numerator: int = 0) -> None:
        """So many running jobs."""
        self.jobs = [
            JobView(
                RunningJob(function, f"H:host:{i}", f"u-{i}", self.server, 0.1 * (count - i), numerator, 100),
                self.processes[i % len(self.processes)].pid, i % 3 + 1, 3,
            )
            for i in range(count)
        ]  # fmt: skip

    def snapshot(self) -> Snapshot:
        """What STATS is answered with."""
        now = time.time()
        for second in range(self._counted_at, int(now)) if self._going else ():
            self._second(second, self._going)
            self._counted_at = second + 1
        self.totals.tick(now)
        functions = self.totals.functions(list(self.totals.functions()))
        for name, stats in functions.items():
            stats.paused = name in self.paused
        return Snapshot(
            time=now, pid=4700, hostname="host",
            build=Build("0.1.0", "3.13.5", "25.9.1"), config="/etc/geard/geard.yaml",
            state="running", age_seconds=7400.0, memory_bytes=31 << 20, generation=3,
            generations=(GenerationStats(3, "current", self.processes),), recent=self.totals.recent(),
            functions=functions, servers=self.totals.servers([self.server]),
            reloads=self.totals.reloads, last_reload_time=now - 7300, last_refusal=self.last_refusal,
            worker_ends=self.totals.worker_ends, recent_worker_deaths=self.deaths,
            failures=tuple(self.totals.failures.groups()), last_failure_number=self.totals.failures.last_number,
        )  # fmt: skip

    # --- the socket -----------------------------------------------------------------------------------------------

    def answer(self, request: Request) -> Answer:
        match request.command:
            case answers.STATS:
                return Answer(exits.DONE, snapshot=self.snapshot())
            case answers.FAILURES:
                found = self.totals.failures.newest(request.limit, function=request.function, after=request.after)
                return Answer(exits.DONE, failures=tuple(found))
            case answers.HISTORY:
                rings = self.totals.history.minutes if request.minutes else self.totals.history.seconds
                return Answer(exits.DONE, history=rings.history(request.function, request.limit))
            case answers.JOBS:
                jobs = [view for view in self.jobs if request.function in ("", view.job.function)]
                page = jobs[request.offset : request.offset + request.limit]
                return Answer(exits.DONE, jobs=JobPage(len(jobs), tuple(page)))
            case answers.STACK:
                return Answer(exits.DONE, stack=self.stack)
            case answers.SCHEDULES:
                return Answer(exits.DONE, schedules=self.schedules)
            case answers.RELOAD:
                return self.reload_answer
            case answers.REPLACE:
                return Answer(exits.DONE, f"worker of pid {request.pid} is replaced")
        return Answer(exits.USAGE, "what?")

    def __enter__(self) -> FakeSupervisor:
        self._listener.bind(self.path)
        self._listener.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        os.unlink(self.path)

    def _serve(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection:
            line = connection.makefile("rb").readline()
            if not line:
                return
            request = answers.load_request(line)
            self.asked.append(request)
            if self.mute:
                self._closed.wait(60)
                return
            try:
                connection.sendall(answers.dump(self.answer(request)))
            except OSError:
                return
