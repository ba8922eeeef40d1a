"""Member: one job server of a fleet: its conversation, and whether it can be had now.

Rules:
- It is dialled in a thread of its own (a greenlet where threads are those), so that nobody has to wait for it.
- One attempt at a time. Who begins it is decided by one call of C code, for a caller may be interrupted anywhere.
- One that cannot be reached is left out, and tried again after a jittered wait.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from geard.client.conversation import Conversation
from geard.client.exchange import Exchange
from geard.config import JobServer
from geard.errors import CannotConnect, ConnectionLost, InvalidRequest
from geard.reconnect import Backoff

PROVEN_SECONDS: Final = 1.0
"""A connection that has lasted so long was a good one: when it is lost, the next is made at once."""

SPARE_SECONDS: Final = 5.0
"""An attempt that takes so much longer than it may was interrupted before it began."""

DIALLING: Final = "dialling"
Attempt: TypeAlias = tuple[float]
"""When it began, by time.monotonic(), in a tuple of its own."""


class Member:
    """See the module. `ended` is told when an attempt to connect has ended, well or not, in its thread."""

    def __init__(
        self, server: JobServer, conversation: Conversation, dial_seconds: float, ended: Callable[[Member], None]
    ) -> None:
        self.server = server
        self.address = str(server)
        self.conversation = conversation
        self.left_out = False
        """Whether it could not be reached when it was last tried, or has just broken a fresh connection."""
        self.given = 0
        """How many submissions it was chosen for; for one that comes up, as many as the one with the fewest."""
        self.failure: CannotConnect | None = None
        """Why, while it is left out."""
        self.tried_at = 0.0
        """When the last attempt to connect ended, well or not, by time.monotonic()."""
        self._due = 0.0  # when to try again, likewise
        self._up_since: float | None = None
        self._dial_seconds = dial_seconds
        self._ended = ended
        self._backoff = Backoff()
        self._attempt: dict[str, Attempt] = {}  # at most DIALLING and its attempt

    def __repr__(self) -> str:
        state = "up" if self.up else "left out" if self.left_out else "dialling" if self.dialling else "not connected"
        return f"<Member {self.address} {state}>"

    @property
    def up(self) -> bool:
        """Whether it has a connection, as far as is known without a look at it."""
        return self.conversation.current is not None

    @property
    def dialling(self) -> bool:
        """Whether an attempt to connect is under way."""
        attempt = self._attempt.get(DIALLING)
        return attempt is not None and time.monotonic() - attempt[0] < self._dial_seconds + SPARE_SECONDS

    @property
    def dialled_at(self) -> float:
        """When the attempt that is under way began, by time.monotonic(); now where none is."""
        attempt = self._attempt.get(DIALLING)
        return time.monotonic() if attempt is None else attempt[0]

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

    def dial(self) -> None:
        """Begin an attempt to connect, unless one is under way. Does not wait."""
        if self.dialling or self.up:
            return
        attempt = (time.monotonic(),)
        self._attempt.pop(DIALLING, None)
        if self._attempt.setdefault(DIALLING, attempt) is attempt:
            try:
                threading.Thread(target=self._dial, args=(attempt,), name=f"dial {self.address}", daemon=True).start()
            except RuntimeError as error:  # no more threads are to be had
                self._over(attempt, CannotConnect(f"cannot connect to {self.address}: {error}"))

    def _dial(self, attempt: Attempt) -> None:
        failure: ConnectionLost | None = CannotConnect(f"cannot connect to {self.address}: interrupted")
        try:
            self.conversation.exchange()
            failure = None
        except ConnectionLost as error:
            failure = error
        except InvalidRequest:  # closed meanwhile
            failure = None
        finally:
            self._over(attempt, failure)

    def _over(self, attempt: Attempt, failure: ConnectionLost | None) -> None:
        if self._attempt.get(DIALLING) is not attempt:
            return  # a fork has made it another process's
        if failure is None:
            self.came_up()
        else:
            self.fail(failure)
        self.tried_at = time.monotonic()
        self._attempt.pop(DIALLING, None)
        self._ended(self)

    def came_up(self) -> None:
        """It has answered."""
        self._up_since = time.monotonic()
        self._backoff.connected()
        self.left_out, self.failure = False, None

    def forked(self) -> None:
        """This is a child process: what the parent dials and has is the parent's."""
        self._attempt = {}
        self._up_since = None
