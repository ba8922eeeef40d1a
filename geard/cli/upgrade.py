"""`geard upgrade`: have the running supervisor go on with the code that is installed now."""

from __future__ import annotations

import sys
import time
from typing import Final

import click

from geard import exits
from geard.cli.answers import count
from geard.cli.control import with_socket
from geard.cli.output import say
from geard.errors import ConnectionLost, JobTimeout
from geard.supervisor import answers
from geard.supervisor.answers import Overview
from geard.supervisor.ask import ask

BACK_SECONDS: Final = 30.0


@click.command()
@with_socket
def upgrade(socket_path: str) -> None:
    """Execute the installed geard in the place of the running supervisor, and wait until it serves.

    It keeps its pid, its worker processes with their jobs, and what it has counted. The worker processes go on with the
    code that they have: `geard reload` gives them the new. Where the new code could not go on, nothing is changed.

    Example, after pip install --upgrade: geard upgrade; geard reload

    Exit codes: 0 upgraded, 1 refused, 69 no daemon answers, 75 not now: it is starting, reloading or stopping.
    """
    pid = _overview(socket_path).pid
    try:
        answer = ask(socket_path, answers.UPGRADE)
    except ConnectionLost as error:
        if error.job_created is False:  # there was no connection: nobody has heard of it
            raise
    else:
        say(f"geard: {answer.message}")
        sys.exit(answer.exit_code or exits.FAILED)
    deadline = time.monotonic() + BACK_SECONDS
    while True:
        try:
            overview = _overview(socket_path)
            break
        except ConnectionLost:
            if time.monotonic() > deadline:
                raise JobTimeout(f"the supervisor (pid {pid}) does not answer after {BACK_SECONDS:.0f} s") from None
            time.sleep(0.1)
    kept = count(sum(len(generation.processes) for generation in overview.generations), "worker process")
    say(f"the supervisor (pid {overview.pid}) is geard {overview.version} now, and kept {kept}")


def _overview(path: str) -> Overview:
    overview = ask(path, answers.PS).overview
    if overview is None:
        raise ConnectionLost(f"the supervisor on {path} did not say what it runs")
    return overview
