"""A pool of workers, started either way: in plain threads of the test process, or in a patched worker process.

    with start_pool("process", server.address, {"reverse": "reverse"}) as pool: ...

Both have the same verbs, so that one test body serves both.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from geard import messages
from geard.config import Capability, Config, JobServer, Logging, parse_address
from geard.config.model import Encoding
from geard.messages import Drain, Drained, FromChild, Heartbeat, Jobs, ListJobs, Ready, RunningJob, Start
from geard.protocol import Command, Packet, request
from geard.worker import WorkerPool
from tests.support.logpipe import LogPipe
from tests.support.raw import Peer
from tests.support.servers import stop_process
from tests.support.waiting import DEADLINE_SECONDS, eventually

ROOT = Path(__file__).parent.parent.parent
MODULE = "tests.support.capabilities"
BOTH_WAYS = ("threads", "process")
ENDINGS = (Command.WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_EXCEPTION)

T = TypeVar("T", bound=FromChild)


class LogLines(logging.Handler):
    """What geard logs in this process."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname.lower()}: {record.getMessage()} {about(record)}".rstrip())


def about(record: logging.LogRecord) -> str:
    """What a job's log line says beside its message."""
    return " ".join(str(vars(record)[name]) for name in ("function", "handle", "unique") if name in vars(record))


class PoolInThreads:
    """WorkerPool as a library, in plain threads."""

    mode = "threads"

    def __init__(self, config: Config) -> None:
        self.pool = WorkerPool(config)
        self._log = LogLines()

    @property
    def log(self) -> str:
        return "\n".join(self._log.lines)

    def start(self) -> None:
        logger = logging.getLogger("geard")
        logger.addHandler(self._log)
        logger.setLevel(logging.INFO)
        logger.propagate = False  # pytest keeps every record, and with it every frame of a traceback
        self.pool.start()
        self.pool.wait_until_tried(time.monotonic() + DEADLINE_SECONDS)

    def drain(self, timeout_seconds: float | None = None) -> None:
        """Grab no more; `timeout_seconds` is how long join will wait before it abandons the rest."""
        self.pool.drain()
        self._deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds

    def join(self) -> list[RunningJob]:
        """Wait for the drain. The jobs that were abandoned."""
        deadline = time.monotonic() + DEADLINE_SECONDS if self._deadline is None else self._deadline
        if self.pool.join(deadline):
            return []
        assert self._deadline is not None, f"the drain did not end: {self.pool.channels}"
        return self.pool.abandon()

    def jobs(self) -> list[RunningJob]:
        """The jobs in flight."""
        return self.pool.jobs()

    def counters(self) -> tuple[int, int]:
        """(done, failed) so far."""
        return self.pool.done, self.pool.failed

    def connected(self) -> int:
        """How many channels are connected."""
        return sum(channel.registered.is_set() for channel in self.pool.channels)

    def close(self) -> None:
        self.pool.drain()
        self.pool.join(time.monotonic() + 0.5)
        self.pool.abandon()
        logger = logging.getLogger("geard")
        logger.removeHandler(self._log)
        logger.propagate = True


class PoolInProcess:
    """A worker process, as the supervisor starts it, spoken to in geard.messages."""

    mode = "process"

    def __init__(self, config: Config) -> None:
        self.config = config
        self.process: subprocess.Popen[bytes] | None = None
        self.said: list[FromChild] = []
        self._deaf = False
        self._ours, self._theirs = socket.socketpair()
        self._log = LogPipe()

    @property
    def log(self) -> str:
        return self._log.text

    def start(self, wait: bool = True) -> None:
        descriptor = self._theirs.fileno()
        command = [sys.executable, "-m", "gevent.monkey", "--module", "geard.worker.process", str(descriptor)]
        log = self._log.fileno()
        self.process = subprocess.Popen(command, pass_fds=[descriptor], cwd=ROOT, stderr=log, stdout=log)
        self._theirs.close()
        threading.Thread(target=self._listen, daemon=True).start()
        self.tell(Start(config=self.config, number=1, generation=1))
        if wait:
            self.hear(Ready)

    def _listen(self) -> None:
        with self._ours.makefile("rb") as lines, contextlib.suppress(ConnectionError):  # when it is killed
            for line in lines:
                if self._deaf:
                    return
                self.said.append(messages.load_from_child(line))

    def tell(self, message: messages.ToChild) -> None:
        self._ours.sendall(messages.dump(message))

    def turn_deaf(self) -> None:
        """Read no more, and ask until it can neither be told anything nor say anything."""
        self._deaf = True
        self._ours.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while True:
                self._ours.sendall(messages.dump(ListJobs()) * 100)

    def hang_up(self) -> None:
        """End as a supervisor that was killed does."""
        self._ours.shutdown(socket.SHUT_RDWR)

    def hear(self, kind: type[T], after: int = 0) -> T:
        """The last message of this kind that came after the first `after`; waits for one."""
        found = eventually(
            lambda: [message for message in self.said[after:] if isinstance(message, kind)],
            what=f"{kind.__name__} from the worker process; its log: {self.log}",
        )
        return found[-1]

    def drain(self, timeout_seconds: float | None = None) -> None:
        """Grab no more, as the supervisor asks for it."""
        self.tell(Drain(timeout_seconds))

    def join(self) -> list[RunningJob]:
        """Wait for its end. The jobs that were abandoned."""
        drained = self.hear(Drained)
        assert self.process
        assert self.process.wait(DEADLINE_SECONDS) == 0
        return list(drained.abandoned)

    def jobs(self) -> list[RunningJob]:
        """The jobs in flight."""
        heard = len(self.said)
        self.tell(ListJobs())
        return list(self.hear(Jobs, heard).jobs)

    def counters(self) -> tuple[int, int]:
        """(done, failed) as of the next heartbeat."""
        beat = self.hear(Heartbeat, len(self.said))
        return beat.done, beat.failed

    def connected(self) -> int:
        """How many job servers are connected, as of the next heartbeat."""
        return len(self.hear(Heartbeat, len(self.said)).connected)

    def close(self) -> None:
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            stop_process(self.process)
        self._ours.close()
        self._log.close()


