"""What the job server owes a client: one answer to each request, and for a foreground job what the worker sends.

These are records without behaviour of their own: Exchange fills them in, whoever made them reads them.
"""

from __future__ import annotations

import queue
from collections import deque
from typing import TypeAlias

from geard.errors import GeardError
from geard.protocol import Command, Packet

JOB_CREATED = Command.JOB_CREATED

Bell: TypeAlias = "list[queue.SimpleQueue[None]]"
"""Callers to wake when there is news; a reply may share its bell with others."""


class Reply:
    """The answer that one request gets, in the order of the requests."""

    __slots__ = ("abandoned", "bell", "error", "expected", "fields", "sent")

    def __init__(self, expected: Command, bell: Bell | None = None) -> None:
        self.expected = expected
        self.bell: Bell = [] if bell is None else bell
        self.fields: list[bytes] | None = None  # of the answer, when it came
        self.error: GeardError | None = None  # what came instead
        self.sent = False  # whether any of the request may have left
        self.abandoned = False  # whether nobody waits any more: if it was not sent, it need not be

    def __repr__(self) -> str:
        state = "answered" if self.answered() else "abandoned" if self.abandoned else "sent" if self.sent else "new"
        return f"<{type(self).__name__} {self.expected.name} {state}>"

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.abandoned = True

    def answered(self) -> bool:
        """Whether the job server has answered, be it with an error."""
        return self.fields is not None or self.error is not None


class Submission(Reply):
    """A foreground job: its JOB_CREATED is the reply, then come WORK_… packets until one that ends it."""

    __slots__ = ("end", "finished", "news", "wants_all")

    def __init__(
        self, bell: Bell | None = None, *, wants_all: bool = False, finished: deque[Submission] | None = None
    ) -> None:
        # Reply.__init__ once more, for speed:
        self.expected = JOB_CREATED
        self.bell = [] if bell is None else bell
        self.fields = self.error = None
        self.sent = self.abandoned = False
        self.news: list[Packet] = []  # WORK_DATA; and WORK_STATUS and WORK_WARNING where `wants_all`
        self.wants_all = wants_all
        self.end: Packet | None = None  # WORK_COMPLETE, WORK_FAIL or WORK_EXCEPTION
        self.finished = finished  # the submission is put there when it ends or is refused

    def abandon(self) -> None:
        """Nobody waits any more: what has come is dropped, and what comes will be."""
        self.abandoned = True
        self.news = []

    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.end is not None or self.error is not None


def fields_of(reply: Reply) -> list[bytes]:
    """What the job server has answered."""
    if reply.fields is None:
        raise RuntimeError(f"{reply!r} has no answer")
    return reply.fields
