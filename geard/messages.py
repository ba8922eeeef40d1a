"""What supervisor and worker process say to each other, one JSON object a line over a socket pair.

The supervisor starts worker processes and never imports them: this vocabulary is all they share. The child's first
words are Ready or CannotStart; until then it takes no jobs. A Heartbeat follows each second, and a last one goes
before Drained, so that no job goes uncounted. When the child reads the end of the socket, its supervisor is gone and
it drains.

Beside this there are two signals: TERM makes a child drain, and USR2 (STACKS_SIGNAL) makes it write the stacks of its
native threads to stderr even when its loop is blocked (faulthandler).
"""

from __future__ import annotations

import signal
from typing import Any, Final

import msgspec
from msgspec import Struct

from geard import __version__, exits
from geard.config.model import Config
from geard.errors import Problem
from geard.stats.diff import Diff

PROTOCOL: Final = 1
"""To be raised when a message changes so that an older or newer process would misunderstand it. A new field with a
default, or a new message that is only told to those who asked for it, is no such change."""
HEARTBEAT_SECONDS: Final = 1.0
HEARTBEAT_JOBS: Final = 50
"""A heartbeat names so many jobs at most: those that have run longest."""
RESTART: Final = "geard was upgraded while its supervisor ran on: restart the daemon (systemctl restart geard)"
STACKS_SIGNAL: Final = signal.SIGUSR2


class Suspect(Struct, frozen=True):
    """A job that was in flight in a process that died, and so is run in a process with nothing else from now on.

    `handle` is latin-1, which loses no byte. `deaths` counts the first and those with nothing else in the process; 0:
    it is under no suspicion any more."""

    server: str
    handle: str
    deaths: int


class Suspects(Struct, frozen=True, tag=True):
    """News of suspects, from a child to the supervisor and from there to all children."""

    suspects: tuple[Suspect, ...]


class Start(Struct, frozen=True, tag=True):
    """To a new child: what it is and what it runs. `capabilities` of the config are those of this process only.

    `presence` is the inherited descriptor of the shared memory of geard/presence.py, with the child's `seat` in it.
    `sharers`: so many processes, this one included, share each `rate`."""

    config: Config
    number: int
    generation: int
    verbose: bool = False
    presence: int | None = None
    seat: int | None = None
    suspects: tuple[Suspect, ...] = ()
    dead_letters: str = ""  # the Unix socket of the process that keeps them
    sharers: int = 1
    version: str = __version__  # of the supervisor
    protocol: int = PROTOCOL


class Greeting(Struct):
    """As much of a Start as any version of geard has: what to tell a supervisor of another version by."""

    version: str = "0.1.0"
    protocol: int = 0


class Drain(Struct, frozen=True, tag=True):
    """Grab no more, finish what is in flight, then exit 0. None: as long as it takes; else hand the rest back then.

    A later Drain may shorten the deadline of an earlier one, never lengthen it: 0 means at once."""

    timeout_seconds: float | None = None


class Sharers(Struct, frozen=True, tag=True):
    """So many processes, the one that is told included, share each `rate` from now on."""

    count: int


class DumpStacks(Struct, frozen=True, tag=True):
    """Log the job and stack of every busy greenlet."""


class ReopenLog(Struct, frozen=True, tag=True):
    """The log file was rotated: open it again."""


class ListJobs(Struct, frozen=True, tag=True):
    """Answer with Jobs."""


class ShowStack(Struct, frozen=True, tag=True):
    """Answer with the Stack of the job with this handle."""

    handle: str


class RunningJob(Struct, frozen=True):
    """A job in flight in a worker process."""

    function: str
    handle: str
    unique: str
    server: str
    seconds: float  # since a greenlet took it; 0 while it waits for one
    numerator: int = 0  # how far it is, as it last said by `job.status`
    denominator: int = 0  # 0: it has said nothing


class Ready(Struct, frozen=True, tag=True):
    """Every capability is imported and each job server was tried; `registered` are those that know our abilities."""

    registered: tuple[str, ...]
    unreachable: tuple[str, ...] = ()
    version: str = __version__  # of the worker process
    memory_bytes: int = 0  # before its first job


