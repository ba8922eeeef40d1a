"""The job servers of a client, and which to ask next.

Rule: they are tried in order until one answers; one that fails goes to the end of the order. To accept a connection is
not to answer: a job server has answered when it has replied to a request, within the connect timeout.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from geard.client.exchange import Exchange
from geard.client.reply import Reply
from geard.config import JobServer
from geard.connection import Connection
from geard.errors import CannotConnect, ConnectionLost, ServerTimeout
from geard.protocol import Command, request


class Servers:
    """Job servers, the next to try first. Not for use by two callers at once."""

    def __init__(self, servers: Sequence[JobServer], connect_timeout_seconds: float, max_packet_bytes: int) -> None:
        self._order = list(servers)
        self._timeout_seconds = connect_timeout_seconds
        self._max_packet_bytes = max_packet_bytes

    def __repr__(self) -> str:
        return f"<Servers {', '.join(map(str, self._order))}>"

    def connect(self, options: Sequence[str], deadline: float | None = None) -> Exchange:
        """An exchange with the first that answers, its options set. Raises CannotConnect with each one's reason."""
        reasons: list[str] = []
        refused = True
        for server in tuple(self._order):
            left = self._timeout_seconds
            if deadline is not None:
                left = min(left, deadline - time.monotonic())
            try:
                if left <= 0:
                    raise CannotConnect(f"cannot connect to {server}: no time left")
                return self._connect_to(server, options, left)
            except ConnectionLost as error:
                self.put_last(server)
                reasons.append(str(error))
                refused = refused and isinstance(error, CannotConnect) and error.refused
        raise unreachable(reasons, refused=refused)

    def put_last(self, server: JobServer) -> None:
        """It has failed: try the others before it."""
        self._order = sorted(
            self._order, key=lambda each: each == server
        )  # a sort in place is empty for others meanwhile

    def _connect_to(self, server: JobServer, options: Sequence[str], timeout_seconds: float) -> Exchange:
        deadline = time.monotonic() + timeout_seconds
        connection = Connection.dial(server, timeout_seconds=timeout_seconds)
        answered = False
        try:
            exchange = Exchange(connection, max_packet_bytes=self._max_packet_bytes)
            asked = [(Reply(Command.OPTION_RES), request(Command.OPTION_REQ, option.encode())) for option in options]
            asked.append((Reply(Command.ECHO_RES), request(Command.ECHO_REQ, b"geard")))
            for reply, packet in asked:
                exchange.post(reply, packet)
            exchange.flush(deadline)
            # An option that this job server does not know is answered by an error, and we do without it.
            answered = exchange.wait(asked[-1][0], asked[-1][0].answered, deadline)
            if not answered:
                raise ServerTimeout(
                    f"cannot connect to {server}: it accepts, but does not answer within {timeout_seconds:g} s"
                )
            return exchange
        finally:
            if not answered:
                connection.close()


def unreachable(reasons: Sequence[str], *, refused: bool) -> CannotConnect:
    """That none of some job servers can be reached, and why not each."""
    if len(reasons) == 1:
        return CannotConnect(reasons[0], refused=refused)
    lines = "\n".join(f"  {reason}" for reason in reasons)
    return CannotConnect(f"no job server can be reached:\n{lines}", refused=refused)
