"""Durations and sizes as people write them: `1h30m`, `250ms`, `64M`. Bare numbers are seconds and bytes. And how these
and moments are shown to them."""

from __future__ import annotations

import math
import re
import time
from typing import Final

from geard.config.model import Rate
from geard.errors import InvalidRequest

DURATION_EXPECTED: Final = "a duration such as 30s, 5m, 1h30m or 250ms (a bare number is seconds)"
SIZE_EXPECTED: Final = "a size such as 512K, 64M or 2G (a bare number is bytes)"

RATE_EXPECTED: Final = "a whole number of jobs a second, minute or hour, such as 50/s, 10/m or 100/h, or 50/s+200"

_NUMBER: Final = r"[0-9]+(?:\.[0-9]+)?"
_DURATION_UNITS: Final = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}  # as they follow each other
_DURATION_PARTS: Final = "".join(rf"(?:({_NUMBER}){unit}(?![a-z]))?" for unit in _DURATION_UNITS)
_DURATION: Final = re.compile(_DURATION_PARTS, re.ASCII)
DURATION_PATTERN: Final = rf"(?:{_NUMBER}|(?=.){_DURATION_PARTS})"
_RATE_PERIODS: Final = {"s": 1, "m": 60, "h": 3600}
RATE_PATTERN: Final = r"([0-9]{1,9})/([smh])(?:\+([0-9]{1,9}))?"
_RATE: Final = re.compile(RATE_PATTERN, re.ASCII)
_SIZE_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}
SIZE_PATTERN: Final = rf"({_NUMBER})(?:([KMG])(?:iB)?)?"
_SIZE: Final = re.compile(SIZE_PATTERN, re.ASCII)


def parse_duration(text: str) -> float:
    """Seconds. Raises InvalidRequest when `text` is not a duration."""
    if re.fullmatch(_NUMBER, text, re.ASCII):
        seconds = float(text)
    else:
        match = _DURATION.fullmatch(text)
        if not match or not text:
            raise InvalidRequest(f"{text!r} is not {DURATION_EXPECTED}")
        seconds = sum(
            float(number) * unit
            for number, unit in zip(match.groups(), _DURATION_UNITS.values(), strict=True)
            if number is not None
        )
    if not math.isfinite(seconds):
        raise InvalidRequest(f"{text[:20]!r}… is too long")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest way to write a duration, to the millisecond: parse_duration reads it back."""
    left = round(seconds * 1000)
    parts = []
    for unit, length_seconds in _DURATION_UNITS.items():
        count, left = divmod(left, round(length_seconds * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def parse_rate(text: str) -> Rate:
    """`50/s`, or with what may come at once beyond: `50/s+200`. Raises InvalidRequest when `text` is not a rate."""
    match = _RATE.fullmatch(text)
    if not match or not int(match[1]):
        raise InvalidRequest(f"{text[:40]!r} is not {RATE_EXPECTED}")
    return Rate(int(match[1]), _RATE_PERIODS[match[2]], int(match[3] or 0))


def format_rate(rate: Rate) -> str:
    """As parse_rate reads it."""
    period = next((unit for unit, seconds in _RATE_PERIODS.items() if seconds == rate.period_seconds), None)
    return f"{rate.jobs}/{period or format_duration(rate.period_seconds)}" + (f"+{rate.burst}" if rate.burst else "")


def parse_size(text: str) -> int:
    """Bytes; the units are powers of 1024. Raises InvalidRequest when `text` is not a size."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise InvalidRequest(f"{text!r} is not {SIZE_EXPECTED}")
    number, unit = match.groups(default="")
    if "." not in number and len(number) < 20:
        return int(number) * _SIZE_UNITS[unit]
    size = float(number) * _SIZE_UNITS[unit]
    if not math.isfinite(size):
        raise InvalidRequest(f"{text[:20]!r}… is too large")
    return int(size)


def format_size(size_bytes: int) -> str:
    """The shortest exact way to write a size: parse_size reads it back."""
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def format_moment(moment: float) -> str:
    """A Unix time by this machine's clock, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(moment))


def mebibytes(size_bytes: int) -> str:
    """What is in use of memory: `12 MiB`."""
    return f"{size_bytes / 2**20:.0f} MiB"
