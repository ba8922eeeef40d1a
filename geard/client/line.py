"""Line: what a Client talks through when it has one job server at a time (`choose="first"`).

Client knows the methods here, and those of Fleet, which has the same for many job servers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from geard.client import bulk
from geard.client.conversation import Conversation
from geard.client.exchange import Exchange
from geard.client.reply import Reply, fields_of
from geard.client.results import text_of
from geard.client.state import JobState, job_state
from geard.errors import InvalidRequest
from geard.protocol import Command

T = TypeVar("T")


class Line(Conversation):
    """A conversation, and what a client does over one."""

    @staticmethod
    def handle_of(reply: Reply, exchange: Exchange) -> str:
        """The handle in the answer to a submission."""
        fields = reply.fields
        assert fields is not None
        return text_of(fields[0])

    def state_of(self, handle: str, expected: Command, packet: bytes, deadline: float | None) -> JobState:
        """What is answered to a question about a job."""
        reply = Reply(expected)
        self.ask(reply, packet, deadline)
        return job_state(fields_of(reply))

    def set_option(self, name: str, packet: bytes, deadline: float | None) -> None:
        """Set an option of the connection, and of those to come."""
        self.ask(Reply(Command.OPTION_RES), packet, deadline)
        self.keep_option(name)

    def set_servers(self, servers: object) -> None:
        """It stays with those that it began with."""
        raise InvalidRequest('set_servers is for a client of several job servers: choose="spread" or "unique"')

    def submit_all(self, packets: Iterable[bytes], timeout: float | None) -> Iterator[str]:
        """Submit background jobs and yield their handles, in order."""
        return map(text_of, bulk.submit_all(self, packets, timeout))

    def window(
        self,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
        timeout: float | None,
    ) -> bulk.Window[T]:
        """The jobs of one map."""
        return bulk.LineWindow(self, packet_of, workloads, concurrency=concurrency, ordered=ordered, timeout=timeout)
