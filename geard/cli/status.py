"""`geard status`: what each job server has queued and running, and who works for it; once, or again and again.

Rule: a job server that is down is a line of the answer, not the end of it: the command fails if none answers.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TypeVar

import click
from msgspec import Struct

from geard.cli.answers import Row, objects, tables
from geard.cli.options import time_option
from geard.cli.output import Line, console, on_terminal, write_json, write_lines
from geard.cli.servers import Answer, ask_all, exit_if_none, server_options
from geard.client.admin import Admin
from geard.config import JobServer
from geard.errors import ServerError
from geard.printable import printable

T = TypeVar("T")

HEADER = ("FUNCTION", "QUEUED", "HIGH", "NORMAL", "LOW", "DELAYED", "RUNNING", "WORKERS")


class FunctionRow(Struct):
    """A function on one job server. `queued` is waiting jobs, delayed ones included; by priority, and how many of them
    are not due yet, where it tells."""

    function: str
    queued: int
    high: int | None
    normal: int | None
    low: int | None
    delayed: int | None
    running: int
    workers: int

    def as_row(self) -> Row:
        """Red where due jobs wait for a worker that is not there, green where jobs run, dim where nothing happens."""
        numbers = (self.queued, self.high, self.normal, self.low, self.delayed, self.running, self.workers)
        cells = (self.function, *("-" if number is None else str(number) for number in numbers))
        if self.queued > (self.delayed or 0) and not self.workers:
            return Row(cells, "red")
        return Row(cells, "green" if self.running else "" if self.queued else "dim")


class Snapshot(Struct):
    """One job server at one moment."""

    version: str
    functions: list[FunctionRow]


@click.command(short_help="Show what each job server has queued and running.")
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@time_option("-n", "--interval", default="1s", text="With --watch: how often.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON; with --watch, one object a line.")
@server_options
def status(watch: bool, interval: float, as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Show, for each job server and function, the jobs that wait (in all, by priority, and those of them that are not
    due yet: gearmand cannot tell these, geard's own job server can), those that run, and the workers. On a terminal a
    function is green where jobs run, red where due jobs wait and there is no worker.

    \b
    Examples:
      geard status
      geard status --watch -s gear1 -s gear2:4731
      geard status --json | jq '.[].functions[] | select(.workers == 0)'

    Exits 69 if no job server answers; one that is down is shown as such.
    """
    if not watch:
        answers = ask_all(servers, snapshot)
        show(answers, as_json)
        exit_if_none(answers)
    elif as_json or not on_terminal(sys.stdout):
        for answers in every(interval, servers):
            show(answers, as_json)
    else:
        watch_on_screen(interval, servers)


def snapshot(server: JobServer) -> Snapshot:
    """Ask a job server. Raises ConnectionLost."""
    with Admin(server) as admin:
        rows, version = admin.status(), admin.version()
        priorities = {row.function: row for row in _where_told(admin.priority_status)}
        delayed = {row.function: row.delayed for row in _where_told(admin.delayed_status)}
    functions = []
    for row in sorted(rows, key=lambda row: row.function):
        by = priorities.get(row.function)
        queued = max(row.total - row.running, 0)
        high, normal, low = (by.high, by.normal, by.low) if by else (None, None, None)
        later = delayed.get(row.function)
        functions.append(FunctionRow(row.function, queued, high, normal, low, later, row.running, row.workers))
    return Snapshot(version, functions)


def _where_told(ask: Callable[[], list[T]]) -> list[T]:
    """The rows; none from a job server that does not know the command."""
    try:
        return ask()
    except ServerError:
        return []


def every(interval_seconds: float, servers: Sequence[JobServer]) -> Iterator[list[Answer[Snapshot]]]:
    """Snapshots, at a steady pace; slower where a job server takes longer to answer."""
    while True:
        next_time = time.monotonic() + interval_seconds
        yield ask_all(servers, snapshot)
        time.sleep(max(next_time - time.monotonic(), 0))


def show(answers: Sequence[Answer[Snapshot]], as_json: bool) -> None:
    """Print them."""
    if as_json:
        write_json(objects(answers, lambda value: {"version": value.version, "functions": value.functions}))
    else:
        write_lines(as_lines(answers))


def as_lines(answers: Sequence[Answer[Snapshot]]) -> list[Line]:
    """A table of functions for each job server."""
    return tables(
        answers,
        HEADER,
        lambda value: [row.as_row() for row in value.functions],
        note=lambda value: f"version {value.version}",
        numbers=HEADER[1:],
    )


def watch_on_screen(interval_seconds: float, servers: Sequence[JobServer]) -> None:
    """Draw the tables on the whole terminal until interrupted, which leaves it as it was before."""
    from rich.live import Live
    from rich.text import Text

    with Live(console=console(), screen=True, auto_refresh=False) as live:
        for answers in every(interval_seconds, servers):
            title = Line(f"{datetime.now():%H:%M:%S}  every {interval_seconds:g} s, Ctrl-C ends", "dim")
            lines = [title, Line(""), *as_lines(answers)]
            text = Text("\n", no_wrap=True, overflow="ellipsis").join(
                Text(printable(line.text), line.style) for line in lines
            )
            live.update(text, refresh=True)
