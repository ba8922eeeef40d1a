"""The admin text protocol: one line asks, one line or a list that ends with a line `.` answers.

Rules: each kind of row parses what its own `format` writes, and both are what gearmand 1.1.20 prints, so that the
client and the embedded job server share them. A row may have more columns than we know: a newer server's are ignored.
Text is UTF-8; bytes that are not are shown as `\\xNN`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar
from urllib.parse import unquote_plus

import msgspec

from geard.errors import InvalidRequest, ProtocolError, ServerError

LIST_END: Final = b".\n"

R = TypeVar("R", bound="Row")


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A line of a list: its columns, with a tab between."""

    @classmethod
    def parse(cls: type[R], line: bytes) -> R:
        """The row that a line without its end says. Raises ProtocolError."""
        try:
            return msgspec.convert(_text(line).split("\t"), cls, strict=False)
        except msgspec.ValidationError as error:
            raise ProtocolError(f"expected a line of {cls._columns()}, got {line[:200]!r}: {error}") from error

    def format(self) -> bytes:
        """The line, with its end."""
        cells = msgspec.structs.astuple(self)
        return "\t".join(str(int(cell)) if isinstance(cell, bool) else str(cell) for cell in cells).encode() + b"\n"

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
        return cls(int(fd), address, client_id, tuple(functions.split()))

    def format(self) -> bytes:
        """The line, with its end."""
        head = f"{self.fd} {self.address} {self.client_id} :"
        return " ".join((head, *self.functions)).encode() + b"\n"


def request(*words: str) -> bytes:
    """The line that asks. Raises InvalidRequest for a word that would be read as none, two or another line."""
    for word in words:
        if word.split() != [word] or "\0" in word:
            raise InvalidRequest(f"{word!r}: the admin protocol takes no empty names, spaces or NUL bytes in them")
    return " ".join(words).encode() + b"\r\n"  # with \n alone gearmand drops the last letter of a new function


def answer_to_list(data: bytes) -> list[bytes] | None:
    """The lines of a list, without their ends; None while more is to come. Raises ServerError for an ERR line."""
    if data.startswith(b"ERR"):
        return [answer_line(data)] if data.endswith(b"\n") else None
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


def format_list(rows: Iterable[Row]) -> bytes:
    """The answer that lists these rows."""
    return b"".join([*(row.format() for row in rows), LIST_END])


def _server_error(text: str) -> ServerError:
    code, _, rest = text.partition(" ")
    if code.isupper():
        return ServerError(code, unquote_plus(rest) or code.replace("_", " ").lower())
    return ServerError("ERR", text)  # gearmand gives some of its errors no code


def _text(data: bytes) -> str:
    return data.decode(errors="backslashreplace")
