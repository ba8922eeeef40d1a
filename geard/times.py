"""When something is due: cron expressions and intervals, as pure arithmetic on Unix time in whole seconds.

Rules:
- `every` counts from the Unix epoch, so that all who have the same interval mean the same times.
- cron follows the wall clock of its time zone, as Debian's cron does: a time that a shift of the clock leaves out is
  due at the next that there is, one that comes twice is due the first time. What is due each hour, or more often, goes
  by real hours.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from geard.errors import InvalidRequest

CRON_EXPECTED: Final = 'five fields (minute hour day month weekday), such as "30 2 * * mon-fri", or @daily'
NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Times(Protocol):
    """The times at which something is due, in Unix seconds."""

    def after(self, moment: float) -> int | None:
        """The first time after `moment`; None if there is none."""

    def last(self, moment: float) -> int | None:
        """The last time at or before `moment`; None if there is none."""


class Every:
    """The multiples of an interval."""

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds

    def __repr__(self) -> str:
        return f"<Every {self.seconds} s>"

    def after(self, moment: float) -> int | None:
        return (math.floor(moment) // self.seconds + 1) * self.seconds

    def last(self, moment: float) -> int | None:
        return math.floor(moment) // self.seconds * self.seconds


class Cron:
    """The times of a cron expression in a time zone."""

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        """Raises InvalidRequest for an expression that is none, or one that is never due."""
        from cronsim import CronSim, CronSimError  # only who has schedules pays for it

        fields = NICKNAMES.get(expression.strip().lower(), expression)
        self._expression = expression
        self._fields = fields
        self._zone = UTC if zone == "UTC" else ZoneInfo(zone)
        self._simulate = CronSim
        self._known = (0.0, 0.0)  # nothing is due between the first, itself included, and the second, which is
        if len(fields.split()) != 5:
            raise InvalidRequest(f"{expression!r} is not {CRON_EXPECTED}")
        try:
            due = self.after(0.0)
        except CronSimError as error:
            raise InvalidRequest(f"{expression!r}: {str(error)[:1].lower()}{str(error)[1:]}") from error
        if due is None:
            raise InvalidRequest(f"{expression!r} is never due")

    def __repr__(self) -> str:
        return f"<Cron {self._expression!r} {self._zone}>"

    def after(self, moment: float) -> int | None:
        begin, end = self._known
        if begin <= moment < end:
            return int(end)
        found = self._search(moment)
        if found is not None:
            self._known = (moment, float(found))
        return found

    def _search(self, moment: float) -> int | None:
        start = datetime.fromtimestamp(math.floor(moment), self._zone)
        for due in self._simulate(self._fields, start):
            # In the hour that comes twice, the search may begin with a time that has been.
            if (found := int(due.timestamp())) > moment:
                return found
        return None

    def last(self, moment: float) -> int | None:
        # Searched forwards, over ever longer spans: so it agrees with `after` about the hours that a shift leaves out
        # or repeats.
        for days in (1, 8, 32, 367, 5 * 366, 50 * 366):
            begin = max(moment - days * 86400.0, -1.0)
            found, due = None, self.after(begin)
            while due is not None and due <= moment:
                found, due = due, self.after(due)
            if found is not None or begin < 0:
                return found
        return None
