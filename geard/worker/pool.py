"""The pool: every channel of one process and the greenlets that serve them.

    with WorkerPool(config) as pool:      # started; drained on the way out
        ...

    stop = WorkerPool(config).start()     # for those who want just that
    ...
    stop()

Plain threads by default; a worker process hands in gevent's way to start greenlets and to limit a job's time.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from geard.config import Config, JobServer
from geard.deadletters.letter import DeadLetter
from geard.errors import ConfigError, Problem
from geard.messages import RunningJob
from geard.printable import printable
from geard.worker.aftermath import Aftermath
from geard.worker.breath import Breath
from geard.worker.bucket import TokenBucket
from geard.worker.capability import BoundCapability, Runtime, resolve_all
from geard.worker.channel import Channel
from geard.worker.job import Job
from geard.worker.paced import Pace, PacedChannel
from geard.worker.run import about, label
from geard.worker.tally import Tally
from geard.worker.threads import THREADS, start_thread

if TYPE_CHECKING:
    from geard.worker.process_client import ProcessClient

log = logging.getLogger("geard.worker")

TICK_SECONDS: Final = 1.0

Spawn = Callable[[Callable[[], None], str], object]


class WorkerPool:
    """All channels of a config. Raises ConfigError if a capability cannot run.

    `start` begins to take jobs, `drain` stops taking them, `join` waits for those in flight, `abandon` hangs up."""

    def __init__(
        self,
        config: Config,
        *,
        spawn: Spawn = start_thread,
        runtime: Runtime = THREADS,
        verbose: bool = False,
        keep: Callable[[DeadLetter], None] | None = None,
        sharers: int = 1,
        place: int = 0,
    ) -> None:
        """`keep` keeps a dead letter; without it they are written to the config's file from here. `sharers` pools share
        each `rate`, of which this is the one with number `place`."""
        capabilities, problems = resolve_all(config)
        if problems or not capabilities:
            raise ConfigError(problems or [_no_capabilities()])
        for capability in capabilities:
            capability.prepare(runtime)
        self.aftermath = Aftermath(keep or keeper_of(config))
        for capability in capabilities:
            capability.client = self._client
            if capability.policy:
                capability.after_failure = partial(self.aftermath.after, capability.policy)
        self._clients: dict[str, ProcessClient] = {}  # one, made for the first job that uses it
        self._whose = runtime.whose
        self.config = config
        self.capabilities = capabilities
        self._spawn = spawn
        self._verbose = verbose
        self._stopped = threading.Event()
        self._started = False
        self._breath = Breath()
        self.tally = Tally(keep_workloads=config.keep_workloads)
        self._paces = {
            capability.name: Pace(TokenBucket(rate, time.monotonic, sharers=sharers, place=place))
            for capability in capabilities
            if (rate := capability.spec.rate)
        }
        self.channels = [
            self._channel(server, group, greenlets)
            for server in config.job_servers
            for group, greenlets in channel_groups(capabilities, config.greenlets_per_server)
        ]

    def _channel(self, server: JobServer, group: list[BoundCapability], greenlets: int) -> Channel:
        pace = self._paces.get(group[0].name)  # then it is alone in its group
        return (partial(PacedChannel, pace=pace) if pace else Channel)(
            server,
            {capability.raw_name: capability for capability in group},
            greenlets=greenlets,
            client_id=self.config.client_id or default_client_id(),
            max_packet_bytes=self.config.max_packet_bytes,
            breath=self._breath,
            tally=self.tally,
            ended=log_job if self._verbose else None,
        )

    def _client(self) -> ProcessClient:
        from geard.worker.process_client import ProcessClient  # for those who use it

        if not self._clients:  # of two threads at once, one makes it
            made = ProcessClient(
                self.config.job_servers,
                encoding=self.config.encoding,
                max_packet_bytes=self.config.max_packet_bytes,
                whose=self._whose,
            )
            self._clients.setdefault("", made)
        return self._clients[""]

    def close_client(self) -> None:
        """Close the client that jobs share: none runs any more. Safe to call twice."""
        for client in self._clients.values():
            client.close()

    def __repr__(self) -> str:
        return f"<WorkerPool {self.running}/{self.greenlets} running, {len(self.channels)} channels>"

    def __enter__(self) -> WorkerPool:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def greenlets(self) -> int:
        """How many jobs can run at once."""
        return sum(channel.greenlets for channel in self.channels)

    @property
    def running(self) -> int:
        """How many jobs are in flight."""
        return sum(len(channel.jobs) for channel in self.channels)

    @property
    def parked(self) -> int:
        """How many jobs wait here to run again."""
        return len(self.aftermath.parking)

    @property
    def done(self) -> int:
        """How many jobs have ended with a result."""
        return sum(capability.counter.all_done for capability in self.capabilities)

    @property
    def failed(self) -> int:
        """How many jobs have failed, whatever way."""
        return sum(capability.counter.all_failed for capability in self.capabilities)

    def start(self, *, clock: bool = True) -> Callable[[], None]:
        """Connect and take jobs. Without a `clock` of its own it wants to be told of each second that passes: `tick`.
        Returns the function that stops it again: see `stop`."""
        if not self._started:
            self._started = True
            for channel in self.channels:
                for number in range(channel.greenlets):
                    self._spawn(channel.serve, f"{channel.server} {number}")
                self._spawn(channel.write, f"{channel.server} writer")
            if clock:
                self._spawn(self._clock, "clock")
        return self.stop

    def wait_until_tried(self, deadline: float) -> None:
        """Block until each job server has answered or failed to, at most until `deadline` (monotonic)."""
        for channel in self.channels:
            channel.tried.wait(max(0.0, deadline - time.monotonic()))

    def drain(self) -> None:
        """Grab no more jobs; those in flight go on. Safe to call twice."""
        for channel in self.channels:
            channel.drain()

    def join(self, deadline: float | None = None) -> bool:
        """Block until every channel has drained, or `deadline` (monotonic) has passed. Whether they have."""
        for channel in self.channels:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not channel.drained.wait(left):
                return False
        self._stop_clocks()
        return True

    def abandon(self) -> list[RunningJob]:
        """Hang up now; the job servers hand the jobs in flight, which are returned, to other workers."""
        self._stop_clocks()
        now = time.monotonic()
        return [snapshot(job, now) for channel in self.channels for job in channel.abandon()]

    def share(self, sharers: int) -> None:
        """So many pools share each `rate` from now on."""
        for pace in self._paces.values():
            pace.bucket.share(sharers)

    def _stop_clocks(self) -> None:
        self._stopped.set()
        parked = self.aftermath.close()
        if parked:
            log.info("jobs handed back that waited to run again: %d", len(parked))

    def stop(self) -> None:
        """Drain, wait at most the config's shutdown_timeout, abandon what is left. Safe to call twice."""
        self.drain()
        if not self.join(time.monotonic() + self.config.shutdown_timeout_seconds):
            for job in self.abandon():
                log.warning("abandoned %s after %.1f s", printable(f"{job.function} {job.handle}"), job.seconds)
        self.close_client()

    def jobs(self) -> list[RunningJob]:
        """The jobs in flight."""
        now = time.monotonic()
        return [snapshot(job, now) for channel in self.channels for job in channel.jobs]

    def handles(self) -> dict[str, list[bytes]]:
        """The handles of the jobs in flight, by the address of their job server."""
        found: dict[str, list[bytes]] = {}
        for channel in self.channels:
            found.setdefault(str(channel.server), []).extend(job.raw_handle for job in channel.jobs)
        return found

    def tick(self) -> None:
        """A second has passed. Does not block."""
        for channel in self.channels:
            channel.tick()

    def _clock(self) -> None:
        while not self._stopped.wait(TICK_SECONDS):
            self.tick()


