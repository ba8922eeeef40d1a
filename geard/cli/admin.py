"""`geard admin`: the rest of the admin protocol, on each job server.

Rule: a command is put to every job server given, and fails if one of them did not carry it out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from geard.cli.answers import objects
from geard.cli.output import write_bytes, write_json
from geard.cli.servers import ask_all, complete_function, fail, server_options
from geard.client.admin import Admin
from geard.config import JobServer
from geard.printable import printable

JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(short_help="Other commands for job servers: version, max-queue, drop-function…")
def admin() -> None:
    """Look up and change what `status`, `workers`, `jobs` and `cancel` do not show.

    \b
    Examples:
      geard admin version -s gear1 -s gear2
      geard admin max-queue resize 1000

    Exits 1 if a job server refuses, 69 if one does not answer.
    """


@admin.command()
@JSON_OPTION
@server_options
def version(as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Print each job server's version.

    \b
    Example: geard admin version
    """
    _tell(servers, Admin.version, as_json)


@admin.command()
@JSON_OPTION
@server_options
def getpid(as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Print each job server's process id.

    \b
    Example: ssh gear1 sudo kill $(geard admin getpid -s gear1)
    """
    _tell(servers, Admin.getpid, as_json)


@admin.command()
@JSON_OPTION
@server_options
def verbose(as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Print each job server's log level.

    \b
    Example: geard admin verbose
    """
    _tell(servers, Admin.verbose, as_json)


@admin.command()
@JSON_OPTION
@server_options
def show_unique_jobs(as_json: bool, servers: tuple[JobServer, ...]) -> None:
    """Print the unique ids of the jobs that each job server holds.

    \b
    Example: geard admin show-unique-jobs | sort | uniq -c
    """
    _tell(servers, Admin.show_unique_jobs, as_json)


@admin.command()
@click.argument("function", shell_complete=complete_function)
@click.argument("limits", metavar="[N | HIGH NORMAL LOW]", nargs=-1, type=click.IntRange(0))
@server_options
def max_queue(function: str, limits: tuple[int, ...], servers: tuple[JobServer, ...]) -> None:
    """Limit how many jobs of FUNCTION may wait: in each priority, or one limit for each. 0, or none, is no limit.

    Jobs over the limit are refused when they are submitted. The job server must know the function already.

    \b
    Examples:
      geard admin max-queue resize 1000
      geard admin max-queue resize 0 1000 10
    """
    _tell(servers, lambda connection: connection.max_queue(function, *limits))


@admin.command()
@click.argument("function")
@server_options
def create_function(function: str, servers: tuple[JobServer, ...]) -> None:
    """Make FUNCTION known before a worker or job names it.

    \b
    Example: geard admin create-function resize
    """
    _tell(servers, lambda connection: connection.create_function(function))


@admin.command()
@click.argument("function", shell_complete=complete_function)
@server_options
def drop_function(function: str, servers: tuple[JobServer, ...]) -> None:
    """Make the job servers forget FUNCTION and its waiting jobs. They refuse while it has workers.

    \b
    Example: geard admin drop-function resize
    """
    _tell(servers, lambda connection: connection.drop_function(function))


def _tell(servers: tuple[JobServer, ...], command: Callable[[Admin], Any], as_json: bool = False) -> None:
    """Put the command to each job server and print what they say, each behind its name where there are several."""

    def ask(server: JobServer) -> list[Any]:
        with Admin(server) as connection:
            answer = command(connection)
        return answer if isinstance(answer, list) else [] if answer is None else [answer]

    answers = ask_all(servers, ask)
    if as_json:
        write_json(objects(answers, lambda values: {"answer": values[0] if len(values) == 1 else values}))
    else:
        for answer in answers:
            name = f"{answer.server}\t" if len(servers) > 1 else ""
            shown = shown_on_terminal if sys.stdout.isatty() else str
            write_bytes("".join(f"{name}{shown(value)}\n" for value in answer.value or ()).encode())
    fail([answer.error for answer in answers if answer.error])


def shown_on_terminal(value: Any) -> str:
    """A line as it came, in columns, but for what would steer the terminal."""
    return "\t".join(map(printable, str(value).split("\t")))
