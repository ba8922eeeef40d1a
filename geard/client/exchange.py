"""Exchange: one connection to a job server, shared by many callers, each of them blocking.

    exchange.send(reply, packet)  # or post, for several, and flush
    exchange.wait(reply, reply.answered, deadline)

Rules:
- Answers come in the order of the requests, so a reply is owed in the order in which the packets leave: whoever holds
  the pen moves both at once, the packets to the connection and the replies to what is owed.
- One caller leads: it reads for everybody until it has what it waits for. The others follow: they park, and are woken
  by news of their own or when nobody leads. Whoever leaves sees to it that somebody leads, if anybody is left.
- A caller may be interrupted anywhere (gevent.Timeout, KeyboardInterrupt) and leaves everything in order. So steps that
  belong together have no call between them, for Python handles signals only at calls and jumps back: such steps are
  marked "at once". What the caller was owed still comes and is dropped.
- Nor may the interrupt come back in: a signal handler that calls while a call of its own thread (or greenlet) below it
  reads or writes would wait for itself. It gets an error, before anything of its own is sent.
- The first error ends the exchange for all. Nothing is ever sent again.
- What arrives is the Inbox's business: who leads reads it and has it delivered.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from geard.client import fork
from geard.client.inbox import Inbox
from geard.client.reply import Bell, Reply
from geard.client.turn import Turn, reentered
from geard.config import JobServer
from geard.connection import Connection
from geard.errors import (
    ConnectionLost,
    InvalidRequest,
    ProtocolError,
)
from geard.protocol import DEFAULT_MAX_PACKET_BYTES, Command

RECHECK_SECONDS: Final = 1.0
"""How often a parked caller looks for itself: an interrupt may have hit its leader on the very way out."""

LOOK_SECONDS: Final = 0.001  # the shortest wait there is; a look takes no longer when nothing has arrived

LEADER: Final = "leader"
Token: TypeAlias = tuple[int]
"""Who leads: the thread or greenlet, in a tuple of this wait's own."""


