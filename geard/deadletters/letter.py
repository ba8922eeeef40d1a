"""A dead letter, for those who only write one: nothing here loads SQLite."""

from __future__ import annotations

from msgspec import Struct

from geard.errors import GeardError


class DeadLettersUnusable(GeardError):
    """The file of dead letters cannot be read or written. Look at the disk, and at who owns the file."""


class DeadLetter(Struct, frozen=True, array_like=True):
    """A job that failed for good. Times are Unix seconds."""

    function: str
    workload: bytes
    unique: str
    handle: str  # of its last attempt
    server: str
    attempts: int
    first_at: float  # when it failed first
    last_at: float
    error: str  # `ValueError: message`
    traceback: str
    id: int = 0  # its number in the file; 0 while it is in none
