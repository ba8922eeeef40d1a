"""Commands as a user runs them, each in a process of its own, in pipes or on a terminal; and a worker for them."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from geard.protocol import Command, Packet
from tests.support.raw import Peer
from tests.support.waiting import DEADLINE_SECONDS, eventually

GEARD = (sys.executable, "-m", "geard")
NONE: Mapping[str, str] = {}
Script = Callable[[Peer, Packet], None]


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The test's own, without what would name job servers or config files; a wide terminal with colours."""
    ours = {name: value for name, value in os.environ.items() if name not in ("GEARMAN_SERVERS", "GEARD_CONFIG")}
    return ours | {"TERM": "xterm-256color", "COLUMNS": "100", **variables}


def geard(
    *arguments: str | bytes, stdin: bytes = b"", cwd: Path | None = None, variables: Mapping[str, str] = NONE
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end. `variables` are added to its environment."""
    return subprocess.run(
        [*GEARD, *arguments],
        input=stdin,
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        env=environment(variables),
        cwd=cwd,
        check=False,
    )


class Running:
    """A command that still runs, in pipes or, if `terminal`, with stderr (and stdout, unless piped) on a terminal.

    `screen` is all that the terminal was sent. A context manager: the process is killed at the end."""

    def __init__(
        self,
        *arguments: str,
        program: Sequence[str] = GEARD,
        terminal: bool = False,
        stdout: int | None = None,
        variables: Mapping[str, str] = NONE,
    ) -> None:
        self.screen = ""
        self._master: int | None = None
        ends = subprocess.PIPE
        if terminal:
            self._master, slave = pty.openpty()
            fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
            ends = slave
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*program, *arguments],
            stdin=ends,
            stdout=ends if stdout is None else stdout,
            stderr=ends,
            env=environment(variables),
        )
        if self._master is not None:
            os.close(slave)
            self._reader = threading.Thread(target=self._read, args=(self._master,), daemon=True)
            self._reader.start()

    def _read(self, master: int) -> None:
        while True:
            try:
                data = os.read(master, 65536)
            except OSError:  # EIO: the last process on the terminal is gone
                return
            self.screen += data.decode(errors="replace")

    @property
    def text(self) -> str:
        """The screen's text without the sequences that steer the terminal."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.screen)

    def sees(self, pattern: str) -> str:
        """Wait until the pattern has been on the screen."""
        eventually(lambda: re.search(pattern, self.text), what=f"{pattern!r} on the screen {self.text!r}")
        return self.text

    def press(self, text: str) -> None:
        """Keys on the terminal."""
        assert self._master is not None
        os.write(self._master, text.encode())

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def ends(self) -> int:
        """Wait for its end: the exit code."""
        code: int = self.process.wait(DEADLINE_SECONDS)
        if self._master is not None:
            self._reader.join(DEADLINE_SECONDS)
        return code

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()
        if self._master is not None:
            self._reader.join(DEADLINE_SECONDS)
            os.close(self._master)


class ScriptedWorker:
    """A worker in a thread of this process: `scripts` play each job of their function, one job at a time."""

    def __init__(self, address: str, **scripts: Script) -> None:
        self._peer = Peer.connect(address)
        self._peer.socket.settimeout(None)
        self._scripts = scripts
        self._peer.send(Command.SET_CLIENT_ID, b"scripted worker")
        for function in scripts:
            self._peer.send(Command.CAN_DO, function.encode())
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            while True:
                self._peer.send(Command.GRAB_JOB_UNIQ)
                packet = self._peer.receive()
                while packet.command == Command.NOOP:
                    packet = self._peer.receive()
                if packet.command == Command.JOB_ASSIGN_UNIQ:
                    self._scripts[packet.function.decode()](self._peer, packet)
                else:
                    self._peer.send(Command.PRE_SLEEP)
                    self._peer.skip_to(Command.NOOP)
        except (EOFError, OSError):
            return

    def __enter__(self) -> ScriptedWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._peer.close()
