"""A worker process: `python -m gevent.monkey --module geard.worker.process FD`, patched before anything is imported.

Rules:
- FD is one end of a socket pair with the supervisor (geard/messages.py). Its end means that the supervisor is gone:
  drain. Everything else it may be told is a message too, but TERM, which drains as well.
- INT and HUP are the supervisor's affair and ignored here: a terminal sends them to both.
- The process ends when its jobs have, not when the threads and greenlets have that user code left behind.
"""

from __future__ import annotations

import heapq
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Final, NoReturn

import gevent
import msgspec
from gevent import socket
from gevent.event import Event
from setproctitle import setproctitle

from geard import exits, logs, messages
from geard.messages import (
    HEARTBEAT_JOBS,
    HEARTBEAT_SECONDS,
    Drain,
    Drained,
    DumpStacks,
    Heartbeat,
    Jobs,
    ListJobs,
    OverMemory,
    Ready,
    ReopenLog,
    Sharers,
    ShowStack,
    Stack,
    Start,
    Suspect,
    Suspects,
)
from geard.presence import Presence
from geard.printable import printable
from geard.stats.diff import ProcessDiff
from geard.stats.failures import cut_middle
from geard.worker.apart import Apart
from geard.worker.begin import LineReader, begin, import_all, leave
from geard.worker.forked import end_if_forked
from geard.worker.greenlets import sleep_ahead
from geard.worker.hooks import call_on_stop
from geard.worker.memory import resident_bytes, watch_memory
from geard.worker.pool import WorkerPool, snapshot
from geard.worker.run import about, label
from geard.worker.sender import Sender
from geard.worker.stacks import busy_greenlets
from geard.worker.watchdog import Watchdog

log = logging.getLogger("geard.worker")

ON_STOP_SECONDS: Final = 5.0
ON_STOP_LATE_SECONDS: Final = 1.0
"""What on_stop may take; and how long after the deadline of a drain: the supervisor kills the process soon after."""
READY_SECONDS: Final = 10.0
"""How long to wait for the job servers' first answers before saying Ready with some of them unreachable."""
MAX_STACK_BYTES: Final = 16 * 1024


