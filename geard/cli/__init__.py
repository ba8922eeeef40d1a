"""The command line: one file per group of commands, each loaded only when it is called.

Rule: no command shows a traceback for something the user can mend. GeardErrors end as a line on stderr and a
documented exit code (geard/exits.py).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Final

import click

from geard import __version__, exits
from geard.errors import ConfigError, ConnectionLost, GeardError, InvalidRequest, JobTimeout

COMMANDS: Final = {  # name -> the module and the attribute that hold it
    "check": "geard.cli.check:check",
    "run": "geard.cli.run:run",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that each starts fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="geard")
def cli() -> None:
    """geard runs your functions as jobs from Gearman job servers, and submits and inspects jobs."""


def exit_code(error: GeardError) -> int:
    """The exit code that tells a script whose fault `error` was."""
    table: list[tuple[type[GeardError], int]] = [  # first match wins
        (ConfigError, exits.CONFIG),
        (ConnectionLost, exits.UNAVAILABLE),
        (JobTimeout, exits.TIMED_OUT),
        (InvalidRequest, exits.USAGE),
    ]
    return next((code for kind, code in table if isinstance(error, kind)), exits.FAILED)


def main() -> None:
    """The console script `geard`."""
    try:
        cli(prog_name="geard")
    except GeardError as error:
        click.echo(f"geard: {error}", err=True)
        sys.exit(exit_code(error))
