"""The kinds of value that say how fast jobs are taken and what happens to one that failed: rates, waits, exceptions,
and what goes together."""

from __future__ import annotations

from typing import Any, Final

from geard.config.kinds import kind
from geard.config.model import Config, Rate, Retry, Wait
from geard.config.problems import At, Refused
from geard.config.records import list_of
from geard.config.units import DURATION_PATTERN, RATE_EXPECTED, RATE_PATTERN, format_duration, parse_rate
from geard.config.values import duration, refuse
from geard.errors import InvalidRequest

WAIT_EXPECTED: Final = "two durations such as 2s..1h, between which the wait grows; or one, for a wait that does not"
EXCEPTION_EXPECTED: Final = "an exception by its name, such as OSError or smtplib.SMTPException"

_duration = duration()
_SPAN_PATTERN: Final = rf"^\s*{DURATION_PATTERN}\s*\.\.\s*{DURATION_PATTERN}\s*$"


@kind("a span such as 2s..1h", schema={"type": "string", "pattern": _SPAN_PATTERN})
def _span(value: str, at: At) -> Wait:
    least, _, most = value.partition("..")
    try:
        found = Wait(_duration(least.strip(), at), _duration(most.strip(), at))
    except Refused:
        raise refuse(value, WAIT_EXPECTED, at) from None
    if found.most_seconds < found.least_seconds:
        longer, shorter = format_duration(found.least_seconds), format_duration(found.most_seconds)
        raise Refused(f"begins with {longer}, which is longer than {shorter}", expected=WAIT_EXPECTED)
    return found


@kind(WAIT_EXPECTED, either=(_span, _duration))
def wait(value: Any, at: At) -> Wait:
    """`2s..1h`, or one duration."""
    if not isinstance(value, str) or ".." not in value:
        seconds = _duration(value, at)
        return Wait(seconds, seconds)
    return _span(value, at)


@kind(RATE_EXPECTED, schema={"type": "string", "pattern": f"^{RATE_PATTERN}$"})
def rate(value: Any, at: At) -> Rate:
    """`50/s`, `10/m`, `100/h`, `50/s+200`."""
    if not isinstance(value, str):
        per_second = isinstance(value, int) and not isinstance(value, bool)
        raise refuse(value, RATE_EXPECTED, at, "say of which time, such as 50/s" if per_second else "")
    try:
        return parse_rate(value)
    except InvalidRequest:
        raise refuse(value, RATE_EXPECTED, at) from None


@kind(EXCEPTION_EXPECTED, schema={"type": "string", "pattern": r"^[^\s.:]+(\.[^\s.:]+)*$"})
def exception(value: Any, at: At) -> str:
    """The name of an exception. It is imported by the worker processes, and by `geard check`."""
    if not isinstance(value, str) or not all(part.isidentifier() for part in value.split(".")):
        raise refuse(value, EXCEPTION_EXPECTED, at)
    return value


exceptions = list_of(exception, f"a list, each {EXCEPTION_EXPECTED}")


def check_retry(retry: Retry, at: At) -> None:
    """What is excluded altogether is not also included."""
    for name in set(retry.on) & set(retry.not_on):
        at.key("on").report(f"{name} is in `not_on` too")


def check_dead_letters(config: Config, at: At) -> None:
    """Who wants dead letters says where they are kept."""
    if config.dead_letters is not None:
        return
    for name, capability in config.capabilities.items():
        if capability.dead_letter:
            at.key("capabilities").key(name).key("dead_letter").report(
                "there is no file to keep dead letters in",
                expected="`dead_letters: {file: …}` at the top level of the config",
            )
