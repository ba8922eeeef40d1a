"""What `geard top --json` tells: the same as the screen, for a program."""

from __future__ import annotations

from msgspec import Struct

from geard.cli.top.draw import rates
from geard.cli.top.look import Look
from geard.monitor.problems import Finding
from geard.stats.snapshot import ServerStats
from geard.supervisor.answers import JobPage


class FunctionReport(Struct, frozen=True):
    """A function. Counts since the daemon's start, rates of late, durations of the last minute."""

    done: int
    failed: int
    timed_out: int
    running: int
    served: bool
    done_per_second: float
    failed_per_second: float
    p50_seconds: float
    p95_seconds: float


class Report(Struct, frozen=True, omit_defaults=True):
    """A daemon at `time`. With `error`, nothing in it is newer than that time."""

    error: str
    problems: tuple[Finding, ...]
    time: float = 0.0
    pid: int = 0
    version: str = ""
    config: str = ""
    state: str = ""
    age_seconds: float = 0.0
    generation: int = 0
    running: int = 0
    greenlets: int = 0
    done_per_second: float = 0.0
    failed_per_second: float = 0.0
    p50_seconds: float = 0.0
    p95_seconds: float = 0.0
    job_servers: dict[str, ServerStats] = {}
    functions: dict[str, FunctionReport] = {}
    jobs: JobPage | None = None


def report(look: Look) -> Report:
    """A look as an object."""
    now = look.now
    if now is None:
        return Report(look.error, look.problems)
    known = rates(look.before, now)
    functions = {
        name: FunctionReport(
            stats.done, stats.failed, stats.timed_out, stats.running, stats.served, *known[name],
            stats.recent.p50_seconds, stats.recent.p95_seconds,
        )
        for name, stats in now.functions.items()
    }  # fmt: skip
    return Report(
        look.error, look.problems, now.time, now.pid, now.build.version, now.config, now.state, now.age_seconds,
        now.generation, now.running, sum(process.greenlets for process in now.processes),
        sum(rate.done for rate in known.values()), sum(rate.failed for rate in known.values()),
        now.recent.p50_seconds, now.recent.p95_seconds, now.servers, functions, look.jobs,
    )  # fmt: skip
