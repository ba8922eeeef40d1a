"""What the job server owes a client: one answer to each request, and for a foreground job what the worker sends.

These are records without behaviour of their own: Exchange fills them in, whoever made them reads them.
"""

from __future__ import annotations

import queue
from collections import deque
from typing import TypeAlias

from msgspec import Struct

from geard.errors import GeardError
from geard.protocol import Command, Packet

JOB_CREATED = Command.JOB_CREATED

Bell: TypeAlias = "list[queue.SimpleQueue[None]]"
"""Callers to wake when there is news; a reply may share its bell with others."""


class Reply(Struct, eq=False):
    """The answer that one request gets, in the order of the requests.

    A Struct, since one is made for every job: that costs a third of a class with an __init__."""

    expected: Command
    """The packet that answers the request."""
    bell: Bell = []
    fields: list[bytes] | None = None
    """Of the answer, when it came."""
    error: GeardError | None = None
    """What came instead."""
    sent: bool = False
    """Whether any of the request may have left."""
    abandoned: bool = False
    """Whether nobody waits any more: if it was not sent, it need not be."""

    def __repr__(self) -> str:
        state = "answered" if self.answered() else "abandoned" if self.abandoned else "sent" if self.sent else "new"
        return f"<{type(self).__name__} {self.expected.name} {state}>"

    def abandon(self) -> None:
        """Nobody waits any more."""
        self.abandoned = True

    def answered(self) -> bool:
        """Whether the job server has answered, be it with an error."""
        return self.fields is not None or self.error is not None


class Submission(Reply, eq=False):
    """A foreground job: its JOB_CREATED is the reply, then come WORK_… packets until one that ends it."""

    expected: Command = JOB_CREATED
    wants_all: bool = False
    news: list[Packet] = []
    """WORK_DATA; and WORK_STATUS and WORK_WARNING where it `wants_all`."""
    result: bytes | None = None
    """The data of the WORK_COMPLETE that ended it."""
    end: Packet | None = None
    """What ended it otherwise: WORK_FAIL or WORK_EXCEPTION, or a WORK_COMPLETE too large for this client."""
    finished: deque[Submission] | None = None
    """It is put there when it ends or is refused."""

    def abandon(self) -> None:
        """Nobody waits any more: what has come is dropped, and what comes will be."""
        self.abandoned = True
        self.news = []

    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.result is not None or self.end is not None or self.error is not None


def fields_of(reply: Reply) -> list[bytes]:
    """What the job server has answered."""
    if reply.fields is None:
        raise RuntimeError(f"{reply!r} has no answer")
    return reply.fields
