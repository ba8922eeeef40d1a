"""Whether a daemon is fit for work, part by part, from its overview. Pure.

Rule: it is healthy while a worker process is ready and a job server connected, for then jobs are run; what is amiss
beside that is in the reasons, and is no reason to restart it.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from geard.supervisor.answers import Overview, ProcessView

SILENT_SECONDS: Final = 10.0
"""A worker process that has said nothing for so long is stuck, as far as anybody can tell."""


class Part(Struct, frozen=True):
    """One thing that was looked at."""

    ok: bool
    reason: str


class Health(Struct, frozen=True):
    """The verdict, and what it is made of."""

    healthy: bool
    parts: dict[str, Part]

    @property
    def text(self) -> str:
        """A line for each part."""
        rows = [(name, "ok" if part.ok else "FAILED", part.reason) for name, part in self.parts.items()]
        return "\n".join(f"{name:<12}  {state:<6}  {reason}" for name, state, reason in rows)


def health_of(overview: Overview) -> Health:
    """The health of a daemon that answered."""
    current = [process for each in overview.generations if each.state == "current" for process in each.processes]
    ready = [process for process in current if process.state == "ready"]
    parts = {
        "daemon": Part(overview.state in ("running", "reloading"), f"{overview.state}, pid {overview.pid}"),
        "processes": _processes(current, ready, all_paused=overview.all_paused),
        "job servers": _job_servers(ready, all_paused=overview.all_paused),
        "reload": Part(True, overview.last_refusal or "the last one was not refused"),
    }
    return Health(all(part.ok for part in parts.values()), parts)


def unreachable(reason: str) -> Health:
    """The health of a daemon that did not answer."""
    return Health(False, {"daemon": Part(False, reason)})


def _processes(current: list[ProcessView], ready: list[ProcessView], *, all_paused: bool) -> Part:
    silent = [process for process in ready if process.heard_seconds > SILENT_SECONDS]
    reason = f"{len(ready)} of {len(current)} ready"
    if silent:
        reason += ", silent: " + ", ".join(f"pid {one.pid} for {one.heard_seconds:.0f} s" for one in silent)
    if all_paused:
        return Part(True, "none, for every function is paused")
    missing = {process.capability for process in current} - {process.capability for process in ready}
    if missing - {""}:
        reason += f", none for {', '.join(sorted(missing - {''}))}"
    return Part(len(ready) > len(silent), reason)


def _job_servers(ready: list[ProcessView], *, all_paused: bool) -> Part:
    connected = {server for process in ready for server in process.connected}
    down = {server for process in ready for server in process.disconnected}
    reason = f"{len(connected - down)} of {len(connected | down)} connected"
    return Part(bool(connected) or all_paused, reason + (f", not {', '.join(sorted(down))}" if down else ""))
