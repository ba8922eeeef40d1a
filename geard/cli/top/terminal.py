"""The terminal while a command draws on all of it: keys one by one, the other screen, and all as before at the end.

Rules:
- Whatever ends the command, a signal among it, the terminal is given back as it was found.
- A frame is one write, of the lines that changed: it is as quick over a slow line, and nothing half drawn is seen.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from rich.text import Text

from geard.cli.output import Line, console

ENTER: Final = "\x1b[?1049h\x1b[?25l"
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
CLEAR: Final = "\x1b[2J"
CLEAR_LINE: Final = "\x1b[K"
FALLBACK: Final = (80, 24)
KEYS: Final = {  # what terminals send -> the key
    "\x1b[A": "up", "\x1b[B": "down", "\x1bOA": "up", "\x1bOB": "down", "\x1b[5~": "page up", "\x1b[6~": "page down",
    "\x1b[H": "home", "\x1b[1~": "home", "\x1bOH": "home", "\x1b[F": "end", "\x1b[4~": "end", "\x1bOF": "end",
    "\x1b[Z": "back tab", "\t": "tab", " ": "space",
}  # fmt: skip


class Terminal:
    """A context manager, for the main thread. `wake` may be called from any thread."""

    def __init__(self) -> None:
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._writing, False)
        os.set_blocking(self._reading, False)
        self._mode: list[Any] = []
        self._handlers: dict[int, Any] = {}
        self._console = console()
        self._shown: list[str] = []  # the lines that are on the screen, as they were sent; empty: nobody knows
        self._shown_size = FALLBACK

    def __enter__(self) -> Terminal:
        self._mode = termios.tcgetattr(self._in)
        for number, handler in {
            signal.SIGWINCH: lambda *_: self.wake(),
            signal.SIGTERM: self._end,
            signal.SIGHUP: self._end,
            signal.SIGQUIT: self._end,  # Ctrl-\
            signal.SIGTSTP: self._stop,
        }.items():
            self._handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        os.close(self._reading)
        writing, self._writing = self._writing, -1
        os.close(writing)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            return FALLBACK
        return (columns, lines) if columns and lines else FALLBACK

    def wake(self) -> None:
        """Let `keys` return."""
        with suppress(OSError):  # full: it is awake; closed: it is over
            os.write(self._writing, b".")

    def keys(self) -> list[str] | None:
        """Wait for keys, a `wake` or a change of size: the keys that were pressed. None: nobody is there any more."""
        readable, _, _ = select.select([self._in, self._reading], [], [])
        if self._reading in readable:
            os.read(self._reading, 4096)
        if self._in not in readable:
            return []
        try:
            data = os.read(self._in, 1024)
        except OSError:
            return None
        return keys_of(data.decode(errors="replace")) if data else None

    def show(self, lines: Sequence[Line]) -> None:
        """Draw a screen of lines, none wider than it."""
        text = Text("\n").join(Text(line.text, line.style) for line in lines)
        with self._console.capture() as capture:
            self._console.print(text, soft_wrap=True, end="")
        rows, size = capture.get().split("\n"), self.size
        shown = self._shown if size == self._shown_size else []
        # A line is cleared before it is written: after its last column, clearing would take that too.
        changes = [
            f"\x1b[{at + 1};1H{CLEAR_LINE}{row}" for at, row in enumerate(rows) if shown[at : at + 1] != [row]
        ] + [f"\x1b[{at + 1};1H{CLEAR_LINE}" for at in range(len(rows), len(shown))]
        self._write(("" if shown else CLEAR) + "".join(changes))
        self._shown, self._shown_size = rows, size

    def redraw(self) -> None:
        """Let the next `show` draw all of it: something else may have written on the screen."""
        self._shown = []

    def _take(self) -> None:
        tty.setcbreak(self._in)
        self._write(ENTER)

    def _give_back(self) -> None:
        try:
            with suppress(OSError):
                self._write(LEAVE)
        finally:  # another signal may come amid that
            with suppress(termios.error):  # it is gone
                termios.tcsetattr(self._in, termios.TCSADRAIN, self._mode)

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            try:
                data = data[os.write(self._out, data) :]
            except BlockingIOError:  # another program made it so
                select.select([], [self._out], [])

    def _end(self, number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    def _stop(self, number: int, _frame: object) -> None:
        """Ctrl-Z: stop as any program, and go on when it is wanted again."""
        self._give_back()
        ours = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when the shell lets us go on
        signal.signal(signal.SIGTSTP, ours)
        self._take()
        self.redraw()
        self.wake()


def keys_of(text: str) -> list[str]:
    """The keys in what a terminal sent. Sequences that mean nothing here are left out."""
    keys: list[str] = []
    while text:
        sequence = next((known for known in KEYS if text.startswith(known)), "")
        if sequence:
            keys.append(KEYS[sequence])
        elif text[0] == "\x1b":
            sequence = text[: 1 + next((at for at, char in enumerate(text[1:], 1) if char.isalpha() or char == "~"), 0)]
        else:
            sequence = text[0]
            keys.append(sequence)
        text = text[len(sequence) :]
    return keys
