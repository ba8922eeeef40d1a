"""What a job costs in Python, without sockets and job server: the path from a packet to the packet of its result.

    python -m tests.bench.path TREE [TREE ...]      # directories with a `geard` in them: before, after

A worker pool in a patched process drains jobs of 100 bytes from a connection that is made up: 50 greenlets, presence
record included. The trees take turns; what is printed is process CPU time, and the least of the rounds is worth most.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any, Final

from geard.config import Capability, Config, JobServer
from geard.presence import Presence, record_of
from geard.protocol import Command, request
from geard.protocol.encode import response
from geard.worker import WorkerPool

ROUNDS: Final = 20
JOBS: Final = 20_000
_GRAB: Final = request(Command.GRAB_JOB_UNIQ)
_SLEEP: Final = request(Command.PRE_SLEEP)
_RESULT: Final = request(Command.WORK_COMPLETE, b"", b"")[:8]


class Feed:
    """Stands in for a Connection: answers each grab with a job while there are any, and then with NO_JOB."""

    unsent = b""
    descriptor = -1

    def __init__(self, server: JobServer, event: Any) -> None:
        self.server = server
        self.go, self.done = event(), event()
        self._packets = [
            response(Command.JOB_ASSIGN_UNIQ, b"H:localhost:%d" % n, b"echo", b"%032d" % n, b"x" * 100)
            for n in range(JOBS)
        ]
        self._next = JOBS
        self._owed = self._results = 0
        self._asleep = False

    def begin(self) -> None:
        self._next = self._results = 0
        self.done.clear()
        self.go.set()

    def send(self, data: bytes, deadline: float | None = None) -> bool:
        self._owed += data.count(_GRAB)
        self._asleep = self._asleep or data.endswith(_SLEEP)
        self._results += data.count(_RESULT)
        if self._results == JOBS:
            self.done.set()
        return True

    def receive_at_once(self) -> bytes | None:
        return None

    def receive(self, timeout_seconds: float | None = None) -> bytes:
        count, self._owed = self._owed, 0
        if self._next == JOBS:
            if not count:
                self.go.wait()
                self.go.clear()
                self._asleep = False
                return response(Command.NOOP)
            return response(Command.NO_JOB) * count
        found = self._packets[self._next : self._next + count]
        self._next += len(found)
        self._owed = count - len(found)
        if self._asleep:
            self._asleep = False
            found.append(response(Command.NOOP))
        time.sleep(0)
        return b"".join(found)

    def close(self) -> None:
        """There is nothing to close."""

    interrupt = close


def echo(workload: bytes) -> bytes:
    return workload


def measure() -> None:
    """In a patched process: microseconds a job, once for each line on stdin."""
    from gevent.event import Event

    from geard.worker.greenlets import runtime, start_greenlet

    server = JobServer("nowhere")
    config = Config(
        job_servers=(server,), capabilities={"echo": Capability(echo)}, greenlets_per_server=50, encoding="bytes"
    )
    pool = WorkerPool(config, spawn=start_greenlet, runtime=runtime(1))
    channel: Any = pool.channels[0]
    feed = Feed(server, Event)
    channel._dial = lambda server: feed
    channel._window.hoarded = lambda *_: None  # or a moment that another process has taken would close the window
    seat = Presence().seat(0)
    seat.occupy()

    def assigned(jobs: Any) -> None:
        if jobs and not seat.add(record_of(jobs[0].server.encode(), [job.raw_handle for job in jobs])):
            seat.begin([])

    channel.assigned = assigned
    pool.start()
    while os.read(0, 1):
        begun = time.process_time()
        feed.begin()
        feed.done.wait()
        os.write(1, b"%f\n" % ((time.process_time() - begun) / JOBS * 1e6))


def main(trees: list[str]) -> None:
    """Start a process for each tree, and let them take turns."""
    command = [sys.executable, "-P", "-m", "gevent.monkey", __file__]  # -P: not the geard of this directory
    sides = [
        subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": tree}, bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for tree in trees
    ]
    found: dict[str, list[float]] = {tree: [] for tree in trees}
    for _ in range(ROUNDS):
        for tree, side in zip(trees, sides, strict=True):
            assert side.stdin
            assert side.stdout
            side.stdin.write(b"\n")
            found[tree].append(float(side.stdout.readline()))
    for side in sides:
        side.kill()
        side.wait()
    for tree, values in found.items():
        values.sort()
        print(f"{tree}: least {values[0]:.2f}, median {values[len(values) // 2]:.2f} us a job")


if __name__ == "__main__":
    if sys.argv[1:]:
        main(sys.argv[1:])
    else:
        measure()
