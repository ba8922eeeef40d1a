"""The benchmark itself: one client in this process, a daemon with the function, and the job server between them.

What is measured in turn: foreground jobs one at a time, and so many at a time; the submission of the queue, while
nobody takes jobs; the drain of it, by a daemon that starts when it is full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import msgspec

from geard.cli.bar import FileProgress, FootLine
from geard.cli.bench import leftovers, usage
from geard.cli.bench.plan import Plan
from geard.cli.bench.report import Figures, Memory, Reading, Report, RoundTrip, Sample, stretch
from geard.cli.temporary import TemporaryDaemon
from geard.client import Client
from geard.client.admin import Admin
from geard.config import Config, JobServer, Logging
from geard.errors import GeardError, JobFailed
from geard.jobserver.embedded import EmbeddedJobServer
from geard.jobserver.options import Options
from geard.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType

MOST_CALLS: Final = 2000
MOST_SECONDS: Final = 10.0
"""So many jobs, and so long at most, foreground jobs are run one at a time, and so many at a time."""
LOOK_SECONDS: Final = 0.02
"""How often a drain is looked at. Each look costs the job server an answer."""
LOT: Final = 100


class Progress:
    """How far the benchmark is, for the line at the foot of the terminal."""

    def __init__(self) -> None:
        self.phase: FileProgress | None = None

    def begin(self, label: str, jobs: int) -> None:
        """Something new is measured, of so many jobs."""
        self.phase = FileProgress(label, jobs)

    def reach(self, done: int) -> None:
        """So many of them are done."""
        if self.phase:
            self.phase.bytes = self.phase.done = done

    def render(self) -> RenderableType | None:
        """The line, or None for nothing yet."""
        return self.phase.render() if self.phase else None


def run(plan: Plan, server: JobServer | None) -> Report:
    """Measure, on a job server of its own or on `server`. Whatever happens, nothing is left of it.

    Raises GeardError for a function that fails on the workload, and a daemon that does not start; what a Client
    raises for the job server."""
    progress = Progress()
    with ExitStack() as stack:
        if server is None:
            options = Options(max_packet_bytes=plan.config.max_packet_bytes)
            own = stack.enter_context(EmbeddedJobServer(options=options, logging=Logging(level="error")))
            address, pid = own.server, own.pid
        else:
            address, pid = server, usage.local_pid(server)
        client = stack.enter_context(Client(address, encoding="bytes", max_packet_bytes=plan.config.max_packet_bytes))
        client.echo(b"")
        if server is not None:
            stack.callback(leftovers.remove, address, plan.function)
        stack.enter_context(FootLine(progress.render))
        return Bench(plan, address, pid, client, progress, own_server=server is None).run()


class Bench:
    """A benchmark under way."""

    def __init__(
        self,
        plan: Plan,
        server: JobServer,
        server_pid: int | None,
        client: Client,
        progress: Progress,
        *,
        own_server: bool,
    ) -> None:
        self._plan = plan
        self._server = server
        self._server_pid = server_pid
        self._client = client
        self._progress = progress
        self._own_server = own_server

    def run(self) -> Report:
        """All of it, in turn."""
        plan = self._plan
        with self._daemon() as daemon:
            daemon.wait_until(self._is_served)
            self._first_job()
            one_at_a_time, round_trip = self._one_at_a_time(daemon)
            foreground = self._foreground(daemon)
        empty_bytes = self._server_bytes()
        submitted = self._submit()
        queued_bytes = self._server_bytes()
        with self._daemon() as daemon:
            drained = self._drain(daemon)
            worker_bytes = self._worker_bytes(daemon)
        queued = None
        if empty_bytes is not None and queued_bytes is not None:
            queued = (queued_bytes - empty_bytes) / plan.jobs
        return Report(
            plan.shown,
            str(self._server),
            self._own_server,
            plan.jobs,
            len(plan.workload),
            plan.config.processes,
            plan.config.greenlets_per_server,
            plan.concurrency,
            submitted,
            drained,
            foreground,
            one_at_a_time,
            round_trip,
            Memory(worker_bytes, empty_bytes, queued),
        )

    # --- what is measured ----------------------------------------------------------------------------------------

    def _first_job(self) -> None:
        """It shows whether the function can do anything with the workload, and loads what it loads when first used."""
        self._progress.begin("first job", 1)
        try:
            self._client.run(self._plan.function, self._plan.workload)
        except JobFailed as error:
            why = printable(str(error).replace(self._plan.function, self._plan.shown))
            raise GeardError(f"the function fails on this workload: {why}\n    --workload gives it another") from error

    def _one_at_a_time(self, daemon: TemporaryDaemon) -> tuple[Figures, RoundTrip]:
        wanted = min(self._plan.jobs, MOST_CALLS)
        self._progress.begin("one at a time", wanted)
        function, seconds, failed = self._plan.function, [], 0
        first = self._reading(daemon)
        for workload in self._workloads(wanted):
            begun = time.perf_counter()
            try:
                self._client.run(function, workload)
            except JobFailed:
                failed += 1
            seconds.append(time.perf_counter() - begun)
            self._progress.reach(len(seconds))
        figures = Figures.between(first, self._reading(daemon), len(seconds), failed=failed)
        return figures, RoundTrip.of(seconds)

    def _foreground(self, daemon: TemporaryDaemon) -> Figures:
        plan = self._plan
        self._progress.begin(f"{plan.concurrency:,} at a time", plan.jobs)
        jobs = failed = 0
        first = self._reading(daemon)
        pairs = self._client.map(
            plan.function, self._workloads(plan.jobs), concurrency=plan.concurrency, ordered=False, pairs=True
        )
        for jobs, (_, outcome) in enumerate(pairs, 1):
            if isinstance(outcome, JobFailed):
                failed += 1
            elif isinstance(outcome, GeardError):
                raise outcome
            if not jobs % LOT:
                self._progress.reach(jobs)
        return Figures.between(first, self._reading(daemon), jobs, failed=failed)

    def _workloads(self, jobs: int) -> Iterator[bytes]:
        """So many, for so long at most; one at least."""
        workload, end = self._plan.workload, time.monotonic() + MOST_SECONDS
        yield workload
        for _ in range(jobs - 1):
            if time.monotonic() > end:
                return
            yield workload

    def _submit(self) -> Figures:
        plan = self._plan
        self._progress.begin("submitting", plan.jobs)
        first = self._reading()
        workloads = (plan.workload for _ in range(plan.jobs))
        for number, _ in enumerate(self._client.submit_many_background(plan.function, workloads), 1):
            if not number % LOT:
                self._progress.reach(number)
        return Figures.between(first, self._reading(), plan.jobs)

    def _drain(self, daemon: TemporaryDaemon) -> Figures:
        jobs = self._plan.jobs
        self._progress.begin("draining", jobs)
        samples: list[Sample] = []
        with Admin(self._server) as admin:
            while not samples or samples[-1].left:
                daemon.check()
                left = sum(row.total for row in admin.status() if row.function == self._plan.function)
                samples.append(Sample(left, self._reading(daemon, client=False)))
                self._progress.reach(jobs - left)
                time.sleep(LOOK_SECONDS)
        first, last = stretch(samples, jobs)
        return Figures.between(first.reading, last.reading, first.left - last.left)

    # --- what it is measured on ----------------------------------------------------------------------------------

    def _daemon(self) -> TemporaryDaemon:
        """Started; it serves a little later."""
        daemon = TemporaryDaemon("geard-bench-")
        try:
            config: Config = msgspec.structs.replace(
                self._plan.config,
                job_servers=(self._server,),
                control_socket=str(daemon.control_socket),
                logging=Logging(level="warning", file=str(daemon.log)),
            )
            daemon.launch("-P", "-m", "geard.cli.bench.daemon", stdin=msgspec.json.encode(config))
        except BaseException:
            daemon.stop()
            raise
        return daemon

    def _is_served(self) -> bool:
        with Admin(self._server) as admin:
            rows = admin.status()
        return any(row.function == self._plan.function and row.workers >= self._plan.config.processes for row in rows)

    def _reading(self, daemon: TemporaryDaemon | None = None, *, client: bool = True) -> Reading:
        return Reading(
            time.perf_counter(),
            time.thread_time() if client else None,  # the client's work is done by the thread that calls it
            usage.cpu_seconds_of_tree(daemon.pid) if daemon else None,
            usage.cpu_seconds(self._server_pid) if self._server_pid else None,
            usage.cpu_seconds_of_threads(self._server_pid) if self._server_pid else {},
        )

    def _server_bytes(self) -> int | None:
        return usage.resident_bytes(self._server_pid) if self._server_pid else None

    def _worker_bytes(self, daemon: TemporaryDaemon) -> int:
        """Of the largest worker process."""
        return max(map(usage.resident_bytes, usage.tree(daemon.pid)[1:]), default=0)
