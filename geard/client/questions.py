"""Questions that all job servers of a fleet are asked, and that are waited for together.

Rules:
- Those that are up are asked at once, the others as they come up. One that is left out is not waited for.
- One that is silent, or does not read, holds up no answer of another.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from geard.client.chooser import Chooser
from geard.client.dials import MOMENT_SECONDS
from geard.client.exchange import Exchange
from geard.client.member import Member
from geard.client.reply import Bell, Reply
from geard.client.watch import Watch
from geard.errors import CannotConnect, GeardError, JobTimeout
from geard.protocol import Command

FLUSH_SECONDS: Final = 0.01
"""For one that does not read, each time that there is news of the others."""


class Asked(NamedTuple):
    """Who owes an answer."""

    member: Member
    exchange: Exchange
    silent_at: float
    """When it has owed it for too long, by time.monotonic()."""


class Question:
    """One question. `enough` tells whether the answers so far will do; the others then have a moment yet."""

    def __init__(
        self, chooser: Chooser, expected: Command, packet: bytes, enough: Callable[[list[Reply]], bool]
    ) -> None:
        self._chooser = chooser
        self._expected = expected
        self._packet = packet
        self._enough = enough
        self._bell: Bell = []
        self._watch = Watch(self._bell)
        self._coming: list[Member] = []  # they are dialled
        self._owed: dict[Reply, Asked] = {}
        self._answers: list[Reply] = []
        self._failure: GeardError | None = None

    def __repr__(self) -> str:
        state = f"{len(self._answers)} answers, {len(self._owed)} owed, {len(self._coming)} not connected"
        return f"<Question {self._expected.name} {state}>"

    def ask(self, deadline: float | None) -> tuple[list[Reply], GeardError | None]:
        """The answers of all that can be asked, and why one could not be. Raises what an answer is if it is an error,
        CannotConnect where there is nobody to ask."""
        chooser, until = self._chooser, math.inf if deadline is None else deadline
        while not (up := chooser.those_up()):
            chooser.first_up(deadline)
        dialled_until = time.monotonic() + chooser.dials.seconds + MOMENT_SECONDS
        for member in chooser.members:
            if member in up or not member.left_out:
                self._coming.append(member)
            else:
                self._not_reached(member)
        chooser.dials.want(*self._coming)
        bells, bell = chooser.dials.bells, self._watch.doorbell
        try:
            bells[bell] = None
            enough = False
            while True:
                self._ask_those_up(dialled_until)
                self._gather()
                if not enough and self._enough(self._answers):
                    enough, self._coming = True, []
                    until = min(until, time.monotonic() + MOMENT_SECONDS)
                if not self._owed and not self._coming:
                    break
                ends = [until, *(asked.silent_at for asked in self._owed.values())]
                if self._coming:
                    ends.append(dialled_until)
                if (left := min(ends) - time.monotonic()) > 0:
                    self._watch.wait([asked.exchange for asked in self._owed.values()], self._has_news, left)
                elif time.monotonic() >= until:
                    self._out_of_time()
                    break
        finally:
            bells.pop(bell, None)
            for reply in self._owed:
                reply.abandon()
        return self._answers, self._failure

    def _ask_those_up(self, dialled_until: float) -> None:
        coming, self._coming = self._coming, []
        for member in coming:
            if (exchange := member.living()) is not None:
                conversation, reply = member.conversation, Reply(self._expected, self._bell)
                silent_at = time.monotonic() + conversation.answer_timeout_seconds
                self._owed[reply] = Asked(member, exchange, silent_at)
                exchange.post(reply, self._packet)
            elif member.dialling and time.monotonic() < dialled_until:
                self._coming.append(member)
            else:
                member.notice()
                self._not_reached(member)

    def _gather(self) -> None:
        now = time.monotonic()
        for reply, (member, exchange, silent_at) in list(self._owed.items()):
            if not reply.sent and exchange.lost is None:
                exchange.flush(now + FLUSH_SECONDS)
            if now >= silent_at and not reply.answered() and exchange.lost is None:
                member.conversation.give_up(exchange)
            if reply.error is not None:
                raise reply.error
            if reply.fields is not None:
                self._answers.append(reply)
            elif exchange.lost is not None:
                self._failure = self._failure or exchange.loss_of(reply)
            else:
                continue
            del self._owed[reply]

    def _has_news(self) -> bool:
        return any(reply.answered() for reply in self._owed) or any(member.up for member in self._coming)

    def _not_reached(self, member: Member) -> None:
        in_time = CannotConnect(f"cannot connect to {member.address} in time")
        self._failure = self._failure or member.failure or in_time

    def _out_of_time(self) -> None:
        names = ", ".join(asked.member.address for asked in self._owed.values())
        if names:
            self._failure = self._failure or JobTimeout(f"{names} has not answered in time")
        for member in self._coming:
            self._not_reached(member)
