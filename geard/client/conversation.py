"""Conversation: the exchanges of one client, one after the other.

Rules: there is one exchange at a time; when it is lost, the next request makes another, with the first job server that
answers. What was asked on the lost one is never asked again: its error says what is known of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from geard.client import fork
from geard.client.exchange import Exchange
from geard.client.reply import Reply
from geard.client.servers import Servers
from geard.client.turn import Turn
from geard.errors import CannotConnect, ConnectionLost, InvalidRequest, JobTimeout, ServerTimeout

IDLE_SECONDS: Final = 1.0  # a connection unused for so long is looked at before it is used again


class Conversation:
    """Asks, and waits for answers, on an exchange that it makes when first needed. Safe to share between threads.

    `options` are set on each exchange. A job server that owes an answer for `answer_timeout_seconds` is given up."""

    def __init__(self, servers: Servers, options: Iterable[str], answer_timeout_seconds: float) -> None:
        self._servers = servers
        self._options = list(options)
        self.answer_timeout_seconds = answer_timeout_seconds
        self._exchange: Exchange | None = None
        self._connecting = Turn()
        self._failure: CannotConnect | None = None  # the last attempt's that had all the time it wanted
        self._failed = 0.0  # when, by time.monotonic()
        self._used = 0.0  # when the exchange was last used, by time.monotonic()
        self._closed = False
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<Conversation {self.state}>"

    @property
    def state(self) -> str:
        """What it is at, in a word or by the exchange's own repr."""
        return "closed" if self._closed else repr(self._exchange or self._servers)

    def ask(self, reply: Reply, packet: bytes, deadline: float | None = None) -> Exchange:
        """Send a request and wait for its answer. Raises what the answer is if it is an error."""
        exchange, now = self._exchange, time.monotonic()
        if exchange is not None and exchange.lost is None and now - self._used < IDLE_SECONDS:
            self._used = now
        else:
            exchange = self.exchange(deadline)
        return self.ask_over(exchange, reply, packet, deadline)

    def ask_over(self, exchange: Exchange, reply: Reply, packet: bytes, deadline: float | None) -> Exchange:
        """The same, over one of its exchanges. ConnectionLost where that has ended, whether or not it was sent."""
        try:
            if not exchange.send(reply, packet, deadline):
                fate = "the job's fate is unknown" if reply.sent else "nothing of it was sent"
                raise JobTimeout(f"{exchange.server} has not taken the request in time; {fate}")
            self.wait(exchange, reply, deadline)
        except BaseException:
            reply.abandon()
            raise
        return exchange

    def wait(self, exchange: Exchange, reply: Reply, deadline: float | None = None) -> None:
        """Wait for the answer to a request that was sent, and raise it if it is an error."""
        patience = time.monotonic() + self.answer_timeout_seconds
        if deadline is not None and deadline < patience:
            if not exchange.wait(reply, reply.answered, deadline):
                raise JobTimeout(f"{exchange.server} has not answered in time; the job's fate is unknown")
        elif not exchange.wait(reply, reply.answered, patience):
            self.give_up(exchange)
            raise exchange.loss_of(reply)
        if reply.error is not None:
            raise reply.error

    def give_up(self, exchange: Exchange) -> None:
        """It has owed an answer for too long. They come in order: as long as one is missing, no other can come."""
        exchange.fail(ServerTimeout(f"{exchange.server} has not answered within {self.answer_timeout_seconds:g} s"))

    def exchange(self, deadline: float | None = None) -> Exchange:
        """The exchange in use, or a new one. Raises CannotConnect, InvalidRequest if it is closed."""
        exchange = self._exchange
        before, self._used = self._used, time.monotonic()
        if exchange is not None and exchange.lost is None and self._used - before < IDLE_SECONDS:
            return exchange
        asked = self._used
        turn, taken = self._connecting, list[bool]()  # a fork replaces the turn
        try:
            if not turn.take(taken, deadline):
                raise CannotConnect(f"cannot connect in time: another caller is at it, to {self._servers}")
            return self._connected(asked, deadline)
        finally:
            if taken and taken[0]:
                taken[0] = False  # at once
                turn.lock.release()
            turn.forget(taken)

    @property
    def current(self) -> Exchange | None:
        """The exchange in use, as far as is known without a look at it; None where the next request makes one."""
        exchange = self._exchange
        return None if exchange is None or exchange.lost is not None else exchange

    def living(self) -> Exchange | None:
        """The same, after a look if it was unused for a while."""
        exchange, now = self.current, time.monotonic()
        if exchange is None:
            return None
        before, self._used = self._used, now
        if now - before < IDLE_SECONDS:
            return exchange
        exchange.look()
        return self.current

    @property
    def idle(self) -> bool:
        """Whether nobody has used it for a while."""
        return time.monotonic() - self._used >= IDLE_SECONDS

    def _connected(self, asked: float, deadline: float | None) -> Exchange:
        if self._closed:
            raise InvalidRequest("the client is closed")
        exchange = self._exchange
        if exchange is not None:
            if exchange.lost is None:
                exchange.look()
            if exchange.lost is None:
                return exchange
            self._servers.put_last(exchange.server)
        if self._failure is not None and self._failed >= asked:
            raise CannotConnect(str(self._failure), refused=self._failure.refused)  # news since we have been waiting
        try:
            self._exchange = exchange = self._servers.connect(self._options, deadline)
        except CannotConnect as error:
            if deadline is None:
                self._failure, self._failed = error, time.monotonic()
            raise
        if self._closed:  # meanwhile
            self.close()
            raise InvalidRequest("the client is closed")
        return exchange

    def forked(self, parent: int) -> None:
        """This is a child of the process that has the exchange: make another when it is needed."""
        self._exchange = None
        self._connecting = Turn()

    def keep_option(self, name: str) -> None:
        """Set this option on the exchanges to come, too."""
        if name not in self._options:
            self._options.append(name)

    def close(self) -> None:
        """Close the connection; whoever still waits gets ConnectionLost. Idempotent."""
        self._closed = True
        exchange = self._exchange
        if exchange is not None and exchange.lost is None:
            exchange.fail(ConnectionLost(f"the client has closed its connection to {exchange.server}"))
