"""What was measured, as data for programs and as a table for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from geard.cli.answers import aligned, count
from geard.cli.output import Line
from geard.printable import printable

FEW_JOBS: Final = 10_000
"""Of fewer jobs than this the figures say little: starting and waiting is much of the time."""


class Reading(Struct, frozen=True):
    """The clock, and the CPU time used so far; None of what is not there or cannot be seen."""

    time: float
    client: float | None
    worker: float | None
    job_server: float | None
    job_server_threads: Mapping[int, float] = {}  # each thread's


class Figures(Struct, frozen=True):
    """What so many jobs took. CPU times are those of all of them together: of the client, of the daemon with its worker
    processes, of the job server, and of the busiest of its threads, which uses one core at most."""

    jobs: int
    seconds: float
    jobs_per_second: float
    failed: int = 0
    client_cpu_seconds: float | None = None
    worker_cpu_seconds: float | None = None
    job_server_cpu_seconds: float | None = None
    job_server_busiest_thread_cpu_seconds: float | None = None

    @classmethod
    def between(cls, first: Reading, last: Reading, jobs: int, *, failed: int = 0) -> Figures:
        """Those of the jobs between two readings."""
        return cls(
            jobs,
            last.time - first.time,
            jobs / max(last.time - first.time, 1e-9),
            failed,
            _difference(first.client, last.client),
            _difference(first.worker, last.worker),
            _difference(first.job_server, last.job_server),
            max(
                (cpu - first.job_server_threads.get(thread, 0.0) for thread, cpu in last.job_server_threads.items()),
                default=None,
            ),
        )


class Sample(Struct, frozen=True):
    """How many jobs were left in the job server, queued or running, at a reading."""

    left: int
    reading: Reading


class RoundTrip(Struct, frozen=True):
    """Seconds from submission to result, of foreground jobs one at a time."""

    jobs: int
    p50_seconds: float
    p99_seconds: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> RoundTrip:
        """Of these times."""
        times = sorted(seconds)
        return cls(len(times), *(times[min(int(len(times) * share), len(times) - 1)] for share in (0.5, 0.99)))


class Memory(Struct, frozen=True):
    """Resident memory; None of what cannot be seen from here."""

    worker_process_bytes: int
    job_server_bytes: int | None = None  # with an empty queue
    queued_job_bytes: float | None = None  # what the job server grew by for each job in its queue


class Report(Struct, frozen=True):
    """All that `geard bench` has to say."""

    function: str
    server: str
    own_server: bool
    jobs: int
    workload_bytes: int
    processes: int
    greenlets_per_server: int
    concurrency: int
    submitted: Figures
    drained: Figures
    foreground: Figures
    one_at_a_time: Figures
    round_trip: RoundTrip
    memory: Memory


def stretch(samples: Sequence[Sample], jobs: int) -> tuple[Sample, Sample]:
    """The two samples between which a drain is measured: from a tenth to nine tenths of it, where all worker processes
    run and none has run dry. Where so few samples were taken that most of it lies outside, the whole of it."""
    inner = [sample for sample in samples if 0.1 * jobs <= sample.left <= 0.9 * jobs]
    if inner and inner[0].left - inner[-1].left >= jobs / 2:
        return inner[0], inner[-1]
    begun = max((n for n, sample in enumerate(samples) if sample.left >= jobs), default=0)
    return samples[begun], samples[-1]


def lines(report: Report) -> list[Line]:
    """The report for a person."""
    workers = f"{count(report.processes, 'worker process')} with {count(report.greenlets_per_server, 'greenlet')}"
    server = f"a job server of its own, {report.server}" if report.own_server else report.server
    found = [
        Line(
            f"{printable(report.function)}: {count(report.jobs, 'job')} of {count(report.workload_bytes, 'byte')}",
            "bold",
        ),
        Line(f"{workers}, on {server}", "dim"),
        Line(""),
    ]
    rows = [
        _row("submitted in the background", report.submitted),
        _row("drained", report.drained),
        _row(f"foreground, {report.concurrency:,} at a time", report.foreground),
        _row("foreground, one at a time", report.one_at_a_time),
    ]
    header = ("", "JOBS/S", "CPU A JOB:  CLIENT", "WORKER", "JOB SERVER", "ITS BUSIEST THREAD")
    head, *body = aligned([header, *rows], [False, *[True] * 5])
    found += [Line(head, "dim"), *map(Line, body), Line("")]
    trip, memory = report.round_trip, report.memory
    found.append(Line(f"round trip  p50 {_milliseconds(trip.p50_seconds)}, p99 {_milliseconds(trip.p99_seconds)}"))
    parts = [f"worker process {_mib(memory.worker_process_bytes)}"]
    if memory.job_server_bytes is not None:
        parts.append(f"job server {_mib(memory.job_server_bytes)}")
    if memory.queued_job_bytes is not None:
        parts.append(f"and {memory.queued_job_bytes:,.0f} bytes for each job in its queue")
    found.append(Line(f"memory      {', '.join(parts)}"))
    failed = sum(each.failed for each in (report.foreground, report.one_at_a_time))
    if failed:
        found.append(Line(f"{failed:,} of the foreground jobs failed", "bold red"))
    if report.jobs < FEW_JOBS:
        found.append(Line(f"of so few jobs the figures say little: {FEW_JOBS:,} at least are better", "dim"))
    return found


def _row(name: str, figures: Figures) -> tuple[str, ...]:
    used = (
        figures.client_cpu_seconds,
        figures.worker_cpu_seconds,
        figures.job_server_cpu_seconds,
        figures.job_server_busiest_thread_cpu_seconds,
    )
    per_job = ["-" if cpu is None else f"{cpu / max(figures.jobs, 1) * 1e6:,.1f} µs" for cpu in used]
    speed = figures.jobs_per_second
    return name, f"{speed:,.0f}" if speed >= 10 else f"{speed:.1f}", *per_job


def _difference(first: float | None, last: float | None) -> float | None:
    return None if first is None or last is None else last - first


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.2f} ms"


def _mib(size: int) -> str:
    return f"{size / 2**20:,.1f} MiB"
