"""`geard init`: the command.

Rule: nothing that is there is ever written to. When a file of ours is there already nothing is written at all; but a
.gitignore, which a project has before it has geard, is left as it is and the others are written.
"""

from __future__ import annotations

import os
import pwd
import shlex
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import Final

import click

from geard import exits
from geard.cli.output import say
from geard.cli.unit import closed_directory, command, program, quoted, render
from geard.config.model import Config
from geard.errors import GeardError, InvalidRequest
from geard.printable import printable
from geard.reference.json_schema import schema_text

TEMPLATES: Final = {  # file -> its text in the package
    "geard.yaml": "geard.yaml.txt",
    "tasks.py": "tasks.py.txt",
    "test_tasks.py": "test_tasks.py.txt",
    ".gitignore": "gitignore.txt",
}
UNIT: Final = "geard.service"
SCHEMA: Final = "geard.schema.json"
MAY_BE_THERE: Final = ".gitignore"


class CannotWrite(GeardError):
    """A file of the new project cannot be written. What was written before it is taken back."""


@click.command(short_help="Write the files of a first project: a config, functions, a test, a unit.")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
def init(directory: Path) -> None:
    """Write the files of a first project into DIR (made where it is not there; the current directory unless given).

    \b
    geard.yaml         the config
    tasks.py           two functions, which the config names
    test_tasks.py      tests of them, for pytest
    geard.service      a systemd unit that runs the config in DIR
    geard.schema.json  what editors complete the config by
    .gitignore

    Each runs as it is. Nothing is overwritten: when one of them is there already, nothing is written; but a .gitignore
    is left as it is, and the others are written.

    \b
    Examples:
      geard init
      geard init images

    Exit codes: 0 written, 1 one of the files is there already, or cannot be written.
    """
    if not str(directory.absolute()).isprintable():
        raise InvalidRequest("the directory's name holds what cannot be printed, and no unit could name it")
    texts = project(directory.absolute())
    there = [name for name in texts if os.path.lexists(directory / name)]
    blocking = [name for name in there if name != MAY_BE_THERE]
    if blocking:
        said = f"{listed(blocking)} {'is' if len(blocking) == 1 else 'are'} there already"
        say(f"geard: nothing was written to {printable(str(directory))}: {said}")
        sys.exit(exits.FAILED)
    new = {name: text for name, text in texts.items() if name not in there}
    write(directory, new)
    click.echo(f"wrote {listed(new)}" + (f"; {MAY_BE_THERE} stays as it is" if there else ""))
    note_closed(directory.absolute())
    click.echo("\n".join(["", "Next:", *next_commands(directory)]))


def project(directory: Path) -> dict[str, str]:
    """What to write: each file's text by its name."""
    packaged = files("geard.cli.init").joinpath("files")
    texts = {name: packaged.joinpath(file).read_text(encoding="utf-8") for name, file in TEMPLATES.items()}
    config = quoted(str(directory / "geard.yaml"))
    unit = render(Config(), config, command(), user=service_user(directory), working_directory=str(directory))
    return texts | {UNIT: unit, SCHEMA: schema_text()}


def service_user(directory: Path) -> str | None:
    """Whom the service has to run as: us, where a user that systemd makes up could not enter; None where he can."""
    if os.geteuid() == 0 or not any(map(closed_directory, needed(directory))):
        return None
    return pwd.getpwuid(os.geteuid()).pw_name


def needed(directory: Path) -> tuple[str, ...]:
    """What the service's user has to reach."""
    return str(directory / "geard.yaml"), program()[0], sys.executable


def note_closed(directory: Path) -> None:
    """Say which directory keeps a user that systemd makes up from running the unit, where we are root."""
    if os.geteuid() != 0:
        return
    for path in needed(directory):
        closed = closed_directory(path)
        if closed:
            say(f"geard: note: {closed} is closed to the user of {UNIT}, who needs {path}: use /opt or /srv")


def write(directory: Path, texts: dict[str, str]) -> None:
    """Write new files, all of them or none. Raises CannotWrite."""
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = directory / name
            with path.open("x", encoding="utf-8") as file:  # x: never through a link, never over another's
                written.append(path)
                file.write(text)
    except OSError as error:
        for path in written:
            with suppress(OSError):
                path.unlink()
        reason = (error.strerror or str(error)).lower()
        raise CannotWrite(f"cannot write {printable(str(error.filename or directory))}: {reason}") from error


def next_commands(directory: Path) -> list[str]:
    """What to type now, and what each is for."""
    commands = [
        ("geard run --embedded", "the daemon, with a job server of its own; Ctrl-C stops it"),
        ("geard submit --wait-server 5s shout hello", "a job, from another terminal"),
        ("python -m pytest", "the tests; pytest comes with: pip install 'geard[test]'"),
    ]
    width = max(len(command) for command, _ in commands)
    lines = [f"  {command.ljust(width)}  # {text}" for command, text in commands]
    return lines if directory == Path() else [f"  cd {shlex.quote(printable(str(directory)))}", *lines]


def listed(names: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
