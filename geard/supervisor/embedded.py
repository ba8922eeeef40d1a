"""The job server of `geard run --embedded`: where it listens, and the process of it that is kept running.

Rules:
- It serves before the first worker process starts, and until the last one has ended.
- It listens on the first of `job_servers` where that is on loopback, else on 127.0.0.1:4730, from which the worker
  processes then take jobs too. It stays there, and its log where it is, until the daemon is started again.
- If it dies it is started again, at once and then with growing delay, on sockets that stay open meanwhile: who connects
  waits for it.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final

import gevent
import msgspec
from gevent.subprocess import Popen

from geard import exits
from geard.config.address import is_loopback
from geard.config.load import Source, examine_config
from geard.config.model import DEFAULT_PORT, Config, JobServer
from geard.errors import ConfigError, GeardError, Problem
from geard.jobserver.embedded import CannotServe, EmbeddedJobServer
from geard.jobserver.listeners import CannotListen
from geard.jobserver.options import Options
from geard.messages import how_it_ended
from geard.supervisor.decisions import crashes_in_a_row, restart_delay_seconds
from geard.supervisor.signals import Handler

ELSEWHERE: Final = JobServer("127.0.0.1", DEFAULT_PORT)
"""Where to listen when the first job server of the config is another machine's."""
STOPS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
OTHERWISE: Final = "use the job server that runs there, without --embedded, or put a free port first in job_servers"

log = logging.getLogger(__name__)


class Embedded:
    """See the module. A context manager: it serves within, and its process is gone after."""

    def __init__(
        self,
        source: Source,
        *,
        queue: str | None = None,
        verbose: bool = False,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Listen. Raises CannotListen, and ConfigError for a config that asks for what it cannot do."""
        config = source.config
        self._address = place(source)
        self._queue = queue
        self._jitter = jitter
        options = Options(queue=queue, max_packet_bytes=config.max_packet_bytes)
        try:
            self._server = EmbeddedJobServer(
                self._address, options, logging=config.logging, verbose=verbose, popen=Popen
            )
        except CannotListen as error:
            raise CannotListen(f"{error}; {OTHERWISE}") from error

    def __repr__(self) -> str:
        return f"<Embedded {self._server}>"

    def read(self, file: str) -> Source:
        """The config in a file, for a reload: see `served`. Raises ConfigError for what this job server cannot do."""
        source = examine_config(file)
        if source.problems:
            return source
        if place(source) != self._address:
            log.warning("the embedded job server stays on %s until the daemon is started again", self._address)
        return self.served(source)

    def served(self, source: Source) -> Source:
        """The config with this job server among those that jobs are taken from."""
        return replace(source, config=with_server(source.config, self._address))

    def __enter__(self) -> Embedded:
        """Serve. Raises ConfigError for a queue or log file that cannot be used, CannotServe, and SystemExit when told
        to stop before it serves."""
        try:
            self._start()
        except BaseException:
            self._server.stop()
            raise
        self._reopen_log = Handler(signal.SIGUSR1, partial(self._server.signal, signal.SIGUSR1))
        self._keeper = gevent.spawn(self._keep)
        return self

    def _start(self) -> None:
        told_to_stop: list[int] = []

        def give_up(number: int) -> None:
            told_to_stop.append(number)
            self._server.signal(signal.SIGKILL)  # it has acknowledged no job yet

        # Beside the daemon's own handlers, whose turn to stop things comes once the first worker process has started.
        handlers = [Handler(number, partial(give_up, number)) for number in STOPS]
        try:
            self._server.spawn()
            if not told_to_stop:
                self._server.wait_until_it_serves()
        except CannotServe:
            if not told_to_stop:
                raise
        finally:
            for handler in handlers:
                handler.cancel()
        if told_to_stop:
            raise SystemExit(exits.DONE)

    def __exit__(self, *_: object) -> None:
        self._keeper.kill()
        self._reopen_log.cancel()
        self._server.stop()

    def _keep(self) -> None:
        """Start it again whenever it has ended."""
        crashes, since, pid = 0, time.monotonic(), self._server.pid
        while True:
            ended = how_it_ended(self._server.wait())
            served_seconds = time.monotonic() - since
            crashes = crashes_in_a_row(crashes, served_seconds)
            lost = "its jobs are in the queue file" if self._queue else "what was in its queues is lost (see --queue)"
            log.error("the job server (pid %s) %s after %.0f s: %s", pid, ended, served_seconds, lost)
            gevent.sleep(restart_delay_seconds(crashes, self._jitter()))
            since = time.monotonic()
            try:
                self._server.start()
            except (GeardError, OSError) as error:
                log.error("cannot start the job server again: %s", error)
            else:
                since, pid = time.monotonic(), self._server.pid
                log.info("the job server serves again, pid %s", pid)


def place(source: Source) -> JobServer:
    """Where the embedded job server listens. Raises ConfigError where workers could not talk to it there."""
    first = source.config.job_servers[0]
    if not is_loopback(first.host):
        return ELSEWHERE
    if first.tls:
        problem = Problem(
            f"the embedded job server on {first} does not speak TLS",
            key="job_servers[0].tls",
            hint="leave tls out: nobody listens in on loopback; or run `geard jobserver`, which has it, by itself",
        )
        raise ConfigError([source.locate(problem)])
    return first


def with_server(config: Config, address: JobServer) -> Config:
    """The config with `address` as the first of its job servers, unless it is one of them under any name."""
    for server in config.job_servers:
        if server == address or (server.port == address.port and is_loopback(server.host)):
            return config
    return msgspec.structs.replace(config, job_servers=(address, *config.job_servers))
