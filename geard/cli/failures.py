"""`geard failures`: the last jobs that failed, with their tracebacks."""

from __future__ import annotations

from collections.abc import Iterator

import click

from geard.cli.control import with_socket
from geard.cli.output import Line, say, write_json, write_lines
from geard.config.units import format_moment
from geard.errors import GeardError
from geard.printable import printable
from geard.stats.failures import KEPT_FAILURES, Failure
from geard.supervisor import answers
from geard.supervisor.answers import Request
from geard.supervisor.ask import ask


@click.command()
@with_socket
@click.argument("function", default="")
@click.option(
    "-n",
    "--most",
    type=click.IntRange(1, KEPT_FAILURES),
    default=10,
    show_default=True,
    metavar="COUNT",
    help=f"So many at most; the daemon keeps the last {KEPT_FAILURES}.",
)
@click.option("--json", "as_json", is_flag=True, help="As a JSON list; workloads, where they are kept, in base64.")
def failures(socket_path: str, function: str, most: int, as_json: bool) -> None:
    """Show the last failures, of all functions or of one, with their tracebacks; the newest is the last.

    \b
    Examples:
      geard failures
      geard failures resize -n 1
      geard failures --json | jq -r '.[].type' | sort | uniq -c

    Exit codes: 0, also when nothing has failed; 69 no daemon answers.
    """
    found = ask(socket_path, Request(answers.FAILURES, function=function, limit=most)).failures
    if found is None:
        raise GeardError(f"the supervisor on {socket_path} did not say what has failed")
    oldest_first = found[::-1]
    if as_json:
        write_json(oldest_first)
    elif found:
        write_lines(line for failure in oldest_first for line in drawn(failure))
    else:
        say(f"no failures{f' of {printable(function)}' if function else ''}")


def drawn(failure: Failure) -> Iterator[Line]:
    """One failure as lines for a person. Pure."""
    moment = format_moment(failure.time)
    reason = f"{failure.type}: {failure.text}" if failure.type and failure.text else failure.type or failure.text
    reason = reason or "failed without a reason"
    yield Line(printable(f"{moment}  {failure.function}  {reason}"), "bold red")
    facts = {
        "handle": failure.handle,
        "unique": failure.unique,
        "job server": failure.server,
        "process": failure.process,
        "workload": f"{failure.workload_bytes:,} bytes" if failure.workload_bytes else "",
    }
    told = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
    yield Line(f"    {printable(told)}", "dim")
    for line in failure.traceback.splitlines():
        yield Line(f"    {printable(line.expandtabs(4))}")
    if failure.workload is not None:
        cut = ", its begin" if len(failure.workload) < failure.workload_bytes else ""
        yield Line(f"    workload{cut}: {printable(failure.workload.decode(errors='backslashreplace'))}")
    yield Line("")
