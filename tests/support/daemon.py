"""`geard run` as an operator starts it: a process with a config, a log and signals; and jobs whose runs are counted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from geard.protocol import Command, request
from geard.supervisor import answers
from geard.supervisor.answers import Overview, ProcessView
from geard.supervisor.ask import ask
from tests.support.logpipe import LogPipe
from tests.support.raw import Peer
from tests.support.servers import JobServerProcess, stop_process
from tests.support.waiting import eventually

CAPABILITIES = '''
"""Functions whose runs are on record: a line for each, written at its end."""
import os, time

RUNS = os.path.join(os.path.dirname(__file__), "runs")
RELEASE = os.path.join(os.path.dirname(__file__), "release")


def record(name):
    descriptor = os.open(RUNS, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{name} {os.getpid()}\\n".encode())
    os.close(descriptor)


def count(workload):
    """Runs at once."""
    record(workload)
    return workload


def sleep(workload):
    """`name seconds`: yields for so long."""
    name, seconds = workload.split()
    time.sleep(float(seconds))
    record(name)
    return name


def hold(workload):
    """`name seconds`: in flight until the test says `release`, and for so long after that."""
    name, seconds = workload.split()
    while not os.path.exists(RELEASE):
        time.sleep(0.05)
    time.sleep(float(seconds))
    record(name)
    return name


def spin(workload):
    """`name seconds`: holds the loop for so long."""
    name, seconds = workload.split()
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        pass
    record(name)
    return name
'''


class Daemon:
    """A directory with config and capabilities, and the supervisor that runs them. A context manager.

    On the way out no process of it may be left."""

    def __init__(self, server: JobServerProcess | None, **config: Any) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="geard-test-"))
        self.socket = str(self.directory / "geard.sock")
        self.config: dict[str, Any] = {
            "job_servers": [server.address if server else "127.0.0.1:1"],
            "python_path": [str(self.directory)],
            "control_socket": self.socket,
            "capabilities": {name: f"caps.{name}" for name in ("count", "sleep", "hold", "spin")},
        } | config
        self.config_path = self.directory / "geard.yaml"
        self.log_pipe = LogPipe()
        self.process: subprocess.Popen[bytes] | None = None
        self._seen: set[int] = set()
        self.write_config()
        (self.directory / "caps.py").write_text(CAPABILITIES)
        (self.directory / "runs").touch()

    # --- what the operator does -----------------------------------------------------------------------------------

    def write_config(self, **changes: Any) -> None:
        self.config |= changes
        self.config_path.write_text(yaml.safe_dump(self.config))

    def start(self, *options: str, wait: bool = True, **popen: Any) -> None:
        command = [sys.executable, "-m", "geard", "run", "-c", str(self.config_path), *options]
        log = self.log_pipe.fileno()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **popen)
        if wait:
            self.wait_for("generation 1 serves")

    def signal(self, number: int) -> None:
        assert self.process
        self._remember()
        self.process.send_signal(number)

    def wait(self) -> int:
        """The exit code, once it has ended."""
        assert self.process
        return self.process.wait(30)

    def release(self) -> None:
        """Let the jobs of `hold` end."""
        (self.directory / "release").touch()

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def geard(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Another geard command, about this daemon."""
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, timeout=60)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "geard", *arguments, "-c", str(self.config_path)]

    def reload(self) -> subprocess.CompletedProcess[str]:
        return self.geard("reload")

    # --- what the operator sees -----------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        return self.log_pipe.text

    def wait_for(self, text: str, times: int = 1) -> None:
        """Wait until the log has this text so often."""

        ended_at: list[float] = []

        def seen() -> bool:
            if self.log.count(text) >= times:
                return True
            if self.process and self.process.poll() is not None:
                ended_at.append(time.monotonic())  # its worker processes may still have something to say
                assert ended_at[-1] - ended_at[0] < 5, f"geard run ended without {text!r}:\n{self.log}"
            return False

        try:
            eventually(seen, what=f"{text!r} in the log")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    @property
    def overview(self) -> Overview:
        overview = ask(self.socket, answers.PS).overview
        assert overview
        self._seen.update(process.pid for generation in overview.generations for process in generation.processes)
        return overview

    @property
    def processes(self) -> list[ProcessView]:
        """The worker processes of the current generation."""
        return [p for g in self.overview.generations if g.state == "current" for p in g.processes]

    def wait_running(self, count: int) -> None:
        """Wait until so many jobs run: that the job server has handed them out is not enough."""

        def running() -> bool:
            processes = [process for generation in self.overview.generations for process in generation.processes]
            return sum(job.seconds > 0 for process in processes for job in process.jobs) == count

        eventually(running, what=f"{count} running jobs")

    @property
    def children(self) -> list[int]:
        """The process ids of all worker processes, as the kernel knows them."""
        assert self.process
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    @property
    def runs(self) -> Counter[str]:
        """How often each job has run to its end."""
        return Counter(line.split()[0] for line in (self.directory / "runs").read_text().splitlines())

    def left_behind(self) -> list[int]:
        """Worker processes that were seen and are still there."""
        return [pid for pid in self._seen if _is_there(pid)]

    def _remember(self) -> None:
        self._seen.update(self.children)

    def __enter__(self) -> Daemon:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.process:
            self._remember()
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGQUIT)
            stop_process(self.process)
            try:
                eventually(lambda: not self.left_behind(), what="the end of all worker processes")
            finally:
                for pid in self.left_behind():
                    os.kill(pid, signal.SIGKILL)
        if error:
            print(self.log)
        self.log_pipe.close()
        shutil.rmtree(self.directory, ignore_errors=True)


class Load:
    """Background jobs for `count`, submitted steadily from a thread until `stop`."""

    def __init__(self, address: str, per_second: int = 500) -> None:
        self._address = address
        self._per_second = per_second
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self.submitted = 0

    def _submit(self) -> None:
        batch = max(self._per_second // 50, 1)
        with Peer.connect(self._address) as client:
            begin = time.monotonic()
            while not self._stopped.wait(max(begin + self.submitted / self._per_second - time.monotonic(), 0)):
                names = [f"load-{self.submitted + index}".encode() for index in range(batch)]
                jobs = [request(Command.SUBMIT_JOB_BG, b"count", name, name) for name in names]
                client.send_bytes(b"".join(jobs))
                for _ in names:
                    client.expect(Command.JOB_CREATED)
                self.submitted += batch

    def stop(self) -> set[str]:
        """The names of all that was submitted."""
        self._stopped.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        return {f"load-{index}" for index in range(self.submitted)}

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()


def submit(server: JobServerProcess, function: str, *workloads: str) -> None:
    """Background jobs; each one's unique is the first word of its workload."""
    with Peer.connect(server.address) as client:
        for workload in workloads:
            client.send(Command.SUBMIT_JOB_BG, function.encode(), workload.split()[0].encode(), workload.encode())
        for _ in workloads:
            client.expect(Command.JOB_CREATED)


def _is_there(pid: int) -> bool:
    try:
        return "geard" in Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return False
