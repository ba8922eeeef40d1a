"""What `geard ps`, `reload`, `stop` and the monitor get from the supervisor over the control socket, in lines of JSON.

A request is `{"command": "ps"}`; the answer is an Answer. Loads neither gevent nor anything of the supervisor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec
from msgspec import Struct

from geard.messages import RunningJob
from geard.scheduler.states import ScheduleState
from geard.stats.failures import Failure
from geard.stats.history import History
from geard.stats.snapshot import Snapshot

WHO: Final = "who"
PS: Final = "ps"
RELOAD: Final = "reload"
SCHEDULES: Final = "schedules"
STOP: Final = "stop"
STOP_NOW: Final = "stop now"
PAUSE: Final = "pause"
RESUME: Final = "resume"
STATS: Final = "stats"
FAILURES: Final = "failures"
HISTORY: Final = "history"
JOBS: Final = "jobs"
STACK: Final = "stack"
REPLACE: Final = "replace"
UPGRADE: Final = "upgrade"


class ProcessView(Struct, frozen=True):
    """A worker process as `geard ps` shows it."""

    pid: int
    number: int
    state: str  # starting, ready, draining
    capability: str  # the one it was started for; "" for the common worker processes
    age_seconds: float
    heard_seconds: float  # since its last word
    held_by: str  # the job that holds its loop, as `function handle`, or ""
    memory_bytes: int
    running: int
    greenlets: int
    done: int
    failed: int
    connected: tuple[str, ...]
    disconnected: tuple[str, ...]
    jobs: tuple[RunningJob, ...]


class GenerationView(Struct, frozen=True):
    """The worker processes of one reading of the config."""

    number: int
    state: str  # starting, current, draining
    processes: tuple[ProcessView, ...]


class Overview(Struct, frozen=True):
    """The whole daemon at one moment. `done` and `failed` count since its start, past processes included."""

    pid: int
    version: str
    config: str
    state: str  # starting, running, reloading, stopping
    age_seconds: float
    memory_bytes: int
    done: int
    failed: int
    last_refusal: str  # why the last reload was refused; "" if it was not
    generations: tuple[GenerationView, ...]
    paused: tuple[str, ...] = ()  # functions of the config that this daemon takes no jobs of
    all_paused: bool = False  # so it has no worker processes


class Identity(Struct, frozen=True):
    """Which daemon this is: told at once, whatever it is doing."""

    pid: int
    version: str
    config: str  # the path of its config file, absolute


class JobView(Struct, frozen=True):
    """A job in flight and the worker process that has it."""

    job: RunningJob
    pid: int
    number: int  # of the worker process
    generation: int


class JobPage(Struct, frozen=True):
    """Some of the jobs in flight, the longest running first."""

    total: int  # of which this is a page
    jobs: tuple[JobView, ...]


class Request(Struct, frozen=True, omit_defaults=True):
    """What a command asks of the supervisor, and about what."""

    command: str
    function: str = ""  # FAILURES, HISTORY, JOBS: of this one only; "" means all (HISTORY: all together)
    after: int = 0  # FAILURES: with a higher number
    limit: int = 100  # FAILURES, JOBS: so many at most; HISTORY: so many of the newest values, 0 for all
    offset: int = 0  # JOBS: leave out so many
    minutes: bool = False  # HISTORY: a day in minutes rather than an hour in seconds
    pid: int = 0  # STACK, REPLACE: the worker process
    handle: str = ""  # STACK: the job
    functions: tuple[str, ...] = ()  # PAUSE, RESUME: these


class Answer(Struct, frozen=True):
    """The outcome: the exit code for the command to end with, and what to tell its user."""

    exit_code: int
    message: str = ""
    version: str = ""  # of the supervisor; "" before it said so
    overview: Overview | None = None  # to PS
    snapshot: Snapshot | None = None  # to STATS
    failures: tuple[Failure, ...] | None = None  # to FAILURES: newest first
    history: History | None = None  # to HISTORY; None for a function that did nothing within its span
    jobs: JobPage | None = None  # to JOBS
    stack: str = ""  # to STACK: as a traceback shows it
    schedules: tuple[ScheduleState, ...] | None = None  # to SCHEDULES
    identity: Identity | None = None  # to WHO


Reply = Callable[[Answer], None]
"""Gives a command its answer: called once, now or when there is an outcome."""


def answer_all(replies: Iterable[Reply], answer: Answer) -> None:
    """Give each of them the answer."""
    for reply in replies:
        reply(answer)


_encoder = msgspec.json.Encoder()
_requests = msgspec.json.Decoder(Request)
_answers = msgspec.json.Decoder(Answer)


def dump(message: Request | Answer) -> bytes:
    """One message as a line."""
    return _encoder.encode(message) + b"\n"


def load_request(line: bytes) -> Request:
    """A line from a command. Raises msgspec.DecodeError."""
    return _requests.decode(line)


def load_answer(line: bytes) -> Answer:
    """A line from the supervisor. Raises msgspec.DecodeError."""
    return _answers.decode(line)
