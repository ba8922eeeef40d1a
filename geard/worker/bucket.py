"""The token bucket that a capability's `rate` fills: how many jobs may be taken now, and when the next may. Pure, but
for the clock that is handed in.

Rules:
- A job takes a token when it comes, not when it is asked for: so a NO_JOB and a lost connection cost nothing. Who asks
  subtracts what he is still owed.
- What came beyond it (of two who asked at once, of jobs that run again) is a debt: the rate holds in the long run.
- Kept are one token, what comes in SLACK_SECONDS, for a loop that was held up meanwhile, and the `burst`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from geard.config.model import Rate

SLACK_SECONDS: Final = 0.25
"""2.5 % of ten seconds."""
_ROUNDING: Final = 1e-9


class TokenBucket:
    """One process's share of a rate. `sharers` processes have an equal share each; `place` is which of them this is:
    they begin in turn, so that all together begin with one token."""

    __slots__ = ("_capacity", "_clock", "_filled_at", "_per_second", "_rate", "_tokens")

    def __init__(self, rate: Rate, clock: Callable[[], float], *, sharers: int = 1, place: int = 0) -> None:
        self._rate = rate
        self._clock = clock
        self._filled_at = clock()
        self._tokens = 1.0 - (place % sharers) / sharers
        self._set(sharers)

    def __repr__(self) -> str:
        return f"<TokenBucket {self._tokens:.2f}/{self._capacity:g} {self._per_second:g}/s>"

    def share(self, sharers: int) -> None:
        """So many processes share the rate from now on."""
        self._fill()
        self._set(sharers)
        self._tokens = min(self._tokens, self._capacity)

    def take(self, jobs: int) -> None:
        """So many jobs have come."""
        self._fill()
        self._tokens -= jobs

    def available(self, owed: int) -> int:
        """How many jobs may be asked for beside those that are owed already."""
        self._fill()
        return max(0, int(self._tokens + _ROUNDING) - owed)

    def wait_seconds(self, owed: int) -> float:
        """How long until one more may be asked for; 0 when it may now."""
        self._fill()
        return max(0.0, (owed + 1 - self._tokens) / self._per_second)

    def _set(self, sharers: int) -> None:
        self._per_second = self._rate.per_second / sharers
        self._capacity = 1.0 + self._per_second * SLACK_SECONDS + self._rate.burst / sharers

    def _fill(self) -> None:
        now = self._clock()
        if now > self._filled_at:
            self._tokens = min(self._tokens + (now - self._filled_at) * self._per_second, self._capacity)
        self._filled_at = now
