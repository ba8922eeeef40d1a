"""/metrics: what is known, in Prometheus' words, and what capabilities count with prometheus_client themselves.

Rule: this is about this machine's daemon alone; Prometheus asks each machine itself, peers included.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder

from geard.monitor.jobservers import JobServerView
from geard.monitor.multiprocess import UserMetrics
from geard.monitor.state import State
from geard.scheduler.states import ScheduleState
from geard.stats.histogram import MICROSECONDS, Histogram
from geard.stats.snapshot import Snapshot

WORKER_STATES: Final = ("starting", "ready", "draining")


class Metrics:
    """Collects on each scrape; `exposition` is the answer to one."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._users = UserMetrics(state.start_line.metrics_directory)
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def exposition(self, accept: str, names: Iterable[str] = ()) -> tuple[bytes, str]:
        """The text and its content type: OpenMetrics where `accept` asks for it, else Prometheus'. `names` as in
        `?name[]=`: only these."""
        encode, content_type = choose_encoder(accept)
        wanted = list(names)
        registry: Any = self._registry.restricted_registry(wanted) if wanted else self._registry
        return encode(registry), content_type

    def describe(self) -> list[Metric]:
        """Nothing, so that registering collects nothing."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric there is, now."""
        daemon, letters = self._state.own, self._state.letters
        counts = dict(letters.counts) if letters.path else None
        views = [watch.view() for watch in self._state.watches]
        yield from families(daemon.is_heard, daemon.snapshot, self._state.schedules.states, counts, views)
        alive = [process.pid for process in daemon.snapshot.processes] if daemon.snapshot else []
        yield from self._users.collect(alive if daemon.is_heard else None)


def families(
    is_heard: bool,
    snapshot: Snapshot | None,
    schedules: Iterable[ScheduleState],
    letters: dict[str, int] | None,
    job_servers: Iterable[JobServerView],
) -> Iterator[Metric]:
    """Geard's own metrics; what is None is not known, and has none."""
    yield _gauge("geard_up", "Whether the supervisor answers.", float(is_heard))
    if snapshot:
        yield from _daemon(snapshot)
    yield from _schedules(schedules)
    if letters is not None:
        yield _by("geard_dead_letters", "Jobs that failed for good and are kept.", "function", letters)
    yield from _job_servers(job_servers)


def _daemon(snapshot: Snapshot) -> Iterator[Metric]:
    functions = snapshot.functions
    # What never ran has no buckets: a thousand functions make megabytes of zeros.
    durations = {name: stats.durations for name, stats in functions.items() if stats.ended}
    waits = {name: stats.waits for name, stats in functions.items() if stats.ended}
    bytes_in = {name: stats.bytes_in for name, stats in functions.items()}
    bytes_out = {name: stats.bytes_out for name, stats in functions.items()}
    jobs = CounterMetricFamily("geard_jobs", "Jobs that ended.", labels=["function", "outcome"])
    for name, stats in functions.items():
        for outcome in ("done", "failed", "timed_out"):
            jobs.add_metric([name, outcome], getattr(stats, outcome))
    yield jobs
    yield _histograms("geard_job_seconds", "From a job's start to its answer.", durations)
    yield _histograms("geard_job_wait_seconds", "From a job's arrival to its start.", waits)
    yield _by("geard_jobs_running", "Jobs that run.", "function", {n: s.running for n, s in functions.items()})
    pauses = {name: float(stats.paused) for name, stats in functions.items() if stats.served}
    yield _by("geard_function_paused", "Whether the daemon takes no jobs of it.", "function", pauses)
    yield _counters("geard_workload_bytes", "Workloads received.", "function", bytes_in)
    yield _counters("geard_result_bytes", "Results and data sent.", "function", bytes_out)
    processes = snapshot.processes
    yield _gauge("geard_greenlets", "How many jobs can run at once.", sum(process.greenlets for process in processes))
    states = {state: sum(process.state == state for process in processes) for state in WORKER_STATES}
    yield _by("geard_worker_processes", "Worker processes by state.", "state", states)
    yield _counters("geard_worker_ends", "Worker processes that ended, by how.", "reason", snapshot.worker_ends)
    yield _by_process("geard_worker_memory_bytes", "Resident memory.", snapshot, "memory_bytes")
    yield _by_process("geard_worker_cpu_seconds", "CPU time of the worker process so far.", snapshot, "cpu_seconds")
    yield _by_process("geard_loop_lag_seconds", "How late the worker's loop was at most.", snapshot, "loop_lag_seconds")
    hold = "How long a job held the worker's loop at most."
    yield _by_process("geard_loop_hold_seconds", hold, snapshot, "longest_hold_seconds")
    yield _gauge("geard_supervisor_memory_bytes", "Resident memory of the supervisor.", snapshot.memory_bytes)
    servers = snapshot.servers
    up = {name: float(server.connected > 0) for name, server in servers.items()}
    yield _by("geard_job_server_up", "Whether a worker process is connected to it.", "server", up)
    reconnects = {name: server.reconnects for name, server in servers.items()}
    yield _counters("geard_reconnects", "Connections made again.", "server", reconnects)
    yield _counters("geard_grabs", "GRAB_JOB sent.", "server", {name: server.grabs for name, server in servers.items()})
    yield _counters("geard_no_jobs", "NO_JOB received.", "server", {name: s.no_jobs for name, s in servers.items()})
    yield _counters("geard_reloads", "Reloads by outcome.", "outcome", snapshot.reloads)
    yield _gauge("geard_generation", "The generation that serves.", snapshot.generation)
    last = "When the config was last taken over."
    yield _gauge("geard_last_reload_success_timestamp_seconds", last, snapshot.last_reload_time)
    refused = float(bool(snapshot.last_refusal))
    yield _gauge("geard_last_reload_refused", "Whether the last reload was refused.", refused)
    build = snapshot.build
    info = InfoMetricFamily("geard_build", "What runs.")
    info.add_metric([], {"version": build.version, "python": build.python, "gevent": build.gevent})
    yield info


