"""`geard health`: whether the daemon is fit for work, for a container's health check."""

from __future__ import annotations

import sys

import click

from geard import exits
from geard.cli.control import find_socket, socket_options
from geard.cli.options import time_option
from geard.cli.output import write_bytes, write_json
from geard.errors import ConnectionLost, GeardError
from geard.printable import printable
from geard.supervisor import answers
from geard.supervisor.ask import ask
from geard.supervisor.health import Health, health_of, unreachable


@click.command(short_help="Say whether the daemon is fit for work.")
@socket_options
@time_option("--timeout", "timeout_seconds", default="5s", text="A daemon that does not answer within this is not fit.")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
def health(config: str | None, path: str | None, timeout_seconds: float, as_json: bool) -> None:
    """Say whether the daemon is fit for work: it runs, a worker process is ready, and a job server is connected.

    \b
    Example, in a Dockerfile:
      HEALTHCHECK CMD geard health -c /etc/geard.yaml

    Exit codes: 0 it is, 69 it is not, or does not answer; the reasons are printed, for each part.
    """
    try:
        socket_path = path or find_socket(config)
        found = examine(socket_path, timeout_seconds)
    except ConnectionLost as error:
        found = unreachable(str(error))
    if as_json:
        write_json(found)
    else:
        write_bytes("".join(f"{printable(line)}\n" for line in found.text.splitlines()).encode(errors="replace"))
    sys.exit(exits.DONE if found.healthy else exits.UNAVAILABLE)


def examine(socket_path: str, timeout_seconds: float | None) -> Health:
    """The health of the daemon there. Raises ConnectionLost where it does not answer."""
    answer = ask(socket_path, answers.PS, timeout_seconds=timeout_seconds)
    if answer.overview is None:
        raise GeardError(f"the supervisor on {socket_path} did not say what it runs")
    return health_of(answer.overview)
