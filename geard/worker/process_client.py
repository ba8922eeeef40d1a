"""job.client: one client of the process, to all job servers of the config, for the jobs that follow from jobs.

Rules:
- It is made when it is first used, and costs nothing before.
- A socket belongs to the gevent hub, and so to the native thread, that it was made in; and never to a forked child. So
  the client has one connection for each of those that use it. In plain threads that is one for the process.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

from geard.client import Client
from geard.client.line import Line
from geard.config import JobServer

if TYPE_CHECKING:
    from geard.client.fleet import Fleet


class ProcessClient(Client):
    """See the module. `whose` tells which of those that may not share a connection the caller belongs to.

    What a call returns is to be used where it was called: a Task is waited for in its own thread."""

    def __init__(
        self, servers: Sequence[JobServer], *, encoding: str, max_packet_bytes: int, whose: Callable[[], Hashable]
    ) -> None:
        self._whose = whose
        self._conversations: dict[Hashable, Line | Fleet] = {}
        self._closed = False
        super().__init__(servers, encoding=encoding, max_packet_bytes=max_packet_bytes)

    @property
    def _conversation(self) -> Line | Fleet:
        key = os.getpid(), self._whose()
        found = self._conversations.get(key)
        if found is None:
            found = self._conversations.setdefault(key, self._converse())  # of two threads at once, one makes it
            if self._closed:
                found.close()
        return found

    def close(self) -> None:
        """Close the caller's connection, and have no further ones; those of other threads go with the process."""
        self._closed = True
        self._conversation.close()
