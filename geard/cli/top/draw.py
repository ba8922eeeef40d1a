"""What `geard top` shows, from two Snapshots and how it is to be seen. Pure.

Rule: no line is wider than it may be, and there are no more lines than there is room: nothing is left to the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from msgspec import Struct
from rich.cells import cell_len, set_cell_size

from geard.cli.output import Line
from geard.cli.top.look import Look
from geard.config.units import format_duration
from geard.monitor.format import count, seconds
from geard.monitor.problems import Finding
from geard.printable import printable
from geard.stats.snapshot import FunctionStats, ServerStats, Snapshot
from geard.supervisor.answers import JobView

ALL: Final = "all"
FUNCTIONS: Final = "functions"
JOBS: Final = "jobs"
PARTS: Final = (ALL, FUNCTIONS, JOBS)
MOST_PROBLEMS: Final = 3
LEAST_NAME: Final = 16
MOST_HANDLE: Final = 28
UNBOUNDED: Final = 1_000_000
STYLES: Final = {"bad": "bold red", "warn": "yellow"}


class Rate(NamedTuple):
    """Jobs per second."""

    done: float
    failed: float


class FunctionLine(NamedTuple):
    """What a line says of a function."""

    name: str
    stats: FunctionStats
    rate: Rate


class Column(NamedTuple):
    """A column of the functions: its head, its cell, and what to sort by."""

    head: str
    cell: Callable[[FunctionLine], str]
    key: Callable[[FunctionLine], Any]


COLUMNS: Final = (
    Column("FUNCTION", lambda line: line.name, lambda line: line.name.lower()),
    Column("DONE/S", lambda line: count(line.rate.done), lambda line: line.rate.done),
    Column("FAIL/S", lambda line: count(line.rate.failed), lambda line: line.rate.failed),
    Column("RUNNING", lambda line: count(line.stats.running), lambda line: line.stats.running),
    Column("P50", lambda line: seconds(line.stats.recent.p50_seconds), lambda line: line.stats.recent.p50_seconds),
    Column("P95", lambda line: seconds(line.stats.recent.p95_seconds), lambda line: line.stats.recent.p95_seconds),
    Column("FAILED", lambda line: count(failed(line.stats)), lambda line: failed(line.stats)),
    Column("DONE", lambda line: count(line.stats.done), lambda line: line.stats.done),
)
BY_NAME: Final = 0
BY_RATE: Final = 1


class View(Struct):
    """How it is to be seen."""

    part: str = ALL  # one of PARTS
    sort: int = BY_RATE  # an index of COLUMNS
    reverse: bool = False  # against the usual: names go up, numbers down
    offset: int = 0  # how many lines of the part are scrolled away
    paused: bool = False


def draw(look: Look, view: View, *, width: int = UNBOUNDED, height: int = UNBOUNDED, keys: bool = False) -> list[Line]:
    """The screen, its lines from top to bottom; with `keys`, the last says which there are."""
    foot = [Line(_keys(view), "dim")] if keys else []
    lines = _head(look, view)
    if look.now:
        room = max(height - len(lines) - len(foot) - 1, 0)
        lines += [Line(""), *_tables(look, view, width, room)]
    lines = [Line(fit(line.text, width), line.style) for line in lines[: max(height - len(foot), 0)]]
    if keys:
        lines += [Line("")] * (height - len(lines) - len(foot))
    return lines + [Line(fit(line.text, width), line.style) for line in foot]


def rates(before: Snapshot | None, now: Snapshot) -> dict[str, Rate]:
    """Each function's rates between two Snapshots of the same daemon; without the first, its rates of late."""
    if before is None or before.pid != now.pid or before.time >= now.time:
        return {name: _recent(stats) for name, stats in now.functions.items()}
    nothing, span = FunctionStats(), now.time - before.time
    found = {}
    for name, stats in now.functions.items():
        was = before.functions.get(name, nothing)
        found[name] = Rate(max(stats.done - was.done, 0) / span, max(failed(stats) - failed(was), 0) / span)
    return found


def function_lines(before: Snapshot | None, now: Snapshot, view: View) -> list[FunctionLine]:
    """The functions in their order."""
    known = rates(before, now)
    lines = [FunctionLine(name, stats, known[name]) for name, stats in now.functions.items()]
    lines.sort(key=lambda line: line.name)
    lines.sort(key=COLUMNS[view.sort].key, reverse=_descends(view))
    return lines


def failed(stats: FunctionStats) -> int:
    """Timed out ones too."""
    return stats.failed + stats.timed_out


def fit(text: str, width: int) -> str:
    """At most so many cells wide; what was cut off shows as `…`."""
    if len(text) * 2 <= width or cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1) + "…" if width > 0 else ""


def _recent(stats: FunctionStats) -> Rate:
    recent = stats.recent
    return Rate(max(recent.per_second - recent.failed_per_second, 0.0), recent.failed_per_second)


def _descends(view: View) -> bool:
    return (view.sort == BY_NAME) == view.reverse


# --- the head -----------------------------------------------------------------------------------------------------


def _head(look: Look, view: View) -> list[Line]:
    now = look.now
    problems = [_problem(finding) for finding in look.problems[:MOST_PROBLEMS]]
    if len(look.problems) > MOST_PROBLEMS:
        problems.append(Line(f"and {len(look.problems) - MOST_PROBLEMS} more things that are wrong", "yellow"))
    if now is None:
        return [Line("geard top: waiting for the daemon" if look.error else "geard top", "bold"), *problems]
    clock = time.strftime("%H:%M:%S", time.localtime(now.time))
    paused = f"PAUSED at {clock}" if view.paused else f"{'last heard at ' if look.error else ''}{clock}"
    age = format_duration(int(now.age_seconds))
    title = f"geard {now.build.version}  {now.state}, up {age}, generation {now.generation}, pid {now.pid}  {paused}"
    style = "bold reverse" if view.paused else "bold"
    well = [] if problems else [Line("All is well.", "green")]
    return [Line(printable(title), style), *problems, *well, *_summary(look, now), _servers(now.servers)]


