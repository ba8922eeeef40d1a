"""Logging for the supervisor and its worker processes: on stderr, to journald, or in a file.

Rules:
- Logging never waits: not for a reader of stderr that has stopped, not for a disk. What does not fit is counted, and
  the count is logged when the log flows again (geard/logs/writer.py).
- A log that cannot be written (a full disk, a closed pipe) loses lines and nothing else: no job and no process ends
  because of it.
- Each record is one write(2), to a file in append mode, so the records of several processes never mix in it.
- Under journald records go by its native protocol, with the job's fields; where its socket is not there, as lines with
  their priority (`<4>`). Neither has a time: journald has it.
"""

from __future__ import annotations

import atexit
import logging
from typing import Final

from geard.config.model import Logging
from geard.logs import journal
from geard.logs.destination import STDERR, Descriptor, Destination, open_again
from geard.logs.formats import Format, JournalFields, JournalLines, Json, Text, to_bytes
from geard.logs.handler import AboutJob, CurrentJob, LogHandler
from geard.logs.output import Capture
from geard.logs.writer import Writer
from geard.printable import printable_lines

__all__ = [
    "AboutJob",
    "capture_output",
    "configure",
    "console",
    "flush",
    "reopen",
    "stderr_without_waiting",
    "tick",
]

FLUSH_SECONDS: Final = 1.0
"""How long the end of a process may take to write what is left of the log."""

_capture: Capture | None = None


def configure(
    config: Logging,
    *,
    verbose: bool = False,
    process: str = "supervisor",
    current_job: CurrentJob = lambda: None,
    can_do_without: bool = False,
) -> None:
    """Send this process's log where the config says; `process` names it in each line. May be called again.

    `verbose` shows geard's own debug lines, each job among them, whatever the level of the rest. `current_job` finds
    the job in which user code logs or prints. Raises OSError when the log file cannot be opened; a process that
    `can_do_without` it goes on where it was, or on stderr, until `reopen`."""
    root = logging.getLogger()
    old = _handler()
    failure: OSError | None = None
    try:
        destination, as_bytes = _destination_and_format(config, process)
    except OSError as error:
        if not can_do_without:
            raise
        failure = error
        if old is not None:
            _say_without(failure, "the log stays where it is")
            return
        destination, as_bytes = Descriptor.at(None), _file_format(config, process)
    if old is not None and old.path == config.file:  # what waits in it keeps its place
        writer = old.writer
        writer.move(destination)
    else:
        writer = Writer(destination, lambda count: b"")
        if old is None:
            atexit.register(flush)
    handler = LogHandler(
        writer, as_bytes, path=config.file, repeats_seconds=config.repeats_seconds, current_job=current_job
    )
    for other in root.handlers[:]:
        root.removeHandler(other)
        other.close()
    root.addHandler(handler)
    if old is not None:
        old.tick(all_of_them=True)
        if old.writer is not writer:
            old.writer.close()
    root.setLevel(config.level.upper())
    logging.getLogger("geard").setLevel(logging.DEBUG if verbose else logging.NOTSET)
    logging.captureWarnings(True)
    if failure is not None:
        _say_without(failure, "the log goes to stderr")


def reopen() -> None:
    """Open the log file again after it was rotated. If that fails the old one is kept, and told why."""
    handler = _handler()
    if handler is None or handler.path is None:
        return
    try:
        handler.writer.move(Descriptor.at(handler.path))
    except OSError as error:
        logging.getLogger(__name__).error("cannot reopen the log file: %s; going on with the old one", error)


def capture_output(current_job: CurrentJob) -> None:
    """From here on sys.stdout and sys.stderr are the log's, line by line. Once in a process, after `configure`."""
    global _capture

    def emit(stream: str, text: str, job: AboutJob | None) -> None:
        handler = _handler()
        if handler is not None:
            handler.output(stream, text, job)

    _capture = Capture(emit, current_job)
    _capture.start()


def tick() -> None:
    """Write what is due by the clock: counts of failures, lines without an end. To be called about once a second."""
    handler = _handler()
    if handler is not None:
        handler.tick()
    if _capture is not None:
        _capture.end_partials()


def flush(seconds: float = FLUSH_SECONDS) -> bool:
    """Write all there is, at most for so long: the last thing that a process does. Whether it could be written."""
    if _capture is not None:
        _capture.end_partials(all_of_them=True)
    handler = _handler()
    if handler is None:
        return True
    handler.tick(all_of_them=True)
    return handler.writer.flush(seconds)


def console(text: str) -> None:
    """A message for the person at the terminal, on stderr, at the end of a process that must not wait for it."""
    writer = Writer(Descriptor.at(None), lambda count: b"")
    writer.hand(to_bytes(f"{printable_lines(text)}\n"))
    writer.flush(FLUSH_SECONDS)
    writer.close()


def stderr_without_waiting() -> int:
    """A descriptor that leads where stderr does, and that no write to it waits on, where that can be had. For
    faulthandler, which writes from a signal handler."""
    again = open_again(STDERR)
    return STDERR if again is None else again


def _handler() -> LogHandler | None:
    return next((handler for handler in logging.getLogger().handlers if isinstance(handler, LogHandler)), None)


def _destination_and_format(config: Logging, process: str) -> tuple[Destination, Format]:
    as_json = config.format == "json"
    if config.file is None and journal.stderr_is_journal():
        native = journal.connect()
        if native is not None:
            return native, JournalFields(process, as_json=as_json)
        stderr = Descriptor.at(None)
        return stderr, Json(process, journal=True) if as_json else JournalLines(process)
    return Descriptor.at(config.file), _file_format(config, process)


def _file_format(config: Logging, process: str) -> Format:
    return Json(process) if config.format == "json" else Text(process)


def _say_without(error: OSError, instead: str) -> None:
    logging.getLogger(__name__).error("cannot open the log file: %s; %s", error, instead)
