"""stdout and stderr of a worker process: what capabilities print goes to the log, line by line, each with its job.

Rules:
- A line is handed over when it ends, not when some buffer is full: it survives the process. Lines of greenlets and
  threads that print at once do not mix.
- What has no line end yet waits for it, at most until its job has ended, it is LONGEST_LINE_BYTES long, nothing was
  added for PARTIAL_SECONDS, or the process ends.
- Descriptors 1 and 2 stay as they are: programs that a capability starts write to them, and so does who asks for
  `fileno()`.
"""

from __future__ import annotations

import _thread
import io
import os
import sys
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from geard.logs.handler import AboutJob, CurrentJob

LONGEST_LINE_BYTES: Final = 16 * 1024
PARTIAL_SECONDS: Final = 5.0

Emit = Callable[[str, str, AboutJob | None], None]


class _Partial(NamedTuple):
    data: bytes
    job: AboutJob | None
    since: float


class LineOutput(io.BufferedIOBase):
    """The binary side of a standard stream; text goes through an io.TextIOWrapper around it.

    `emit(name, text, job)` takes each line."""

    def __init__(self, name: str, descriptor: int, emit: Emit, current_job: CurrentJob) -> None:
        super().__init__()
        self.name = f"<{name}>"
        self._name = name
        self._descriptor = descriptor
        self._emit = emit
        self._current_job = current_job
        self._partials: dict[int, _Partial] = {}  # by the greenlet or thread that writes
        self._pid = os.getpid()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return False

    @property
    def raw(self) -> io.RawIOBase:
        """The descriptor itself, for who must have it. Opened anew for each: closing it closes nothing."""
        return io.FileIO(os.dup(self._descriptor), "wb")

    def write(self, data: Any, /) -> int:
        new = bytes(data)
        writer, job = _thread.get_ident(), self._current_job()
        before = self._partials.pop(writer, None)
        if before is not None and before.job is not job:
            self._line(before.data, before.job)
            before = None
        *lines, rest = ((before.data if before else b"") + new).split(b"\n")
        for line in lines:
            self._line(line, job)
        if len(rest) > LONGEST_LINE_BYTES:
            self._line(rest, job)
            rest = b""
        if rest:
            self._partials[writer] = _Partial(rest, job, time.monotonic())
        return len(new)

    def flush(self) -> None:
        """Nothing: whole lines are out already. In a forked child, which may end in any way, what is left too."""
        if os.getpid() != self._pid and not self.closed:
            self.end_partials(all_of_them=True)

    def end_partials(self, *, all_of_them: bool = False) -> None:
        """Write what has no line end and will not get one: its job has ended, or nothing was added for long."""
        due = time.monotonic() - PARTIAL_SECONDS
        for writer, partial in list(self._partials.items()):
            ended = partial.job is not None and partial.job.answered
            if (all_of_them or ended or partial.since < due) and self._partials.pop(writer, None) is not None:
                self._line(partial.data, partial.job)

    def after_fork_in_child(self) -> None:
        """What the parent has begun to write is the parent's to end."""
        self._partials.clear()

    def _line(self, line: bytes, job: AboutJob | None) -> None:
        for start in range(0, max(len(line), 1), LONGEST_LINE_BYTES):
            piece = line[start : start + LONGEST_LINE_BYTES]
            self._emit(self._name, piece.removesuffix(b"\r").decode(errors="backslashreplace"), job)


class Capture:
    """Both streams, from `start` on."""

    def __init__(self, emit: Emit, current_job: CurrentJob) -> None:
        self._streams = [LineOutput(name, number, emit, current_job) for number, name in ((1, "stdout"), (2, "stderr"))]
        os.register_at_fork(after_in_child=self._after_fork_in_child)

    def start(self) -> None:
        """Put them in the place of sys.stdout and sys.stderr."""
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(stream, encoding="utf-8", errors="backslashreplace", write_through=True)
            for stream in self._streams
        )

    def end_partials(self, *, all_of_them: bool = False) -> None:
        """See LineOutput."""
        for stream in self._streams:
            stream.end_partials(all_of_them=all_of_them)

    def _after_fork_in_child(self) -> None:
        for stream in self._streams:
            stream.after_fork_in_child()