def _problem(finding: Finding) -> Line:
    hint = "geard failures shows why" if finding.page == "failures" else finding.hint
    hint = f" ({hint})" if hint else ""
    return Line(printable(finding.text + hint), STYLES[finding.level])


def _summary(look: Look, now: Snapshot) -> list[Line]:
    known = rates(look.before, now).values()
    recent, processes = now.recent, now.processes
    ready = sum(process.state == "ready" for process in processes)
    greenlets = sum(process.greenlets for process in processes)
    parts = (
        f"{count(float(sum(rate.done for rate in known)))} done/s",
        f"{count(float(sum(rate.failed for rate in known)))} failed/s",
        f"{count(now.running)}/{count(greenlets)} running",
        f"p50 {seconds(recent.p50_seconds)}",
        f"p95 {seconds(recent.p95_seconds)}",
        f"{ready}/{len(processes)} processes",
    )
    return [Line("  ".join(parts), "bold")]


def _servers(servers: Mapping[str, ServerStats]) -> Line:
    if not servers:
        return Line("no job servers")
    states = []
    for name, server in servers.items():
        total = server.connected + server.disconnected
        state = "?" if not total else "up" if server.connected == total else f"{server.connected}/{total}"
        states.append(f"{printable(name)} {state if server.connected or not total else 'DOWN'}")
    whole = all(server.connected and not server.disconnected for server in servers.values())
    return Line(f"job servers: {', '.join(states)}", "" if whole else "yellow")


# --- the tables ---------------------------------------------------------------------------------------------------


def _tables(look: Look, view: View, width: int, room: int) -> list[Line]:
    assert look.now
    functions = function_lines(look.before, look.now, view)
    if view.part == FUNCTIONS:
        return _functions(functions, view, width, room)
    if view.part == JOBS:
        return _jobs(look, width, room, view.offset)
    wanted = min(len(look.jobs.jobs), 10 if room < UNBOUNDED // 2 else 20) + 2
    least = min(wanted, max(room // 3, 4))
    shown = _functions(functions, view, width, max(room - least - 1, 2))
    return [*shown, Line(""), *_jobs(look, width, room - len(shown) - 1, 0)]


def _functions(lines: Sequence[FunctionLine], view: View, width: int, room: int) -> list[Line]:
    body = max(room - 1, 0)
    first = max(min(view.offset, len(lines) - body), 0)
    shown = lines[first : first + body]
    mark = "▼" if _descends(view) else "▲"
    heads = [column.head + (mark if at == view.sort else "") for at, column in enumerate(COLUMNS)]
    rows = [[printable(column.cell(line)) for column in COLUMNS] for line in shown]
    styles = ["red" if line.rate.failed else "green" if line.stats.running else _quiet(line.stats) for line in shown]
    return _table(heads, rows, styles, width)[:room] if lines else [Line("no functions", "dim")][:room]


def _quiet(stats: FunctionStats) -> str:
    return "" if stats.recent.ended else "dim"


def _jobs(look: Look, width: int, room: int, offset: int) -> list[Line]:
    total, jobs = look.jobs.total, look.jobs.jobs
    title = Line(f"{count(total)} job{'' if total == 1 else 's'} running{', the longest first' if total > 1 else ''}")
    body = max(room - 2, 0)
    first = max(min(offset, len(jobs) - body), 0)
    shown = jobs[first : first + body] if room < UNBOUNDED // 2 else jobs[:20]
    if not shown:
        return [title][: max(room, 0)]
    heads = ["FUNCTION", "FOR", "PROGRESS", "PID", "HANDLE"]
    rows = [[printable(view.job.function), *_job_cells(view)] for view in shown]
    return [title, *_table(heads, rows, [""] * len(rows), width)][:room]


def _job_cells(view: JobView) -> list[str]:
    job = view.job
    progress = f"{job.numerator}/{job.denominator}" if job.denominator > 0 else ""
    handle = fit(printable(job.handle), MOST_HANDLE)
    return [seconds(job.seconds) if job.seconds else "waits", fit(progress, 15), str(view.pid), handle]


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str], width: int) -> list[Line]:
    """Columns as wide as they need to be; the first takes what is left, the last go where that is too little."""
    widths = [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]
    kept = len(heads)
    while kept > 2 and width - sum(widths[1:kept]) - (kept - 1) * 2 < min(widths[0], LEAST_NAME):
        kept -= 1
    widths[0] = max(min(widths[0], width - sum(widths[1:kept]) - (kept - 1) * 2), 1)
    left = len(heads) - 1 if heads[-1] == "HANDLE" else 0  # that one is text, as the first
    lines = []
    for row in (heads, *rows):
        cells = [fit(cell, widths[at]) for at, cell in enumerate(row[:kept])]
        pads = [" " * (widths[at] - cell_len(cell)) for at, cell in enumerate(cells)]
        texts = [c + pad if at in (0, left) else pad + c for at, (c, pad) in enumerate(zip(cells, pads, strict=True))]
        lines.append("  ".join(texts).rstrip())
    return [Line(text, style) for text, style in zip(lines, ("dim", *styles), strict=True)]


def _keys(view: View) -> str:
    goes_on = "go on" if view.paused else "pause"
    return f"q quit  p {goes_on}  s sort  r reverse  Tab {view.part}  ↑↓ scroll"
