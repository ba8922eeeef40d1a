"""What the supervisor tells those who look in: the Snapshot, and pages of the running jobs."""

from __future__ import annotations

import os
import platform
import socket
from importlib.metadata import version
from typing import Final

from geard import __version__
from geard.stats.diff import ProcessDiff
from geard.stats.snapshot import Build, GenerationStats, ProcessStats, Snapshot
from geard.stats.totals import Totals
from geard.supervisor.answers import JobPage, JobView, Request
from geard.supervisor.child import Child
from geard.supervisor.fleet import Fleet
from geard.supervisor.summary import About, paused_functions, resident_bytes

BUILD: Final = Build(__version__, platform.python_version(), version("gevent"))


def snapshot(fleet: Fleet, totals: Totals, about: About, now: float) -> Snapshot:
    """The whole daemon; `now` is of the supervisor's clock."""
    config = fleet.current.config if fleet.current else about.source.config
    functions, paused = totals.functions(config.capabilities), paused_functions(fleet)
    for name, stats in functions.items():
        stats.paused = name in paused
    return Snapshot(
        time=about.time,
        pid=os.getpid(),
        hostname=socket.gethostname(),
        build=BUILD,
        config=about.source.file,
        state=about.state,
        age_seconds=about.age_seconds,
        memory_bytes=resident_bytes(),
        generation=fleet.number,
        generations=tuple(
            GenerationStats(
                generation.number,
                generation.stage.value,
                tuple(_process(child, totals.process(child), now) for child in generation.children),
            )
            for generation in fleet.generations
        ),
        recent=totals.recent(),
        functions=functions,
        servers=totals.servers([str(server) for server in config.job_servers]),
        reloads=totals.reloads,
        last_reload_time=totals.last_reload_time,
        last_refusal=about.last_refusal,
        worker_ends=totals.worker_ends,
        recent_worker_deaths=totals.deaths(about.time),
        failures=tuple(totals.failures.groups()),
        last_failure_number=totals.failures.last_number,
    )


def running_jobs(fleet: Fleet) -> list[JobView]:
    """The jobs in flight as far as they are known, the longest running first."""
    found = [
        JobView(job, child.process.pid if child.process else 0, child.number, child.generation)
        for child in fleet.children
        for job in child.jobs
    ]
    return sorted(found, key=lambda view: -view.job.seconds)


def page(running: list[JobView], request: Request) -> JobPage:
    """Those of them that were asked for."""
    found = [view for view in running if not request.function or view.job.function == request.function]
    first = max(request.offset, 0)
    return JobPage(len(found), tuple(found[first : first + max(request.limit, 0)]))


def _process(child: Child, counted: ProcessDiff, now: float) -> ProcessStats:
    view = child.view(now)
    return ProcessStats(
        pid=view.pid,
        number=view.number,
        generation=child.generation,
        state=view.state,
        capability=view.capability,
        age_seconds=view.age_seconds,
        heard_seconds=view.heard_seconds,
        held_by=view.held_by,
        memory_bytes=view.memory_bytes,
        cpu_seconds=counted.cpu_seconds,
        loop_lag_seconds=counted.loop_lag_seconds,
        longest_hold_seconds=counted.longest_hold_seconds,
        running=view.running,
        greenlets=view.greenlets,
        done=view.done,
        failed=view.failed,
        connected=view.connected,
        disconnected=view.disconnected,
    )
