"""`geard run`: the daemon."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from geard.config import default_path, read_config


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), default=default_path, help="The config file.")
@click.option("-v", "--verbose", is_flag=True, help="Log each job too.")
@click.option("--watch", is_flag=True, help="Reload when the config or a capability's source changes.")
def run(path: Path, verbose: bool, watch: bool) -> None:
    """Take jobs and run them, until told to stop.

    \b
    TERM, INT   finish the jobs in flight, within shutdown_timeout; again: stop at once
    QUIT        stop at once: the job servers give the jobs in flight to other workers
    HUP         reload: start anew from the config, then let the old worker processes finish
    TTIN, TTOU  one worker process more, one fewer
    USR1        reopen the log files
    USR2        log the stack of every busy greenlet and the job it runs
    """
    source = read_config(path)
    from geard.supervisor.daemon import Daemon  # imports gevent, which a config error need not wait for

    daemon = Daemon(source, verbose=verbose, watch=watch)
    code = daemon.run()
    if source.config.logging.file:
        for problem in daemon.start_problems:  # the log has them already; a person at a terminal wants them too
            click.echo(f"geard: {problem}", err=True)
    sys.exit(code)
