"""Member: one job server of a fleet: its conversation, and whether it can be had now.

Rule: one that cannot be reached is left out, and tried again after a jittered wait.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import Final

from geard.client.conversation import Conversation
from geard.client.dials import Dials
from geard.client.exchange import Exchange
from geard.config import JobServer
from geard.errors import CannotConnect, ConnectionLost
from geard.reconnect import Backoff

PROVEN_SECONDS: Final = 1.0
"""A connection that has lasted so long was a good one: when it is lost, the next is made at once."""

_number = itertools.count()


class Member:
    """See the module. A Candidate of a Spread. `dials` makes the attempts to connect."""

    def __init__(self, server: JobServer, conversation: Conversation, dials: Dials) -> None:
        self.server = server
        self.address = str(server)
        self.conversation = conversation
        self.number = next(_number)
        self.turn = 0.0
        self.missed = 0.0
        self.taken = self.answered = self.heard = 0
        self.left_out = False
        """Whether it could not be reached when it was last tried, or has just broken a fresh connection."""
        self.failure: CannotConnect | None = None
        """Why, while it is left out."""
        self.tried_at = 0.0
        """When the last attempt to connect ended, well or not, by time.monotonic()."""
        self._due = 0.0  # when to try again, likewise
        self._up_since: float | None = None
        self._dials = dials
        self._backoff = Backoff()

    def __repr__(self) -> str:
        state = "up" if self.up else "left out" if self.left_out else "dialling" if self.dialling else "not connected"
        return f"<Member {self.address} {state}>"

    @property
    def up(self) -> bool:
        """Whether it has a connection, as far as is known without a look at it."""
        return self.conversation.current is not None

    @property
    def dialling(self) -> bool:
        """Whether an attempt to connect is under way, or waits for its place."""
        return self._dials.has(self)

    @property
    def outstanding(self) -> int:
        """What it owes this client."""
        exchange = self.conversation.current
        return 0 if exchange is None else exchange.outstanding

    def living(self) -> Exchange | None:
        """Its exchange; None, after a look, where there is none or it has ended."""
        return self.conversation.living()

    def notice(self) -> None:
        """It is not up: see to when it may be dialled again, if it was."""
        if self._up_since is None or self.up:
            return
        lasted, self._up_since = time.monotonic() - self._up_since, None
        if lasted >= PROVEN_SECONDS:
            self._backoff.succeeded()
            self._due = 0.0
        else:
            self.fail(ConnectionLost(f"{self.address} has closed a fresh connection"))

    def fail(self, error: ConnectionLost) -> None:
        """Leave it out for a while: this has gone wrong."""
        self.failure = error if isinstance(error, CannotConnect) else CannotConnect(str(error))
        self._backoff.failed(error)
        self._due = time.monotonic() + self._backoff.wait_seconds(random.random)
        self.left_out = True

    def is_due(self, now: float) -> bool:
        """Whether to try it again now, in passing: it is not up, and has waited for long enough."""
        return now >= self._due and not self.dialling

    def came_up(self) -> None:
        """It has answered."""
        self._up_since = time.monotonic()
        self._backoff.connected()
        self.left_out, self.failure = False, None

    def forked(self) -> None:
        """This is a child process: what the parent has is the parent's."""
        self._up_since = None
