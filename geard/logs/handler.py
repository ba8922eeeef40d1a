"""The handler on the root logger: from a record to what is handed to the writer.

Rules:
- It holds no lock of `logging`'s: a greenlet or a thread that logs never waits for another one that does.
- Whatever a record's arguments do, nothing is raised, and something is written.
- Failures of jobs (records with `failure`) are written whole once and then counted, see geard/logs/repeats.py.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from geard import native
from geard.logs.formats import JOB_FIELDS, Format
from geard.logs.repeats import Repeats, places
from geard.logs.writer import Writer

OUTPUT_LEVEL: Final = logging.INFO


class AboutJob(Protocol):
    """What is to be known of the job that a line belongs to."""

    @property
    def function(self) -> str: ...

    @property
    def handle(self) -> str: ...

    @property
    def unique(self) -> str: ...

    @property
    def server(self) -> str: ...

    answered: bool


CurrentJob = Callable[[], AboutJob | None]


class _Said(NamedTuple):
    """What a failure's line said."""

    logger: str
    level: int
    message: str
    fields: dict[str, Any]


class LogHandler(logging.Handler):
    """Formats records and hands them to `writer`. `current_job` finds the job that user code logs in."""

    def __init__(
        self,
        writer: Writer,
        as_bytes: Format,
        *,
        path: str | None = None,
        repeats_seconds: float = 0.0,
        current_job: CurrentJob = lambda: None,
    ) -> None:
        super().__init__()
        self.writer = writer
        self.path = path
        self._as_bytes = as_bytes
        self._current_job = current_job
        self._mutex = native.RLock()
        self._repeats: Repeats[_Said] = Repeats(repeats_seconds)
        writer.note = self._note

    def createLock(self) -> None:  # noqa: N802 - logging's name
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand the record on. Never blocks and never raises."""
        if not self.filter(record):
            return False
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._attach_job(record)
            if "failure" in vars(record) and record.name.startswith("geard.") and not self._is_first(record):
                return
        except Exception as error:  # user code again: what it asked to have logged is worth more than these
            vars(record)["job_unknown"] = type(error).__name__
        self.writer.hand(self._bytes(record))

    def output(self, stream: str, text: str, job: AboutJob | None) -> None:
        """A line that code has written to a standard stream, whatever the level of the log."""
        record = logging.LogRecord(stream, OUTPUT_LEVEL, stream, 0, "%s", (text,), None)
        self._attach(record, job)
        self.writer.hand(self._bytes(record))

    def tick(self, *, all_of_them: bool = False) -> None:
        """Write the counts that are due; with `all_of_them` every count that there is."""
        with self._mutex:
            due = self._repeats.due(time.monotonic(), all_of_them=all_of_them)
        for repeated in due:
            said = repeated.last
            message = said.message
            if repeated.times > 1:
                message += f"; and {repeated.times - 1:,} more in {repeated.seconds:.0f} s"
            record = logging.LogRecord(said.logger, said.level, "", 0, "%s", (message,), None)
            vars(record).update(said.fields, repeated=repeated.times)
            self.writer.hand(self._bytes(record))

    def flush(self) -> None:
        """Part of logging.shutdown, which geard.logs.flush makes needless."""

    def _attach_job(self, record: logging.LogRecord) -> None:
        if "handle" not in vars(record):
            self._attach(record, self._current_job())

    def _attach(self, record: logging.LogRecord, job: AboutJob | None) -> None:
        if job is not None:
            for name in JOB_FIELDS:
                vars(record).setdefault(name, getattr(job, name))

    def _is_first(self, record: logging.LogRecord) -> bool:
        fields = vars(record)
        traceback = record.exc_info[2] if record.exc_info else None
        key = (fields.get("function"), fields["failure"], places(traceback))
        about: dict[str, Any] = {name: fields[name] for name in (*JOB_FIELDS, "failure") if name in fields}
        said = _Said(record.name, record.levelno, record.getMessage(), about)
        with self._mutex:
            first = self._repeats.is_first(key, said, time.monotonic())
        self.tick()
        return first

    def _bytes(self, record: logging.LogRecord) -> bytes:
        try:
            return self._as_bytes(record)
        except Exception:  # a caller's wrong arguments or a failing __str__: say so, with the bare message
            text = f"cannot format a log record from {record.name}:{record.lineno}: {_bare_message(record)}"
            return self._as_bytes(_own_record(record.levelno, text))

    def _note(self, count: int) -> bytes:
        return self._as_bytes(_own_record(logging.WARNING, f"({count:,} log lines could not be written)"))


def _bare_message(record: logging.LogRecord) -> str:
    try:
        return repr(record.msg)[:1000]
    except Exception:
        return f"a message of type {type(record.msg).__name__}"


def _own_record(level: int, text: str) -> logging.LogRecord:
    return logging.LogRecord("geard.logs", level, "", 0, "%s", (text,), None)
