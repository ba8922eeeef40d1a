"""What a record looks like: text for a person, lines with a priority or fields for the journal, JSON for a machine.

Rules:
- One record cannot look like two, and steers no terminal. Its line breaks are kept, with every line but the first
  indented; all else that cannot be shown is escaped (geard/printable.py).
- Function, handle, unique and server of the job that a record is about are fields where there are fields. In text,
  geard's own lines name the job, and those of user code get it as a prefix.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

from geard.logs import journal
from geard.printable import printable, printable_json, printable_lines

JOB_FIELDS: Final = ("function", "handle", "unique", "server")
MOST_CHARACTERS: Final = 64 * 1024
"""Of a message, and of a traceback; what is longer is cut in its middle."""
INDENT: Final = "    "

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_tracebacks: Final = logging.Formatter()


class Format(Protocol):
    """Makes of a record what a destination takes, its end included. May raise whatever the record's arguments raise."""

    def __call__(self, record: logging.LogRecord) -> bytes:
        """The record as bytes."""


class Text:
    """`2026-11-24 04:20:11.123 warning worker 2[4711]: message`, for a person."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, record: logging.LogRecord) -> bytes:
        moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        head = f"{moment}.{int(record.msecs):03d} {record.levelname.lower():<7} "
        return to_bytes(head + body(record, self._process) + "\n")


class JournalLines:
    """The same without time, each line with its syslog priority: for stderr that is the journal's."""

    def __init__(self, process: str) -> None:
        self._process = process

    def __call__(self, record: logging.LogRecord) -> bytes:
        head = f"<{priority(record.levelno)}>"
        return to_bytes("".join(f"{head}{line}\n" for line in body(record, self._process).split("\n")))


class Json:
    """One JSON object a line: time, level, process, logger, message, traceback, the job's fields, and what the caller
    gave in `extra`. `journal`: with the syslog priority before it."""

    def __init__(self, process: str, *, journal: bool = False) -> None:
        self._process = process
        self._journal = journal

    def __call__(self, record: logging.LogRecord) -> bytes:
        head = f"<{priority(record.levelno)}>" if self._journal else ""
        return to_bytes(f"{head}{self.line(record)}\n")

    def line(self, record: logging.LogRecord) -> str:
        """The object alone."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": named(self._process),
            "logger": record.name,
            "message": cut(record.getMessage()),
        }
        traceback = traceback_of(record)
        if traceback:
            fields["traceback"] = cut(traceback)
        for name, value in vars(record).items():
            if name not in _STANDARD_FIELDS:
                fields.setdefault(name, value)
        try:
            line = msgspec.json.encode(fields, enc_hook=str).decode()
        except UnicodeEncodeError:  # a lone surrogate
            line = json.dumps(fields, default=str)
        return printable_json(line)


class JournalFields:
    """A datagram for journald: the message as in text, or as JSON, and the job's fields as GEARD_FUNCTION and so on."""

    def __init__(self, process: str, *, as_json: bool = False) -> None:
        self._process = process
        self._json = Json(process) if as_json else None

    def __call__(self, record: logging.LogRecord) -> bytes:
        fields = {
            "MESSAGE": self._json.line(record) if self._json else body(record, self._process),
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": "geard",
            "GEARD_PROCESS": self._process,
            "GEARD_LOGGER": printable(record.name),
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
        }
        fields.update((f"GEARD_{name.upper()}", printable(value)) for name, value in job_fields(record).items())
        return journal.encode(fields)


def body(record: logging.LogRecord, process: str) -> str:
    """What a person reads of a record but for its time and level: one line, and indented ones."""
    text = record.getMessage()
    if not record.name.startswith("geard"):
        about = job_fields(record)
        job = f"{about['function']} {about['handle']}: " if "function" in about and "handle" in about else ""
        text = f"{printable(job)}{printable(record.name)}: {text}"
    traceback = traceback_of(record)
    text = cut(text) + (f"\n{cut(traceback)}" if traceback else "")
    return f"{named(process)}: {printable_lines(text)}".replace("\n", f"\n{INDENT}")


def traceback_of(record: logging.LogRecord) -> str:
    """The traceback that goes with a record, and the stack if it was asked for."""
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(_tracebacks.formatException(record.exc_info))
    if record.stack_info:
        parts.append(record.stack_info)
    return "\n".join(parts)


def job_fields(record: logging.LogRecord) -> Mapping[str, str]:
    """What a record says of its job."""
    attributes = vars(record)
    return {name: attributes[name] for name in JOB_FIELDS if isinstance(attributes.get(name), str)}


def cut(text: str) -> str:
    """The text, without its middle where it is very long."""
    if len(text) <= MOST_CHARACTERS:
        return text
    half = MOST_CHARACTERS // 2
    return f"{text[:half]}\n[{len(text) - 2 * half:,} characters left out]\n{text[-half:]}"


def priority(level: int) -> int:
    """The syslog priority of a logging level."""
    return next((number for floor, number in _PRIORITIES if level >= floor), 7)


def named(process: str) -> str:
    """`worker 2[4711]`: the process id is asked for each time, since a capability may fork."""
    return f"{process}[{os.getpid()}]"


def to_bytes(text: str) -> bytes:
    """As the log is encoded."""
    return text.encode(errors="backslashreplace")
