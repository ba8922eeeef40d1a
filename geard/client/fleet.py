"""Fleet: the job servers of a client that uses them all (`choose="spread"` or `"unique"`), one conversation for each.

Rules:
- A submission goes on to another job server only as long as nothing of it was sent. From its first byte on, it is its
  job server's.
- A job server is dialled by its Member only, which so knows all that comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from geard.client import fleet_bulk, fork
from geard.client.bulk import Window
from geard.client.choice import Choose
from geard.client.chooser import Chooser
from geard.client.conversation import Conversation
from geard.client.exchange import Exchange
from geard.client.handle import Handle
from geard.client.member import Member
from geard.client.questions import Question
from geard.client.reply import Reply, fields_of
from geard.client.results import text_of
from geard.client.state import JobState, job_state, most_telling
from geard.client.turn import Turn
from geard.config import JobServer
from geard.errors import ConnectionLost, InvalidRequest
from geard.protocol import Command

T = TypeVar("T")


class Fleet:
    """See the module, and Line for what a client needs of it. Safe to share between threads and greenlets.

    `converse` makes the conversation with one job server; connecting takes at most `dial_seconds`."""

    def __init__(
        self,
        servers: Iterable[JobServer],
        converse: Callable[[JobServer], Conversation],
        *,
        choose: Choose,
        dial_seconds: float,
    ) -> None:
        self._converse = converse
        self._options: list[str] = []  # that were set after the beginning
        self._known: dict[str, Member] = {}  # by address; those that were taken out, too, while they owe something
        self._chooser = Chooser(dial_seconds, by_unique=choose == "unique")
        self._closed = False
        self._changing = Turn()  # the list of job servers
        self.set_servers(servers)
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<Fleet {self.state}>"

    @property
    def _members(self) -> tuple[Member, ...]:
        return self._chooser.members

    @property
    def state(self) -> str:
        """How many of the job servers are up, and which are not."""
        if self._closed:
            return "closed"
        down = [member.address for member in self._members if not member.up]
        words = f"{len(self._members) - len(down)} of {len(self._members)} job servers connected"
        left_out = [member.address for member in self._members if member.left_out and not member.up]
        return f"{words}, {', '.join(left_out)} cannot be reached" if left_out else words

    def set_servers(self, servers: Iterable[JobServer]) -> None:
        """Choose among these from now on. Those that are no longer among them keep their connection for the jobs that
        they have, until the next call that finds nothing outstanding there, and that nobody has used it for a while."""
        wanted: dict[str, JobServer] = {}
        for server in servers:
            if wanted.setdefault(str(server), server) != server:
                raise InvalidRequest(f"{server} is named twice, with different TLS settings")
        if not wanted:
            raise InvalidRequest("a client needs at least one job server")
        turn, taken = self._changing, list[bool]()  # a fork replaces the turn
        try:
            turn.take(taken, None)
            self._change(wanted)
        finally:
            if taken and taken[0]:
                taken[0] = False  # at once
                turn.lock.release()
            turn.forget(taken)

    def _change(self, wanted: dict[str, JobServer]) -> None:
        known = self._known
        for address, server in wanted.items():
            if address in known and known[address].server != server:
                raise InvalidRequest(f"{address} is known with other TLS settings: make another client for them")
        for address, member in list(known.items()):
            # Not at once: a caller may have chosen it already, and not posted to it yet.
            unwanted = address not in wanted and member not in self._members
            if unwanted and not member.outstanding and member.conversation.idle:
                del known[address]
                member.conversation.close()
        for address, server in wanted.items():
            if address not in known:
                known[address] = member = Member(server, self._converse(server), self._chooser.dials)
                for name in self._options:
                    member.conversation.keep_option(name)
        self._chooser.choose_among(tuple(known[address] for address in wanted))

    # --- what Client does ----------------------------------------------------------------------------------------

    def ask(self, reply: Reply, packet: bytes, deadline: float | None = None) -> Exchange:
        """Send a request to the job server that it is for, and wait for its answer: see Conversation.ask."""
        submission = reply.expected is Command.JOB_CREATED
        while True:
            member, exchange = self._chooser.choose(packet if submission else None, deadline)
            try:
                return member.conversation.ask_over(exchange, reply, packet, deadline)
            except ConnectionLost:
                if reply.sent or self._closed:
                    raise
                reply.abandoned = False  # it was lost between the choice and the request

    def exchange(self, packet: bytes, deadline: float | None) -> Exchange:
        """The exchange with the job server that a submission is for."""
        return self._chooser.choose(packet, deadline)[1]

    def wait(self, exchange: Exchange, reply: Reply, deadline: float | None = None) -> None:
        """Wait for the answer to a request that was sent there, and raise it if it is an error."""
        self._any.wait(exchange, reply, deadline)

    def give_up(self, exchange: Exchange) -> None:
        """It has owed an answer for too long."""
        self._any.give_up(exchange)

    @property
    def answer_timeout_seconds(self) -> float:
        """After which it has."""
        return self._any.answer_timeout_seconds

    @property
    def _any(self) -> Conversation:
        """All wait alike."""
        return self._members[0].conversation

    @staticmethod
    def handle_of(reply: Reply, exchange: Exchange) -> Handle:
        """The handle in the answer to a submission."""
        return Handle(text_of(fields_of(reply)[0]), exchange.server)

    def state_of(self, handle: str, expected: Command, packet: bytes, deadline: float | None) -> JobState:
        """What the job server of a Handle knows of a job; for other text, what all of them together do.

        Raises why one could not be asked where none of the others knows the job: it may be that one's."""
        if isinstance(handle, Handle):
            member = self._known.get(str(handle.server))
            if member is None:
                addresses = ", ".join(member.address for member in self._members)
                raise InvalidRequest(f"{handle} is a job of {handle.server}, which is none of {addresses}")
            reply = Reply(expected)
            member.conversation.ask_over(self._chooser.reached(member, deadline), reply, packet, deadline)
            return job_state(fields_of(reply))

        def told(replies: list[Reply]) -> JobState:
            return most_telling([job_state(fields_of(reply)) for reply in replies])

        question = Question(self._chooser, expected, packet, enough=lambda replies: told(replies).known)
        replies, failure = question.ask(deadline)
        state = told(replies)
        if failure is not None and not state.known:
            raise failure
        return state

    def set_option(self, name: str, packet: bytes, deadline: float | None) -> None:
        """Set an option of all connections, and of those to come."""
        question = Question(self._chooser, Command.OPTION_RES, packet, enough=lambda _: False)
        replies, failure = question.ask(deadline)
        if not replies and failure is not None:
            raise failure
        self._options.append(name)
        for member in list(self._known.values()):
            member.conversation.keep_option(name)

    def submit_all(self, packets: Iterable[bytes], timeout: float | None) -> Iterator[str]:
        """Submit background jobs and yield their handles, in order."""
        return fleet_bulk.submit_all(self, packets, timeout)

    def window(
        self,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
        timeout: float | None,
    ) -> Window[T]:
        """The jobs of one map."""
        return fleet_bulk.FleetWindow(
            self, packet_of, workloads, concurrency=concurrency, ordered=ordered, timeout=timeout
        )

    def close(self) -> None:
        """Close all connections; whoever still waits gets ConnectionLost. Idempotent."""
        self._closed = True
        self._chooser.close()
        for member in list(self._known.values()):
            member.conversation.close()

    def forked(self, parent: int) -> None:
        """This is a child of the process that has the connections."""
        self._changing = Turn()
        self._chooser.forked()
        for member in self._known.values():
            member.forked()
