"""Real job servers for tests, each on a free loopback port, stopped by its process id."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import pytest

from tests.support.logpipe import LogPipe
from tests.support.waiting import eventually

HOST = "127.0.0.1"
GEARMAND = "/usr/sbin/gearmand"


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def need(*programs: str) -> None:
    """Skip the test where a program is missing; fail where CI is set."""
    missing = [program for program in programs if not shutil.which(program)]
    if missing:
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        report(f"not installed: {', '.join(missing)}")


def stop_process(process: subprocess.Popen[bytes], grace_seconds: float = 10) -> None:
    """TERM, then KILL to what is left, by its process id."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class JobServerProcess:
    """A job server in a process of its own. A context manager; `restart` keeps the port."""

    name = "a job server"

    def __init__(self, *options: str) -> None:
        self.options = options
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._directory = Path(tempfile.mkdtemp(prefix="geard-test-"))
        self._log = LogPipe()

    @property
    def address(self) -> str:
        return f"{HOST}:{self.port}"

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        log = self._log.fileno()
        self.process = subprocess.Popen(self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(self._answers, what=f"{self.name} listening on {self.address}")

    def stop(self) -> None:
        if self.process:
            stop_process(self.process)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it and start it again on the same port."""
        self.kill()
        self.start()

    @property
    def log(self) -> str:
        return self._log.text

    def text(self, command: str) -> list[str]:
        """The lines that answer an admin command, without the closing dot."""
        with socket.create_connection((HOST, self.port), 10) as connection:
            connection.sendall(command.encode() + b"\n")
            received = b""
            while not (received == b".\n" or received.endswith(b"\n.\n")):
                data = connection.recv(65536)
                if not data:
                    break
                received += data
                if received.startswith((b"OK", b"ERR")) and received.endswith(b"\n"):
                    break
        return [line for line in received.decode().splitlines() if line != "."]

    def status(self, function: str) -> tuple[int, int, int]:
        """(queued and running, running, workers) of a function, from the admin command `status`."""
        for line in self.text("status"):
            name, *numbers = line.split("\t")
            if name == function:
                total, running, workers = map(int, numbers)
                return total, running, workers
        return 0, 0, 0

    def _answers(self) -> bool:
        assert self.process
        assert self.process.poll() is None, f"{self.name} ended: {self.log}"
        try:
            return bool(self.text("version"))
        except OSError:
            return False

    def __enter__(self) -> JobServerProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._log.close()
        shutil.rmtree(self._directory, ignore_errors=True)


class Gearmand(JobServerProcess):
    """gearmand from Debian's gearman-job-server."""

    name = "gearmand"

    def __init__(self, *options: str) -> None:
        need(GEARMAND)
        super().__init__(*options)

    def command(self) -> list[str]:
        user = ("-u", "root") if os.geteuid() == 0 else ()
        pid_file = self._directory / "pid"
        return [GEARMAND, "-L", HOST, "-p", str(self.port), "-l", "stderr", "-P", str(pid_file), *user, *self.options]


class Embedded(JobServerProcess):
    """geard's own job server."""

    name = "the embedded job server"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "geard", "jobserver", "--listen", self.address, *self.options]
