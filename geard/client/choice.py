"""Which of many job servers a submission goes to: pure decisions.

Rules:
- They take turns, so those that are about equally quick get equal shares, however their answers happen to fall.
- Who owes clearly more than the others has no turn until it has caught up, and who is quiet has none while another owes
  less: load leaves whoever is slow or stalls.
- Who had no turn for a while makes up for a bounded number of them, at twice the pace of the others at most. One that
  comes, or comes back, makes up for nothing.
- `unique` goes by the function and the unique alone, see `rendezvous`: all clients with the same job servers agree.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from typing import Final, Generic, Literal, Protocol, TypeVar

Choose = Literal["first", "spread", "unique"]
"""How a client chooses: see Client."""

CHOICES: tuple[Choose, ...] = ("first", "spread", "unique")

WIDE: Final = 3.0
"""Who owes more than so many times the mean of the others has no turn."""

QUIET: Final = 1.0
SMALL: Final = 3
"""Who has answered nothing for a while is quiet, if at the others' pace it would have answered so much meanwhile, or
anything where it owes so little: of callers that each wait for one answer few are to end up at one that stalls."""

MOST_MISSED: Final = 100.0
"""So many turns at most are made up for: no flood."""

HURRY: Final = 0.5
"""Of a round, until the next turn of one that makes up for some."""


class Candidate(Protocol):
    """One to choose. All but the first and the last of these are the Spread's own."""

    number: int
    """Differs from all others'."""

    turn: float
    """When it is next, in rounds."""

    missed: float
    """How many turns it makes up for."""

    taken: int
    """How many it has had."""

    answered: int
    """How many of them it has answered, as far as is known."""

    heard: int
    """How many answers of all were counted when it last answered, or began to owe."""

    @property
    def outstanding(self) -> int:
        """What it owes."""


C = TypeVar("C", bound=Candidate)


class Spread(Generic[C]):
    """Whose turn it is, of those that owe little. May be used by many at once, and be interrupted anywhere: what goes
    wrong then is a turn too many or too few.

    It looks at all of them once a round only, so a choice costs the same however many there are."""

    def __init__(self, candidates: Sequence[C] = (), before: Spread[C] | None = None) -> None:
        """Among these; `before` is what chose up to now."""
        self._candidates = candidates
        self._now: float = 0.0 if before is None else before._now  # the turn that was last taken
        self._answers: int = 0 if before is None else before._answers  # that were counted
        self._next: list[tuple[float, int, int, bool, C]] = []  # a heap, by turn; what it may owe; if it is quiet
        self._left = 0  # turns of this round

    def __repr__(self) -> str:
        return f"<Spread of {len(self._candidates)}, {self._left} turns left of {len(self._next)}>"

    def join(self, candidate: C) -> None:
        """It is new, or back: it is as any other from now on, at a random place in the round."""
        candidate.turn = self._now + random.random()  # noqa: S311 - so that not all clients begin with the same one
        candidate.missed = 0.0

    def take(self) -> C | None:
        """Whose turn it is; None where there is nobody."""
        while self._candidates:
            if (candidate := self._take()) is not None:
                return candidate
            self._begin()
        return None

    def peek(self) -> C | None:
        """The same, and it stays its turn."""
        while self._candidates:
            for _, _, limit, _, candidate in self._next[: self._left]:
                if candidate.outstanding <= limit:
                    return candidate
            self._begin()
        return None

    def _begin(self) -> None:
        """A round."""
        owed = [candidate.outstanding for candidate in self._candidates]
        for candidate, each in zip(self._candidates, owed, strict=True):
            answered = candidate.taken - each
            if answered > candidate.answered:
                self._answers += answered - candidate.answered
                candidate.heard = -1  # now
            candidate.answered = answered
        total, least, others = sum(owed), min(owed), len(owed) - 1
        now, heap = self._now, []
        for candidate, each in zip(self._candidates, owed, strict=True):
            if candidate.heard < 0:
                candidate.heard = self._answers
            others_answered = self._answers - candidate.heard
            quiet = others_answered > 0 and each > 0 and (each <= SMALL or others_answered * each >= QUIET * total)
            limit = max(least, int(WIDE * (total - each) / others)) if others and not quiet else least
            if each <= limit:
                if (missed := now - candidate.turn) > 0:
                    candidate.turn = now
                    candidate.missed = min(candidate.missed + missed, MOST_MISSED)
                heap.append((candidate.turn, candidate.number, limit, quiet, candidate))
        heapify(heap)
        self._left, self._next = len(heap), heap

    def _take(self) -> C | None:
        heap = self._next
        try:
            while self._left > 0:
                turn, number, limit, quiet, candidate = heap[0]
                if (owed := candidate.outstanding) <= limit:
                    if not owed:
                        candidate.heard = self._answers
                    self._left = 0 if quiet else self._left - 1  # for what is the least may be less by now
                    self._now = turn
                    if candidate.missed >= HURRY:
                        candidate.missed -= HURRY
                        turn += HURRY
                    else:
                        turn += 1
                    candidate.turn = turn
                    candidate.taken += 1
                    heapreplace(heap, (turn, number, limit, quiet, candidate))
                    return candidate
                heappop(heap)
        except IndexError:
            pass  # none is left
        return None
