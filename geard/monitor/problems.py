"""What is wrong now, in words, worst first: from what is known to what a person should read first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from msgspec import Struct

from geard.monitor.daemons import Daemon
from geard.monitor.jobservers import JobServerView, Queue
from geard.printable import printable
from geard.stats.snapshot import FunctionStats, Snapshot
from geard.stats.totals import DEATHS_SECONDS

FAILING_SHARE: Final = 0.05
FAILING_LEAST: Final = 5
"""So few failures in a minute are nobody's alarm."""
SILENT_SECONDS: Final = 5.0
SHOWN: Final = 20


class Finding(Struct, frozen=True):
    """One thing that is wrong: what, and what to do or where to look."""

    level: str  # bad, warn
    kind: str
    text: str
    hint: str = ""
    page: str = ""  # the endpoint of the page that shows more
    about: str = ""  # what to show there: a function, for one


def findings(
    daemons: Sequence[Daemon],
    job_servers: Sequence[JobServerView],
    queues: Mapping[str, Queue],
    functions: Mapping[str, FunctionStats],
    grows: Callable[[str], bool] = lambda _: False,
) -> list[Finding]:
    """All that is wrong, at most SHOWN of them."""
    found = [
        *(finding for daemon in daemons for finding in _daemon(daemon, several=len(daemons) > 1)),
        *_servers(job_servers),
        *_queues(queues, functions, job_servers, grows),
        *_functions(functions),
    ]
    found.sort(key=lambda finding: finding.level != "bad")
    if len(found) > SHOWN:
        return [*found[:SHOWN], Finding("warn", "more", f"and {len(found) - SHOWN} more things like these")]
    return found


def _daemon(daemon: Daemon, *, several: bool) -> Iterator[Finding]:
    name = f"{daemon.name}: " if several else ""
    if daemon.error or daemon.snapshot is None:
        for_so_long = f" for {daemon.silent_seconds:.0f} s" if daemon.silent_seconds >= SILENT_SECONDS else ""
        yield Finding("bad", "daemon", f"{name}the daemon does not answer{for_so_long}", printable(daemon.error))
    if daemon.snapshot:
        yield from _snapshot(daemon.snapshot, name)


def _snapshot(snapshot: Snapshot, name: str) -> Iterator[Finding]:
    if snapshot.state in ("starting", "stopping"):
        yield Finding("warn", "state", f"{name}the daemon is {snapshot.state}", page="processes")
    if snapshot.last_refusal:
        hint = f"generation {snapshot.generation} goes on as it was; mend the config and reload"
        yield Finding("bad", "reload", f"{name}{printable(snapshot.last_refusal)}", hint, "processes")
    if snapshot.recent_worker_deaths:
        count, ready = snapshot.recent_worker_deaths, [p for p in snapshot.processes if p.state == "ready"]
        died = f"{count} worker process{' has' if count == 1 else 'es have'} died"
        hint = "the log says how" if ready else "none is left that serves: the log says why"
        yield Finding("bad", "deaths", f"{name}{died} in the last {DEATHS_SECONDS / 60:.0f} minutes", hint, "processes")
    elif snapshot.processes and snapshot.state == "running" and not any(p.state == "ready" for p in snapshot.processes):
        yield Finding("bad", "none", f"{name}no worker process serves", "the log says why", "processes")
    for process in snapshot.processes:
        who = f"{name}worker {process.number} (pid {process.pid})"
        if process.heard_seconds > SILENT_SECONDS and process.state != "starting":
            held = f": {printable(process.held_by)} holds its loop" if process.held_by else ""
            yield Finding(
                "bad", "silent", f"{who} has been silent for {process.heard_seconds:.0f} s{held}", page="processes"
            )


def _servers(job_servers: Sequence[JobServerView]) -> Iterator[Finding]:
    for view in job_servers:
        if not view.up:
            on = f" (seen from {view.machine})" if view.machine else ""
            text = f"job server {view.name} does not answer{on}"
            yield Finding("bad", "server", text, printable(view.error), "servers")


def _wait(count: int) -> str:
    """`1 job waits`, `2 jobs wait`."""
    return "1 job waits" if count == 1 else f"{count:,} jobs wait"


def _unserved(name: str, job_servers: Sequence[JobServerView]) -> list[JobServerView]:
    """The job servers where jobs wait for this function and no worker could take them."""
    found = [(view, view.queues[name]) for view in job_servers if view.up and name in view.queues]
    return [view for view, queue in found if queue.waiting and not queue.workers]


def _queues(
    queues: Mapping[str, Queue],
    functions: Mapping[str, FunctionStats],
    job_servers: Sequence[JobServerView],
    grows: Callable[[str], bool],
) -> Iterator[Finding]:
    for name, queue in sorted(queues.items(), key=lambda item: -item[1].waiting):
        if not queue.waiting:
            return
        shown = printable(name)
        if not queue.workers:
            text = f"{_wait(queue.waiting)} for {shown}, which no worker anywhere serves"
            stats = functions.get(name)
            known = stats is not None and stats.served
            hint = "it is in this config: are its worker processes connected?" if known else "is it in a config?"
            if stats and stats.paused:
                yield Finding("warn", "unserved", text, f"it is paused: geard resume {shown}", "function", name)
            else:
                yield Finding("bad", "unserved", text, hint, "function", name)
        elif stuck := _unserved(name, job_servers):
            count = sum(view.queues[name].waiting for view in stuck)
            where = ", ".join(view.name for view in stuck)
            text = f"{_wait(count)} for {shown} on {where}, where no worker serves it"
            hint = "do its worker processes connect to each job server?"
            yield Finding("bad", "unserved", text, hint, "function", name)
        elif grows(name):
            text = f"the queue of {shown} has been growing for five minutes: {_wait(queue.waiting)}"
            yield Finding("warn", "growing", text, "it needs more greenlets, processes or machines", "function", name)


def _functions(functions: Mapping[str, FunctionStats]) -> Iterator[Finding]:
    for name, stats in functions.items():
        recent = stats.recent
        if recent.failed >= FAILING_LEAST and recent.failed > FAILING_SHARE * recent.ended:
            share = 100 * recent.failed / recent.ended
            jobs = f"{recent.failed:,} of {recent.ended:,} jobs in the last minute"
            text = f"{printable(name)} fails: {jobs} ({share:.0f} %)"
            yield Finding("bad" if share >= 50 else "warn", "failing", text, "see why", "failures", name)
