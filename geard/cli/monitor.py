"""`geard monitor`: the monitor by itself."""

from __future__ import annotations

import os
from pathlib import Path

import click
import msgspec

from geard import interpreter
from geard.config import default_path, read_config
from geard.config.model import Monitor
from geard.config.monitor import with_listen
from geard.supervisor.monitor_start import dump, start_of


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), default=default_path, help="The config file.")
@click.option("--listen", metavar="ADDRESS", help="Where to listen, rather than where the config says.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def monitor(path: Path, listen: str | None, verbose: bool) -> None:
    """Serve metrics, health checks and the dashboard of the daemon that runs with a config.

    A daemon whose config has `monitor` runs one itself; this is for one that has not. Without --listen and `monitor`
    it listens on 127.0.0.1:8733.

    \b
    Examples:
      geard monitor
      geard monitor -c /etc/geard.yaml --listen 127.0.0.1:9000

    Exits 78 if the config cannot be read or the address cannot be had.
    """
    config = read_config(path).config
    if listen:
        config = msgspec.structs.replace(config, monitor=with_listen(config.monitor or Monitor(), listen))
    reading, writing = os.pipe()
    own_metrics = os.environ.get("PROMETHEUS_MULTIPROC_DIR", "")
    os.write(writing, dump(start_of(config, metrics_directory=own_metrics, verbose=verbose)))
    os.close(writing)
    os.dup2(reading, 0)
    # A process of its own, since what it runs must be patched before anything is imported.
    program, *_ = command = interpreter.patched("geard.monitor.process")
    os.execv(program, command)  # noqa: S606 - there is no shell, which the rule would have
