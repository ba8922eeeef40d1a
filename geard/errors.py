"""Every error that leaves geard, by whose fault it is and what the caller can do.

Rule: no OSError, ssl.SSLError or parse error of another library crosses a public function; it is translated where
the foreign call is made, with the address or file in the message and the cause kept. Every error can be pickled, and so
come out of a process pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

MOST_PROBLEMS: Final = 100
"""So many problems of a config are told; whoever has mended them asks again."""


class GeardError(Exception):
    """Anything geard raises on purpose."""


# --- your fault: mend the call, nothing was sent -----------------------------------------------------------------


class InvalidRequest(GeardError, ValueError):
    """The caller asked for something the protocol cannot carry. Nothing was sent; mend the arguments."""


class CapabilityError(GeardError):
    """A capability cannot be imported, called or served. Mend the function or the config that names it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a config: what, where, what was expected and what to do.

    `line` and `column` count from 1, and are 0 where the problem has no place in the file. `count` is how many problems
    this one stands for: more than one only where it ends a list that would be too long."""

    message: str
    file: str = ""
    line: int = 0
    column: int = 0
    key: str = ""
    expected: str = ""
    hint: str = ""
    count: int = 1

    def __str__(self) -> str:
        place = ":".join(str(part) for part in (self.file, self.line, self.column) if part)
        key = self.key if len(self.key) <= 200 else f"{self.key[:199]}…"
        head = ": ".join(part for part in (place, key, self.message) if part)
        details = [
            f"    expected: {self.expected}" if self.expected else "",
            f"    {self.hint}" if self.hint else "",
        ]
        return "\n".join([head, *filter(None, details)])


def most(problems: Iterable[Problem], *, more: int = 0) -> tuple[Problem, ...]:
    """The first hundred, and one that stands for the others and for `more`."""
    found = list(problems)
    single = [problem for problem in found if problem.count == 1]
    more += sum(problem.count for problem in found if problem.count > 1) + len(single[MOST_PROBLEMS:])
    rest = [Problem(f"… and {more:,} more", count=more)] if more else []
    return (*single[:MOST_PROBLEMS], *rest)


class ConfigError(GeardError):
    """A config that cannot run. `problems` holds what is wrong with it, in the order of the file, see `most`."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = most(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


# --- the job server's or the network's fault ---------------------------------------------------------------------


class ConnectionLost(GeardError):
    """The connection to a job server ended. A worker's jobs go to someone else: reconnect, do not resend.

    For a client, `job_created` says whether the job server had acknowledged the job: True, it had, and the job may
    run or have run; False, nothing of it was sent; None, unknown. Never resend when it is not False."""

    def __init__(self, message: str, *, job_created: bool | None = None) -> None:
        super().__init__(message)
        self.job_created = job_created


class CannotConnect(ConnectionLost):
    """No connection could be made: refused, unreachable, unknown name, TLS refused. Nothing was sent.

    `refused` is True when the host answered that nobody listens: asking again soon costs nobody anything."""

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message, job_created=False)
        self.refused = refused


class ServerTimeout(ConnectionLost):
    """The job server did not answer, or did not read, for too long. The connection is closed."""


class ProtocolError(ConnectionLost):
    """The peer sent what the protocol does not allow. The connection is closed."""


class PacketTooLarge(ProtocolError):
    """The peer announced a packet over the limit; not a byte of its body was kept. Raise `max_packet` to allow it."""


class ServerError(GeardError):
    """The job server answered with an ERROR packet. The connection goes on."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"job server answered {code}: {text}")
        self.code = code
        self.text = text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.code, self.text)


class QueueFull(ServerError):
    """The function's queue is at its limit (admin `maxqueue`); the job was not queued. Try again later."""


# --- the job's own ending ----------------------------------------------------------------------------------------


class JobFailed(GeardError):
    """The worker failed the job (WORK_FAIL), or an exception that the client does not ask to see."""


class JobException(JobFailed):
    """The worker's function raised; `text` is what it sent (WORK_EXCEPTION)."""

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message)
        self.text = text

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.text)


class InvalidResult(GeardError, ValueError):
    """The job is complete, but its result is not in the encoding asked for; `data` is what the worker sent."""

    def __init__(self, message: str, data: bytes) -> None:
        super().__init__(message)
        self.data = data

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.args, self.data)


class ResultTooLarge(GeardError):
    """What came for a job, or as an answer, is over the client's `max_packet_bytes`, and was thrown away as it arrived.

    The message has both sizes. The job itself may be done. The connection goes on, and all else on it."""


class JobTimeout(GeardError, TimeoutError):
    """The caller waited long enough, or a capability ran over its `timeout`. The job itself may still be running."""


class ProcessKilled(GeardError):
    """The job's function ended the process that it ran in: os._exit, a crash of C code, the kernel's OOM killer."""
