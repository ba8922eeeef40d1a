"""`geard workers`, `jobs`, `cancel` and `echo`: a closer look into job servers.

Rule: each job server is asked; one that is down is a line of the answer. `cancel` and `echo` fail if any is down, for
then they cannot promise what they were asked for.
"""

from __future__ import annotations

import os
import time
from functools import partial

import click
from msgspec import Struct

from geard.cli.answers import Row, objects, tables
from geard.cli.output import Line, say, write_json, write_lines
from geard.cli.servers import ask_all, exit_if_none, fail, server_options
from geard.client import Client
from geard.client.admin import Admin, WorkerStatus
from geard.config import JobServer
from geard.errors import GeardError, ServerError
from geard.printable import printable


@click.command(short_help="Show who works for each job server.")
@click.option("-a", "--all", "everyone", is_flag=True, help="Other connections too: clients, and this command's own.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def workers(everyone: bool, as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Show the workers of each job server: from where they connect, their client id, and their functions.

    \b
    Examples:
      geard workers
      geard workers --json -s gear1 | jq -r '.[].workers[].client_id'

    Exits 69 if no job server answers.
    """

    def connections(server: JobServer) -> list[WorkerStatus]:
        with Admin(server) as admin:
            return [row for row in admin.workers() if row.functions or everyone]

    answers = ask_all(servers, connections)
    if as_json:
        write_json(objects(answers, lambda rows: {"workers": [_worker_object(row) for row in rows]}))
    else:
        header = ("FD", "ADDRESS", "CLIENT ID", "FUNCTIONS")
        write_lines(tables(answers, header, lambda rows: [_worker_row(row) for row in rows], numbers=("FD",)))
    exit_if_none(answers)


def _worker_row(row: WorkerStatus) -> Row:
    return Row((str(row.fd), row.address, row.client_id, " ".join(row.functions)), "" if row.functions else "dim")


def _worker_object(row: WorkerStatus) -> dict[str, object]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


class JobRow(Struct):
    """A job that a job server holds. `state` is queued, running, or ended: cancelled, or nobody waits for it now."""

    handle: str
    state: str
    background: bool
    retries: int
    numerator: int
    denominator: int

    def as_row(self) -> Row:
        """Green where it runs, dim where it is over."""
        kind = "background" if self.background else "foreground"
        progress = f"{self.numerator}/{self.denominator}" if self.denominator else ""
        style = {"running": "green", "ended": "dim"}.get(self.state, "")
        return Row((self.handle, self.state, kind, str(self.retries), progress), style)


@click.command(short_help="Show the jobs that each job server holds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def jobs(as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Show the jobs that each job server holds: whether they run, how far they have come, and how often a worker
    was lost with them (retries).

    \b
    Examples:
      geard jobs
      geard jobs --json | jq '.[].jobs[] | select(.state == "running")'

    Exits 69 if no job server answers.
    """
    answers = ask_all(servers, _jobs)
    if as_json:
        write_json(objects(answers, lambda rows: {"jobs": rows}))
    else:
        header = ("HANDLE", "STATE", "KIND", "RETRIES", "PROGRESS")
        write_lines(tables(answers, header, lambda rows: [row.as_row() for row in rows], numbers=("RETRIES",)))
    exit_if_none(answers)


def _jobs(server: JobServer) -> list[JobRow]:
    rows = []
    with Admin(server) as admin, Client([server]) as client:
        for row in admin.show_jobs():
            status = client.status(row.handle)
            state = "running" if status.running else "queued" if status.known and not row.ignored else "ended"
            rows.append(JobRow(row.handle, state, row.queued, row.retries, status.numerator, status.denominator))
    return rows


@click.command(short_help="Drop jobs that wait.")
@click.argument("handles", metavar="HANDLE...", nargs=-1, required=True)
@server_options
def cancel(handles: tuple[str, ...], servers: tuple[JobServer, ...]) -> None:
    """Drop the jobs with these handles from the job server that holds them. A job that runs already goes on.

    \b
    Examples:
      geard cancel H:build1:42
      geard jobs --json | jq -r '.[].jobs[].handle' | xargs geard cancel

    Exits 1 if no job server knows a handle, 69 if one of them could not be asked.
    """
    errors: list[GeardError] = []
    for handle in handles:
        answers = ask_all(servers, partial(_cancel, handle))
        holders = [str(answer.server) for answer in answers if answer.value]
        if holders:
            say(f"{printable(handle)} cancelled on {', '.join(holders)}")
        else:
            down = [answer.error for answer in answers if answer.error]
            errors += down or [GeardError(f"no job server knows {handle}: it has ended, or never was")]
    fail(errors)


def _cancel(handle: str, server: JobServer) -> bool:
    """Whether the job server knew the job."""
    with Admin(server) as admin:
        try:
            admin.cancel_job(handle)
        except ServerError:
            return False
    return True


@click.command(short_help="Check that each job server answers, and how fast.")
@click.argument("data", default="geard")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@server_options
def echo(data: str, as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Send DATA to each job server, and print how long it took to come back.

    \b
    Examples:
      geard echo
      geard echo hello -s gear1 -s gear2 && echo both are up

    Exits 69 if a job server does not answer.
    """
    payload = os.fsencode(data)

    def round_trip_seconds(server: JobServer) -> float:
        with Client([server], encoding="bytes") as client:
            client.echo(payload)  # connects
            start = time.perf_counter()
            client.echo(payload)
            return time.perf_counter() - start

    answers = ask_all(servers, round_trip_seconds)
    if as_json:
        write_json(objects(answers, lambda seconds: {"seconds": seconds}))
    else:
        for answer in answers:
            if answer.value is not None:
                write_lines([Line(f"{answer.server}  {len(payload)} bytes back in {answer.value * 1000:.2f} ms")])
    fail([answer.error for answer in answers if answer.error])
