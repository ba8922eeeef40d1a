"""The command line: one file per group of commands, each loaded only when it is called.

Rule: no command shows a traceback for something the user can mend. GeardErrors end as a line on stderr and a
documented exit code (geard/exits.py). Ctrl-C ends in one line, a reader that went away (`| head`) in silence.
"""

from __future__ import annotations

import errno
import sys
from importlib import import_module
from typing import Final

import click

from geard import __version__, exits
from geard.cli.output import cannot_write, discard_stdout, say, say_error
from geard.errors import ConfigError, ConnectionLost, GeardError, InvalidRequest, JobTimeout
from geard.printable import printable

COMMANDS: Final = {  # name -> the module and the attribute that hold it
    "demo": "geard.cli.demo:demo",
    "init": "geard.cli.init:init",
    "bench": "geard.cli.bench:bench",
    "check": "geard.cli.check:check",
    "run": "geard.cli.run:run",
    "ps": "geard.cli.control:ps",
    "top": "geard.cli.top:top",
    "failures": "geard.cli.failures:failures",
    "health": "geard.cli.health:health",
    "reload": "geard.cli.control:reload",
    "pause": "geard.cli.control:pause",
    "resume": "geard.cli.control:resume",
    "upgrade": "geard.cli.upgrade:upgrade",
    "stop": "geard.cli.control:stop",
    "schedules": "geard.cli.schedules:schedules",
    "monitor": "geard.cli.monitor:monitor",
    "dead": "geard.cli.dead:dead",
    "unit": "geard.cli.unit:unit",
    "reap": "geard.cli.reap:reap",
    "jobserver": "geard.cli.jobserver:jobserver",
    "submit": "geard.cli.submit:submit",
    "status": "geard.cli.status:status",
    "workers": "geard.cli.inspect:workers",
    "jobs": "geard.cli.inspect:jobs",
    "cancel": "geard.cli.inspect:cancel",
    "echo": "geard.cli.inspect:echo",
    "admin": "geard.cli.admin:admin",
    "completion": "geard.cli.completion:completion",
}


FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""What writing to stdout may end with; click does that itself, for help and for what has no other way."""


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

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an interrupt and a broken pipe end it as they would end any Unix program."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            say(f"\ngeard: interrupted{f': {printable(str(interrupt))}' if interrupt.args else ''}")
            raise click.exceptions.Exit(exits.INTERRUPTED) from None
        except BrokenPipeError:  # ours: those of connections are ConnectionLost
            discard_stdout()
            raise click.exceptions.Exit(exits.BROKEN_PIPE) from None


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
        say_error(error)
        sys.exit(exit_code(error))
    except OSError as error:
        if error.errno not in FULL or error.filename:
            raise
        discard_stdout()
        say_error(cannot_write(error))
        sys.exit(exits.FAILED)
