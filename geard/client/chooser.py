"""Chooser: which job server of a fleet a request goes to now, be it by waiting for one.

Rules:
- Nobody waits for one that cannot be reached while another answers: it is left out, and dialled in the background when
  its time has come. Where none is up, ever more of them are dialled, without waiting long for any.
- Under `unique` equal jobs must meet, so one that has not been tried yet, or was just lost, is waited for, a little.
"""

from __future__ import annotations

import itertools
import random
import time
from typing import Final

from geard import rendezvous
from geard.client import requests
from geard.client.choice import Spread
from geard.client.dials import MOMENT_SECONDS, Dials
from geard.client.exchange import Exchange
from geard.client.member import Member
from geard.client.servers import unreachable
from geard.errors import CannotConnect, InvalidRequest

STAGGER_SECONDS: Final = 0.25
"""Where none is up, the next are dialled after so long without an answer: one, then two, then four."""

UNIQUE_PATIENCE_SECONDS: Final = 1.0
"""How long a job with a unique waits for the job server that it belongs to, if that is not known to be down."""

LOOK_SECONDS: Final = 0.1
"""How often to look who is up, where nobody has come or gone: for those that are due to be dialled again."""


class Chooser:
    """See the module. `members` are those to choose among; safe to share, as Fleet is."""

    def __init__(self, dial_seconds: float, *, by_unique: bool) -> None:
        self.members: tuple[Member, ...] = ()
        self.dials = Dials(dial_seconds, self._tried)
        self._by_unique = by_unique
        self._spread: Spread[Member] = Spread()
        self._look_at = 0.0  # when to look again, by time.monotonic()
        self._turn = itertools.count(random.randrange(1 << 30))  # noqa: S311 - so that not all begin with the same one

    def __repr__(self) -> str:
        return f"<Chooser of {len(self.members)}, {self._spread} {self.dials}>"

    def choose_among(self, members: tuple[Member, ...]) -> None:
        """From now on; whoever waits for one of the old list looks at the new."""
        for member in members:
            if member not in self.members:
                self._spread.join(member)
        self.members = members
        self._look()
        self.dials.ring()

    def close(self) -> None:
        """Nothing is chosen any more. Idempotent."""
        self.dials.close()

    def forked(self) -> None:
        """This is a child of the process that has the connections."""
        self.dials.forked()
        self._look_at = 0.0
        self._turn = itertools.count(random.randrange(1 << 30))  # noqa: S311 - so that not all begin with the same one
        for member in self.members:
            self._spread.join(member)

    def choose(self, packet: bytes | None, deadline: float | None) -> tuple[Member, Exchange]:
        """Who gets a submission, or (None) a question that anybody can answer. Raises CannotConnect."""
        key = requests.placed_by(packet) if self._by_unique and packet is not None else None
        while True:
            self._refuse_closed()
            if time.monotonic() >= self._look_at:
                self._look()
            if key is not None:
                member = self._responsible(key, deadline)
            else:
                member = self._spread.peek() if packet is None else self._spread.take()
            member = member or self.first_up(deadline)
            if member is not None:
                if (exchange := member.living()) is not None:
                    return member, exchange
                member.notice()
                self._look()

    def those_up(self) -> list[Member]:
        """Who is up. The others are dialled in passing when they are due, for those after us."""
        members, now = self.members, time.monotonic()
        up = [member for member in members if member.up]
        due = []
        for member in members if len(up) < len(members) else ():
            if not member.up:
                member.notice()
                # Under `unique` one that was never needed is not dialled for its own sake.
                if up and member.is_due(now) and (member.left_out or not self._by_unique):
                    due.append(member)
        if due:
            self.dials.want(*due)
        return up

    def _look(self) -> None:
        # The time first: whoever comes or goes meanwhile wants another look. And another Spread, for a caller that has
        # looked earlier, and comes later, must not put back what it has seen.
        self._look_at = time.monotonic() + LOOK_SECONDS
        self._spread = Spread(self.those_up(), self._spread)

    def _refuse_closed(self) -> None:
        if self.dials.closed:
            raise InvalidRequest("the client is closed")

    def _tried(self, member: Member) -> None:
        """An attempt to connect to it has ended."""
        if member.up:
            self._spread.join(member)
        self._look_at = 0.0

    # --- waiting -------------------------------------------------------------------------------------------------

    def _responsible(self, key: bytes, deadline: float | None) -> Member | None:
        """Whom the key belongs to, of those who can be had. None where that is nobody."""
        all_until: float | None = None  # when all have had the same time, after one that was waited for in vain
        while candidates := {each.address: each for each in self.members if each.up or not each.left_out}:
            member = candidates[rendezvous.choose(key, candidates)]
            if member.up:
                return member
            self.dials.want(member, urgent=True)
            if all_until is None:
                moment = (self.dials.begun_at(member) or time.monotonic()) + MOMENT_SECONDS
                self._wait_for(member, earliest(moment, deadline))
                if member.dialling:  # it may have to be another, who will have had its time by then
                    self.dials.want(*map(candidates.__getitem__, rendezvous.ranked(key, candidates)))
            begun = self.dials.begun_at(member)
            patience = UNIQUE_PATIENCE_SECONDS + (time.monotonic() if begun is None else begun)
            if begun is not None and all_until is not None:
                patience = min(patience, max(all_until, begun + MOMENT_SECONDS))
            self._wait_for(member, earliest(patience, deadline))
            if member.up:
                return member
            if deadline is not None and time.monotonic() >= deadline:
                raise no_time_left(member)
            member.notice()
            if member.dialling:
                member.left_out = True  # until it answers after all
                all_until = all_until or time.monotonic() + UNIQUE_PATIENCE_SECONDS
        return None

    def reached(self, member: Member, deadline: float | None) -> Exchange:
        """Its exchange, whatever that takes. Raises CannotConnect."""
        begin = time.monotonic()
        while (exchange := member.living()) is None:
            self._refuse_closed()
            member.notice()
            if member.tried_at >= begin and member.failure is not None:
                raise unreachable([str(member.failure)], refused=member.failure.refused)
            if deadline is not None and time.monotonic() >= deadline:
                raise no_time_left(member)
            self.dials.want(member, urgent=True)
            self._wait_for(member, deadline)
        return exchange

    def first_up(self, deadline: float | None) -> Member | None:
        """None is up: try each of them now, and take who answers first. Raises CannotConnect with all reasons; None
        where there is another list of them now."""
        begin = time.monotonic()
        members = self.members
        first = next(self._turn) % len(members)
        order = sorted(members[first:] + members[:first], key=lambda member: member.left_out)

        def tried(member: Member) -> bool:
            """In vain, or it was lost again."""
            return not member.dialling and member.tried_at >= begin

        def someone_up() -> Member | None:
            return next((member for member in order if member.up), None)

        def settled() -> bool:
            over = self.dials.closed or self.members is not members
            return over or someone_up() is not None or all(map(tried, dialled))

        dialled: list[Member] = []
        while len(dialled) < len(order):
            dialled = order[: 2 * len(dialled) + 1]
            self.dials.want(*dialled, urgent=True)
            until = None if len(dialled) == len(order) else time.monotonic() + STAGGER_SECONDS
            self.dials.wait(settled, deadline if until is None else earliest(until, deadline))
            self._refuse_closed()
            if found := someone_up():
                return found
            if deadline is not None and time.monotonic() >= deadline:
                break
            if self.members is not members:
                return None
        for member in order:
            member.notice()
        reasons = [
            str(member.failure or f"{member.address} closed the connection")
            if tried(member)
            else str(no_time_left(member))
            for member in order
        ]
        refused = all(tried(member) and member.failure and member.failure.refused for member in order)
        raise unreachable(reasons, refused=refused)

    def _wait_for(self, member: Member, until: float | None) -> None:
        """Wait for the end of the attempt to connect to it, or until then."""
        self.dials.wait(lambda: self.dials.closed or member.up or not member.dialling, until)
        self._refuse_closed()


def earliest(moment: float, deadline: float | None) -> float:
    """The first of the two."""
    return moment if deadline is None else min(moment, deadline)


def no_time_left(member: Member) -> CannotConnect:
    """The deadline came before it was connected."""
    return CannotConnect(f"cannot connect to {member.address}: no time left")
