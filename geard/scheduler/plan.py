"""What to submit when: the scheduler's decisions, without a clock, a socket or a job server.

Rules:
- A time is submitted ahead, as a delayed job with a unique of its own: whoever else has the same schedule submits the
  same, and the job server makes one job of them. The job server keeps it, not we.
- It is submitted again every few seconds, so that a job server that lost its memory has it again, but only while more
  than LEAST_SECONDS are left. After that it may have begun, and the same unique would be a new job. That is also how
  far the clocks of the machines may be apart.
- A wall clock that is set back must not bring back a time that has been: how much is left goes by the monotonic clock
  once a time has been submitted, and what was past at the start stays past, unless the clock is set back by more than
  three hours (cron(8) draws the same line): then it was wrong at the start.
- What waits on a job server that is no longer the one, or for a schedule that is no more, is cancelled. gearmand keeps
  what was cancelled until it is due, and lets the same unique join it: a time that the changed schedule has too gets a
  unique that tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import Struct

from geard.config.model import Schedule
from geard.config.units import format_duration
from geard.rendezvous import choose
from geard.scheduler.states import ScheduleState
from geard.times import Cron, Every, Times

AHEAD_SECONDS: Final = 60
LEAST_SECONDS: Final = 5
REPEAT_SECONDS: Final = 4.0
MOST_AHEAD: Final = 16
"""So many times of a schedule wait at most: of one that is due each second, the next quarter of a minute."""
CATCH_UP_SECONDS: Final = 12
"""A time that was missed is due so long after the start: schedulers that start together make one job of it."""
SET_BACK_SECONDS: Final = 3 * 3600
"""A clock that is set back by less than this brings back no time that has been."""
MOST_REMEMBERED: Final = 2_000
"""So many times of a schedule at most are remembered against that."""
RESTART_SECONDS: Final = 60
"""A restart of the scheduler needs to know of the times of the last minute."""
MAX_UNIQUE_BYTES: Final = 64


@dataclass(frozen=True)
class Submission:
    """One time of one schedule, to be submitted to `server` as a delayed job."""

    name: str
    schedule: Schedule
    time: int  # which time of the schedule, in Unix seconds
    at: int  # when the job is due; `time`, unless it is made up for
    unique: str
    server: str


@dataclass
class Waiting:
    """A time that has been submitted."""

    due: float  # by the monotonic clock
    last: dict[str, float] = field(default_factory=dict)  # job server -> when it was last submitted there, monotonic
    handles: dict[str, str] = field(default_factory=dict)  # job server -> the job's handle there


class Remembered(Struct, frozen=True):
    """What outlives a restart of the scheduler: a schedule, and of each of its times when its job is due, by the wall
    clock, and the handles by job server."""

    schedule: Schedule
    waiting: dict[int, tuple[float, dict[str, str]]]


@dataclass(frozen=True)
class Cancellation:
    """A job that waits on `server` and must not run."""

    server: str
    handle: str


def times_of(schedule: Schedule) -> Times:
    """When it is due. Raises InvalidRequest for a cron expression that is none."""
    if schedule.every_seconds is not None:
        return Every(schedule.every_seconds)
    assert schedule.cron is not None
    return Cron(schedule.cron, schedule.timezone)


def in_words(schedule: Schedule) -> str:
    """When it is due, as the config has it."""
    if schedule.every_seconds is not None:
        return f"every {format_duration(schedule.every_seconds)}"
    return f"{schedule.cron} {schedule.timezone}"


def unique_of(name: str, schedule: Schedule, time: int, revision: str = "") -> str:
    """The unique of one time: `geard:NAME:TIME`, the name hashed where it does not fit."""
    shown = schedule.unique or name
    end = f":{time}{revision}"
    if len(shown.encode()) > MAX_UNIQUE_BYTES - len("geard:") - len(end):
        shown = blake2b(shown.encode(), digest_size=16).hexdigest()
    return f"geard:{shown}{end}"


class Planner:
    """Keeps what was submitted, and says what to submit next."""

    def __init__(self, schedules: Mapping[str, Schedule]) -> None:
        self._schedules: dict[str, Schedule] = {}
        self._times: dict[str, Times] = {}
        self._waiting: dict[str, dict[int, Waiting]] = {}
        self._spoilt: dict[str, int] = {}  # uniques that were cancelled, and their times
        self._past: float | None = None  # times up to this were past, or too near, at the start
        self._submitted_at: dict[str, float] = {}  # when a time was last submitted, by the wall clock
        self.replace(schedules)

    def __repr__(self) -> str:
        return f"<Planner {len(self._schedules)} schedules, {sum(map(len, self._waiting.values()))} times remembered>"

    def replace(self, schedules: Mapping[str, Schedule]) -> list[Cancellation]:
        """Go by these schedules from now on. What waits for those that changed is to be cancelled."""
        gone = {name: schedule for name, schedule in self._schedules.items() if schedules.get(name) != schedule}
        cancelled = []
        for name, schedule in gone.items():
            waiting = self._waiting.pop(name, {})
            cancelled += self._spoil(name, schedule, {time: known.handles for time, known in waiting.items()})
            del self._times[name]
        self._schedules = dict(schedules)
        for name, schedule in schedules.items():
            if name not in self._times:
                self._times[name] = times_of(schedule)
        return cancelled

    def _spoil(self, name: str, schedule: Schedule, waiting: Mapping[int, Mapping[str, str]]) -> list[Cancellation]:
        """Have these times of a schedule cancelled, and their uniques not used again."""
        self._spoilt.update((self._unique(name, schedule, time), time) for time in waiting)
        return [Cancellation(server, handle) for handles in waiting.values() for server, handle in handles.items()]

    def _unique(self, name: str, schedule: Schedule, time: int) -> str:
        unique = unique_of(name, schedule, time)
        number = 0
        while unique in self._spoilt:  # and all who have changed in the same way find the same one
            number += 1
            digest = blake2b(msgspec.json.encode((schedule, number)), digest_size=4).hexdigest()
            unique = unique_of(name, schedule, time, f":{digest}")
        return unique

    def due(self, wall: float, monotonic: float, answering: Iterable[str]) -> list[Submission]:
        """What to submit now, to job servers among those that answer."""
        servers = list(answering)
        if self._past is None or wall < self._past - SET_BACK_SECONDS:
            self._past = wall + LEAST_SECONDS
        if not servers:
            return []
        self._spoilt = {unique: time for unique, time in self._spoilt.items() if time > wall - RESTART_SECONDS}
        found = []
        for name, schedule in self._schedules.items():
            server = choose((schedule.unique or name).encode(), servers)
            waiting = self._waiting.setdefault(name, {})
            for time in self._next_times(name, wall):
                known = waiting.get(time)
                if known and not self._wants_repeat(known, server, monotonic):
                    continue
                found.append(Submission(name, schedule, time, time, self._unique(name, schedule, time), server))
            self._forget(waiting, monotonic)
        return found

    def _next_times(self, name: str, wall: float) -> list[int]:
        times: list[int] = []
        moment = max(wall + LEAST_SECONDS, self._past or 0.0)
        while len(times) < MOST_AHEAD:
            next_time = self._times[name].after(moment)
            if next_time is None or next_time > wall + AHEAD_SECONDS:
                break
            times.append(next_time)
            moment = float(next_time)
        return times

    @staticmethod
    def _wants_repeat(waiting: Waiting, server: str, monotonic: float) -> bool:
        if waiting.due - monotonic <= LEAST_SECONDS:
            return False
        last = waiting.last.get(server)
        return last is None or monotonic - last >= REPEAT_SECONDS

    @staticmethod
    def _forget(waiting: dict[int, Waiting], monotonic: float) -> None:
        surplus = len(waiting) - MOST_REMEMBERED
        for number, (time, known) in enumerate(list(waiting.items())):
            if number >= surplus and monotonic - known.due <= SET_BACK_SECONDS:
                return  # the oldest come first
            del waiting[time]

    def sent(self, submission: Submission, wall: float, monotonic: float) -> None:
        """It is being submitted: whether or not its acknowledgement comes, the job server may have it."""
        waiting = self._waiting.setdefault(submission.name, {})
        known = waiting.setdefault(submission.time, Waiting(monotonic + submission.at - wall))
        known.last[submission.server] = monotonic

    def wants(self, submission: Submission) -> bool:
        """Whether its schedule still is what it was."""
        return self._schedules.get(submission.name) == submission.schedule

    def acknowledged(self, submission: Submission, handle: str, wall: float) -> list[Cancellation]:
        """The job server has it. What waits for the same time on others is to be cancelled."""
        known = self._waiting.get(submission.name, {}).get(submission.time)
        if known is None or not self.wants(submission):
            return [Cancellation(submission.server, handle)]
        others = [Cancellation(s, h) for s, h in known.handles.items() if s != submission.server]
        known.handles = {submission.server: handle}
        self._submitted_at[submission.name] = wall
        return others

    def missed(self, name: str, seen_at: float, wall: float, answering: Iterable[str]) -> Submission | None:
        """The last time of a schedule that came while no scheduler ran, to be made up for. `seen_at`: when one last
        did."""
        schedule, servers = self._schedules[name], list(answering)
        last = self._times[name].last(wall + LEAST_SECONDS)
        if schedule.catch_up != "last" or last is None or not servers or last <= seen_at + LEAST_SECONDS:
            return None
        if last in self._waiting.get(name, {}):
            return None  # a job server has had it since before
        at = int(wall) + CATCH_UP_SECONDS
        server = choose((schedule.unique or name).encode(), servers)
        return Submission(name, schedule, last, at, unique_of(name, schedule, last), server)

    def remembered(self, wall: float, monotonic: float) -> dict[str, Remembered]:
        """What to keep over a restart."""
        return {
            name: Remembered(
                schedule,
                {
                    time: (wall + known.due - monotonic, known.handles)
                    for time, known in self._waiting[name].items()
                    if monotonic - known.due <= RESTART_SECONDS
                },
            )
            for name, schedule in self._schedules.items()
            if self._waiting.get(name)
        }

    def restore(self, remembered: Mapping[str, Remembered], wall: float, monotonic: float) -> list[Cancellation]:
        """Take up what an earlier scheduler has submitted. What waits for schedules that are no more is to be
        cancelled."""
        cancelled = []
        for name, old in remembered.items():
            if self._schedules.get(name) == old.schedule:
                self._waiting[name] = {
                    time: Waiting(monotonic + due - wall, {}, dict(handles))
                    for time, (due, handles) in old.waiting.items()
                }
            else:
                waiting = {time: handles for time, (_, handles) in old.waiting.items()}
                cancelled += self._spoil(name, old.schedule, waiting)
        return cancelled

    def states(self, wall: float) -> tuple[ScheduleState, ...]:
        """Each schedule, for those who ask."""
        return tuple(
            ScheduleState(
                name=name,
                function=schedule.function,
                when=in_words(schedule),
                next_at=self._times[name].after(wall),
                last_at=self._times[name].last(wall),
                submitted_at=self._submitted_at.get(name),
                waiting=sum(len(w.handles) for time, w in self._waiting.get(name, {}).items() if time > wall),
            )
            for name, schedule in self._schedules.items()
        )