def channel_groups(
    capabilities: list[BoundCapability], greenlets_per_server: int
) -> list[tuple[list[BoundCapability], int]]:
    """Which capabilities share a channel: those with a rate or greenlets of their own have one to themselves."""
    common = [capability for capability in capabilities if not capability.spec.has_own_channel]
    own = [([c], c.spec.greenlets_per_server or greenlets_per_server) for c in capabilities if c.spec.has_own_channel]
    return [*([(common, greenlets_per_server)] if common else []), *own]


def keeper_of(config: Config) -> Callable[[DeadLetter], None] | None:
    """Writes to the config's file of dead letters; None where there is none."""
    letters = config.dead_letters
    if letters is None:
        return None

    def keep(letter: DeadLetter) -> None:
        from geard.deadletters.store import DeadLetters  # SQLite, for those who need it

        with DeadLetters(letters.file) as store:
            store.add([letter])

    return keep


def snapshot(job: Job, now: float) -> RunningJob:
    """What others may know of a job in flight."""
    seconds = now - job.started if job.started else 0.0
    return RunningJob(job.function, job.handle, job.unique, job.server, seconds, *job.progress)


def log_job(job: Job) -> None:
    """The line of `geard run -v` for each job."""
    log.info(
        "%s: %s in %.1f ms", label(job), "failed" if job.failed else "done", (time.monotonic() - job.started) * 1000,
        extra=about(job))  # fmt: skip


def default_client_id() -> str:
    """`host-pid-name`: what `workers` of the admin protocol shows of us."""
    return f"{socket.gethostname()}-{os.getpid()}-geard"


def _no_capabilities() -> Problem:
    return Problem("no capabilities", key="capabilities", hint="name at least one: reverse: geard.examples.reverse")
