"""`geard ps`, `geard reload`, `geard stop`: ask the running supervisor over its control socket."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Final

import click

from geard import __version__, exits
from geard.cli.output import Line, say, write_json, write_lines
from geard.config import default_path, examine_config
from geard.config.units import format_duration, mebibytes
from geard.errors import ConfigError, GeardError
from geard.printable import printable
from geard.supervisor import answers
from geard.supervisor.answers import Answer, Overview, ProcessView, Request
from geard.supervisor.ask import ask
from geard.supervisor.find import find
from geard.supervisor.health import health_of

LISTED_JOBS: Final = 20


def socket_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which supervisor is meant; the command gets them as `config` and `path`."""
    command = click.option("--socket", "path", metavar="PATH", help="Its control socket, rather than of a config.")(
        command
    )
    return click.option("-c", "--config", "config", metavar="FILE", help="The config of the supervisor to ask.")(
        command
    )


def with_socket(command: Callable[..., None]) -> Callable[..., None]:
    """The same, but that the command gets the path of its socket, `socket_path`."""

    @socket_options
    @wraps(command)
    def wrapped(config: str | None, path: str | None, **options: Any) -> None:
        command(socket_path=path or find_socket(config), **options)

    return wrapped


@click.command()
@with_socket
@click.option("--all", "all_jobs", is_flag=True, help=f"All jobs that are running, not only {LISTED_JOBS}.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@click.option(
    "--check", is_flag=True, help="Exit with 69, and say why, unless the daemon is fit for work; see geard health."
)
def ps(socket_path: str, all_jobs: bool, as_json: bool, check: bool) -> None:
    """Show the generations, worker processes and running jobs of the daemon.

    \b
    Examples:
      geard ps
      geard ps --json | jq '.generations[].processes[].jobs[]'

    Exits 69 if no daemon answers; with --check also if it is not fit for work (see the command health).
    """
    overview = _ask(socket_path, answers.PS).overview
    if overview is None:
        raise GeardError(f"the supervisor on {socket_path} did not say what it runs")
    if as_json:
        write_json(overview)
    else:
        write_lines(draw(overview, LISTED_JOBS if not all_jobs else None))
    found = health_of(overview)
    if check and not found.healthy:
        for name, part in found.parts.items():
            if not part.ok:
                say(f"geard: not fit for work: {name}: {printable(part.reason)}")
        sys.exit(exits.UNAVAILABLE)


@click.command()
@with_socket
def reload(socket_path: str) -> None:
    """Start anew from the config, and wait until the new worker processes serve.

    If anything is wrong with the config or a capability, the old ones go on, and this says what it is.

    Example: geard reload -c /etc/geard.yaml

    Exit codes: 0 the new ones serve, 1 the daemon stops, 69 no daemon answers, 78 refused.
    """
    _tell_outcome(_ask(socket_path, answers.RELOAD))


@click.command(short_help="Take no more jobs of a function.")
@click.argument("functions", nargs=-1, required=True, metavar="FUNCTION...")
@with_socket
def pause(socket_path: str, functions: tuple[str, ...]) -> None:
    """Take no more jobs of these functions, and wait until that is so. Those that run are finished, and other functions
    go on; what is submitted meanwhile waits in the job servers, or goes to other daemons.

    Example: geard pause send_mail charge -c /etc/geard.yaml

    It holds over a reload, and over a restart where there is a state directory, until the command resume.

    Exit codes: 0 paused, 1 the daemon stops, 2 no such function, 69 no daemon answers, 78 the new worker processes
    cannot start.
    """
    _tell_outcome(_ask(socket_path, Request(answers.PAUSE, functions=functions)))


@click.command(short_help="Take jobs of a paused function again.")
@click.argument("functions", nargs=-1, required=True, metavar="FUNCTION...")
@with_socket
def resume(socket_path: str, functions: tuple[str, ...]) -> None:
    """Take jobs of these functions again, which the command pause has paused, and wait until that is so.

    Example: geard resume send_mail

    Exit codes: 0 resumed, 1 the daemon stops, 2 no such function, 69 no daemon answers, 78 the new worker processes
    cannot start.
    """
    _tell_outcome(_ask(socket_path, Request(answers.RESUME, functions=functions)))


