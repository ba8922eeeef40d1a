"""Times as people type them on a command line: how long, and when."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta

from geard.client.requests import MAX_DELAY_SECONDS, YEAR_SECONDS
from geard.config import parse_duration
from geard.errors import InvalidRequest

WHEN_EXPECTED = "a delay (90, 10m, 1h30m), a time of day (18:30) or a date and time (2030-01-31T18:30)"


def some_time(text: str) -> float:
    """Seconds, more than none. Raises InvalidRequest."""
    seconds = parse_duration(text)
    if not seconds:
        raise InvalidRequest(f"{text!r} is no time at all")
    return seconds


def moment(text: str, now: datetime | None = None) -> datetime:
    """What `text` names: a delay from now, the next such time of day, or a date and time; never one that is past.

    What names no time zone is local time. Raises InvalidRequest."""
    now = now or datetime.now().astimezone()
    if re.fullmatch(r"\d{1,2}:\d\d(:\d\d)?", text):
        return _next_time_of_day(text, now)
    try:
        delay = parse_duration(text.removeprefix("+"))
    except InvalidRequest:
        pass  # a date?
    else:
        return now + timedelta(seconds=_sane(delay, text))
    try:
        when = datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        raise InvalidRequest(f"{text!r} is not {WHEN_EXPECTED}") from None
    if when < now:
        raise InvalidRequest(f"{text!r} is past: it is {now.isoformat(' ', 'seconds')}")
    return when


def _sane(delay: float, text: str) -> float:
    """Seconds since 1970, as programs write a moment, are a delay that nobody means."""
    if delay > MAX_DELAY_SECONDS:
        years = delay / YEAR_SECONDS
        raise InvalidRequest(
            f"{text!r} is a delay of {years:,.0f} years: for a moment write a date and time, as $(date -Is)"
        )
    return delay


def _next_time_of_day(text: str, now: datetime) -> datetime:
    try:
        clock = time.fromisoformat(text.zfill(5))
    except ValueError:
        raise InvalidRequest(f"{text!r} is not a time of day") from None
    today = datetime.combine(now.date(), clock).astimezone()
    return today if today > now else datetime.combine(now.date() + timedelta(days=1), clock).astimezone()
