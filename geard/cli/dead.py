"""`geard dead`: the jobs that failed for good. They are read from their file, so the daemon need not run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from geard import exits
from geard.cli.answers import aligned
from geard.cli.output import Line, say, write_json, write_lines
from geard.client import Client
from geard.config import Config, default_path, load_config
from geard.config.units import format_duration, format_moment, parse_duration
from geard.deadletters.again import submit_again
from geard.deadletters.letter import DeadLetter
from geard.deadletters.store import DeadLetters, Filter
from geard.errors import GeardError, InvalidRequest
from geard.printable import printable

HEADER = ("ID", "FUNCTION", "FAILED", "ATTEMPTS", "UNIQUE", "ERROR")
LONGEST_ERROR = 60
COUNT = click.IntRange(1, 2**63 - 1)
"""As many as SQLite can count."""


class _Duration(click.ParamType[float]):
    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            return parse_duration(str(value))
        except InvalidRequest as error:
            self.fail(str(error), param, ctx)


def which_letters(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that say which letters are meant; the command gets its `config`, the `letters` and `which`."""

    @click.argument("ids", nargs=-1, type=COUNT, metavar="[ID]...")
    @click.option("-f", "--function", metavar="NAME", help="Those of this function.")
    @click.option("-e", "--error", metavar="TEXT", help="Those with this in their error.")
    @click.option("--older", type=_Duration(), metavar="DURATION", help="Those that failed longer ago.")
    @click.option("--newer", type=_Duration(), metavar="DURATION", help="Those that failed since.")
    @click.option("-c", "--config", "path", metavar="FILE", help="The config that names the file.")
    @wraps(command)
    def wrapped(
        ids: tuple[int, ...],
        function: str | None,
        error: str | None,
        older: float | None,
        newer: float | None,
        path: str | None,
        **options: Any,
    ) -> None:
        config = load_config(path or default_path())
        if config.dead_letters is None:
            raise InvalidRequest("the config has no `dead_letters`: no job that failed is kept")
        now = time.time()
        before, after = (None if age is None else now - age for age in (older, newer))
        which = Filter(ids, function, error, older_than=before, newer_than=after)
        with DeadLetters(config.dead_letters.file, create=False) as letters:
            command(config=config, letters=letters, which=which, **options)

    return wrapped


@click.group()
def dead() -> None:
    """Look at the jobs that failed for good, run them again, or drop them.

    \b
    Examples:
      geard dead list
      geard dead show 17
      geard dead retry --function send_mail --newer 1h
      geard dead drop --older 7d
    """


@dead.command(name="list")
@which_letters
@click.option("-n", "--most", type=COUNT, default=50, show_default=True, help="So many at most.")
@click.option("--json", "as_json", is_flag=True, help="As a JSON list, workloads and all, in base64.")
def list_letters(config: Config, letters: DeadLetters, which: Filter, most: int, as_json: bool) -> None:
    """List them, the latest first.

    Example: geard dead list --error Timeout

    Exit codes: 0, 1 the file cannot be read, 78 the config is broken.
    """
    found = letters.find(which, most=most)
    if as_json:
        write_json([_object(letter) for letter in found])
        return
    if found:
        write_lines(map(Line, aligned([HEADER, *map(_row, found)], [True, False, False, True, False, False])))
    total = letters.count(which)
    say(f"{len(found)} of {total:,} dead letters" if total else "no dead letters")


@dead.command()
@which_letters
def show(config: Config, letters: DeadLetters, which: Filter) -> None:
    """Show all there is of some: workload, times, traceback.

    Example: geard dead show 17

    Exit codes: 0, 1 there are none.
    """
    found = letters.find(which)
    if not found:
        raise GeardError("no such dead letter")
    for letter in found:
        write_lines(map(Line, _whole(letter)))


@dead.command()
@which_letters
@click.option("--all", "all_letters", is_flag=True, help="All of them.")
def retry(config: Config, letters: DeadLetters, which: Filter, all_letters: bool) -> None:
    """Submit them again, as background jobs. One is forgotten once a job server has it.

    Example: geard dead retry --function send_mail

    Exit codes: 0, 2 nothing says which, 69 a job server does not answer: what was not submitted stays.
    """
    _demand(which, all_letters)
    done = 0
    try:
        with Client(config.job_servers, encoding="bytes") as client:
            for _ in submit_again(client, letters, which):
                done += 1
    finally:
        say(f"submitted again: {done}")


@dead.command()
@which_letters
@click.option("--all", "all_letters", is_flag=True, help="All of them.")
def drop(config: Config, letters: DeadLetters, which: Filter, all_letters: bool) -> None:
    """Forget them.

    Example: geard dead drop --older 30d

    Exit codes: 0, 2 nothing says which.
    """
    _demand(which, all_letters)
    say(f"dropped: {letters.drop(which)}")


def _demand(which: Filter, all_letters: bool) -> None:
    if which == Filter() and not all_letters:
        click.echo("geard: say which: IDs, --function, --error, --older, --newer, or --all", err=True)
        sys.exit(exits.USAGE)


def _row(letter: DeadLetter) -> tuple[str, ...]:
    error = letter.error.partition("\n")[0]
    cut = error if len(error) <= LONGEST_ERROR else error[: LONGEST_ERROR - 1] + "…"
    return (str(letter.id), letter.function, format_moment(letter.last_at), str(letter.attempts), letter.unique, cut)


def _whole(letter: DeadLetter) -> list[str]:
    fields = {
        "id": str(letter.id),
        "function": letter.function,
        "unique": letter.unique,
        "handle": letter.handle,
        "job server": letter.server,
        "attempts": str(letter.attempts),
        "first failed": format_moment(letter.first_at),
        "failed": f"{format_moment(letter.last_at)}, after {format_duration(letter.last_at - letter.first_at)}",
        "error": letter.error,
        "workload": letter.workload.decode(errors="backslashreplace"),
    }
    shown = [f"{name + ':':14}{printable(text)}" for name, text in fields.items()]
    return [*shown, *map(printable, letter.traceback.splitlines()), ""]


def _object(letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(letter, name) for name in letter.__struct_fields__}