@click.command()
@with_socket
@click.option("--now", is_flag=True, help="Do not wait for running jobs: the job servers give them to other workers.")
def stop(socket_path: str, now: bool) -> None:
    """Stop the daemon once the running jobs are done, and wait for that.

    \b
    Examples:
      geard stop
      geard stop --now -c /etc/geard.yaml

    Exit codes: 0 all jobs in flight finished, 79 some were left to other workers, 69 no daemon answers. A service stays
    stopped either way.
    """
    _tell_outcome(_ask(socket_path, answers.STOP_NOW if now else answers.STOP))


def find_socket(config: str | None) -> str:
    """The control socket of the daemon that runs this config, or of the one that is here: see geard/supervisor/find.py.

    Raises CannotConnect."""
    try:
        source = examine_config(config or default_path())
    except ConfigError:
        source = None  # there is no config here, and none is needed where the socket is in a usual place
    found = find(None, source, named=config is not None)
    if found.guessed and found.identity:
        say(f"geard: asking the daemon of {found.identity.config}, the only one here")
    return found.path


def draw(overview: Overview, most_jobs: int | None) -> Iterator[Line]:
    """The overview as lines for a person. Pure."""
    age = format_duration(int(overview.age_seconds))
    yield Line(f"geard {overview.version}, pid {overview.pid}, {overview.state}, up {age}, {overview.config}", "bold")
    yield Line(f"{overview.done} jobs done, {overview.failed} failed; supervisor {mebibytes(overview.memory_bytes)}")
    if overview.last_refusal:
        yield Line(overview.last_refusal, "red")
    if overview.paused:
        yield Line(f"paused: {', '.join(map(printable, overview.paused))}", "yellow")
    yield Line("")
    processes = [(generation, process) for generation in overview.generations for process in generation.processes]
    rows = [_process_row(f"{generation.number} {generation.state}", process) for generation, process in processes]
    header = ("GENERATION", "WORKER", "PID", "STATE", "AGE", "MEMORY", "RUNNING", "DONE", "FAILED", "JOB SERVERS")
    yield from map(Line, _columns(header, rows, right=("PID", "AGE", "MEMORY", "RUNNING", "DONE", "FAILED")))
    running = [(job, process) for _, process in processes for job in process.jobs]
    if not running:
        return
    running.sort(key=lambda pair: -pair[0].seconds)
    shown = running[:most_jobs]
    yield Line("")
    jobs = [
        (printable(job.function), printable(job.handle), f"{job.seconds:.1f}", str(process.pid))
        for job, process in shown
    ]
    yield from map(Line, _columns(("FUNCTION", "HANDLE", "SECONDS", "PID"), jobs, right=("SECONDS", "PID")))
    if len(running) > len(shown):
        yield Line(f"and {len(running) - len(shown)} more jobs (--all shows them)")


def _process_row(generation: str, process: ProcessView) -> tuple[str, ...]:
    servers = f"{len(process.connected)}/{len(process.connected) + len(process.disconnected)}"
    down = f" not {', '.join(process.disconnected)}" if process.disconnected else ""
    silent = f" silent for {process.heard_seconds:.0f} s" if process.heard_seconds > 3 else ""
    held = f" held by {printable(process.held_by)}" if process.held_by else ""
    return (
        generation,
        f"{process.number} {printable(process.capability)}".rstrip(),
        str(process.pid),
        process.state + silent + held,
        format_duration(int(process.age_seconds)),
        mebibytes(process.memory_bytes),
        f"{process.running}/{process.greenlets}",
        str(process.done),
        str(process.failed),
        servers + down,
    )


def _columns(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str]) -> list[str]:
    table = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    align = [str.rjust if name in right else str.ljust for name in header]
    return ["  ".join(a(cell, w) for a, cell, w in zip(align, row, widths, strict=True)).rstrip() for row in table]


def other_version(version: str) -> str:
    """What to say of a supervisor of another version than this command; "" for none."""
    if version in ("", __version__):
        return ""
    return f"the supervisor is geard {version} and this is geard {__version__}: run `geard upgrade`, or restart it"


def _ask(path: str, what: str | Request) -> Answer:
    """Ask, and say on stderr when the supervisor is of another version."""
    answer = ask(path, what)
    version = answer.version or (answer.overview.version if answer.overview else "")
    if other_version(version):
        say(f"geard: {printable(other_version(version))}")
    return answer


def _tell_outcome(answer: Answer) -> None:
    as_told = answer.exit_code in (exits.DONE, exits.LEFT_JOBS)
    say(answer.message if as_told else f"geard: {answer.message}")
    sys.exit(answer.exit_code)