class Exchange:
    """Requests and answers of many callers over one connection. Safe to share between threads and greenlets."""

    def __init__(self, connection: Connection, *, max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES) -> None:
        self.lost: ConnectionLost | None = None
        self._connection = connection
        self._inbox = Inbox(max_packet_bytes=max_packet_bytes)
        self._outbox: list[tuple[Reply, bytes]] = []  # posted, not yet sent
        self._owed = self._inbox.owed
        self._pen = Turn()
        self._leader: dict[str, Token] = {}  # at most LEADER and its token: setdefault takes the lead at once
        self._followers: dict[queue.SimpleQueue[None], None] = {}  # who is parked, the longest first
        fork.watch(self)

    def __repr__(self) -> str:
        state = "lost" if self.lost else f"{len(self._owed)} owed, {len(self._inbox.running)} running"
        return f"<Exchange {self._connection.server} {state}, {len(self._followers)} parked>"

    @property
    def server(self) -> JobServer:
        """The job server at the other end."""
        return self._connection.server

    @property
    def descriptor(self) -> int:
        """The connection's, readable when something has arrived; -1 once it is closed."""
        return self._connection.descriptor

    @property
    def outstanding(self) -> int:
        """How many requests wait to be sent or answered, and how many foreground jobs run."""
        return len(self._outbox) + len(self._owed) + len(self._inbox.running)

    def send(self, reply: Reply, packet: bytes, deadline: float | None = None) -> bool:
        """Send a request: `post` and `flush`, in the shortest way where no other is on the way."""
        pen = self._pen
        if deadline is not None or self._outbox or pen.holder or pen.takers or self._leader:
            self._outbox.append((reply, packet))
            return self.flush(deadline)
        me, connection = threading.get_ident(), self._connection
        with pen.lock:
            pen.holder = me  # at once
            try:
                if self._outbox or connection.unsent or self.lost is not None:
                    self._outbox.append((reply, packet))
                    return self._write(None)
                reply.sent = True
                # At once:
                connection.unsent = packet
                self._owed += (reply,)
                return connection.send(b"")
            except ConnectionLost as error:
                self.fail(error)
                return True
            finally:
                pen.holder = 0

    def post(self, reply: Reply, packet: bytes) -> None:
        """Put a request in the outbox; `flush` sends it, with what others have put there."""
        self._outbox.append((reply, packet))

    def flush(self, deadline: float | None = None) -> bool:
        """Send the outbox, and what others could not send to its end. False if the deadline came first.

        A connection that fails is `lost`. Raises InvalidRequest in a signal handler that has interrupted a call."""
        me, pen = threading.get_ident(), self._pen
        leader = self._leader.get(LEADER)
        if pen.held_by(me) or (leader is not None and leader[0] == me):
            raise reentered()
        if deadline is None:
            with pen.lock:
                pen.holder = me  # at once
                try:
                    return self._write(None)
                finally:
                    pen.holder = 0
        taken: list[bool] = []
        try:
            return pen.take(taken, deadline) and self._write(deadline)
        finally:
            if taken and taken[0]:
                taken[0] = False  # at once
                pen.lock.release()
            pen.forget(taken)

    def _write(self, deadline: float | None) -> bool:
        connection, outbox = self._connection, self._outbox
        if self.lost is None and connection.unsent and not self._send(deadline):
            # What waits meanwhile is not taken over: as long as none of it was sent, it can be withdrawn.
            batch = outbox[:]
            kept, taken = [entry for entry in batch if not entry[0].abandoned], len(batch)
            outbox[:taken] = kept
            return False
        batch = outbox[:]
        if self.lost is not None or not batch:
            return True
        replies, packets, taken = [], [], len(batch)
        for reply, packet in batch:
            if not reply.abandoned:
                reply.sent = True
                replies.append(reply)
                packets.append(packet)
        data = b"".join(packets)
        # At once:
        connection.unsent += data
        self._owed += replies
        del outbox[:taken]
        return self._send(deadline)

    def _send(self, deadline: float | None) -> bool:
        try:
            return self._connection.send(b"", deadline)
        except ConnectionLost as error:
            self.fail(error)
            return True

    def wait(self, reply: Reply, happened: Callable[[], bool], deadline: float | None = None) -> bool:
        """Wait until `happened()`, which news rung on the reply's bell can make true; False at the deadline.

        Raises ConnectionLost, or what kind of it ended the exchange; InvalidRequest as `flush` does."""
        token = (threading.get_ident(),)
        leader = self._leader
        try:
            while not happened():
                if self.lost is not None:
                    raise self.loss_of(reply)
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                leads = leader.setdefault(LEADER, token)
                if leads is token:
                    # In whole seconds while there are some: the socket's timeout then seldom changes.
                    self._read(left if left is None or left < 1 else left // 1)
                elif leads[0] == token[0]:
                    raise reentered()
                else:
                    self._follow(reply.bell, happened, left)
            return True
        finally:
            # At once:
            if LEADER in leader and leader[LEADER] is token:
                del leader[LEADER]
            # An interrupt from here on costs the others a moment: they look for themselves.
            if self._followers or self.lost is not None:
                self._hand_on()

    def look(self) -> None:
        """Take in what has arrived, without waiting for more; `lost` tells if the connection has ended."""
        with contextlib.suppress(ConnectionLost, InvalidRequest):
            self.wait(Reply(Command.NOOP), lambda: False, time.monotonic() + LOOK_SECONDS)

    def loss_of(self, reply: Reply) -> ConnectionLost:
        """What the end of the exchange means for a reply that has not come."""
        lost = self.lost
        assert lost is not None
        created = True if reply.fields is not None else None if reply.sent else False
        error = type(lost)(str(lost), job_created=created)
        error.__cause__ = lost
        return error

    def fail(self, error: ConnectionLost) -> None:
        """End the exchange: every caller that waits gets an error like this at once. Idempotent."""
        if self.lost is None:
            self.lost = error
        self._connection.interrupt()  # the leader's read ends, and it closes the connection as it leaves
        self._wake(*self._followers)
        if LEADER not in self._leader:
            self._connection.close()

    def forked(self, parent: int) -> None:
        """This is a child of the process that has the connection: it ends here, and only here."""
        lost = self.lost
        self.lost = fork.ForkedConnection(
            f"the connection to {self.server} and its jobs are those of the parent process {parent}, not of this child"
        )
        if lost is not None:
            self.lost = lost
        self._pen = Turn()
        self._connection.leave()
        self._wake(*self._followers)

    # --- reading -------------------------------------------------------------------------------------------------

    def _read(self, timeout_seconds: float | None) -> None:
        """Read once and deliver it; `lost` is set when the connection has failed."""
        inbox = self._inbox
        bells: list[Bell] = []
        try:
            if inbox.is_empty:
                chunk = self._connection.receive(timeout_seconds)
                if chunk is None:
                    return
                inbox.chunks += (chunk,)  # at once with the receive
            inbox.deliver(bells)
        except ProtocolError as error:
            self.fail(type(error)(f"{self.server}: {error}"))
        except ConnectionLost as error:
            self.fail(error)
        finally:
            for bell in bells:
                self._wake(*bell)

    # --- leading and following -----------------------------------------------------------------------------------

    def _follow(self, bell: Bell, happened: Callable[[], bool], left: float | None) -> None:
        """Park until there is news, until it may be our turn to lead, or for a while."""
        wakeup: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._followers[wakeup] = None
            bell.append(wakeup)
            # Look again, now that we can be woken: a leader that left before could not see us.
            if LEADER in self._leader and self.lost is None and not happened():
                with contextlib.suppress(queue.Empty):
                    wakeup.get(timeout=RECHECK_SECONDS if left is None else min(left, RECHECK_SECONDS))
        finally:
            # At once:
            if wakeup in self._followers:
                del self._followers[wakeup]
            # An interrupt here leaves a wakeup in the bell that nobody waits for.
            if wakeup in bell:
                bell.remove(wakeup)

    def _hand_on(self) -> None:
        """Whoever waited leaves: if nobody leads, wake one that may."""
        if LEADER in self._leader:
            return
        if self.lost is not None:
            self._connection.close()
        self._wake(*tuple(self._followers)[:1])

    @staticmethod
    def _wake(*followers: queue.SimpleQueue[None]) -> None:
        for follower in followers:
            follower.put(None)
