"""A line at the foot of the terminal that shows how far a job, or a file of jobs, has come.

Rules:
- The line is drawn on stderr, and only where that is a terminal. It is gone before anything else is written: all output
  of a command that has one goes through it.
- What the line says is made by a pure function of the counts and the clock; a thread draws it ten times a second.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from geard.cli.output import console, on_terminal, say, write_bytes
from geard.config.units import format_duration
from geard.printable import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

REDRAW_SECONDS: Final = 0.1
BAR_WIDTH: Final = 30


class FootLine:
    """The line. A context manager: it is cleared, and its thread ended, on the way out.

    `render` gives what to draw now, or None for nothing yet."""

    def __init__(self, render: Callable[[], RenderableType | None]) -> None:
        self._render = render
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._line = ""  # as it was last rendered; empty before that
        self._drawn = False
        self._mid_line = False  # what was written to the same terminal did not end its line
        self._console = console(err=True) if on_terminal(sys.stderr) else None
        self._shares_terminal = self._console is not None and sys.stdout.isatty()

    def __enter__(self) -> FootLine:
        if self._console:
            threading.Thread(target=self._redraw, args=(self._console,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        with self._lock:
            self._erase()
            self._end_line()

    def write(self, data: bytes) -> None:
        """Bytes to stdout as they are, at once."""
        if not self._shares_terminal:
            write_bytes(data)
            return
        with self._lock:
            self._erase()
            write_bytes(data)
            if data:
                self._mid_line = not data.endswith(b"\n")
            if not self._mid_line:
                self._draw()

    def say(self, text: str) -> None:
        """A message on stderr."""
        with self._lock:
            self._erase()
            self._end_line()
            say(text)
            self._draw()

    def _redraw(self, terminal: Console) -> None:
        while not self._ended.wait(REDRAW_SECONDS):
            renderable = self._render()
            if renderable is None:
                continue
            with terminal.capture() as capture:
                terminal.print(renderable, end="", no_wrap=True, overflow="ellipsis", crop=True)
            with self._lock:
                self._line = capture.get()
                if not self._ended.is_set():
                    self._erase()
                    self._end_line()
                    self._draw()

    def _draw(self) -> None:
        if self._line:
            _to_terminal(self._line)
            self._drawn = True

    def _erase(self) -> None:
        if self._drawn:
            _to_terminal("\r\x1b[K")
            self._drawn = False

    def _end_line(self) -> None:
        if self._mid_line:
            _to_terminal("\n")
            self._mid_line = False


def _to_terminal(text: str) -> None:
    sys.stderr.write(text)
    sys.stderr.flush()


class JobProgress:
    """How far one job has come, by its own WORK_STATUS."""

    def __init__(self, function: str) -> None:
        self.function = function
        self.numerator = 0.0
        self.denominator = 0.0
        self.known = False

    def update(self, numerator: float, denominator: float) -> None:
        self.numerator, self.denominator, self.known = numerator, denominator, True

    def render(self) -> RenderableType | None:
        """The line, once the worker has told anything."""
        if not self.known:
            return None
        return bar_line(self.function, self.numerator, self.denominator, f"{self.numerator:g}/{self.denominator:g}")


class FileProgress:
    """How far a file of jobs has come. The time left is judged by the bytes of its lines."""

    def __init__(self, label: str, total_bytes: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.label = label
        self.total_bytes = total_bytes
        self.bytes = 0
        self.done = 0
        self.failed = 0
        self._clock = clock
        self._start = clock()

    def count(self, line_bytes: int, *, failed: bool) -> None:
        """One line is over."""
        self.bytes += line_bytes
        self.done += 1
        self.failed += failed

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._clock() - self._start

    @property
    def rate(self) -> float:
        """Jobs a second, over all."""
        return self.done / max(self.seconds, 1e-6)

    def counts(self) -> str:
        """Jobs done, of these failed, and how many a second."""
        parts = [f"{self.done:,} jobs"]
        if self.failed:
            parts.append(f"{self.failed:,} failed")
        parts.append(f"{self.rate:,.0f}/s" if self.rate >= 10 else f"{self.rate:.1f}/s")
        return ", ".join(parts)

    def summary(self) -> str:
        """What the end of the file says."""
        seconds = self.seconds
        return f"{self.counts()}, in {f'{seconds:.2g}s' if seconds < 10 else format_duration(round(seconds))}"

    def seconds_left(self) -> float | None:
        """At the pace so far; None where the size of the file is unknown, or nothing is done yet."""
        if self.total_bytes is None or not self.bytes:
            return None
        return max(0.0, (self.total_bytes - self.bytes) * self.seconds / self.bytes)

    def render(self) -> RenderableType:
        """The line."""
        left = self.seconds_left()
        text = self.counts() + (f", {format_duration(round(left))} left" if left is not None else "")
        return bar_line(self.label, self.bytes, self.total_bytes or 0, text)


def bar_line(label: str, done: float, total: float, text: str) -> RenderableType:
    """A bar between its label and its numbers; without a total, a label and numbers."""
    from rich.text import Text

    label = printable(label)
    if total <= 0:
        return Text.assemble((label, "bold"), "  ", text)
    share = min(1.0, max(0.0, done / total))
    full = round(share * BAR_WIDTH)
    return Text.assemble(
        (label, "bold"), "  ", ("━" * full, "green"), ("━" * (BAR_WIDTH - full), "dim"), f"  {share:4.0%}  {text}"
    )
