"""Running one job in a process with nothing else, and seeing how that process fares: the waiting side of isolated.py.

Rules:
- A process runs one job at a time; it may run another after one that ended well. Who must know for certain that it was
  the job that killed its process asks for a fresh one.
- Plain blocking code: in a worker process, which is patched, a greenlet waits here; in a test, the caller.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import Struct

from geard import interpreter, messages
from geard.config import Config
from geard.errors import ConfigError, GeardError
from geard.messages import CannotStart, Ready, Start
from geard.protocol import REQUEST, Command, Decoder, Packet, encode
from geard.protocol.packets import RESPONSE
from geard.worker.policy import Judgement

ENDED: Final = b"ended"
"""What ECHO_REQ holds when the function has returned."""
FAILED: Final = b"failed "
"""What ECHO_REQ begins with, before a Failed, when the capability's policy is to decide what becomes of the job."""
BEAT: Final = b"beat"
BEAT_SECONDS: Final = 1.0

STARTED_AT_A_TIME: Final = max(2, min(os.cpu_count() or 2, 4))
MOST_AT_A_TIME: Final = 32
LONG_SECONDS: Final = 5.0
"""A job that runs for so long lets the next one begin beside it, up to MOST_AT_A_TIME."""
IDLE_SECONDS: Final = 10.0
"""A process waits so long for the next job of its capability."""
START_SECONDS: Final = 300.0
"""What a process may take to import its capability and call on_start."""

log = logging.getLogger("geard.worker")


class Failed(Struct, frozen=True):
    """What a function raised in an isolated process, and what that says of the job."""

    text: str
    traceback: str
    judgement: Judgement


class CannotIsolate(GeardError):
    """The process could not be started, or ended before it was given a job. Nothing is known about the job."""


