"""Health: whether the daemon lives, and whether it is ready for jobs, with a reason for each part. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from geard.monitor.daemons import Daemon
from geard.monitor.jobservers import JobServerView


class Part(Struct, frozen=True):
    """One thing that must be well."""

    ok: bool
    reason: str


class Health(Struct, frozen=True):
    """Whether all is well, and what of it is not."""

    ok: bool
    parts: dict[str, Part]


def live(daemon: Daemon) -> Health:
    """Whether the supervisor answers. What does not will not come back by itself: start it again."""
    return _together({"supervisor": _supervisor(daemon)})


def ready(daemon: Daemon, job_servers: Sequence[JobServerView]) -> Health:
    """Whether jobs are being taken: a worker process is ready, and a job server is there and connected."""
    parts = {"supervisor": _supervisor(daemon)}
    snapshot = daemon.snapshot
    if snapshot and daemon.is_heard:
        serving = [process for process in snapshot.processes if process.state == "ready"]
        connected = {name for process in serving for name in process.connected}
        count = f"{len(serving)} worker process{'' if len(serving) == 1 else 'es'} ready"
        parts["state"] = Part(snapshot.state in ("running", "reloading"), snapshot.state)
        served = [stats for stats in snapshot.functions.values() if stats.served]
        idle = bool(served) and all(stats.paused for stats in served)
        parts["worker processes"] = Part(bool(serving) or idle, count + ", for every function is paused" * idle)
        parts["connections"] = Part(
            bool(connected) or idle, f"connected to {', '.join(sorted(connected)) or 'no job server'}"
        )
    up = [view.name for view in job_servers if view.up]
    down = [f"{view.name}: {view.error}" for view in job_servers if not view.up]
    reason = "; ".join([f"{len(up)} of {len(job_servers)} answer", *down])
    parts["job servers"] = Part(bool(up), reason)
    return _together(parts)


def _supervisor(daemon: Daemon) -> Part:
    if daemon.is_heard and daemon.snapshot:
        return Part(True, f"pid {daemon.snapshot.pid}, {daemon.snapshot.state}")
    return Part(False, daemon.error)


def _together(parts: dict[str, Part]) -> Health:
    return Health(all(part.ok for part in parts.values()), parts)