class WorkerProcess:
    """The pool of this process, and its conversation with the supervisor."""

    def __init__(
        self, supervisor: socket.socket, start: Start, pool: WorkerPool, presence: Presence | None = None
    ) -> None:
        self._sender = Sender(supervisor)
        self._send = self._sender.send
        self._start = start
        self._pool = pool
        self._apart = Apart(start, presence, in_flight=pool.handles, tell=self._tell_suspects)
        self._cpu_seconds = 0.0  # as of the last heartbeat
        pool.tally.process = f"worker {start.number}[{os.getpid()}]"
        self._watchdog = Watchdog(start.config.block_warning_seconds, self._sender.send_from_thread)
        self._beat_due = Event()
        self._over = Event()
        self._draining_since = 0.0
        self._ended_before_drain = 0
        self._drain_by: float | None = None

    def run(self, lines: LineReader) -> None:
        """Take jobs until told to drain, or the supervisor is gone, and until that is through."""
        for channel in self._pool.channels:
            channel.assigned = self._apart.assigned
        fresh_bytes = resident_bytes()
        self._pool.start(clock=False)
        gevent.signal_handler(signal.SIGTERM, self._terminate)
        gevent.spawn(self._listen, lines)
        self._watchdog.start()
        gevent.spawn(self._clock)
        self._pool.wait_until_tried(time.monotonic() + READY_SECONDS)
        self._send(Ready(*self._servers(), memory_bytes=fresh_bytes))
        gevent.spawn(self._beat)
        gevent.spawn(
            watch_memory,
            self._start.config,
            fresh_bytes,
            sleep=sleep_ahead,
            tell=self._tell_memory,
            stop=self._over_memory,
        )
        self._over.wait()
        self._apart.leave()
        abandoned = self._pool.abandon()
        finished = self._pool.done + self._pool.failed - self._ended_before_drain
        self._send(self._heartbeat())
        self._send(Drained(time.monotonic() - self._draining_since, finished, tuple(abandoned)))
        if self._start.config.on_stop:
            self._stop(self._start.config.on_stop)
        self._pool.close_client()

    def drain(self, timeout_seconds: float | None) -> None:
        """Grab no more; end when all is done, or after the timeout. A later call may shorten it."""
        if not self._draining_since:
            self._draining_since = time.monotonic()
            self._ended_before_drain = self._pool.done + self._pool.failed
            log.info("draining, jobs in flight: %d", self._pool.running)
            self._pool.drain()
            gevent.spawn(self._join)
        if timeout_seconds is not None:
            by = time.monotonic() + timeout_seconds
            self._drain_by = by if self._drain_by is None else min(by, self._drain_by)
            gevent.spawn_later(timeout_seconds, self._over.set)

    def _stop(self, on_stop: str) -> None:
        seconds = ON_STOP_SECONDS
        if self._drain_by is not None:
            seconds = min(seconds, max(self._drain_by - time.monotonic(), 0.0) + ON_STOP_LATE_SECONDS)
        calling = gevent.spawn(call_on_stop, on_stop)
        calling.join(seconds)
        end_if_forked()
        if not calling.ready():
            log.warning("on_stop (%s) has not ended within %.1f s: ending without it", on_stop, seconds)

    def _join(self) -> None:
        self._pool.join()
        self._over.set()

    def _tell_memory(self) -> None:
        self._send(self._heartbeat())

    def _over_memory(self, used_bytes: int) -> None:
        self._pool.drain()
        self._send(OverMemory(used_bytes))
        self.drain(None)

    def _terminate(self) -> None:
        self.drain(0.0 if self._draining_since else self._start.config.shutdown_timeout_seconds)

    # --- the conversation -----------------------------------------------------------------------------------------

    def _listen(self, lines: LineReader) -> None:
        while line := lines.next_line():
            try:
                message = messages.load_to_child(line)
            except msgspec.DecodeError as error:  # of a newer supervisor, say: what it says beside this is understood
                log.error(
                    "not understood, and left aside: %s: %s", printable(line[:200].decode(errors="replace")), error
                )
                continue
            _HANDLERS[type(message)](self, message)
        if not self._draining_since:
            log.warning("the supervisor is gone: draining")
        self.drain(self._start.config.shutdown_timeout_seconds)

    def _drain_asked(self, message: Drain) -> None:
        self.drain(message.timeout_seconds)

    def _sharers_told(self, message: Sharers) -> None:
        self._pool.share(message.count)

    def _suspects_told(self, message: Suspects) -> None:
        self._apart.told(message.suspects)

    def _tell_suspects(self, *suspects: Suspect) -> None:
        self._send(Suspects(suspects))

    def _dump_stacks(self, _: DumpStacks) -> None:
        busy = busy_greenlets()
        log.warning("busy greenlets: %d", len(busy))
        now = time.monotonic()
        for job, stack in busy:
            log.warning("%s: running for %.1f s\n%s", label(job), now - job.started, stack, extra=about(job))

    def _reopen_log(self, _: ReopenLog) -> None:
        logs.reopen()

    def _list_jobs(self, _: ListJobs) -> None:
        self._send(Jobs(tuple(self._pool.jobs())))

    def _show_stack(self, message: ShowStack) -> None:
        found = (stack for job, stack in busy_greenlets() if job.handle == message.handle)
        self._send(Stack(message.handle, cut_middle(next(found, ""), MAX_STACK_BYTES)))

    # --- counters -------------------------------------------------------------------------------------------------

    def _clock(self) -> None:
        """All that is done each second, in one turn of the loop: an idle process is woken once for all of it."""
        while True:
            asleep_at = time.monotonic()
            sleep_ahead(HEARTBEAT_SECONDS)
            self._watchdog.late(time.monotonic() - asleep_at - HEARTBEAT_SECONDS)
            self._beat_due.set()
            logs.tick()
            self._pool.tick()

    def _beat(self) -> None:
        """In a greenlet of its own: a supervisor that does not read holds up nothing else."""
        title = ""
        while True:
            self._beat_due.clear()
            beat = self._heartbeat()
            self._send(beat)
            which = f"{self._start.number} generation {self._start.generation}"
            shown = f"geard: worker {which}, {beat.running}/{beat.greenlets} running"
            if shown != title:
                title = shown
                setproctitle(title)
            self._beat_due.wait()

    def _heartbeat(self) -> Heartbeat:
        jobs = [job for channel in self._pool.channels for job in channel.jobs]
        longest = heapq.nsmallest(HEARTBEAT_JOBS, jobs, key=lambda job: job.started or job.received)
        now = time.monotonic()
        connected, disconnected = self._servers()
        memory_bytes = resident_bytes()
        return Heartbeat(
            running=len(jobs),
            greenlets=self._pool.greenlets,
            done=self._pool.done,
            failed=self._pool.failed,
            connected=connected,
            disconnected=disconnected,
            memory_bytes=memory_bytes,
            jobs=tuple(snapshot(job, now) for job in longest),
            counted=self._pool.tally.take(self._pool.channels, self._pool.capabilities, self._counted(memory_bytes)),
        )

    def _counted(self, memory_bytes: int) -> ProcessDiff:
        before, self._cpu_seconds = self._cpu_seconds, time.process_time()
        return ProcessDiff(
            memory_bytes=memory_bytes,
            cpu_seconds=self._cpu_seconds - before,
            greenlets=self._pool.greenlets,
            loop_lag_seconds=self._watchdog.take_lag(),
            longest_hold_seconds=self._watchdog.take_longest_hold(),
        )

    def _servers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The job servers that know our abilities on every channel, and the others."""
        missing = {str(channel.server) for channel in self._pool.channels if not channel.registered.is_set()}
        servers = [str(server) for server in self._start.config.job_servers]
        return tuple(s for s in servers if s not in missing), tuple(s for s in servers if s in missing)


_HANDLERS: Final[dict[type, Callable[[WorkerProcess, messages.ToChild], None]]] = {
    Drain: WorkerProcess._drain_asked,  # type: ignore[dict-item]
    DumpStacks: WorkerProcess._dump_stacks,  # type: ignore[dict-item]
    ReopenLog: WorkerProcess._reopen_log,  # type: ignore[dict-item]
    ListJobs: WorkerProcess._list_jobs,  # type: ignore[dict-item]
    ShowStack: WorkerProcess._show_stack,  # type: ignore[dict-item]
    Sharers: WorkerProcess._sharers_told,  # type: ignore[dict-item]
    Suspects: WorkerProcess._suspects_told,  # type: ignore[dict-item]
}


def _presence(start: Start) -> Presence | None:
    if start.presence is None:
        return None
    try:
        return Presence(start.presence)
    except OSError as error:  # a limit on address space, say
        log.warning("should a process die, it is known late which jobs it had: cannot map the shared memory: %s", error)
        return None
    finally:
        os.close(start.presence)  # it is mapped; and nothing that a job starts shall have it


def main(descriptor: int) -> NoReturn:
    """The whole life of a worker process."""
    supervisor, lines, start, forks = begin(descriptor, "worker")
    presence = _presence(start)
    pool = import_all(supervisor, start, forks)
    WorkerProcess(supervisor, start, pool, presence).run(lines)
    leave(exits.DONE)


if __name__ == "__main__":
    main(int(sys.argv[1]))
