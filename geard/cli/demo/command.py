"""The command: what is shown in which order, and what to try next."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import click

from geard import __version__, examples
from geard.cli.demo.daemon import CAPABILITIES, DemoDaemon
from geard.cli.demo.jobs import acts, run_act
from geard.cli.demo.stage import stage
from geard.cli.interrupts import one_interrupt
from geard.client import Client
from geard.config import default_path
from geard.errors import ConfigError, GeardError


@click.command()
def demo() -> None:
    """Show what geard does, in a few seconds: start a job server and the daemon, run jobs, stop everything.

    Needs nothing but geard, and leaves nothing behind.

    Example: geard demo

    Exit codes: 0 done, 1 a job did not end as it should, 130 interrupted.
    """
    with one_interrupt():  # from before the first line on, so that no moment is left to Python's own way
        shown = stage()
        start = time.monotonic()
        shown.say("", f"geard {__version__} runs Python functions as jobs. A config says which:", "")
        shown.say("    capabilities:", *(f"    {line}" for line in CAPABILITIES.splitlines()), "")
        rows = acts()
        with DemoDaemon() as daemon, Client(daemon.address) as client:
            with shown.waiting("starting a job server and the daemon"):
                daemon.start()
            shown.say("A job server and the daemon are up. A client submits these jobs, all at once:", "")
            with shown.showing():
                for act in rows:
                    run_act(client, act, shown.started, shown.ended)
    took = time.monotonic() - start
    if not all(row.is_as_expected for act in rows for row in act):
        raise GeardError("a job did not end as it should; please report this with what is shown above")
    shown.say("", f"All of it is stopped again, after {took:.1f} s. The functions: {_shown_path(examples.__file__)}")
    shown.say("Your turn:", "", *(f"    {line}" for line in _next_steps()), "")


def _next_steps() -> list[str]:
    """What to type next, where the user is now."""
    lines = [
        (f"{_this_program()} run --embedded", "in this terminal"),
        (f"{_this_program()} submit reverse hello", "in another one"),
    ]
    try:
        default_path()
    except ConfigError:
        lines.insert(0, ("echo 'capabilities: {reverse: geard.examples.reverse}' > geard.yaml", ""))
    width = max(len(command) for command, note in lines if note) + 3
    return [f"{command:{width}}# {note}" if note else command for command, note in lines]


def _this_program() -> str:
    """How to start geard from here."""
    if shutil.which("geard"):
        return "geard"
    started_as = Path(sys.argv[0])
    return f"{_shown_path(sys.executable)} -m geard" if started_as.name == "__main__.py" else _shown_path(sys.argv[0])


def _shown_path(path: str) -> str:
    """A path as short as it can be typed."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative
