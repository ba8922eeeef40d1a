"""Exit codes, errors and metrics."""

from __future__ import annotations

import inspect
from typing import NamedTuple

from geard import errors, exits
from geard.monitor.jobservers import JobServerView, Queue
from geard.monitor.metrics import families
from geard.scheduler.states import ScheduleState
from geard.stats.histogram import Histogram
from geard.stats.snapshot import Build, FunctionStats, GenerationStats, ProcessStats, Recent, ServerStats, Snapshot


class ExitCode(NamedTuple):
    """An exit code of the commands; `name` is that of the constant in geard/exits.py."""

    code: int
    name: str
    meaning: str


class ErrorClass(NamedTuple):
    """An error that geard raises; `bases` are the names of the nearest classes above it."""

    name: str
    bases: tuple[str, ...]
    text: str


class MetricFamily(NamedTuple):
    """A metric of /metrics; `name` is the one to query: `…_total` of a counter, without `_bucket` of a histogram."""

    name: str
    type: str
    help: str
    labels: tuple[str, ...]


def exit_codes() -> tuple[ExitCode, ...]:
    """Every exit code, in order."""
    names = {value: name for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    return tuple(ExitCode(code, names[code], text) for code, text in exits.MEANINGS.items())


def error_classes() -> tuple[ErrorClass, ...]:
    """Every error class, in the order of geard/errors.py: what it means and what to do, from its docstring."""
    found = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.GeardError)]
    return tuple(
        ErrorClass(one.__name__, tuple(base.__name__ for base in one.__bases__), inspect.getdoc(one) or "")
        for one in found
    )


def metrics() -> tuple[MetricFamily, ...]:
    """Every metric of geard's own, in the order of /metrics."""
    found = []
    for family in families(True, _snapshot(), [_SCHEDULE], {"reverse": 0}, [_JOB_SERVER]):
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        found.append(MetricFamily(family.name + suffix, kind, family.documentation, tuple(labels)))
    return tuple(found)


# One of each, so that each metric has a sample, and the sample its labels.
_SCHEDULE = ScheduleState("nightly", "report", "@daily", 0.0, 0.0, 0.0, 0)
_JOB_SERVER = JobServerView("localhost:4730", True, queues={"reverse": Queue(0, 0, 0, 0, 0)})


def _snapshot() -> Snapshot:
    process = ProcessStats(1, 1, 1, "ready", "", 0.0, 0.0, "", 0, 0.0, 0.0, 0.0, 0, 0, 0, 0, (), ())
    return Snapshot(
        time=0.0,
        pid=1,
        hostname="",
        build=Build("", "", ""),
        config="",
        state="running",
        age_seconds=0.0,
        memory_bytes=0,
        generation=1,
        generations=(GenerationStats(1, "current", (process,)),),
        recent=Recent(),
        functions={"reverse": FunctionStats(done=1, durations=Histogram({0: 1}), waits=Histogram({0: 1}))},
        servers={"localhost:4730": ServerStats()},
        reloads={"done": 0},
        last_reload_time=0.0,
        last_refusal="",
        worker_ends={"drained": 0},
        recent_worker_deaths=0,
        failures=(),
        last_failure_number=0,
    )
