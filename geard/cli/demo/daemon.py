"""The daemon of the demo: `geard run --embedded` with a config made for it, as a process of its own.

Rule: whatever happens, on the way out the process, its children and its directory are gone.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from geard.cli.demo.interrupts import no_interrupts
from geard.client.admin import Admin
from geard.errors import ConnectionLost, GeardError

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 10.0
CAPABILITIES: Final = """\
  reverse: geard.examples.reverse
  upper_lines: geard.examples.upper_lines
  count_slowly: geard.examples.count_slowly
  divide: {function: geard.examples.divide, encoding: json}
  fail: geard.examples.fail
"""
"""The part of the config that a user writes."""
_CONFIG: Final = """\
job_servers: ["{address}"]
capabilities:
{capabilities}
control_socket: {directory}/geard.sock
logging: {{file: {directory}/log}}
shutdown_timeout: 0s
"""
"""At the end nobody waits for a job any more, so a stop need not."""


class DemoDaemon:
    """A context manager: within, `start` starts the daemon; after, it is gone."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        self._process: subprocess.Popen[bytes] | None = None
        with no_interrupts():  # or there would be a directory that nobody knows of
            self._temporary = tempfile.TemporaryDirectory(prefix="geard-demo-")
        self._directory = Path(self._temporary.name)

    def __repr__(self) -> str:
        return f"<DemoDaemon {self.address} pid={self._process.pid if self._process else None}>"

    def __enter__(self) -> DemoDaemon:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it takes jobs. Raises GeardError with what it said if it does not."""
        config = self._directory / "geard.yaml"
        config.write_text(
            _CONFIG.format(address=self.address, directory=self._directory, capabilities=CAPABILITIES.rstrip())
        )
        command = [sys.executable, "-m", "geard", "run", "--embedded", "-c", str(config)]
        with (self._directory / "stderr").open("wb") as stderr, no_interrupts():
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr, start_new_session=True
            )
            atexit.register(self.stop)  # should an interrupt strike on the way to it
        self._wait_until_it_serves()

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

    def _wait_until_it_serves(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._serves():
            if self._process is None or self._process.poll() is not None or time.monotonic() > deadline:
                raise GeardError(f"the daemon does not start:\n{self._said()}")
            time.sleep(0.02)

    def _serves(self) -> bool:
        try:
            with Admin(self.address) as admin:
                return sum(row.workers > 0 for row in admin.status()) == len(CAPABILITIES.splitlines())
        except ConnectionLost:
            return False

    def _said(self) -> str:
        files = (self._directory / "stderr", self._directory / "log")
        return "".join(file.read_text(errors="replace") for file in files if file.exists()).strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
