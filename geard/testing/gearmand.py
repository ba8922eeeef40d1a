"""gearmand as a job server for tests: `pytest --job-server=gearmand`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Final

from geard.client.admin import Admin
from geard.config import JobServer
from geard.errors import ConnectionLost, GeardError

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0
_SEARCH_PATH: Final = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"  # few users have sbin in theirs


class CannotStart(GeardError):
    """gearmand is not installed, or does not run; its log is in the message."""


class Gearmand:
    """A gearmand on a free port. A context manager: it serves within, and its process is gone after."""

    def __init__(self) -> None:
        program = shutil.which("gearmand", path=_SEARCH_PATH)
        if program is None:
            raise CannotStart("gearmand is not installed: on Debian and Ubuntu, apt-get install gearman-job-server")
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        self._directory = tempfile.TemporaryDirectory(prefix="geard-gearmand-")
        self._log = Path(self._directory.name, "log")
        self.server = JobServer("127.0.0.1", _free_port())
        """Where it listens."""

    def __repr__(self) -> str:
        return f"<Gearmand {self.server} {'stopped' if self.pid is None else f'pid={self.pid}'}>"

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return str(self.server)

    @property
    def pid(self) -> int | None:
        """Of its process; None when there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def __enter__(self) -> Gearmand:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        command = [self._program, "-L", self.server.host, "-p", str(self.server.port), "-l", "stderr"]
        command += ["-P", str(Path(self._directory.name, "pid"))]
        if os.geteuid() == 0:
            command += ["-u", "root"]  # it would look for a user named gearman
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise CannotStart(f"gearmand does not serve {self.server}: {self._log.read_text(errors='replace')}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        try:
            with Admin(self.server) as admin:
                return bool(admin.version())
        except ConnectionLost:
            return False

    def _stop(self) -> None:
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._directory.cleanup()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
