"""The network, the clock and the store around the rules.

A turn of the loop: every connection that has something is read, and what it says is decided at once; before the loop
waits again, the turn ends: what must be stored is committed, then each outbox is sent, one send for each connection.
What takes longer than a turn may (much that one connection asked or is sent, long lists, a departure with many jobs)
goes on in the next: see `geard.jobserver.turns`.

Rules:
- Outboxes are sent at the end of a turn only, and requests that were left over are handled after that. So JOB_CREATED
  for a stored job leaves after the commit, whatever else the turn holds, and all its submissions share one commit.
- Everything runs in callbacks of gevent's loop, without a greenlet for each connection: thousands of idle ones cost
  little, and nothing here may block.
- A connection that fails takes nothing else with it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Final

import gevent
from gevent.event import Event
from setproctitle import setproctitle

from geard.errors import GeardError
from geard.jobserver import admin
from geard.jobserver.acceptor import Acceptor
from geard.jobserver.commits import Commits
from geard.jobserver.connection import Connection
from geard.jobserver.options import Options
from geard.jobserver.requests import HANDLERS
from geard.jobserver.rules import Rules
from geard.jobserver.state import Peer
from geard.jobserver.store import Store
from geard.jobserver.turns import SLICE_SECONDS, Turns
from geard.printable import printable

log = logging.getLogger(__name__)

LONGEST_WAIT_SECONDS: Final = 1.0  # for a delayed job: the clock may be set meanwhile
SWEEPS: Final = 4  # in a stall timeout
TURN_COST: Final = 1_000_000
"""Of `Rules.spent`: what the requests of one connection may cost before others have their turn."""
COLLECT: Final = (50_000, 1, 1_000_000)
"""When Python looks for cycles (see gc.set_threshold): among new objects, twice in their life, and in effect never
among all: no job is in a cycle, and to look through half a million of them takes longer than anybody may wait."""


class JobServer:
    """A job server on sockets that already listen. Closes them in the end."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        options: Options | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.options = options = options or Options()
        self._clock = clock
        loop = self._loop = gevent.get_hub().loop
        self._acceptor = Acceptor(listeners, options, loop, self._open)
        store = Store(options.queue) if options.queue is not None else None
        self.rules = Rules(
            b"H:%b:" % printable(os.fsencode(socket.gethostname()).decode(errors="backslashreplace")).encode(),
            max_queue=options.max_queue,
            job_retries=options.job_retries,
            durable=store is not None,
            first_number=store.next_number if store else 1,
        )
        if store:
            for job in store.jobs():
                self.rules.restore(*job)
        self._commits = Commits(store, self.rules) if store else None
        self._closed = False
        self._connections: set[Connection] = set()
        self._stop = Event()
        self._late_tick = False  # there was more to tick than in one go
        self._due: float | None = None  # when the timer is set to
        self._turns = Turns(loop, self._take_turn)
        self._end_of_turn_watcher = loop.prepare(ref=False)
        self._timer = loop.timer(0, ref=False)
        sweep_seconds = options.stall_timeout_seconds / SWEEPS
        self._sweeper = loop.timer(sweep_seconds, sweep_seconds, ref=False)

    def __repr__(self) -> str:
        return f"<JobServer {', '.join(self.addresses)} {len(self._connections)} connections {self.rules!r}>"

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return self._acceptor.addresses

    def run(self, *, on_ready: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, TERM or INT, in a process of its own. The queue file is whole when this returns."""
        gc.set_threshold(*COLLECT)
        setproctitle(f"geard: job server on {', '.join(self.addresses)}")
        signals = [gevent.signal_handler(signum, self.stop) for signum in (signal.SIGTERM, signal.SIGINT)]
        self.start()
        try:
            on_ready()
            self._stop.wait()
        finally:
            self.close()
            for handler in signals:
                handler.cancel()
        left = len(self.rules.jobs)
        lost = ", which are lost without a queue file" if left and not self.options.queue else ""
        log.log(logging.WARNING if lost else logging.INFO, "stopped; jobs left in its queues: %d%s", left, lost)

    def start(self) -> None:
        """Accept connections, in gevent's loop."""
        self._acceptor.start()
        self._end_of_turn_watcher.start(self._end_of_turn)
        self._sweeper.start(self._sweep)
        log.info("job server on %s, jobs in its queues: %d", ", ".join(self.addresses), len(self.rules.jobs))

    def stop_accepting(self) -> None:
        """Leave the addresses to others. Who is connected is still served. Idempotent."""
        self._acceptor.stop()

    def stop(self) -> None:
        """Let `run` return. Idempotent."""
        self._stop.set()

    def close(self) -> None:
        """Stop at once: end this turn, close every connection and the queue file. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._turns.finish()
        self._end_of_turn()
        self._acceptor.close()
        for watcher in (self._end_of_turn_watcher, self._timer, self._sweeper):
            watcher.stop()
            watcher.close()
        self._turns.close()
        for connection in self._connections:
            connection.close()
        self._connections.clear()
        if self._commits:
            self._commits.close()

    # --- connections ----------------------------------------------------------------------------------------------

    def _open(self, sock: socket.socket, host: str) -> None:
        connection = Connection(
            sock,
            host,
            max_packet_bytes=self.options.max_packet_bytes,
            loop=self._loop,
            on_readable=self._read,
            on_writable=self._turns.want,
        )
        connection.exceptions = self.options.exceptions
        self._connections.add(connection)

    def _read(self, connection: Connection) -> None:
        """Take what a connection has sent, and decide it."""
        try:
            data = connection.receive()
            if data is not None:
                connection.decoder.feed(data)
                self._handle(connection)
        except Exception as error:
            self._failed(connection, error)

    def _handle(self, connection: Connection) -> None:
        """Decide all that a connection has sent, up to a turn's worth. The answers leave at the end of the turn."""
        rules, decoder, now = self.rules, connection.decoder, self._clock()
        stop = rules.spent + TURN_COST
        connection.has_requests = False
        while True:
            for command, fields in decoder:
                HANDLERS[command](rules, connection, fields, now)
                if rules.spent > stop:
                    self._handle_later(connection)
                    return
            if decoder.at_line:
                # An answer in pieces goes behind all that was said before, so that has to leave first.
                if not connection.has_answers and (line := decoder.take_line()) is not None:
                    connection.answer = admin.answer(rules, self._connections, line)
                if connection.has_answers:
                    self._handle_later(connection)
                    return
            data = connection.receive() if connection.has_more else None
            if data is None:
                return
            decoder.feed(data)

    def _handle_later(self, connection: Connection) -> None:
        connection.has_requests = True
        connection.read_on(self._read)
        self._turns.want(connection)

    def _take_turn(self, connection: Connection) -> None:
        """The next piece for the connection, of whatever it waits for; then the next of its requests."""
        try:
            errand = self.rules.errands.get(connection)
            if errand is not None:
                if next(errand, connection) is connection:
                    self.rules.errands.pop(connection, None)
                self._turns.want(connection)
                return
            if connection.has_answers:
                self._write(connection)
            if not connection.has_answers and not connection.gone:
                if connection.has_requests or connection.has_more:
                    self._handle(connection)
                connection.read_on(self._read)
        except Exception as error:
            self._failed(connection, error)

    def _write(self, connection: Connection) -> None:
        """Send of the connection's outbox what it takes; the rest when it takes more."""
        try:
            if connection.write(self._loop):
                return
        except Exception as error:
            self._failed(connection, error)
            return
        connection.read_on(self._read)
        if not connection.blocked:
            self._turns.want(connection)

    def _failed(self, connection: Connection, error: Exception) -> None:
        if isinstance(error, MemoryError):
            log.error("dropping %s: there is no memory for what it sends or is sent", connection)
        elif not isinstance(error, GeardError):
            log.error("dropping %s: a bug in the job server", connection, exc_info=error)
        self._drop(connection, error)

    def _drop(self, connection: Connection, reason: object) -> None:
        if connection.gone:
            return
        log.debug("%s", reason)
        self._connections.discard(connection)
        connection.close()
        self._acceptor.gone()
        self._turns.add_errand(self.rules.depart(connection))

    def _sweep(self) -> None:
        """Drop the connections that have stalled for the whole timeout."""
        for connection in [each for each in self._connections if each.is_stalled]:
            connection.quiet += 1
            if connection.quiet > SWEEPS:
                log.warning("dropping %s: it stalled for %g s", connection, self.options.stall_timeout_seconds)
                self._drop(connection, "stalled")

    # --- the end of a turn ----------------------------------------------------------------------------------------

    def _end_of_turn(self) -> None:
        rules = self.rules
        if self._late_tick:
            self._tick()
        if self._commits:
            self._commits.end_turn()
        unsent, rules.unsent = rules.unsent, []
        self._send(unsent)
        self._turns.run()
        self._turns.keep_awake(bool(rules.unsent or rules.staged or self._late_tick))
        self._set_timer()

    def _send(self, peers: list[Peer]) -> None:
        deadline = time.perf_counter() + SLICE_SECONDS
        late = False
        for peer in peers:
            if peer.outbox and isinstance(peer, Connection):
                if late:
                    self._turns.want(peer)
                else:
                    self._write(peer)
                    late = time.perf_counter() > deadline

    def _set_timer(self) -> None:
        now = self._clock()
        due = self.rules.next_due(now)
        if due is None:
            return
        due = min(due, now + LONGEST_WAIT_SECONDS)
        if self._due is None or due < self._due:
            self._due = due
            self._timer.stop()
            self._timer.close()
            self._timer = self._loop.timer(max(0.0, due - now), ref=False)
            self._timer.start(self._tick)

    def _tick(self) -> None:
        self._due = None
        self._late_tick = self.rules.tick(self._clock())
