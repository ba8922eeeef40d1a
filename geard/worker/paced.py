"""The channel of a capability with a `rate`: it asks for no more jobs than its bucket has tokens, and for the next when
there is one.

Rules:
- What is over the rate stays in the job server. A channel without a token does not sleep (PRE_SLEEP), so that the job
  server wakes it for nothing: its own writer does, when the next token is there.
- The channels of all job servers draw on one bucket. Who waits is woken a little late, at random: whoever comes first
  takes the token, so none of them goes empty-handed for long.
- A job server that owes an answer holds back tokens from the others for no more than two ticks.
"""

from __future__ import annotations

import random
from typing import Any, Final

from geard.worker.bucket import TokenBucket
from geard.worker.channel import Channel
from geard.worker.job import Job
from geard.worker.session import Session

LEAST_PAUSE_SECONDS: Final = 0.01
"""At a high rate, tokens are taken several at a time."""
MOST_PAUSE_SECONDS: Final = 1.0
LATE: Final = 0.1
"""The share of a pause by which it is longer, at most."""
OWED_TICKS: Final = 2


class Pace:
    """A capability's bucket, and the channels that draw on it."""

    def __init__(self, bucket: TokenBucket) -> None:
        self.bucket = bucket
        self.channels: list[PacedChannel] = []

    @property
    def owed(self) -> int:
        """The tokens that are spoken for: grabs not answered yet."""
        return sum(channel.owed for channel in self.channels)


class PacedChannel(Channel):
    """See the module."""

    def __init__(self, *arguments: Any, pace: Pace, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pace = pace
        pace.channels.append(self)

    @property
    def owed(self) -> int:
        """Grabs that the job server has not answered, unless it keeps us waiting for long."""
        session = self._session
        if session is None or session.lost or session.silent_ticks >= OWED_TICKS:
            return 0
        return session.owed

    def _grabs_due(self, owed: int) -> int:
        due = super()._grabs_due(owed)
        return min(due, self._pace.bucket.available(self._pace.owed)) if due else 0

    def _read(self) -> None:
        self._wake_writer()  # to see, when this has sent what it may, how long there is nothing more
        super()._read()

    def _hear(self, session: Session) -> None:
        before = self._taken(session)
        try:
            super()._hear(session)
        finally:
            self._pace.bucket.take(self._taken(session) - before)

    def _taken(self, session: Session) -> int:
        """The grabs that were answered with a job."""
        return session.grabs - session.owed - self.no_jobs

    def _resume(self, job: Job) -> None:
        self._pace.bucket.take(1)
        super()._resume(job)

    def _wait_to_write(self) -> None:
        self._write_due.wait(self._pause_seconds())

    def _pause_seconds(self) -> float | None:
        """How long nothing more may be asked for; None when it is for other reasons than the rate that nothing is."""
        session = self._session
        if session is None or session.lost or session.asleep or not session.more:
            return None
        if not super()._grabs_due(session.owed):
            return None
        wait = self._pace.bucket.wait_seconds(self._pace.owed)
        late = 1.0 + LATE * random.random()  # noqa: S311 - no secret
        return min(max(wait, LEAST_PAUSE_SECONDS), MOST_PAUSE_SECONDS) * late
