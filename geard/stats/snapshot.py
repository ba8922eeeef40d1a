"""A Snapshot: the whole daemon at one moment, as the supervisor tells it.

Everything that looks in reads this: the monitor, `geard top`, the API. Counters count since the daemon's start, and go
on through reloads and the deaths of worker processes. Times are Unix times; ages and durations are seconds.
"""

from __future__ import annotations

from msgspec import Struct, field

from geard.stats.failures import FailureGroup
from geard.stats.histogram import Histogram, merged


class Recent(Struct, frozen=True):
    """A function within the last minute or so: what a person means by "now"."""

    per_second: float = 0.0  # jobs that ended, over the last RATE_SECONDS (see totals.py)
    failed_per_second: float = 0.0
    ended: int = 0  # in the last minute
    failed: int = 0  # in the last minute
    p50_seconds: float = 0.0  # of those that ended in the last minute
    p95_seconds: float = 0.0
    wait_p95_seconds: float = 0.0


class FunctionStats(Struct):
    """One function, all worker processes together. Each job that ended is in one of done, failed, timed_out."""

    done: int = 0
    failed: int = 0
    timed_out: int = 0
    running: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    durations: Histogram = field(default_factory=Histogram)
    waits: Histogram = field(default_factory=Histogram)
    recent: Recent = Recent()
    served: bool = True  # it is in the config of the current generation
    paused: bool = False  # and that takes no jobs of it all the same

    @property
    def ended(self) -> int:
        """Jobs that ended, however."""
        return self.done + self.failed + self.timed_out


class ServerStats(Struct):
    """One job server as the worker processes see it."""

    connected: int = 0  # worker processes whose every channel to it is connected
    disconnected: int = 0
    reconnects: int = 0
    grabs: int = 0
    no_jobs: int = 0


class ProcessStats(Struct, frozen=True):
    """One worker process."""

    pid: int
    number: int
    generation: int
    state: str  # starting, ready, draining
    capability: str  # the one it was started for; "" for the common worker processes
    age_seconds: float
    heard_seconds: float  # since its last word
    held_by: str  # the job that holds its loop, as `function handle`, or ""
    memory_bytes: int
    cpu_seconds: float
    loop_lag_seconds: float
    longest_hold_seconds: float
    running: int
    greenlets: int
    done: int
    failed: int  # timed out ones too
    connected: tuple[str, ...]
    disconnected: tuple[str, ...]


class GenerationStats(Struct, frozen=True):
    """The worker processes of one reading of the config."""

    number: int
    state: str  # starting, current, draining
    processes: tuple[ProcessStats, ...]


class Build(Struct, frozen=True):
    """What runs."""

    version: str
    python: str
    gevent: str


class Snapshot(Struct):
    """See the module."""

    time: float
    pid: int
    hostname: str
    build: Build
    config: str  # the path of its file
    state: str  # starting, running, reloading, stopping
    age_seconds: float
    memory_bytes: int  # of the supervisor
    generation: int  # that serves
    generations: tuple[GenerationStats, ...]
    recent: Recent  # all functions together
    functions: dict[str, FunctionStats]
    servers: dict[str, ServerStats]
    reloads: dict[str, int]  # outcome (done, refused) -> how often
    last_reload_time: float  # of the last that succeeded, or of the start
    last_refusal: str  # why the last reload was refused; "" if it was not
    worker_ends: dict[str, int]  # reason -> how many worker processes ended so
    recent_worker_deaths: int  # ends that nobody wanted, within the last five minutes
    failures: tuple[FailureGroup, ...]
    last_failure_number: int  # what to ask for failures after

    @property
    def processes(self) -> list[ProcessStats]:
        """All worker processes, oldest generation first."""
        return [process for generation in self.generations for process in generation.processes]

    @property
    def paused(self) -> list[str]:
        """The functions of the config that this daemon takes no jobs of."""
        return [name for name, stats in self.functions.items() if stats.paused]

    @property
    def running(self) -> int:
        """Jobs that run."""
        return sum(process.running for process in self.processes)

    @property
    def durations(self) -> Histogram:
        """Of all functions together."""
        return merged(function.durations for function in self.functions.values())
