"""What a capability may say of its own job by raising it: run it again, it has failed, it never can succeed."""

from __future__ import annotations

import math
from typing import Any

from geard.config.units import parse_duration
from geard.errors import GeardError, InvalidRequest


class Retry(GeardError):
    """Run this job again, though nothing may be wrong with it. For a capability with `retry`; elsewhere it fails.

    `after` is how long to wait, in seconds or as the config writes it ("30s"); None: as the config says. Raises
    InvalidRequest for what is no duration."""

    def __init__(self, why: str = "to be run again", *, after: float | str | None = None) -> None:
        super().__init__(why)
        self.after_seconds = None if after is None else _seconds(after)

    def __reduce__(self) -> tuple[Any, ...]:
        return _retry, (str(self), self.after_seconds)


class Fail(GeardError):
    """The job has failed for good, and nobody needs to look at it: no further attempt, no dead letter."""


class Reject(GeardError):
    """No attempt at this job can succeed: it goes straight to the dead letters."""


def _seconds(after: float | str) -> float:
    if isinstance(after, str):
        return parse_duration(after)
    try:
        seconds = float(after)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise InvalidRequest(f"after={after!r} is not a number of seconds")
    return seconds


def _retry(why: str, after: float | None) -> Retry:
    return Retry(why, after=after)
