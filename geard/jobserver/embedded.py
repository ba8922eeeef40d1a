"""A job server as a child process of this one: for `geard run --embedded` and for tests.

    with EmbeddedJobServer() as server:
        Client(server.address).run("reverse", "hello")

Rules:
- The listening sockets are this process's own and are handed to the child: an address that is taken is an error here
  and now, and a child that is started again serves the same address, which nobody could take meanwhile.
- The child lives no longer than this process: it ends when its stdin does. It leads a session of its own, so that a
  terminal's ^C does not stop it before its workers.
- Plain blocking code; a process that runs gevent's loop hands in gevent's Popen.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec
from msgspec import Struct

from geard import interpreter
from geard.config.model import JobServer, Logging
from geard.errors import ConfigError, GeardError, Problem
from geard.jobserver.listeners import listen
from geard.jobserver.options import Options

ANY_PORT: Final = JobServer("127.0.0.1", 0)
"""A free port of this machine's own."""
STOP_SECONDS: Final = 5.0


class CannotServe(GeardError):
    """The job server's process ended before it served. Its log, on stderr, says why."""


class Start(Struct, frozen=True):
    """The only line that the child reads from its stdin: what it is to serve, on which inherited descriptors.

    It answers with a line on stdout, once it serves or cannot: a list of Problems."""

    descriptors: tuple[int, ...]
    options: Options
    logging: Logging
    verbose: bool


class EmbeddedJobServer:
    """See the module. A context manager: it serves within, and its process is gone after."""

    def __init__(
        self,
        listen_on: JobServer = ANY_PORT,
        options: Options | None = None,
        *,
        logging: Logging | None = None,
        verbose: bool = False,
        popen: Callable[..., Any] = subprocess.Popen,
    ) -> None:
        """Listen; `start` serves. Raises CannotListen."""
        self._options = options or Options()
        self._logging = logging or Logging()
        self._verbose = verbose
        self._popen = popen
        self._process: Any = None
        self._listeners = listen(listen_on)
        self.server = JobServer(listen_on.host, listen_on.port or self._listeners[0].getsockname()[1])
        """Where it listens."""

    def __repr__(self) -> str:
        state = "stopped" if self.pid is None else f"pid={self.pid}"
        return f"<EmbeddedJobServer {self.server} {state}>"

    @property
    def address(self) -> str:
        """Where it listens, as `host:port`."""
        return str(self.server)

    @property
    def pid(self) -> int | None:
        """Of its process; None when there is none."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self) -> None:
        """Start the process and wait until it serves: see `spawn` and `wait_until_it_serves`."""
        self.spawn()
        self.wait_until_it_serves()

    def spawn(self) -> None:
        """Start the process. May be called again after its end. Raises OSError when there are no more to be had."""
        self._release()
        descriptors = tuple(listener.fileno() for listener in self._listeners)
        self._process = self._popen(
            interpreter.plain("geard.jobserver.process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            env=interpreter.environment(),
        )
        start = Start(descriptors, self._options, self._logging, self._verbose)
        with suppress(BrokenPipeError):  # it has ended already, which wait_until_it_serves finds
            self._process.stdin.write(msgspec.json.encode(start) + b"\n")
            self._process.stdin.flush()

    def wait_until_it_serves(self) -> None:
        """Block until it does. Raises ConfigError for a queue or log file that cannot be used, CannotServe when the
        process ended otherwise."""
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            raise CannotServe(f"the job server on {self.server} ended with status {status} before it served")
        problems = msgspec.json.decode(answer, type=tuple[Problem, ...])
        if problems:
            self._process.wait()
            raise ConfigError(problems)

    def wait(self) -> int:
        """Block until the process has ended: its exit code, or minus the signal that killed it."""
        status: int = self._process.wait()
        return status

    def signal(self, number: int) -> None:
        """Send the process a signal, if it is still there."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> None:
        """End the process, and listen no more. Idempotent."""
        if self._process:
            self.signal(signal.SIGTERM)  # the end of its stdin may not come: who forks this process has that pipe too
            try:
                self._process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.signal(signal.SIGKILL)
            self._release()
        for listener in self._listeners:
            listener.close()

    def _release(self) -> None:
        """Wait for the end of the process that is, or was, and close its pipes."""
        if self._process:
            self._process.wait()
            with suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.stdout.close()

    def __enter__(self) -> EmbeddedJobServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