class IsolatedProcess:
    """One such process; `address` names the job server that its jobs are from. Raises CannotIsolate, ConfigError."""

    def __init__(self, start: Start) -> None:
        self.jobs = 0
        self.idle_since = 0.0
        self.failed: Failed | None = None  # how the function of the last job did, where a policy is to decide
        self._hang_seconds = start.config.hang_timeout_seconds
        try:
            self._popen = self._begin()
        except OSError as error:  # no descriptors, say
            raise CannotIsolate(f"cannot start a process: {error}") from error
        self._decoder = Decoder(REQUEST, max_packet_bytes=1 << 33)
        self._received = b""
        try:
            self._greet(start)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<IsolatedProcess pid={self._popen.pid} jobs={self.jobs}>"

    def run(self, packet: bytes, relay: Callable[[Packet], None]) -> str:
        """Run the job of this JOB_ASSIGN_UNIQ and give `relay` what it sends. Returns "" when the function has
        returned, else how it ended the process, which is gone then. What `relay` raises ends the process too."""
        self.jobs += 1
        self.failed = None
        try:
            self._socket.settimeout(self._hang_seconds)
            self._send(packet)
            while True:
                for answer in self._decoder:
                    if answer.command is not Command.ECHO_REQ:
                        relay(answer)
                    elif answer.fields == [ENDED]:
                        return ""
                    elif answer.fields[0].startswith(FAILED):
                        self.failed = msgspec.json.decode(answer.fields[0][len(FAILED) :], type=Failed)
                data = self._receive()
                if not data:
                    return self._ending()
                self._decoder.feed(data)
        except TimeoutError:
            self.close()
            return f"let nothing else run for {self._hang_seconds:g} s (hang_timeout)"
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End it, whatever it does. Safe to call twice."""
        self._hang_up()
        if self._popen.poll() is None:
            self._popen.kill()
        self._popen.wait()

    def _begin(self) -> subprocess.Popen[bytes]:
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                alive, self._life = os.pipe()
            except OSError:
                self._socket.close()
                raise
            inherited = theirs.fileno(), alive
            try:
                return subprocess.Popen(
                    interpreter.patched("geard.worker.isolated", *inherited),
                    stdin=subprocess.DEVNULL,
                    pass_fds=inherited,
                )
            except OSError:
                self._hang_up()
                raise
            finally:
                os.close(alive)

    # --- the conversation -----------------------------------------------------------------------------------------

    def _greet(self, start: Start) -> None:
        deadline = time.monotonic() + START_SECONDS
        self._send(messages.dump(start))
        line, newline = b"", b""
        while not newline:
            self._socket.settimeout(max(deadline - time.monotonic(), 0.01))
            try:
                data = self._receive()
            except TimeoutError:
                raise CannotIsolate(f"it was not ready after {START_SECONDS:.0f} s") from None
            if not data:
                raise CannotIsolate(f"it {self._ending()} before it was ready")
            line, newline, rest = (line + data).partition(b"\n")
        try:
            message = messages.load_from_child(line)
        except msgspec.DecodeError as error:
            raise CannotIsolate(f"it said {line[:100]!r}") from error
        if isinstance(message, CannotStart):
            raise ConfigError(message.problems)
        assert isinstance(message, Ready), message
        self._decoder.feed(rest)

    def _hang_up(self) -> None:
        self._socket.close()
        life, self._life = self._life, -1
        if life >= 0:
            os.close(life)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise
        except OSError:
            return  # it is gone, which is found where it is read

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(1 << 20)
        except TimeoutError:
            raise
        except OSError:
            return b""

    def _ending(self) -> str:
        try:
            status = self._popen.wait(self._hang_seconds)
        except subprocess.TimeoutExpired:
            status = None
        self.close()
        if status is None:
            return "closed the connection to its worker process"
        return messages.how_it_ended(status)


class Isolation:
    """The isolated processes of one worker process: a few at a time, those that are idle kept for the next job."""

    def __init__(self, start: Start) -> None:
        self._start = msgspec.structs.replace(start, presence=None, seat=None, suspects=())
        self._idle: dict[tuple[str, str], list[IsolatedProcess]] = {}
        self._starting = threading.Semaphore(STARTED_AT_A_TIME)
        self._most = threading.Semaphore(MOST_AT_A_TIME)

    def run(
        self, name: str, address: str, packet: bytes, relay: Callable[[Packet], None], *, fresh: bool
    ) -> tuple[str, bool, Failed | None]:
        """Run a job of this capability, from this job server, when its turn comes: see IsolatedProcess.run. `fresh`: in
        a process that has run no other, which is the second value; the third is a failure that a policy is to decide
        about. Raises CannotIsolate, ConfigError."""
        with self._most, _Turn(self._starting):
            key = name, address
            idle = self._idle.get(key, [])
            process = idle.pop() if idle and not fresh else self._new(name, address)
            is_fresh = process.jobs == 0
            ending = process.run(packet, relay)
            failed = process.failed
            if not ending:
                self._keep(key, process)  # and from here on another job may have it
            return ending, is_fresh, failed

    def _new(self, name: str, address: str) -> IsolatedProcess:
        return IsolatedProcess(msgspec.structs.replace(self._start, config=only(self._start.config, name, address)))

    def _keep(self, key: tuple[str, str], process: IsolatedProcess) -> None:
        process.idle_since = time.monotonic()
        self._idle.setdefault(key, []).append(process)
        timer = threading.Timer(IDLE_SECONDS, self._close_idle)
        timer.daemon = True
        timer.start()

    def close(self, *, idle_seconds: float = 0.0) -> None:
        """End the processes that have no job, and had none for so long."""
        latest = time.monotonic() - idle_seconds
        for processes in self._idle.values():
            for process in [process for process in processes if process.idle_since <= latest]:
                processes.remove(process)
                process.close()

    def _close_idle(self) -> None:
        self.close(idle_seconds=IDLE_SECONDS)


class _Turn:
    """A place among those that have begun lately; given back at the end, or after LONG_SECONDS."""

    def __init__(self, places: threading.Semaphore) -> None:
        self._places = places
        self._held = threading.Lock()

    def __enter__(self) -> None:
        self._places.acquire()
        self._held.acquire()
        self._timer = threading.Timer(LONG_SECONDS, self._give_back)
        self._timer.daemon = True
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        self._give_back()

    def _give_back(self) -> None:
        try:
            self._held.release()
        except RuntimeError:
            return  # it was given back before
        self._places.release()


def assignment(handle: bytes, function: bytes, unique: bytes, workload: bytes) -> bytes:
    """The packet that gives an isolated process a job."""
    return encode(RESPONSE, Command.JOB_ASSIGN_UNIQ, handle, function, unique, workload)


def only(config: Config, name: str, address: str) -> Config:
    """The config with one capability and one job server. Why a job has failed is said: who has it from its job server
    decides whether that is told."""
    capability = msgspec.structs.replace(config.capabilities[name], exceptions=True)
    servers = tuple(server for server in config.job_servers if str(server) == address)
    return msgspec.structs.replace(config, capabilities={name: capability}, job_servers=servers)
