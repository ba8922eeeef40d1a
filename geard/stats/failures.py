"""Failures: what is kept of a job that failed, and for how long.

Rule: whatever a job says of itself, what is kept of it is bounded here.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from itertools import islice
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

KEPT_FAILURES: Final = 200
KEPT_GROUPS: Final = 500
MAX_TRACEBACK_BYTES: Final = 8 * 1024
MAX_WORKLOAD_BYTES: Final = 4 * 1024
MAX_TEXT_BYTES: Final = 1024
MAX_NAME_BYTES: Final = 256
CUT: Final = "\n[…]\n"


class Failure(Struct, frozen=True, omit_defaults=True):
    """One job that failed. `number` counts them as the supervisor hears of them, and is 0 before that."""

    function: str
    handle: str
    unique: str
    server: str
    time: float  # Unix time of its end
    type: str  # of the exception, such as ValueError; "timeout", or "" when the function only said that it failed
    text: str
    traceback: str = ""
    workload: bytes | None = None  # None: not kept
    workload_bytes: int = 0  # of the whole workload
    process: str = ""  # as the log names it: `worker 2[4711]`
    number: int = 0

    def bounded(self) -> Failure:
        """The same with everything cut to its length. The supervisor does not rely on the worker process for it."""
        return replace(
            self,
            function=cut(self.function, MAX_NAME_BYTES),
            handle=cut(self.handle, MAX_NAME_BYTES),
            unique=cut(self.unique, MAX_NAME_BYTES),
            server=cut(self.server, MAX_NAME_BYTES),
            type=cut(self.type, MAX_NAME_BYTES),
            text=cut(self.text, MAX_TEXT_BYTES),
            traceback=cut_middle(self.traceback, MAX_TRACEBACK_BYTES),
            workload=None if self.workload is None else self.workload[:MAX_WORKLOAD_BYTES],
            process=cut(self.process, MAX_NAME_BYTES),
        )


class FailureGroup(Struct):
    """The failures of one function by one type of error, since the daemon started or since they were forgotten."""

    function: str
    type: str
    count: int
    first_time: float
    last_time: float


class Failures:
    """The last failures, and how many there were of each kind."""

    def __init__(self, keep: int = KEPT_FAILURES) -> None:
        self._kept: deque[Failure] = deque(maxlen=keep)
        self._groups: OrderedDict[tuple[str, str], FailureGroup] = OrderedDict()
        self.last_number = 0

    def add(self, failure: Failure) -> None:
        """Keep one; the oldest goes for it."""
        self.last_number += 1
        failure = replace(failure.bounded(), number=self.last_number)
        self._kept.append(failure)
        key = (failure.function, failure.type)
        group = self._groups.setdefault(key, FailureGroup(*key, 0, failure.time, failure.time))
        group.count += 1
        group.last_time = failure.time
        self._groups.move_to_end(key)
        if len(self._groups) > KEPT_GROUPS:
            self._groups.popitem(last=False)

    def newest(self, limit: int = KEPT_FAILURES, *, function: str = "", after: int = 0) -> list[Failure]:
        """Newest first: of one function, or of all; those with a number above `after`."""
        return list(islice(self._matching(function, after), limit))

    def groups(self) -> list[FailureGroup]:
        """Each kind of failure, the one that happened last first."""
        return list(reversed(self._groups.values()))

    def _matching(self, function: str, after: int) -> Iterator[Failure]:
        for failure in reversed(self._kept):
            if failure.number <= after:
                return
            if not function or failure.function == function:
                yield failure


def cut(text: str, most_bytes: int) -> str:
    """Text of at most so many bytes in UTF-8; what was cut off shows as `…`."""
    if len(text) * 4 <= most_bytes:
        return text
    data = text.encode(errors="backslashreplace")
    return text if len(data) <= most_bytes else data[: most_bytes - 3].decode(errors="ignore") + "…"


def cut_middle(text: str, most_bytes: int) -> str:
    """The same for a traceback, whose end says most: a quarter of what is kept is its begin."""
    if len(text) * 4 <= most_bytes:
        return text
    data = text.encode(errors="backslashreplace")
    if len(data) <= most_bytes:
        return text
    room = most_bytes - len(CUT.encode())
    head, tail = data[: room // 4], data[-(room - room // 4) :]
    return head.decode(errors="ignore") + CUT + tail.decode(errors="ignore")