def _schedules(states: Iterable[ScheduleState]) -> Iterator[Metric]:
    states = list(states)
    known = [
        ("geard_schedule_next_timestamp_seconds", "When it is due next.", "next_at"),
        ("geard_schedule_last_submitted_timestamp_seconds", "When this daemon last submitted it.", "submitted_at"),
        ("geard_schedule_waiting", "Times of it that wait on a job server.", "waiting"),
    ]
    for name, text, field in known:
        values = {state.name: getattr(state, field) for state in states}
        yield _by(name, text, "schedule", {key: value for key, value in values.items() if value is not None})


def _job_servers(views: Iterable[JobServerView]) -> Iterator[Metric]:
    views = list(views)
    yield _by("gearman_up", "Whether the job server answers.", "server", {view.name: float(view.up) for view in views})
    queued = GaugeMetricFamily("gearman_jobs_queued", "Jobs that wait.", labels=["server", "function", "priority"])
    running = GaugeMetricFamily("gearman_jobs_running", "Jobs that run.", labels=["server", "function"])
    workers = GaugeMetricFamily("gearman_workers", "Workers that can run it.", labels=["server", "function"])
    for view in views:
        for name, queue in view.queues.items() if view.up else ():
            for priority in ("high", "normal", "low"):
                queued.add_metric([view.name, name, priority], getattr(queue, priority))
            running.add_metric([view.name, name], queue.running)
            workers.add_metric([view.name, name], queue.workers)
    yield from (queued, running, workers)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=value)


def _by(name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _counters(name: str, text: str, label: str, values: dict[str, Any]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _by_process(name: str, text: str, snapshot: Snapshot, field: str) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["worker", "generation", "pid"])
    for process in snapshot.processes:
        labels = [str(process.number), str(process.generation), str(process.pid)]
        family.add_metric(labels, getattr(process, field))
    return family


def _histograms(name: str, text: str, histograms: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=["function"])
    for function, histogram in histograms.items():
        buckets = [(_bound(bound), float(count)) for bound, count in histogram.prometheus_buckets()]
        buckets.append(("+Inf", float(histogram.count)))
        family.add_metric([function], buckets, histogram.sum_us / MICROSECONDS)
    return family


def _bound(seconds: float) -> str:
    return f"{seconds:g}" if seconds < 1 else f"{seconds:.6f}".rstrip("0").rstrip(".")
