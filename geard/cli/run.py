"""`geard run`: the daemon."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from geard import logs
from geard.config import default_path, examine_config
from geard.supervisor.imports import with_import_problems

if TYPE_CHECKING:
    from geard.supervisor.state import State


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), default=default_path, help="The config file.")
@click.option("-v", "--verbose", is_flag=True, help="Log each job too.")
@click.option("--watch", is_flag=True, help="Reload when the config or a capability's source changes.")
@click.option("--embedded", is_flag=True, help="With a job server of its own, for one machine.")
@click.option("--queue", metavar="FILE", help="With --embedded: keep background jobs in this file through a restart.")
def run(path: Path, verbose: bool, watch: bool, embedded: bool, queue: str | None) -> None:
    """Take jobs and run them, until told to stop.

    With --embedded there is a job server too: on the first of job_servers, if that is on this machine's loopback, else
    on 127.0.0.1:4730. It starts before the worker processes and stops after them.

    \b
    TERM, INT   finish the jobs in flight, within shutdown_timeout; again: stop at once
    QUIT        stop at once: the job servers give the jobs in flight to other workers
    HUP         reload: start anew from the config, then let the old worker processes finish
    TTIN, TTOU  one worker process more, one fewer
    USR1        reopen the log files
    USR2        log the stack of every busy greenlet and the job it runs

    \b
    Examples:
      geard run -c /etc/geard.yaml
      geard run --embedded --queue jobs.sqlite --watch -v

    Exit codes: 0 drained, 79 told to stop and some jobs were left to other workers, 1 it could not start, 69 no place
    for the embedded job server, 78 the config cannot run.
    """
    if queue is not None and not embedded:
        raise click.UsageError("--queue is for --embedded: other job servers keep their own queues")
    if os.getpid() == 1:
        # The kernel drops what the first process of a container has no handler for yet. Daemon.run unblocks them.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
    state = _inherited_state()
    source = state.source if state else with_import_problems(examine_config(path))
    source.check()
    from geard.supervisor.daemon import Daemon  # imports gevent, which a config error need not wait for

    if embedded:
        from geard.supervisor.embedded import Embedded

        job_server = Embedded(source, queue=queue, verbose=verbose)
        daemon = Daemon(
            job_server.served(source), verbose=verbose, watch=watch, read=job_server.read, beside=job_server
        )
    else:
        daemon = Daemon(source, verbose=verbose, watch=watch, state=state)
    code = daemon.run()
    if source.config.logging.file:
        for problem in daemon.start_problems:  # the log has them already; a person at a terminal wants them too
            logs.console(f"geard: {problem}")
    sys.exit(code)


def _inherited_state() -> State | None:
    """What the supervisor before us in this process has left, if it was upgraded. Where that cannot be read all begins
    anew: its worker processes then find their supervisor gone, finish their jobs and end."""
    if "GEARD_UPGRADE" not in os.environ:
        return None
    from geard.supervisor.state import CannotUpgrade
    from geard.supervisor.upgrade import inherited

    try:
        return inherited()
    except (CannotUpgrade, OSError, ValueError) as error:
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        logs.console(f"geard: {error}; starting anew, and the worker processes of before finish what they have")
        return None
