"""The admin text protocol: one line asks, one line or a list that ends with a line `.` answers.

Rules: rows are what gearmand 1.1.20 prints, and the embedded job server too. A row may have more columns than we know:
a newer server's are ignored. Text is UTF-8; bytes that are not are shown as `\\xNN`.

gearmand prints names as they are, tabs and newlines in them too. So a row is found by its numbers, which stand at its
end (of a worker: at its beginning), and may be several lines: whatever somebody called a function, the others can be
read. The embedded job server escapes what would break a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from typing import Final, TypeVar
from urllib.parse import unquote_plus

import msgspec

from geard.errors import InvalidRequest, ProtocolError, ServerError

LIST_END: Final = b".\n"

R = TypeVar("R", bound="Row")

_IS_ERROR = re.compile(rb"ERR\b(?![^\n]*\t\d+\n)[^\n]*\n").fullmatch  # and no function that somebody called ERR
_HANDLE = re.compile(
    rb"\A[^\t ]+:\d+\t"
)  # such as H:build1:42; a unique that begins like one is not to be told from it
_BEGINS_WORKER = re.compile(rb"\d+ [0-9A-Fa-f:.%]\S* ").match


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A row of a list: its columns, with a tab between."""

    @classmethod
    def parse(cls: type[R], line: bytes) -> R:
        """The row that a line without its end says. Raises ProtocolError."""
        cells = _text(line).split("\t")
        names = len(cells) - len(cls.__struct_fields__) + 1  # so many cells the name has, if there are tabs in it
        for row in (cells, ["\t".join(cells[:names]), *cells[names:]] if names > 1 else cells):
            with suppress(msgspec.ValidationError):
                return msgspec.convert(row, cls, strict=False)
        raise ProtocolError(f"expected a line of {cls._columns()}, got {line[:200]!r}")

    @classmethod
    def parse_list(cls: type[R], lines: Iterable[bytes]) -> list[R]:
        """The rows of a list. Lines that are none begin the name in the next. Raises ProtocolError for one that does
        not end."""
        rows: list[R] = []
        begun: list[bytes] = []
        for line in lines:
            try:
                row = cls.parse(line)
            except ProtocolError:
                begun.append(line)
                continue
            if begun:
                row = cls.parse(b"\n".join((*begun, line)))
                begun.clear()
            rows.append(row)
        if begun:
            cls.parse(begun[0])
        return rows

    @classmethod
    def _columns(cls) -> str:
        return ", ".join(cls.__struct_fields__)


class FunctionStatus(Row, frozen=True, array_like=True):
    """`status`: a function's jobs and workers."""

    function: str
    total: int  # waiting and running
    running: int
    workers: int  # that can run it, busy ones included


class PriorityStatus(Row, frozen=True, array_like=True):
    """`prioritystatus`: a function's waiting jobs by priority."""

    function: str
    high: int
    normal: int
    low: int
    workers: int


class DelayedStatus(Row, frozen=True, array_like=True):
    """`delayedstatus`, which gearmand has not: how many of a function's waiting jobs are not due yet."""

    function: str
    delayed: int


class JobStatus(Row, frozen=True, array_like=True):
    """`show jobs`: a job that the job server holds, in no order."""

    handle: str
    retries: int  # how often a worker has lost it
    ignored: bool  # nobody wants it any more: it was cancelled, or its client has gone
    queued: bool  # the queue keeps it, running or not: a background job that was not cancelled


class WorkerStatus(Row, frozen=True, array_like=True):
    """`workers`: a connection to the job server, of a worker, client or admin; only a worker has functions."""

    fd: int
    address: str
    client_id: str  # "-" when it has not set one
    functions: tuple[str, ...] = ()

    @classmethod
    def parse(cls, line: bytes) -> WorkerStatus:
        """`FD ADDRESS CLIENT-ID : FUNCTION…`; the client id may hold spaces. Raises ProtocolError."""
        fd, _, rest = _text(line).partition(" ")
        address, _, rest = rest.partition(" ")
        client_id, colon, functions = rest.partition(" :")
        if not colon or not fd.isdecimal():
            raise ProtocolError(f"expected a line of {cls._columns()}, got {line[:200]!r}")
        return cls(int(fd), address, client_id, tuple(filter(None, functions.split(" "))))

    @classmethod
    def parse_list(cls, lines: Iterable[bytes]) -> list[WorkerStatus]:
        """The rows of a list. A line that does not begin one belongs to the last. Raises ProtocolError."""
        rows: list[bytes] = []
        for line in lines:
            if rows and not _BEGINS_WORKER(line):
                rows[-1] += b"\n" + line
            else:
                rows.append(line)
        return [cls.parse(row) for row in rows]


def uniques(lines: Iterable[bytes]) -> list[str]:
    """The rows of `show unique jobs`. From gearmand 2.2 on each begins with the job's handle, and a tab."""
    return [_text(_HANDLE.sub(b"", line)) for line in lines]


def request(*words: str) -> bytes:
    """The line that asks. Raises InvalidRequest for a word that would be read as none, two or another line."""
    for word in words:
        if word.split() != [word] or "\0" in word:
            raise InvalidRequest(f"{word!r}: the admin protocol takes no empty names, spaces or NUL bytes in them")
    return " ".join(words).encode() + b"\r\n"  # with \n alone gearmand drops the last letter of a new function


def answer_to_list(data: bytes) -> list[bytes] | None:
    """The lines of a list, without their ends; None while more is to come. Raises ServerError for an ERR line."""
    if _IS_ERROR(data):
        return [answer_line(data)]
    if data != LIST_END and not data.endswith(b"\n" + LIST_END):
        return None
    return data[: -len(LIST_END)].split(b"\n")[:-1]


def answer_line(data: bytes) -> bytes:
    """What follows OK on a line that is complete. Raises ServerError for ERR, ProtocolError for anything else."""
    word, _, rest = data.strip().partition(b" ")
    if word == b"OK":
        return rest
    if word == b"ERR":
        raise _server_error(_text(rest))
    raise ProtocolError(f"expected a line with OK or ERR, got {data[:200]!r}")


def _server_error(text: str) -> ServerError:
    code, _, rest = text.partition(" ")
    if code.isupper():
        return ServerError(code, unquote_plus(rest) or code.replace("_", " ").lower())
    return ServerError("ERR", text)  # gearmand gives some of its errors no code


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