class StartedPool:
    """A pool that runs while the context lasts, with the verbs of both kinds."""

    def __init__(self, pool: PoolInThreads | PoolInProcess) -> None:
        self.pool = pool

    def __enter__(self) -> PoolInThreads | PoolInProcess:
        try:
            self.pool.start()
        except BaseException:
            self.pool.close()
            raise
        return self.pool

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error:
            print(self.pool.log[-5000:])
        self.pool.close()


EACH_FAILURE: Any = Logging(repeats_seconds=0)


def pool_config(
    servers: str | Iterable[str | JobServer], capabilities: Mapping[str, str | Capability], **settings: Any
) -> Config:
    """A config for these job servers. A capability that is a bare name is a function of tests.support.capabilities."""
    return Config(
        job_servers=tuple(
            server if isinstance(server, JobServer) else parse_address(server)
            for server in ([servers] if isinstance(servers, str) else servers)
        ),
        capabilities={name: _capability(function) for name, function in capabilities.items()},
        python_path=(str(ROOT),),
        **{"greenlets_per_server": 5, "logging": EACH_FAILURE} | settings,
    )


def start_pool(
    mode: str, servers: str | Iterable[str | JobServer], capabilities: Mapping[str, str | Capability], **settings: Any
) -> StartedPool:
    """Start a pool `mode`: "threads" or "process". `settings` are the Config's."""
    config = pool_config(servers, capabilities, **settings)
    return StartedPool(PoolInThreads(config) if mode == "threads" else PoolInProcess(config))


def capability(
    function: str,
    encoding: Encoding | None = None,
    timeout: float | None = None,
    greenlets: int | None = None,
    thread: bool = False,
) -> Capability:
    """A capability served by a function of tests.support.capabilities."""
    return Capability(
        f"{MODULE}.{function}",
        encoding=encoding,
        timeout_seconds=timeout,
        greenlets_per_server=greenlets,
        thread=thread,
    )


def _capability(function: str | Capability) -> Capability:
    return capability(function) if isinstance(function, str) else function


class Caller:
    """A client by hand that sees every packet of its jobs. A context manager."""

    def __init__(self, address: str) -> None:
        self._peer = Peer.connect(address)
        self._early: deque[Packet] = deque()  # came before the JOB_CREATED of a later job
        self._peer.send(Command.OPTION_REQ, b"exceptions")
        self._peer.expect(Command.OPTION_RES)

    def submit(self, function: str, *workloads: bytes | str, unique: str = "") -> list[str]:
        """Foreground jobs; their handles."""
        for workload in workloads:
            data = workload.encode() if isinstance(workload, str) else workload
            self._peer.send(Command.SUBMIT_JOB, function.encode(), unique.encode(), data)
        handles: list[str] = []
        while len(handles) < len(workloads):
            packet = self._peer.receive()
            if packet.command is Command.JOB_CREATED:
                handles.append(packet.handle.decode())
            else:
                self._early.append(packet)
        return handles

    def packet(self) -> Packet:
        """The next about any job."""
        return self._early.popleft() if self._early else self._peer.receive()

    def packets(self) -> list[Packet]:
        """What comes next about any job, up to the end of one."""
        packets = [self.packet()]
        while packets[-1].command not in ENDINGS:
            packets.append(self.packet())
        return packets

    def story(self, function: str, workload: bytes | str = b"", unique: str = "") -> list[tuple[str, bytes]]:
        """One job from submission to end: (packet type, its fields but for the handle) each."""
        self.submit(function, workload, unique=unique)
        return [(packet.command.name, b" ".join(packet.fields[1:])) for packet in self.packets()]

    def run(self, function: str, workload: bytes | str = b"") -> tuple[str, bytes]:
        """How one job ended."""
        return self.story(function, workload)[-1]

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._peer.close()


def background(address: str, function: str, *workloads: str) -> None:
    """Background jobs; each one's unique is its workload."""
    with Peer.connect(address) as client:
        client.send_bytes(
            b"".join(
                request(Command.SUBMIT_JOB_BG, function.encode(), workload.encode()[:64], workload.encode())
                for workload in workloads
            )
        )
        for _ in workloads:
            client.expect(Command.JOB_CREATED)
