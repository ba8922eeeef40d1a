"""What a heartbeat carries: what was added since the one before, and how things are now.

Fields with a default are left out of the JSON when they have it, so that an idle function costs nothing.
"""

from __future__ import annotations

from msgspec import Struct

from geard.stats.failures import Failure


class FunctionDiff(Struct, frozen=True, omit_defaults=True):
    """One function in one worker process. Each job that ends is in one of `done`, `failed` and `timed_out`.

    A histogram is sparse: bucket (see histogram.py) -> how many jobs."""

    done: int = 0
    failed: int = 0
    timed_out: int = 0
    durations: dict[int, int] = {}  # from its start to its answer
    duration_us: int = 0  # their sum, in microseconds
    waits: dict[int, int] = {}  # from its arrival here to its start
    wait_us: int = 0
    bytes_in: int = 0  # workloads
    bytes_out: int = 0  # results and data
    running: int = 0  # now: started and not ended

    @property
    def ended(self) -> int:
        """Jobs that ended, however."""
        return self.done + self.failed + self.timed_out


class ServerDiff(Struct, frozen=True, omit_defaults=True):
    """One job server as one worker process sees it."""

    connected: bool = False  # now: on every channel
    reconnects: int = 0  # connections made after the first
    grabs: int = 0  # GRAB_JOB sent
    no_jobs: int = 0  # NO_JOB received


class ProcessDiff(Struct, frozen=True, omit_defaults=True):
    """The worker process itself."""

    memory_bytes: int = 0  # now, resident
    cpu_seconds: float = 0.0  # added
    greenlets: int = 0  # now: how many jobs can run at once
    loop_lag_seconds: float = 0.0  # the longest that its loop was late since the last
    longest_hold_seconds: float = 0.0  # the longest that one job held the loop since the last; 0 if not measured


class Diff(Struct, frozen=True, omit_defaults=True):
    """All that a heartbeat counts. `functions` leaves out those that did nothing since the last and run nothing now."""

    functions: dict[str, FunctionDiff] = {}
    servers: dict[str, ServerDiff] = {}
    process: ProcessDiff = ProcessDiff()
    failures: tuple[Failure, ...] = ()  # new ones, oldest first; of a flood not all, which the counters still have
