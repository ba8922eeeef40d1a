"""The same failure of the same function again and again: the first is written whole, the others are counted. Pure.

Two failures are the same when function, kind and the places of the traceback are; their texts may differ. The count is
due after `interval_seconds`; a failure that did not come again in one interval is written whole when it comes next.
"""

from __future__ import annotations

from collections.abc import Hashable
from types import TracebackType
from typing import Final, Generic, NamedTuple, TypeVar

T = TypeVar("T")

MOST_KEYS: Final = 1000
"""How many different failures are remembered; the oldest makes room."""
MOST_PLACES: Final = 50


class Repeated(NamedTuple, Generic[T]):
    """A failure that came `times` times more within `seconds`; `last` is what was said of the last of them."""

    times: int
    seconds: float
    last: T


class _Seen(Generic[T]):
    __slots__ = ("count", "last", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.count = 0
        self.last: T | None = None


class Repeats(Generic[T]):
    """What was seen of late. An interval of 0: nothing is ever the same."""

    def __init__(self, interval_seconds: float) -> None:
        self.interval_seconds = interval_seconds
        self._seen: dict[Hashable, _Seen[T]] = {}  # the oldest first

    def __len__(self) -> int:
        return len(self._seen)

    def is_first(self, key: Hashable, said: T, now: float) -> bool:
        """Whether this one is to be written whole; else it is counted, with what is said of it."""
        if not self.interval_seconds:
            return True
        seen = self._seen.get(key)
        if seen is None:
            self._seen[key] = _Seen(now)
            return True
        seen.count += 1
        seen.last = said
        return False

    def due(self, now: float, *, all_of_them: bool = False) -> list[Repeated[T]]:
        """The counts whose interval is over, and those that have to make room; with `all_of_them` every count."""
        found = []
        while self._seen:
            key = next(iter(self._seen))
            seen = self._seen[key]
            seconds, surplus = now - seen.since, len(self._seen) > MOST_KEYS
            if seconds < self.interval_seconds and not surplus and not all_of_them:
                break
            del self._seen[key]
            if seen.count and seen.last is not None:
                found.append(Repeated(seen.count, seconds, seen.last))
                if not surplus and not all_of_them:
                    self._seen[key] = _Seen(now)  # at the end: it is the youngest now
        return found


def places(traceback: TracebackType | None) -> tuple[tuple[str, int], ...]:
    """Where a traceback leads: its innermost places, as something that can be compared."""
    found = []
    while traceback is not None:
        found.append((traceback.tb_frame.f_code.co_filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return tuple(found[-MOST_PLACES:])
