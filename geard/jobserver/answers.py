"""What the job server sends, as bytes.

Fields come from packets that were decoded, so none but the last can hold a NUL byte, and the checks of
`geard.protocol.encode` are left out: these run once or twice for every job.
"""

from __future__ import annotations

import struct
from typing import Final

from geard.jobserver.state import Job
from geard.protocol import RESPONSE, Command, response

_header = struct.Struct(">8sI").pack


def _start(command: Command) -> bytes:
    """Magic and code: what a packet's header is without the size."""
    return RESPONSE + struct.pack(">I", command)


_STARTS: Final = {command: _start(command) for command in Command}
_CREATED: Final = _STARTS[Command.JOB_CREATED]
_ASSIGN_UNIQ: Final = _STARTS[Command.JOB_ASSIGN_UNIQ]

NOOP: Final = response(Command.NOOP)
NO_JOB: Final = response(Command.NO_JOB)


def answer(command: Command, *fields: bytes) -> bytes:
    """The packet of `command` with these fields."""
    body = b"\0".join(fields)
    return _header(_STARTS[command], len(body)) + body


def job_created(handle: bytes) -> bytes:
    """JOB_CREATED."""
    return _header(_CREATED, len(handle)) + handle


def job_assign_uniq(job: Job) -> bytes:
    """JOB_ASSIGN_UNIQ."""
    body = b"\0".join((job.handle, job.function.name, job.unique, job.workload))
    return _header(_ASSIGN_UNIQ, len(body)) + body


def error(code: str, text: str) -> bytes:
    """ERROR, with the codes and words of gearmand."""
    return answer(Command.ERROR, code.encode(), text.encode())


QUEUE_FULL: Final = error("QUEUE_ERROR", "Job queue is full")
UNIQUE_TOO_LARGE: Final = error("ARGUMENT_TOO_LARGE", "Unique value too large")
NAME_TOO_LARGE: Final = error("ARGUMENT_TOO_LARGE", "Function name or client id too large")
TOO_MANY_FUNCTIONS: Final = error("ARGUMENT_TOO_LARGE", "Too many functions")
UNKNOWN_OPTION: Final = error("UNKNOWN_OPTION", "Server does not recognize given option")
NOT_EXPECTED: Final = error("INVALID_COMMAND", "Command not expected")
RESULT_NOT_FOUND: Final = error("JOB_NOT_FOUND", "Job given in work result not found")
DATA_NOT_FOUND: Final = error("JOB_NOT_FOUND", "Job does not exist on server")
EXCEPTION_NOT_FOUND: Final = error("JOB_NOT_FOUND", "An exception was received for a job that does not exist")
