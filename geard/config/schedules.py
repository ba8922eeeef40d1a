"""The kinds of value that `schedules` has: cron expressions, intervals, time zones."""

from __future__ import annotations

from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

from geard.codec import ENCODING_ERRORS, codec_for
from geard.config.kinds import kind, kind_of
from geard.config.model import Config, Schedule
from geard.config.problems import At, Refused
from geard.config.values import duration, refuse, text
from geard.errors import InvalidRequest
from geard.times import CRON_EXPECTED, Cron

EVERY_EXPECTED: Final = "a duration in whole seconds, at least 1s"
TIMEZONE_EXPECTED: Final = "a time zone of the IANA database, such as Europe/Vienna or UTC"

_duration = duration(least_seconds=1)


@kind(CRON_EXPECTED, schema={"type": "string", "minLength": 1})
def cron(value: Any, at: At) -> str:
    """A cron expression, or a nickname for one."""
    if not isinstance(value, str):
        raise refuse(value, CRON_EXPECTED, at)
    try:
        Cron(value)
    except InvalidRequest as error:
        raise Refused(at.shown(str(error)), expected="" if CRON_EXPECTED in str(error) else CRON_EXPECTED) from None
    return value


@kind(EVERY_EXPECTED, schema=kind_of(_duration).schema)
def every(value: Any, at: At) -> int:
    """An interval."""
    seconds = _duration(value, at)
    if not seconds.is_integer():
        raise refuse(value, EVERY_EXPECTED, at)
    return int(seconds)


@kind(TIMEZONE_EXPECTED, schema={"type": "string", "minLength": 1})
def timezone(value: Any, at: At) -> str:
    """The name of a time zone."""
    name = text(TIMEZONE_EXPECTED)(value, at)
    try:
        ZoneInfo(name)
    except (LookupError, OSError, ValueError):
        known = {zone.lower(): zone for zone in available_timezones()}
        near = known.get(name.lower())
        raise refuse(value, TIMEZONE_EXPECTED, at, f"did you mean `{near}`?" if near else "") from None
    return name


def check_when(schedule: Schedule, at: At) -> None:
    """It has one kind of times."""
    if (schedule.cron is None) == (schedule.every_seconds is None):
        raise Refused(
            "has both `cron` and `every`" if schedule.cron else "has neither `cron` nor `every`",
            expected='one of them: cron: "30 2 * * *", or every: 15s',
        )
    if schedule.every_seconds is not None and schedule.timezone != "UTC":
        at.key("timezone").report("means nothing for `every`, which counts from the Unix epoch", hint="leave it out")


def check_workloads(config: Config, at: At) -> None:
    """Each workload can be sent in its encoding."""
    for name, schedule in config.schedules.items():
        codec = codec_for(schedule.encoding or config.encoding, "workload")
        try:
            codec.encode(schedule.workload)
        except ENCODING_ERRORS as error:
            here = at.key("schedules").key(name).key("workload")
            here.report(f"cannot be encoded: {here.shown(str(error))}", hint="see `encoding`")
