"""Logging for the supervisor and its worker processes: one line of state a line, on stderr, in journald, or in a file.

Rules:
- A log that cannot be written (a full disk, a closed pipe) loses lines and nothing else: no job and no process ends
  because of it. How many were lost is the first line once it can be written again.
- Each record is one write(2), to a file in append mode, so the records of several processes never mix in it.
- Under journald every line carries its priority (`<4>`), each line of a traceback too, and no time: journald has it.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Final

import msgspec

from geard.config.model import Logging

_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_STANDARD_FIELDS: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_STDERR: Final = 2


def configure(config: Logging, *, verbose: bool = False, process: str = "supervisor") -> None:
    """Send this process's log where the config says; `process` names it in each line. May be called again.

    `verbose` shows geard's own debug lines, each job among them, whatever the level of the rest.
    Raises OSError when the log file cannot be opened."""
    handler = LogHandler(config.file)
    handler.setFormatter(_formatter(config, process))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(config.level.upper())
    logging.getLogger("geard").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    logging.captureWarnings(True)


def reopen() -> None:
    """Open the log file again after it was rotated. If that fails the old one is kept, and told why."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogHandler):
            try:
                handler.reopen()
            except OSError as error:
                logging.getLogger(__name__).error("cannot reopen the log file: %s; going on with the old one", error)


def stderr_is_journal() -> bool:
    """Whether stderr goes straight to journald: JOURNAL_STREAM names its device and inode."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(_STDERR)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


class LogHandler(logging.Handler):
    """Writes each record with one write(2) to stderr, or to the file at `path`."""

    def __init__(self, path: str | None) -> None:
        super().__init__()
        self._path = os.path.abspath(path) if path else None
        self._descriptor = self._open()
        self._lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception:  # a caller's wrong arguments or a failing __str__: say so, with the bare message
            line = f"cannot format a log record from {record.name}:{record.lineno}: {record.msg!r}"
        if self._lost:
            line = f"({self._lost} log lines could not be written)\n{line}"
        data = line.encode(errors="backslashreplace") + b"\n"
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def reopen(self) -> None:
        """Open the file by its name again. Raises OSError, the old one still open."""
        if self._path:
            old, self._descriptor = self._descriptor, self._open()
            os.close(old)

    def close(self) -> None:
        if self._path:
            os.close(self._descriptor)
            self._path, self._descriptor = None, _STDERR
        super().close()

    def _open(self) -> int:
        if not self._path:
            return _STDERR
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)


class TextFormatter(logging.Formatter):
    """`2026-11-24 04:20:11.123 warning worker 2[4711]: message`, for a person."""

    default_time_format = "%Y-%m-%d %H:%M:%S"
    default_msec_format = "%s.%03d"

    def __init__(self, process: str) -> None:
        self.process = f"{process}[{os.getpid()}]"
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        head = f"{self.formatTime(record)} {record.levelname.lower():<7} {self.process}: "
        return head + self.message(record)

    def message(self, record: logging.LogRecord) -> str:
        """The record's own text, its traceback below it. A logger that is not geard's is named."""
        text = record.getMessage()
        if not record.name.startswith("geard"):
            text = f"{record.name}: {text}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            text += "\n" + self.formatStack(record.stack_info)
        return text


class JournalFormatter(TextFormatter):
    """The same without time, each line with its syslog priority."""

    def format(self, record: logging.LogRecord) -> str:
        head = f"<{priority(record.levelno)}>"
        return "\n".join(head + line for line in f"{self.process}: {self.message(record)}".splitlines())


class JsonFormatter(TextFormatter):
    """One JSON object a line: time, level, process, logger, message, traceback, and what the caller gave in `extra`."""

    def __init__(self, process: str, *, journal: bool) -> None:
        super().__init__(process)
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "process": self.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        fields.update((name, value) for name, value in vars(record).items() if name not in _STANDARD_FIELDS)
        line = msgspec.json.encode(fields, enc_hook=str).decode()
        return f"<{priority(record.levelno)}>{line}" if self._journal else line


def priority(level: int) -> int:
    """The syslog priority of a logging level."""
    return next((number for floor, number in _PRIORITIES if level >= floor), 7)


def _formatter(config: Logging, process: str) -> logging.Formatter:
    journal = config.file is None and stderr_is_journal()
    if config.format == "json":
        return JsonFormatter(process, journal=journal)
    return JournalFormatter(process) if journal else TextFormatter(process)
