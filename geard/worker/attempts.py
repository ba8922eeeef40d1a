"""Which attempt at a job this is, carried by its unique from one job server's queue to whichever worker gets it.

A background job that is to run again later is submitted anew, as a delayed job. Its unique must differ from that of
the job that still runs, or it would join it: `geard:retry:ATTEMPT:FIRST-FAILURE:UNIQUE`, the original hashed where the
whole has over 64 bytes. Another worker than geard's just runs it.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

PREFIX: Final = b"geard:retry:"
MAX_UNIQUE_BYTES: Final = 64
HASHED: Final = b"#"
MAX_DIGITS: Final = 11
"""A client may write anything into a unique: longer numbers are none of ours, and fit neither a letter nor a date."""


class Attempt(NamedTuple):
    """`number` counts from 1. `first_failed_at`: Unix seconds; None at the first attempt. `unique`: the original."""

    number: int
    first_failed_at: int | None
    unique: bytes


def read(unique: bytes) -> Attempt:
    """What a job's unique says."""
    if unique.startswith(PREFIX):
        number, _, rest = unique[len(PREFIX) :].partition(b":")
        first, colon, original = rest.partition(b":")
        if colon and _is_number(number) and _is_number(first) and int(number) > 1:
            return Attempt(int(number), int(first), original)
    return Attempt(1, None, unique)


def whole(attempt: Attempt) -> bytes:
    """A unique that says it, for geard's own processes: no job server would take one so long."""
    if attempt.first_failed_at is None:
        return attempt.unique
    return _head(attempt) + attempt.unique


def write(attempt: Attempt) -> bytes:
    """The unique that says it. Raises ValueError for a first attempt."""
    if attempt.number < 2 or attempt.first_failed_at is None:
        raise ValueError(f"{attempt} needs no unique of its own")
    head = _head(attempt)
    if len(head) + len(attempt.unique) <= MAX_UNIQUE_BYTES:
        return head + attempt.unique
    return head + HASHED + blake2b(attempt.unique, digest_size=12).hexdigest().encode()


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= MAX_DIGITS


def _head(attempt: Attempt) -> bytes:
    return b"%s%d:%d:" % (PREFIX, attempt.number, attempt.first_failed_at or 0)
