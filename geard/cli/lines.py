"""A file of jobs of `geard submit --lines`: one workload a line, many jobs at a time.

Rules:
- Memory is flat: lines are read as jobs end, and the list of failures is on disk until it is shown.
- Line N of the output answers line N of the input.
- However it ends, it says how far it came: a line is done, failed, of unknown fate (it was submitted and nothing more
  was heard), or was never submitted. Then the rest can be submitted without running a job twice.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import IO, Final, Literal, TypeVar

import click

from geard import exits
from geard.cli.bar import FileProgress, FootLine
from geard.cli.job import ENCODING, time_limit
from geard.cli.output import json_line, json_member, on_terminal, say
from geard.client import Choose, Client, Priority
from geard.config import JobServer
from geard.errors import CannotConnect, GeardError
from geard.printable import printable

DEFAULT_CONCURRENCY: Final = 50
FAILURES_IN_MEMORY_BYTES: Final = 1024 * 1024


T = TypeVar("T")
Unique = Literal["workload"] | None


class Lines:
    """The lines of a stream, without their ends, as they are asked for.

    `drawn` is how many were taken so far; each is `over` in order."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._sizes: deque[int] = deque()  # of the lines that are drawn and not over
        self.drawn = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._stream:
            self.drawn += 1
            self._sizes.append(len(line))
            yield line.removesuffix(b"\n")

    def over(self) -> int:
        """The oldest line is over: how many bytes it took in the file."""
        return self._sizes.popleft()

    def give_back(self) -> None:
        """What is drawn and not over was not submitted."""
        self.drawn -= len(self._sizes)
        self._sizes.clear()

    def total_bytes(self) -> int | None:
        """How much there is to read from here; None where that cannot be known (a pipe)."""
        try:
            status = os.fstat(self._stream.fileno())
            if stat.S_ISREG(status.st_mode):
                return status.st_size - self._stream.tell()
        except OSError:
            pass
        return None


class Failures:
    """What failed, in order; on disk when it is long."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - it lives as long as this object
            FAILURES_IN_MEMORY_BYTES, "w+", encoding="utf-8", errors="replace"
        )

    def add(self, line: int, error: GeardError) -> None:
        self._file.write(f"line {line}: {printable(str(error))}\n")

    def __iter__(self) -> Iterator[str]:
        self._file.seek(0)
        return (line.rstrip("\n") for line in self._file)


def run_lines(
    servers: tuple[JobServer, ...],
    function: str,
    stream: IO[bytes],
    *,
    concurrency: int,
    priority: Priority,
    unique: Unique,
    timeout_seconds: float | None,
    as_json: bool,
    choose: Choose,
) -> None:
    """Run a job for each line and print the results in the order of the lines. Exits 1 if a job failed."""

    def outcomes(client: Client, lines: Lines) -> Iterator[bytes | GeardError]:
        pairs = client.map(function, lines, concurrency=concurrency, pairs=True, priority=priority, unique=unique)
        try:
            yield from (outcome for _, outcome in pairs)
        except CannotConnect:  # it comes after all that were submitted
            lines.give_back()
            raise

    def shown(line: int, outcome: bytes | GeardError) -> bytes:
        if isinstance(outcome, GeardError):
            return json_line({"line": line, "error": str(outcome)}) if as_json else b"\n"
        return json_line({"line": line, **json_member("result", outcome)}) if as_json else outcome + b"\n"

    _go_through(servers, choose, function, stream, timeout_seconds, outcomes, shown)


def start_lines(
    servers: tuple[JobServer, ...],
    function: str,
    stream: IO[bytes],
    *,
    priority: Priority,
    unique: Unique,
    at: datetime | None,
    as_json: bool,
    choose: Choose,
) -> None:
    """Submit a background job for each line and print their handles in the order of the lines."""

    def handles(client: Client, lines: Lines) -> Iterator[str]:
        return client.submit_many_background(function, lines, priority=priority, unique=unique, at=at)

    def shown(line: int, handle: str | GeardError) -> bytes:
        return json_line({"line": line, "handle": str(handle)}) if as_json else f"{printable(str(handle))}\n".encode()

    _go_through(servers, choose, function, stream, None, handles, shown)


def _go_through(
    servers: tuple[JobServer, ...],
    choose: Choose,
    function: str,
    stream: IO[bytes],
    timeout_seconds: float | None,
    outcomes: Callable[[Client, Lines], Iterator[T | GeardError]],
    shown: Callable[[int, T | GeardError], bytes],
) -> None:
    lines, failures = Lines(stream), Failures()
    progress = FileProgress(function, lines.total_bytes())
    try:
        with (
            time_limit(timeout_seconds, function),
            FootLine(progress.render) as foot,
            Client(servers, choose=choose, encoding=ENCODING) as client,
        ):
            for outcome in outcomes(client, lines):
                progress.count(lines.over(), failed=isinstance(outcome, GeardError))
                if isinstance(outcome, GeardError):
                    failures.add(progress.done, outcome)
                foot.write(shown(progress.done, outcome))
    except (GeardError, KeyboardInterrupt):
        _report(progress, failures, lines.drawn)
        raise
    _report(progress, failures, lines.drawn)
    if progress.failed:
        click.get_current_context().exit(exits.FAILED)


def _report(progress: FileProgress, failures: Failures, drawn: int) -> None:
    """List what failed, and say how far it came; nothing in a pipe where all went well."""
    for failure in failures:
        say(failure)
    if on_terminal(sys.stderr) or progress.failed or drawn > progress.done:
        say(progress.summary())
    if drawn > progress.done:
        say(
            f"lines {progress.done + 1} to {drawn} may have been submitted: what became of them is unknown; "
            "no line after them was"
        )
