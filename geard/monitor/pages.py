"""The pages: for each path, what its template is told. A page is the same for its first view and for each live one.

Rule: text from jobs goes into templates as it is; they escape it, after the filters `show` and `show_lines`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

from msgspec import Struct

from geard.deadletters.store import Group
from geard.errors import GeardError
from geard.monitor import problems
from geard.monitor.daemons import Daemon
from geard.monitor.jobservers import Queue
from geard.monitor.letters import key_of
from geard.monitor.state import State
from geard.stats.failures import KEPT_FAILURES, Failure
from geard.stats.snapshot import FunctionStats
from geard.supervisor.answers import JobView, Request

ROWS: Final = 50
"""Rows of a table on one page of it."""
NO_QUEUE: Final = Queue(0, 0, 0, 0, 0)

_VARYING: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\b[0-9a-f]{8,}\b|\d+")
"""What differs between texts of the same error: quoted values, ids, numbers."""

Query = Mapping[str, str]
T = TypeVar("T")


class FunctionRow(Struct, frozen=True):
    """A line of the table of functions."""

    name: str
    stats: FunctionStats
    queue: Queue
    spark: list[int]


class Table(Struct, frozen=True):
    """One page of a sorted, filtered list."""

    rows: Sequence[Any]
    total: int
    page: int
    pages: int


class FailureGroup(Struct):
    """Failures that look alike."""

    function: str
    type: str
    text: str
    failures: list[Failure]
    count: int


Builder = Callable[[State, Query], dict[str, Any]]


def found_problems(state: State) -> list[problems.Finding]:
    """What is wrong now."""
    return problems.findings(state.daemons, state.job_servers(), state.queues(), state.functions(), state.grows)


def overview(state: State, query: Query) -> dict[str, Any]:
    """Everything at a glance."""
    rows = function_rows(state)
    rows.sort(key=lambda row: (-row.stats.recent.per_second, -row.queue.waiting, row.name))
    snapshots = [daemon.snapshot for daemon in state.daemons if daemon.snapshot]
    return {
        "recent": state.recent(),
        "running": sum(snapshot.running for snapshot in snapshots),
        "greenlets": sum(process.greenlets for snapshot in snapshots for process in snapshot.processes),
        "waiting": sum(row.queue.waiting for row in rows),
        "rows": [row for row in rows if row.stats.recent.ended or row.queue.waiting or row.stats.running][:10],
        "function_count": len(rows),
        "servers": state.job_servers(),
        "done": sum(stats.done for stats in state.functions().values()),
        "failed": sum(stats.failed + stats.timed_out for stats in state.functions().values()),
    }


FUNCTION_SORTS: Final[dict[str, Callable[[FunctionRow], Any]]] = {
    "name": lambda row: row.name.lower(),
    "queued": lambda row: row.queue.waiting,
    "running": lambda row: row.stats.running,
    "rate": lambda row: row.stats.recent.per_second,
    "p50": lambda row: row.stats.recent.p50_seconds,
    "p95": lambda row: row.stats.recent.p95_seconds,
    "failed": lambda row: row.stats.recent.failed,
    "done": lambda row: row.stats.done,
    "workers": lambda row: row.queue.workers,
}


def functions(state: State, query: Query) -> dict[str, Any]:
    """The table of functions, sorted and filtered."""
    wanted = query.get("q", "").lower()
    rows = [row for row in function_rows(state) if wanted in row.name.lower()]
    sort, descending = _sort(query, FUNCTION_SORTS, "name")
    rows.sort(key=lambda row: row.name)
    rows.sort(key=FUNCTION_SORTS[sort], reverse=descending)
    return {"table": _table(rows, query), "sort": sort, "descending": descending, "q": query.get("q", "")}


def function(state: State, query: Query) -> dict[str, Any]:
    """One function."""
    name = query.get("name", "")
    stats, queue = state.functions().get(name), state.queues().get(name)
    failures = _failures(state, Request("", function=name, limit=20))
    servers = [(view, view.queues[name]) for view in state.job_servers() if name in view.queues]
    daemons = [(d, d.snapshot.functions[name]) for d in state.daemons if d.snapshot and name in d.snapshot.functions]
    return {
        "name": name,
        "known": stats is not None or queue is not None,
        "stats": stats or FunctionStats(),
        "queue": queue or NO_QUEUE,
        "failures": failures,
        "by_server": servers,
        "by_daemon": daemons,
    }


class RunningRow(Struct, frozen=True):
    """A running job, and the daemon that runs it."""

    daemon: Daemon
    view: JobView


def running(state: State, query: Query) -> dict[str, Any]:
    """Running jobs, the longest first: of each daemon enough for the page that is shown."""
    wanted, page = query.get("function", ""), _page(query)
    request = Request("", function=wanted, limit=page * ROWS, offset=0)
    rows: list[RunningRow] = []
    total, silent = 0, []
    for daemon in state.daemons:
        try:
            found = state.recall(daemon, lambda source: source.jobs, request)
        except GeardError as error:
            silent.append((daemon, str(error)))
            continue
        total += found.total
        rows.extend(RunningRow(daemon, view) for view in found.jobs)
    rows.sort(key=lambda row: -row.view.job.seconds)
    pages = max(-(-total // ROWS), 1)
    table = Table(rows[(page - 1) * ROWS : page * ROWS], total, page, pages)
    return {"table": table, "silent": silent, "wanted": wanted}


def failures(state: State, query: Query) -> dict[str, Any]:
    """The last failures by function and error; and how many of each there have been."""
    wanted = query.get("function", "")
    groups: dict[tuple[str, str, str], FailureGroup] = {}
    for failure in _failures(state, Request("", function=wanted, limit=KEPT_FAILURES)):
        key = (failure.function, failure.type, _VARYING.sub("*", _first_line(failure.text)))
        group = groups.setdefault(key, FailureGroup(failure.function, failure.type, failure.text, [], 0))
        group.failures.append(failure)
    counts = _failure_counts(state)
    for group in groups.values():
        group.count = counts.get((group.function, group.type), 0)
    return {"groups": list(groups.values()), "wanted": wanted, "names": sorted({name for name, _ in counts})}


def processes(state: State, query: Query) -> dict[str, Any]:
    """Generations and their worker processes."""
    return {}


def servers(state: State, query: Query) -> dict[str, Any]:
    """The job servers; with `name`, one of them with the jobs that wait there."""
    name = query.get("name", "")
    chosen = None
    for watch in state.watches:
        if watch.name == name:
            watch.look()
            chosen = watch.view()
    return {"servers": state.job_servers(), "chosen": chosen, "name": name, "at": _page(query)}


def letters(state: State, query: Query) -> dict[str, Any]:
    """The dead letters by function and error; with `function`, those of one, and its newest."""
    watch, wanted = state.letters, query.get("function", "")
    watch.look(wanted)
    by_function: dict[str, list[Group]] = {name: [] for name in watch.counts if wanted in ("", name)}
    for group in watch.groups or ():  # those with the latest letters first
        if group.function in by_function:
            by_function[group.function] = [*by_function.pop(group.function), group]
    rows = [(name, watch.counts[name], groups) for name, groups in by_function.items()]
    rows.sort(key=lambda row: -max((group.last_at for group in row[2]), default=0.0))
    return {
        "letters": watch,
        "total": sum(watch.counts.values()),
        "functions": rows[:ROWS],
        "known": watch.groups is not None,
        "newest": watch.newest.get(wanted, []),
        "wanted": wanted,
        "key_of": key_of,
        "title": MENU["letters"],
    }


def schedules(state: State, query: Query) -> dict[str, Any]:
    """What runs at its times, and when."""
    return {"schedules": state.schedules}


def in_menu(state: State) -> list[tuple[str, str]]:
    """The pages that there is something for: name and title."""
    pages = dict(MENU)
    if not state.letters.path:
        del pages["letters"]
    if not state.schedules.states:
        del pages["schedules"]
    return list(pages.items())


MENU: Final = {
    "overview": "Overview",
    "functions": "Functions",
    "running": "Running",
    "failures": "Failures",
    "letters": "Dead letters",
    "schedules": "Schedules",
    "processes": "Processes",
    "servers": "Job servers",
}
PAGES: Final[dict[str, Builder]] = {
    "overview": overview,
    "functions": functions,
    "function": function,
    "running": running,
    "failures": failures,
    "processes": processes,
    "servers": servers,
    "letters": letters,
    "schedules": schedules,
}


def function_rows(state: State) -> list[FunctionRow]:
    """Every function that is served, ran here, or waits in a job server."""
    functions, queues = state.functions(), state.queues()
    names = {**dict.fromkeys(functions), **dict.fromkeys(name for name, queue in queues.items() if queue.waiting)}
    nothing = FunctionStats(served=False)
    return [
        FunctionRow(name, functions.get(name, nothing), queues.get(name, NO_QUEUE), state.spark(name)) for name in names
    ]


def link(base_path: str, name: str, /, **query: object) -> str:
    """The address of a page."""
    path = "" if name == "overview" else name
    wanted = {key: value for key, value in query.items() if value not in ("", None)}
    return f"{base_path}/{path}" + (f"?{urlencode(wanted)}" if wanted else "")


def _failures(state: State, request: Request) -> list[Failure]:
    found = state.recall_all(lambda source: source.failures, request)
    return sorted(chain.from_iterable(found), key=lambda failure: -failure.time)


def _failure_counts(state: State) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for daemon in state.daemons:
        for group in daemon.snapshot.failures if daemon.snapshot else ():
            key = (group.function, group.type)
            counts[key] = counts.get(key, 0) + group.count
    return counts


def _table(rows: Sequence[T], query: Query) -> Table:
    pages = max(-(-len(rows) // ROWS), 1)
    page = min(_page(query), pages)
    return Table(rows[(page - 1) * ROWS : page * ROWS], len(rows), page, pages)


def _page(query: Query) -> int:
    text = query.get("page", "1")
    return min(max(int(text), 1), 10_000) if text.isdecimal() and len(text) < 6 else 1


def _sort(query: Query, known: Mapping[str, object], default: str) -> tuple[str, bool]:
    sort = query.get("sort", default)
    sort = sort if sort in known else default
    return sort, query.get("dir", "asc" if sort == "name" else "desc") == "desc"


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:200]
