"""Fleet: the job servers of a client that uses them all (`choose="spread"` or `"unique"`), one conversation for each.

Rules:
- A submission goes on to another job server only as long as nothing of it was sent. From its first byte on, it is its
  job server's.
- A job server is dialled by its Member only, which so knows all that comes of it.
- Nobody waits for one that cannot be reached while another answers: it is left out, and dialled in the background when
  its time has come. Where none is up, they are dialled one after the other, without waiting long for any.
- Under `unique` equal jobs must meet, so one that has not been tried yet, or was just lost, is waited for, a little.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import random
import time
from collections.abc import Callable, Iterable, Iterator
from operator import attrgetter
from typing import Final, TypeVar

from geard import rendezvous
from geard.client import fleet_bulk, fork, requests
from geard.client.bulk import Window
from geard.client.choice import Choose, least
from geard.client.conversation import Conversation
from geard.client.exchange import RECHECK_SECONDS, Exchange
from geard.client.handle import Handle
from geard.client.member import Member
from geard.client.reply import Reply, fields_of
from geard.client.results import text_of
from geard.client.servers import unreachable
from geard.client.state import JobState, job_state, most_telling
from geard.client.turn import Turn
from geard.config import JobServer
from geard.errors import CannotConnect, ConnectionLost, GeardError, InvalidRequest, JobTimeout
from geard.protocol import Command

STAGGER_SECONDS: Final = 0.25
"""Where none is up, the next is dialled after so long without an answer of the one before."""

UNIQUE_PATIENCE_SECONDS: Final = 1.0
"""How long a job with a unique waits for the job server that it belongs to, if that is not known to be down."""

OUTSTANDING: Final = attrgetter("outstanding")
GIVEN: Final = attrgetter("given")

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
        self._by_unique = choose == "unique"
        self._dial_seconds = dial_seconds
        self._options: list[str] = []  # that were set after the beginning
        self._known: dict[str, Member] = {}  # by address; those that were taken out, too, while they owe something
        self._members: tuple[Member, ...] = ()
        self._turn = itertools.count(random.randrange(1 << 30))  # noqa: S311 - so that not all begin with the same one
        self._waiters: dict[queue.SimpleQueue[None], None] = {}  # for the end of an attempt to connect
        self._closed = False
        self._changing = Turn()  # the list of job servers
        self.set_servers(servers)
        fork.watch(self)

    def __repr__(self) -> str:
        return f"<Fleet {self.state}>"

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
            turn.give(taken)
        self._ring()  # whoever waits for one of the old list looks at the new

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
                known[address] = member = Member(server, self._converse(server), self._dial_seconds, self._tried)
                for name in self._options:
                    member.conversation.keep_option(name)
        self._members = tuple(known[address] for address in wanted)

    # --- what Client does ----------------------------------------------------------------------------------------

    def ask(self, reply: Reply, packet: bytes, deadline: float | None = None) -> Exchange:
        """Send a request to the job server that it is for, and wait for its answer: see Conversation.ask."""
        submission = reply.expected is Command.JOB_CREATED
        while True:
            member, exchange = self.choose(packet if submission else None, deadline)
            try:
                return member.conversation.ask_over(exchange, reply, packet, deadline)
            except ConnectionLost:
                if reply.sent or self._closed:
                    raise
                reply.abandoned = False  # it was lost between the choice and the request

    def exchange(self, packet: bytes, deadline: float | None) -> Exchange:
        """The exchange with the job server that a submission is for."""
        return self.choose(packet, deadline)[1]

    def wait(self, exchange: Exchange, reply: Reply, deadline: float | None = None) -> None:
        """Wait for the answer to a request that was sent there, and raise it if it is an error."""
        self._known_as(exchange).conversation.wait(exchange, reply, deadline)

    def _known_as(self, exchange: Exchange) -> Member:
        return self._known.get(str(exchange.server)) or self._members[0]  # all wait alike

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
            member.conversation.ask_over(self._reached(member, deadline), reply, packet, deadline)
            return job_state(fields_of(reply))

        def told(replies: list[Reply]) -> JobState:
            return most_telling([job_state(fields_of(reply)) for reply in replies])

        replies, failure = self._ask_all(expected, packet, deadline, lambda replies: told(replies).known)
        state = told(replies)
        if failure is not None and not state.known:
            raise failure
        return state

    def set_option(self, name: str, packet: bytes, deadline: float | None) -> None:
        """Set an option of all connections, and of those to come."""
        replies, failure = self._ask_all(Command.OPTION_RES, packet, deadline, lambda _: False)
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
        for member in list(self._known.values()):
            member.conversation.close()
        self._ring()

    def forked(self, parent: int) -> None:
        """This is a child of the process that has the connections."""
        self._waiters = {}
        self._changing = Turn()
        self._turn = itertools.count(random.randrange(1 << 30))  # noqa: S311 - so that not all begin with the same one
        for member in self._known.values():
            member.forked()

    # --- choosing ------------------------------------------------------------------------------------------------

    def choose(self, packet: bytes | None, deadline: float | None) -> tuple[Member, Exchange]:
        """Who gets a submission, or (None) a question that anybody can answer. Raises CannotConnect."""
        key = requests.placed_by(packet) if self._by_unique and packet is not None else None
        while True:
            self._refuse_closed()
            up = self._those_up()
            if key is not None:
                member = self._responsible(key, deadline)
            else:
                member = least(up, OUTSTANDING, GIVEN, next(self._turn)) if up else None
            member = member or self._first_up(deadline)
            if member is not None:
                if (exchange := member.living()) is not None:
                    member.given += 1
                    return member, exchange
                member.notice()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise InvalidRequest("the client is closed")

    def _those_up(self) -> list[Member]:
        """Who is up. The others are dialled in passing when they are due, for those after us."""
        members = self._members
        up = [member for member in members if member.up]
        if len(up) < len(members):
            now = time.monotonic()
            for member in members:
                if not member.up:
                    member.notice()
                    # Under `unique` one that was never needed is not dialled for its own sake.
                    if up and member.is_due(now) and (member.left_out or not self._by_unique):
                        member.dial()
        return up

    def _responsible(self, key: bytes, deadline: float | None) -> Member | None:
        """Whom the key belongs to, of those who can be had. None where that is nobody."""
        slow = False
        while candidates := {each.address: each for each in self._members if each.up or not each.left_out}:
            member = candidates[rendezvous.choose(key, candidates)]
            if member.up:
                return member
            # After one that was waited for in vain, all the others have the same time as the next, not one by one.
            for each in candidates.values() if slow else (member,):
                each.dial()
            patience = member.dialled_at + UNIQUE_PATIENCE_SECONDS
            until = patience if deadline is None else min(patience, deadline)
            self._wait_for(member, until)
            if member.up:
                return member
            if deadline is not None and time.monotonic() >= deadline:
                raise CannotConnect(f"cannot connect to {member.address}: no time left")
            member.notice()
            if member.dialling:
                slow = member.left_out = True  # until it answers after all
        return None

    def _reached(self, member: Member, deadline: float | None) -> Exchange:
        """Its exchange, whatever that takes. Raises CannotConnect."""
        begin = time.monotonic()
        while (exchange := member.living()) is None:
            member.notice()
            if member.tried_at >= begin and member.failure is not None:
                raise unreachable([str(member.failure)], refused=member.failure.refused)
            if deadline is not None and time.monotonic() >= deadline:
                raise CannotConnect(f"cannot connect to {member.address}: no time left")
            member.dial()
            self._wait_for(member, deadline)
        return exchange

    def _first_up(self, deadline: float | None) -> Member | None:
        """None is up: try each of them now, and take who answers first. Raises CannotConnect with all reasons; None
        where there is another list of them now."""
        begin = time.monotonic()
        members = self._members
        first = next(self._turn) % len(members)
        order = sorted(members[first:] + members[:first], key=lambda member: member.left_out)

        def tried(member: Member) -> bool:
            """In vain, or it was lost again."""
            return not member.dialling and member.tried_at >= begin

        def someone_up() -> Member | None:
            return next((member for member in order if member.up), None)

        def settled(members_so_far: list[Member]) -> bool:
            over = self._closed or self._members is not members
            return over or someone_up() is not None or all(map(tried, members_so_far))

        for number, member in enumerate(order, 1):
            member.dial()
            until = None if number == len(order) else time.monotonic() + STAGGER_SECONDS
            if deadline is not None:
                until = deadline if until is None else min(until, deadline)
            self._wait(lambda number=number: settled(order[:number]), until)  # type: ignore[misc]
            self._refuse_closed()
            if found := someone_up():
                return found
            if deadline is not None and time.monotonic() >= deadline:
                break
            if self._members is not members:
                return None
        for member in order:
            member.notice()
        reasons = [
            str(member.failure or f"{member.address} closed the connection")
            if tried(member)
            else f"cannot connect to {member.address}: no time left"
            for member in order
        ]
        refused = all(tried(member) and member.failure and member.failure.refused for member in order)
        raise unreachable(reasons, refused=refused)

    def _ask_all(
        self, expected: Command, packet: bytes, deadline: float | None, enough: Callable[[list[Reply]], bool]
    ) -> tuple[list[Reply], GeardError | None]:
        """The answers of all that can be asked, and why one could not be. Raises what an answer is if it is an error.

        Those that are up come first, and the others are dialled meanwhile. One that is left out is not waited for, nor
        any where the first answers are enough."""
        while not (up := self._those_up()):
            self._first_up(deadline)
        others = [member for member in self._members if member not in up]
        waited_for = [member for member in others if not member.left_out]
        for member in waited_for:
            member.dial()
        replies, failure = self._ask_each(up, expected, packet, deadline)
        if others and not enough(replies):
            self._wait(lambda: all(member.up or not member.dialling for member in waited_for), deadline)
            more, other_failure = self._ask_each(others, expected, packet, deadline)
            replies, failure = replies + more, failure or other_failure
        return replies, failure

    def _ask_each(
        self, members: Iterable[Member], expected: Command, packet: bytes, deadline: float | None
    ) -> tuple[list[Reply], GeardError | None]:
        failure: GeardError | None = None
        sent: list[tuple[Reply, Exchange]] = []
        answered = []
        try:
            for member in members:
                exchange = member.living()
                if exchange is None:
                    member.notice()
                    failure = failure or member.failure or CannotConnect(f"cannot connect to {member.address} in time")
                    continue
                sent.append((Reply(expected), exchange))
                exchange.post(sent[-1][0], packet)
                exchange.flush(deadline)
            for reply, exchange in sent:
                try:
                    self.wait(exchange, reply, deadline)
                    answered.append(reply)
                except (ConnectionLost, JobTimeout) as error:
                    failure = failure or error
        finally:
            for reply, _ in sent:
                reply.abandon()
        return answered, failure

    # --- waiting for a connection --------------------------------------------------------------------------------

    def _wait(self, happened: Callable[[], object], until: float | None) -> None:
        """Wait until `happened()`, which the end of an attempt to connect can make true, or until then."""
        bell: queue.SimpleQueue[None] = queue.SimpleQueue()
        try:
            self._waiters[bell] = None
            while not happened():
                left = RECHECK_SECONDS if until is None else min(until - time.monotonic(), RECHECK_SECONDS)
                if left <= 0:
                    return
                with contextlib.suppress(queue.Empty):
                    bell.get(timeout=left)
        finally:
            self._waiters.pop(bell, None)

    def _wait_for(self, member: Member, until: float | None) -> None:
        """Wait for the end of the attempt to connect to it, or until then."""
        self._wait(lambda: self._closed or member.up or not member.dialling, until)
        self._refuse_closed()

    def _tried(self, member: Member) -> None:
        """An attempt to connect to it has ended."""
        if member.up:  # it does not get all until it has caught up with the others
            others = [each.given for each in self._members if each is not member and each.up]
            member.given = max(member.given, min(others, default=0))
        self._ring()

    def _ring(self) -> None:
        if self._closed:  # what was dialled meanwhile is not wanted any more
            for member in list(self._known.values()):
                member.conversation.close()
        for bell in tuple(self._waiters):
            bell.put(None)
