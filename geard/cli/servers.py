"""Which job servers a client command talks to, and to all of them at once.

Rule: what is said more explicitly wins: `-s`, then `-c`, then `$GEARMAN_SERVERS`, then the config file that `geard run`
would find, then localhost:4730.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import click
from click.core import ParameterSource

from geard import config
from geard.cli import exit_code
from geard.cli.options import parsed, time_option
from geard.cli.output import say_error
from geard.config import JobServer, parse_address
from geard.errors import ConfigError, ConnectionLost, GeardError

T = TypeVar("T")

LOCAL: Final = (JobServer("localhost"),)
COMPLETION_TIMEOUT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.1
_IS_WORD: Final = re.compile(r"[\w@%+:,./][\w@%+:,./-]*").fullmatch


def addresses_of(text: str) -> tuple[JobServer, ...]:
    """The job servers that `text` names, with commas between. Raises InvalidRequest."""
    return tuple(parse_address(part.strip()) for part in text.split(",") if part.strip())


def server_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give the command `-s`, `-c` and `--wait-server`, and the argument `servers` that comes of them."""

    @click.option(
        "-s",
        "--server",
        "addresses",
        callback=parsed(addresses_of),
        multiple=True,
        metavar="HOST[:PORT]",
        envvar="GEARMAN_SERVERS",
        show_envvar=True,
        help="A job server; repeat it for more. Port 4730 unless given.",
    )
    @click.option(
        "-c",
        "--config",
        "config_path",
        type=click.Path(),
        metavar="FILE",
        help="Take the job servers from this config file.",
    )
    @time_option(
        "--wait-server", "wait_seconds", text="Where no job server answers yet, wait for one, up to so long (5s)."
    )
    @functools.wraps(command)
    def with_servers(
        *args: Any, addresses: object, config_path: object, wait_seconds: float | None, **kwargs: Any
    ) -> Any:
        servers = chosen(click.get_current_context())
        if wait_seconds is not None:
            wait_for_server(servers, wait_seconds)
        return command(*args, servers=servers, **kwargs)

    return with_servers


def chosen(ctx: click.Context) -> tuple[JobServer, ...]:
    """The job servers that the command line and the surroundings name. Raises ConfigError."""
    addresses = tuple(server for group in ctx.params.get("addresses") or () for server in group)
    config_path: str | None = ctx.params.get("config_path")
    from_environment = ctx.get_parameter_source("addresses") is ParameterSource.ENVIRONMENT
    if addresses and not (from_environment and config_path):
        return addresses
    try:
        path = config_path or config.default_path()
    except ConfigError:  # there is none, and none was named
        return LOCAL
    return config.load_job_servers(path)


def wait_for_server(servers: Sequence[JobServer], seconds: float) -> None:
    """Wait until one of them answers, at most so long: what the command itself says of them comes then."""
    from geard.client import Client

    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            with Client(servers, connect_timeout_seconds=left) as client:
                client.echo(b"geard")
            return
        except ConnectionLost:
            time.sleep(min(RETRY_SECONDS, max(deadline - time.monotonic(), 0)))


@dataclass
class Answer(Generic[T]):
    """What one job server answered: a value, or the error that came instead."""

    server: JobServer
    value: T | None = None
    error: GeardError | None = None

    @property
    def reason(self) -> str:
        """Why there is no value, for a line that begins with the job server."""
        return str(self.error).removeprefix(f"cannot connect to {self.server}: ")


def ask_all(servers: Sequence[JobServer], question: Callable[[JobServer], T]) -> list[Answer[T]]:
    """Put the question to each job server at once, in their order; one that is down delays the others by nothing.

    The threads are daemons: Ctrl-C does not wait for a connection that is being made."""
    answers: list[Answer[T]] = [Answer(server) for server in servers]

    def ask(answer: Answer[T]) -> None:
        try:
            answer.value = question(answer.server)
        except GeardError as error:
            answer.error = error

    threads = [threading.Thread(target=ask, args=(answer,), daemon=True) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def fail(errors: Sequence[GeardError]) -> None:
    """Say what went wrong, and end the command with the exit code of the first; go on if nothing did."""
    for error in errors:
        say_error(error)
    if errors:
        click.get_current_context().exit(exit_code(errors[0]))


def exit_if_none(answers: Sequence[Answer[T]]) -> None:
    """End the command if no job server answered; each one's reason has been shown already."""
    errors = [answer.error for answer in answers if answer.error]
    if len(errors) == len(answers):
        click.get_current_context().exit(exit_code(errors[0]))


def complete_function(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Function names for the shell: those that the job servers know; none where none answers soon.

    Anybody who may submit a job may name a function, and bash puts what is completed on the command line as it is: a
    name that a shell would take for more than a word is not offered."""
    from geard.client.admin import Admin

    def functions(server: JobServer) -> set[str]:
        with Admin(server, timeout_seconds=COMPLETION_TIMEOUT_SECONDS) as admin:
            return {row.function for row in admin.status()}

    try:
        answers = ask_all(chosen(ctx), functions)
    except GeardError:
        return []
    names = set().union(*(answer.value or () for answer in answers))
    return sorted(name for name in names if name.startswith(incomplete) and _IS_WORD(name))
