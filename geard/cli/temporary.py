"""A daemon for the time of a command: a process of its own, and a directory for all that it writes.

Rule: whatever happens, on the way out the process, its children and its directory are gone.
"""

from __future__ import annotations

import atexit
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from geard.cli.interrupts import no_interrupts
from geard.errors import GeardError

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.02


class TemporaryDaemon:
    """A context manager: within, `launch` starts the daemon; after, it is gone."""

    def __init__(self, prefix: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        with no_interrupts():  # or there would be a directory that nobody knows of
            self._temporary = tempfile.TemporaryDirectory(prefix=prefix)
        self.directory = Path(self._temporary.name)
        """For its config, its control socket `geard.sock` and its log file `log`."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.directory} pid={self._process.pid if self._process else None}>"

    def __enter__(self) -> TemporaryDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """Of its supervisor, once it was launched."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> Path:
        """Where it is to write its log."""
        return self.directory / "log"

    @property
    def control_socket(self) -> Path:
        """Where it is to listen for `geard ps` and the like."""
        return self.directory / "geard.sock"

    def launch(self, *arguments: str, stdin: bytes = b"") -> None:
        """Start it: `python ARGUMENTS`, with `stdin` to read."""
        given = self.directory / "stdin"
        given.write_bytes(stdin)
        with (self.directory / "stderr").open("wb") as stderr, given.open("rb") as source, no_interrupts():
            self._process = subprocess.Popen(
                [sys.executable, *arguments], stdin=source, stdout=stderr, stderr=stderr, start_new_session=True
            )
            atexit.register(self.stop)  # should an interrupt strike on the way to it

    def wait_until(self, serves: Callable[[], bool]) -> None:
        """Wait until it does, by its own account or that of others. Raises GeardError with what it said if it does not
        within START_SECONDS."""
        deadline = time.monotonic() + START_SECONDS
        while not serves():
            self.check()
            if time.monotonic() > deadline:
                raise self._failed()
            time.sleep(LOOK_SECONDS)

    def check(self) -> None:
        """Raise GeardError with what it said if it has ended."""
        if self._process is None or self._process.poll() is not None:
            raise self._failed()

    def stop(self) -> None:
        """Stop it and remove what it wrote. Idempotent."""
        with no_interrupts():
            process = self._process
            if process is not None and process.poll() is None:
                process.terminate()
                try:
                    process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()  # its children end when it has
                    process.wait()
            self._temporary.cleanup()
            atexit.unregister(self.stop)

    def _failed(self) -> GeardError:
        files = (self.directory / "stderr", self.log)
        said = "".join(file.read_text(errors="replace") for file in files if file.exists()).strip()
        return GeardError(f"the daemon does not start:\n{said}")
