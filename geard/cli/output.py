"""What commands print, and how.

Rules:
- stdout carries results only: bytes as they came, JSON, or a table. Everything else goes to stderr.
- Colours and moving bars appear on a terminal only; elsewhere a table is plain columns, never cut or wrapped.
- rich is imported where it draws, so that a command in a pipe does not pay for it.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from geard.errors import GeardError, JobFailed, ServerError
from geard.printable import printable, printable_json, printable_lines

if TYPE_CHECKING:
    from rich.console import Console


class OutputError(GeardError):
    """The results cannot be written. Make room on the disk, or write them elsewhere."""


class Line(NamedTuple):
    """A line of text and how it looks on a terminal (a rich style; empty: plain)."""

    text: str
    style: str = ""


def write_bytes(data: bytes) -> None:
    """`data` to stdout as it is, and at once: a reader may be waiting for it.

    Raises BrokenPipeError where the reader is gone, OutputError where nothing can be written for another reason."""
    try:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard_stdout()
        raise cannot_write(error) from error


def cannot_write(error: OSError) -> OutputError:
    """What to tell of an error of stdout."""
    return OutputError(f"cannot write the output: {(error.strerror or str(error)).lower()}")


def discard_stdout() -> None:
    """Send what is still buffered for stdout nowhere, so that the end of the process does not try again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def json_line(value: Any) -> bytes:
    """A value as one line of JSON, which steers no terminal."""
    return printable_json(msgspec.json.encode(value).decode()).encode() + b"\n"


def write_json(value: Any) -> None:
    """A value to stdout as one line of JSON."""
    write_bytes(json_line(value))


def say(text: str) -> None:
    """A message for the person at the terminal: a line on stderr, or several. Text from outside in it has gone through
    `printable`, or its line breaks would pass for ours."""
    click.echo(printable_lines(text), err=True)


def say_error(error: GeardError) -> None:
    """What went wrong, as every command says it. What a worker or a job server said is one line."""
    theirs = isinstance(error, JobFailed | ServerError)
    say(f"geard: {printable(str(error)) if theirs else error}")


def json_member(name: str, data: bytes) -> dict[str, str]:
    """Bytes as a member of a JSON object: as text where they are UTF-8, else in base64 and named so."""
    try:
        return {name: data.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(data).decode()}


def on_terminal(stream: Any) -> bool:
    """Whether to draw on `stream`: it is a terminal, and not a dumb one."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def console(*, err: bool = False) -> Console:
    """A rich console on stdout or stderr."""
    from rich.console import Console

    return Console(stderr=err, highlight=False)


def write_lines(lines: Iterable[Line]) -> None:
    """Lines to stdout, coloured on a terminal."""
    if on_terminal(sys.stdout):
        from rich.text import Text

        for line in lines:
            console().print(Text(printable(line.text), line.style), soft_wrap=True)
    else:
        write_bytes("".join(f"{printable(line.text)}\n" for line in lines).encode())
