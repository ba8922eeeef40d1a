"""`make soak`: an hour at full speed, and whether memory grows.

    make soak ARGS='--minutes 60 --server embedded'

Samples the resident memory of worker, supervisor and job server, and prints the slope of each with its standard error,
by least squares over the time after the warm-up. Exits with 1 if one grows by more than 1 MiB an hour beyond doubt: its
slope less twice its error.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from geard.client import Client
from geard.errors import JobException
from tests.soak.slope import Slope, fit
from tests.support.daemon import Daemon
from tests.support.servers import Embedded, Gearmand, JobServerProcess

LIMIT = 1.0  # MiB an hour
SAMPLE_SECONDS = 5.0
QUEUED = 20_000
"""Jobs are submitted while fewer than so many wait: the job server's own memory is not to be the news."""
BATCH = 2_000


class Load:
    """Background jobs as fast as they are run, from a thread. A context manager."""

    def __init__(self, server: JobServerProcess) -> None:
        self._server = server
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self.submitted = 0

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(60)

    def check(self) -> None:
        """Without load there is nothing to measure."""
        assert self._thread.is_alive(), "no more jobs are submitted"

    def _submit(self) -> None:
        with Client(self._server.address) as client:
            while not self._over.is_set():
                if self._server.status("echo")[0] > QUEUED:
                    self._over.wait(0.02)
                    continue
                batch = (f"job {self.submitted + index}" for index in range(BATCH))
                self.submitted += sum(1 for _ in client.submit_many_background("echo", batch))
                failing = [client.submit("fail", "on purpose") for _ in range(5)]
                for task in failing:
                    with suppress(JobException):
                        task.result(timeout=60)


def resident_mebibytes(pid: int) -> float:
    """Of one process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(server: JobServerProcess, minutes: float, warm_up_minutes: float) -> dict[str, Slope]:
    """Run it, with a line of figures each minute; the slopes."""
    capabilities = {"echo": "tests.bench.functions.echo", "fail": "geard.examples.fail"}
    with Daemon(server, capabilities=capabilities, python_path=[os.getcwd()]) as daemon:
        daemon.start()
        assert server.process
        assert daemon.process
        pids = {"worker": daemon.processes[0].pid, "supervisor": daemon.process.pid, server.name: server.process.pid}
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in pids}
        begin = time.monotonic()
        with Load(server) as load:
            next_line = 60.0
            while (passed := time.monotonic() - begin) < minutes * 60:
                time.sleep(SAMPLE_SECONDS)
                load.check()
                for name, pid in pids.items():
                    samples[name].append(((time.monotonic() - begin) / 3600, resident_mebibytes(pid)))
                if passed >= next_line:
                    next_line += 60.0
                    sizes = ", ".join(f"{name} {samples[name][-1][1]:.2f} MiB" for name in pids)
                    print(f"{passed / 60:5.1f} min  {load.submitted:,} jobs  {sizes}", flush=True)
        return {
            name: fit([(hours, size) for hours, size in points if hours * 60 >= warm_up_minutes])
            for name, points in samples.items()
        }


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=5.0, metavar="MINUTES")
    parser.add_argument("--server", choices=["gearmand", "embedded"], default="gearmand")
    arguments = parser.parse_args()
    with {"gearmand": Gearmand, "embedded": Embedded}[arguments.server]() as server:
        slopes = soak(server, arguments.minutes, arguments.warm_up)
    for name, slope in slopes.items():
        print(f"{name}: {slope.value:+.3f} MiB an hour, standard error {slope.error:.3f}")
    return any(slope.value - 2 * slope.error > LIMIT for slope in slopes.values())


if __name__ == "__main__":
    sys.exit(main())
