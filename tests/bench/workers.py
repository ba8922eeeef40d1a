"""The workers that are measured: start one on a job server, and read what it has used."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.servers import JobServerProcess, stop_process

HERE = Path(__file__).parent
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Running:
    """A worker under test: a context manager that stops it by its process id."""

    def __init__(self, command: list[str], environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=HERE.parent.parent,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        stop_process(self.process)

    def cpu_seconds(self) -> float:
        """CPU time used so far by the process and its children."""
        return sum(_cpu_seconds(pid) for pid in (self.process.pid, *_children(self.process.pid)))


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _cpu_seconds(pid: int) -> float:
    return sum(int(p.read_text().split()[0]) for p in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def geard(server: JobServerProcess, greenlets: int) -> Running:
    """One worker process of `greenlets` greenlets."""
    return Running(
        [sys.executable, "-m", "geard", "run", "-c", str(HERE / "geard.yaml")],
        {"BENCH_SERVER": server.address, "BENCH_GREENLETS": str(greenlets)},
    )


class CWorker:
    """libgearman's worker, compiled once into a temporary directory."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="geard-bench-")
        self._program = Path(self._directory.name) / "worker"

    def build(self) -> bool:
        """Whether it could be built: it takes a compiler and libgearman's headers."""
        compiler = shutil.which("cc")
        if not compiler:
            return False
        command = [compiler, "-O2", "-o", str(self._program), str(HERE / "worker.c"), "-lgearman"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def start(self, server: JobServerProcess) -> Running:
        host, port = server.address.rsplit(":", 1)
        return Running([str(self._program), host, port])
