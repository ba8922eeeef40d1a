"""`geard schedules`: what runs at its times, and when next; and one of them at once."""

from __future__ import annotations

import sys
import time

import click

from geard import exits
from geard.cli.answers import aligned
from geard.cli.control import find_socket, socket_options
from geard.cli.output import Line, say, write_json, write_lines
from geard.client import Client
from geard.config import default_path, load_config
from geard.config.model import Config
from geard.config.units import format_moment
from geard.errors import InvalidRequest
from geard.printable import printable
from geard.scheduler.plan import Planner
from geard.scheduler.states import ScheduleState
from geard.supervisor import answers
from geard.supervisor.ask import ask

HEADER = ("SCHEDULE", "FUNCTION", "WHEN", "NEXT", "LAST", "SUBMITTED", "WAITING")


@click.group(invoke_without_command=True)
@socket_options
@click.option("--json", "as_json", is_flag=True, help="As a JSON list.")
def schedules(config: str | None, path: str | None, as_json: bool) -> None:
    """Show the daemon's schedules: when each is due next, when it was last, and what waits on the job servers.

    \b
    Examples:
      geard schedules
      geard schedules run nightly

    Exits 69 if no daemon answers, 75 if its scheduler has not yet.
    """
    if click.get_current_context().invoked_subcommand:
        return
    socket_path = path or find_socket(config)
    answer = ask(socket_path, answers.SCHEDULES)
    states = answer.schedules
    if states is None:
        say(f"geard: {answer.message}")
        sys.exit(answer.exit_code or exits.FAILED)
    if as_json:
        write_json(states)
    elif states:
        write_lines(map(Line, aligned([HEADER, *map(_row, states)], [False] * 6 + [True])))
    else:
        say("no schedules")


@schedules.command()
@click.argument("name")
@click.option("-c", "--config", "path", metavar="FILE", help="The config that has the schedule.")
def run(name: str, path: str | None) -> None:
    """Submit the job of a schedule now, beside its times, and print its handle.

    Example: geard schedules run nightly -c /etc/geard.yaml

    Exit codes: 0 submitted, 2 there is no such schedule, 69 no job server answers, 78 the config is broken.
    """
    config = load_config(path or default_path())
    schedule = config.schedules.get(name)
    if schedule is None:
        known = f"it has {', '.join(config.schedules)}" if config.schedules else "it has none"
        raise InvalidRequest(f"the config has no schedule {printable(name)}: {known}")
    with Client(config.job_servers, encoding=schedule.encoding or config.encoding) as client:
        click.echo(printable(client.submit_background(schedule.function, schedule.workload)))


def upcoming(config: Config) -> list[str]:
    """The schedules of a config and when each is due next, for `geard check`."""
    states = Planner(config.schedules).states(time.time())
    rows = [(state.name, state.function, state.when, _clock(state.next_at)) for state in states]
    return ["", *aligned([HEADER[:4], *rows], [False] * 4)] if rows else []


def _row(state: ScheduleState) -> tuple[str, ...]:
    times = (_clock(state.next_at), _clock(state.last_at), _clock(state.submitted_at))
    return (state.name, state.function, state.when, *times, str(state.waiting))


def _clock(moment: float | None) -> str:
    """A time as the terminal's user reads it; `-` for none."""
    return "-" if moment is None else format_moment(moment)