class CannotStart(Struct, frozen=True, tag=True):
    """Why this process cannot run. It exits with `exit_code` after this; starting it again would not help.

    `incompatible`: since its supervisor is of another version, and no other process will start either."""

    problems: tuple[Problem, ...]
    exit_code: int
    incompatible: bool = False


class Heartbeat(Struct, frozen=True, tag=True):
    """Counters since the start of the process, each second. Its absence means that the loop is held.

    `jobs` are some of those in flight, the longest running first, for the log should the process die. `counted` is what
    was added since the heartbeat before."""

    running: int
    greenlets: int
    done: int
    failed: int
    connected: tuple[str, ...]
    disconnected: tuple[str, ...]
    memory_bytes: int
    jobs: tuple[RunningJob, ...] = ()
    counted: Diff | None = None


class Jobs(Struct, frozen=True, tag=True):
    """The answer to ListJobs, and the last word on what was in flight before a process is killed."""

    jobs: tuple[RunningJob, ...]


class Stack(Struct, frozen=True, tag=True):
    """The answer to ShowStack: where the job is, as a traceback shows it; "" for one that is not here."""

    handle: str
    stack: str


class Blocked(Struct, frozen=True, tag=True):
    """From the child's native watchdog thread: the loop is held, by this job for `seconds` now.

    Sent twice a second while that goes on. `function` is empty when it is no job."""

    seconds: float
    function: str
    handle: str
    unique: str


class OverMemory(Struct, frozen=True, tag=True):
    """It uses more than `max_memory_hard`, and has begun to drain by itself: it is to be replaced."""

    memory_bytes: int


class Drained(Struct, frozen=True, tag=True):
    """The last message of a drain: how it went. `abandoned` are the jobs handed back to the job servers."""

    seconds: float
    finished: int
    abandoned: tuple[RunningJob, ...] = ()


def how_it_ended(status: int) -> str:
    """A process's end in words; `status` is its exit code, or minus the signal that killed it."""
    if status >= 0:
        return f"exited with code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


ToChild = Start | Drain | Sharers | DumpStacks | ReopenLog | ListJobs | ShowStack | Suspects
FromChild = Ready | CannotStart | Heartbeat | Jobs | Stack | Blocked | OverMemory | Drained | Suspects

_encoder = msgspec.json.Encoder()
_to_child: msgspec.json.Decoder[ToChild] = msgspec.json.Decoder(ToChild)
_greeting = msgspec.json.Decoder(Greeting)
_from_child: msgspec.json.Decoder[FromChild] = msgspec.json.Decoder(FromChild)


def dump(message: ToChild | FromChild) -> bytes:
    """One message as a line."""
    return as_json(message) + b"\n"


def as_json(value: Struct) -> bytes:
    """JSON, whatever texts of user code are in it: what cannot be encoded, as in a file name that is not UTF-8, is told
    as `\\udcff`."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        return _encoder.encode(_encodable(msgspec.to_builtins(value)))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    return value


def load_to_child(line: bytes) -> ToChild:
    """A line that the supervisor sent."""
    return _to_child.decode(line)


def load_start(line: bytes) -> Start | CannotStart:
    """The first line that a supervisor sent; or, where that is of a version of geard whose words are others, what to
    answer. The files of geard were replaced, then, and its supervisor was not."""
    why = ""
    try:
        greeting = _greeting.decode(line)
        if greeting.protocol == PROTOCOL:
            start = _to_child.decode(line)
            if isinstance(start, Start):
                return start
            why = f": expected Start, got {type(start).__name__}"
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        greeting, why = Greeting(), f": {error}"
    text = f"this process is geard {__version__} and cannot work under a supervisor of geard {greeting.version}{why}"
    return CannotStart((Problem(text, hint=RESTART),), exits.FAILED, incompatible=True)


def load_from_child(line: bytes) -> FromChild:
    """A line that a worker process sent."""
    return _from_child.decode(line)
