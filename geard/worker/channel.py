"""The channel: one connection to one job server, and the greenlets that share it.

A greenlet calls serve, and runs jobs until the channel has drained; all of it blocking code.

Rules:
- Leader and followers. One idle greenlet holds the read lock and blocks in receive; the others wait for the lock.
  What it reads becomes a queue of jobs; it takes one, gives up the lock and runs it. Who finishes a job while others
  are queued goes on to the next without a switch.
- Never grab a job that no greenlet is free to run, and none at all while draining.
- What is done for every job is in serve and in Job.finish, without a call that can be spared: it is all that a drain of
  small jobs costs. What happens once in a while has a method of its own.
- A result never waits for another job. The reader flushes before it blocks. In the middle of a batch, results go out
  when there are enough for a write of their own, after a millisecond, and before a job of a capability that is not
  known to be quick. Otherwise who leads next, or goes on with the queue for another, flushes; or the writer
  where every greenlet has a job.
- Draining sends no CANT_DO: gearmand would hand the jobs in flight to others. What is owed is taken and run; then an
  echo proves that every result was read, and the connection closes.
- A broken connection ends the session only. Its jobs go on, their results are dropped; the channel connects again,
  for ever.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from geard.config import JobServer
from geard.connection import Connection
from geard.errors import ConnectionLost, PacketTooLarge, ProtocolError, ServerTimeout
from geard.protocol import Command, Oversized, Packet, request, response
from geard.reconnect import Backoff
from geard.stats.counters import MOST_VALUES
from geard.worker.breath import BREATH_SECONDS, Breath
from geard.worker.capability import BoundCapability
from geard.worker.job import Job
from geard.worker.run import refuse, run
from geard.worker.session import FAREWELL, LOOK, Session
from geard.worker.tally import Tally
from geard.worker.window import HOARD_SECONDS, MAX_WINDOW, GrabWindow, grabs_due

log = logging.getLogger("geard.worker")

_NOOP: Final = response(Command.NOOP)
JOB_ASSIGN_UNIQ: Final = Command.JOB_ASSIGN_UNIQ  # as a member of the enum it would be looked up twice for every job

QUICK_SECONDS: Final = 0.001
"""A result may wait so long for company in its write."""

MOST_READS: Final = 4
"""So many that bring no job, and the loop has its turn: a job server that never stops talking is never waited for."""

SILENT_TICKS: Final = 30
"""A job server that owes an answer and says nothing for so many ticks of about a second is taken for dead. Ticks, not
seconds: a capability that held the loop for a minute must not make us hang up on a server that has answered."""

PROVED_TICKS: Final = 3
"""A connection that has worked for so long is a good one: see Backoff."""


class Channel:
    """The greenlets' side of one job server. `greenlets` of them may call serve."""

    def __init__(
        self,
        server: JobServer,
        capabilities: Mapping[bytes, BoundCapability],
        *,
        greenlets: int,
        client_id: str,
        max_packet_bytes: int,
        breath: Breath | None = None,
        tally: Tally | None = None,
        ended: Callable[[Job], None] | None = None,
        dial: Callable[[JobServer], Connection] = Connection.dial,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`ended` is told of each job that has."""
        self.server = server
        self.greenlets = greenlets
        self.reconnects = 0
        self.no_jobs = 0  # NO_JOBs received
        self.registered = threading.Event()  # the job server knows our abilities; cleared when the connection is lost
        self.tried = threading.Event()  # the first attempt to connect is over, for better or worse
        self.drained = threading.Event()
        self.assigned: Callable[[deque[Job]], None] | None = None  # told of jobs that come, before any starts
        self._capabilities = capabilities
        self._client_id = client_id
        self._max_packet_bytes = max_packet_bytes
        self._dial = dial
        self._clock = clock
        self._window = GrabWindow(min(greenlets, MAX_WINDOW))
        # So many packets are worth a write of their own, though more will come: the job server can be at work on them
        # meanwhile. With fewer, the writes cost more than that gains.
        self._full_write = max(self._window.limit // 2, 1)
        self._busy: set[Job] = set()  # every job that has or will need a greenlet, of this session or an earlier one
        self._assigned: deque[Job] = deque()  # those of them that no greenlet has taken
        self._session: Session | None = None
        self._backoff = Backoff()
        self._read_lock = threading.Lock()
        self._draining = threading.Event()
        self._write_due = threading.Event()
        self._writer_woken = False  # as the event, for those who look at it with every job
        self._breath = breath or Breath()
        self._tally = tally or Tally()
        self._ended = ended
        self._end_forked: Callable[[], None] | None = None  # in a child that a job has forked: ends it
        self._grabs_before = 0  # sent on connections that are gone
        self._connected_before = False
        self._last: Job | None = None  # the last job that was begun or ended

    def __repr__(self) -> str:
        state = "drained" if self.drained.is_set() else "draining" if self._draining.is_set() else "open"
        return (
            f"<Channel {self.server} {state} {len(self._busy)}/{self.greenlets} running {self._window} {self._session}>"
        )

    @property
    def grabs(self) -> int:
        """How many GRAB_JOB were sent."""
        return self._grabs_before + (self._session.grabs if self._session else 0)

    @property
    def jobs(self) -> list[Job]:
        """The jobs in flight."""
        return list(self._busy)

    # --- a greenlet's life ----------------------------------------------------------------------------------------

    def serve(self) -> None:
        """Run jobs until the channel has drained: do not call again."""
        while True:
            try:
                self._serve()
                return
            except BaseException as error:
                # Only user code can be behind this: a gevent.Timeout that it left running, or a kill of this greenlet
                # that came after its job had ended. The greenlet must not be lost, whatever it is.
                log.warning("something left over from an earlier job interrupted %s: %r", self.server, error)

    def _serve(self) -> None:
        assigned, busy, breath, clock, ended = self._assigned, self._busy, self._breath, self._clock, self._ended
        full_write, greenlets = self._full_write, self.greenlets
        now = 0.0  # 0: somebody else has had the loop, or a write its time, since the clock was read
        look_up = 0.0  # when to see whether others have waited long enough: see _look_up
        while True:
            if breath.due:
                breath.take()
                now = 0.0
            try:
                job: Job = assigned.popleft()
            except IndexError:
                job = None  # type: ignore[assignment] # its workload may be large, and the next long in coming
                if not self._lead():
                    return
                now = 0.0
                continue
            session = job.session
            if session.lost:  # it was handed to another worker when the connection went
                busy.discard(job)
                continue
            capability = job.capability
            if session.outbox and not capability.quick:
                self._flush_before(job)
                now = 0.0
            job.started = started = now or clock()
            waited = started - job.received
            if waited > HOARD_SECONDS:
                self._window.hoarded(job.received, started)
            self._last = job
            try:
                run(job)
            finally:
                busy.discard(job)
                if job.failed:
                    self._tally.failed(job)
                now = over = clock()
                seconds = over - started
                capability.durations.append(seconds * 1e6)
                capability.waits.append(waited * 1e6)
                if self._last is job:
                    capability.quick = seconds < QUICK_SECONDS
                else:
                    capability.quick = True
                    self._last = job
                    started = over  # others have had the loop meanwhile: it has not held it
                if over > look_up or len(session.outbox) >= full_write or session.lost:
                    look_up = self._look_up(job, started, over)
                    now = 0.0
                elif not self._writer_woken and len(busy) >= greenlets:  # else one is left that leads, and flushes
                    self._wake_writer()
            if ended is not None:
                ended(job)

    def _look_up(self, job: Job, since: float, now: float) -> float:
        """Between two jobs: send what has waited long enough or is much, and give up the loop after a while, for the
        job that has ended `now` may have held it `since`. When to do so again, at the latest."""
        session, breath = job.session, self._breath
        if session.lost:
            if self._end_forked:
                self._end_forked()
        elif self._assigned:
            if len(session.outbox) >= self._full_write or now - session.flushed_at > QUICK_SECONDS:
                session.flushed_at = now
                session.flush()
            elif len(self._busy) >= self.greenlets:
                self._wake_writer()
        if now - breath.at > BREATH_SECONDS:
            capability = job.capability
            if len(capability.durations) > MOST_VALUES:
                capability.counter.fold()
            self._wake_writer()
            breath.draw(now, held=now - since > BREATH_SECONDS)
        return min(session.flushed_at + QUICK_SECONDS, breath.at + BREATH_SECONDS)

    def _flush_before(self, job: Job) -> None:
        """Send what waits before a job that may hold the loop begins."""
        try:
            job.session.flush()
        except BaseException:  # a stray gevent.Timeout of user code, say: the job is not the worse for it
            self._assigned.appendleft(job)
            raise

    def write(self) -> None:
        """The writer's whole life: flush once per turn of the loop in which there is something to send."""
        while not self.drained.is_set():
            self._wait_to_write()
            self._write_due.clear()
            self._writer_woken = False
            session = self._session
            if session:
                session.flush()

    def _wait_to_write(self) -> None:
        self._write_due.wait()

    def _wake_writer(self) -> None:
        if not self._writer_woken:
            self._writer_woken = True
            self._write_due.set()

    # --- the leader -----------------------------------------------------------------------------------------------

    def _lead(self) -> bool:
        """Wait until a job is queued, reading for everybody when nobody else does. False: the channel has drained."""
        if self._window.size == 1 and self._session:  # on a quiet channel no other result is near: none waits for one
            self._session.flush()
        # `locked` first: a lock of gevent's that is not had makes who asked for it wait a turn of the loop.
        if self._read_lock.locked() or not self._read_lock.acquire(blocking=False):
            self._leave_to_others()
            self._read_lock.acquire()
        try:
            if self._assigned and self._session:  # who had these waits in a job, but the results so far do not
                self._session.flush()
            reads = 0
            while not self._assigned:
                if self._over():
                    return False
                self._read()
                reads += 1
                if not reads % MOST_READS:
                    self._breath.pause()
            return True
        finally:
            self._read_lock.release()

    def _leave_to_others(self) -> None:
        """See that what this greenlet has done is sent: somebody else is reading, and may be for long."""
        session = self._session
        if session and len(session.outbox) >= self._full_write:
            session.flush()
        else:
            self._wake_writer()

    def _over(self) -> bool:
        """Whether no job will ever come: drained, or draining with no connection to take one from."""
        if self._draining.is_set() and (self._session is None or self._session.lost):
            if not self._busy:
                self._end()
            return True
        return self.drained.is_set()

    def _read(self) -> None:
        """One turn of the leader: send what is due unless more has come already, read once, account for it."""
        session = self._session
        if session is None or session.lost:
            self._connect()
            return
        now = self._clock()
        try:
            # A busy job server answers a few grabs at a time: as long as more has come, results gather to a full write.
            may_wait = (
                session.owed and len(session.outbox) < self._full_write and now - session.flushed_at < QUICK_SECONDS
            )
            if not (may_wait and session.receive_at_once()):
                session.flushed_at = now
                session.flush()
                session.receive()
            self._hear(session)
        except ProtocolError as error:  # the decoder does not know to whom it listens
            session.lose(ProtocolError(f"{self.server}: {error}"))
        except ConnectionLost as error:
            session.lose(error)
        if session.lost:
            self._leave(session)

    def _hear(self, session: Session) -> None:
        found: list[list[bytes]] = []  # the fields of the jobs that were assigned
        jobs: list[Job] = []
        refused = no_jobs = unknown = 0
        farewell = False
        decoder = session.decoder
        noop = decoder.take_only(_NOOP)
        if noop and self.registered.is_set():
            session.heard(jobs=0, no_jobs=0, noop=True)
            return
        now = self._clock()
        try:
            decoder.take(JOB_ASSIGN_UNIQ, found)
            for packet in decoder:
                command = packet.command
                if command is JOB_ASSIGN_UNIQ and not isinstance(packet, Oversized):
                    found.append(packet.fields)
                elif command is JOB_ASSIGN_UNIQ:
                    refused += 1
                    self._refuse(session, packet)
                elif command is Command.NO_JOB:
                    no_jobs += 1
                elif command is Command.NOOP:
                    noop = True
                elif command is Command.ERROR and packet.fields[0] == b"JOB_NOT_FOUND":
                    unknown += 1
                else:
                    farewell = self._hear_other(session, packet) or farewell
        finally:
            capabilities = self._capabilities
            for fields in found:
                handle, function, unique, workload = fields
                try:
                    capability = capabilities[function]
                except KeyError:
                    refused += 1
                    self._refuse(session, Packet(JOB_ASSIGN_UNIQ, fields))
                    continue
                jobs.append(Job(session, capability, handle, unique, workload, now))
            self._busy.update(jobs)
            self._assigned.extend(jobs)
            session.heard(jobs=len(jobs) + refused, no_jobs=no_jobs, noop=noop)
        if session.owed < 0:
            handle = found[-1][0] if found else b""
            what = (
                "sent a NO_JOB that nobody asked for"
                if no_jobs
                else f"assigned a job that nobody asked for: {handle!r}"
            )
            raise ProtocolError(what)
        if (jobs or refused) and self.assigned is not None:
            self.assigned(self._assigned)
        if unknown:
            more = f" ({unknown} times)" * (unknown > 1)
            log.warning("%s no longer knows a job that we answered; another worker has it%s", self.server, more)
        if no_jobs:
            self.no_jobs += no_jobs
            self._window.came_short()
        elif jobs or refused:
            self._window.assigned(len(jobs) + refused, now)
        if not self.registered.is_set():
            self._announce()
        if farewell:
            self._end()

    def _hear_other(self, session: Session, packet: Packet) -> bool:
        """A packet that is not about assigning jobs. True for the echo that ends a drain."""
        if isinstance(packet, Oversized):
            raise PacketTooLarge(packet.text)
        if packet.command is Command.ECHO_RES:
            if packet.fields == [FAREWELL] and session.bade_farewell:
                return True
            if packet.fields == [LOOK]:
                return False
        if packet.command is Command.ERROR:
            code, text = (field.decode(errors="replace") for field in packet.fields)
            raise ProtocolError(f"answered {code}: {text}")
        raise ProtocolError(f"sent {packet.command.name}, which nobody asked for")

    def _refuse(self, session: Session, packet: Packet) -> None:
        """Fail a job that no capability here can run."""
        handle, function, unique = packet.fields[:3]
        capability = self._capabilities.get(function)
        reason, answer = refuse(capability, packet)
        if capability:
            self._tally.refused(capability, str(self.server), handle, unique, reason)
        session.answer(answer)
        self._wake_writer()

    # --- connecting -----------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        """One attempt, after the wait that the failures before it call for. Draining ends the wait."""
        self._draining.wait(self._backoff.wait_seconds(random.random))
        if self._draining.is_set():
            return
        try:
            connection = self._dial(self.server)
        except ConnectionLost as error:
            if self._backoff.failed(error):
                log.warning("%s; trying again until it answers", error)
            self.tried.set()
            return
        if self._draining.is_set():
            connection.close()
            return
        session = Session(
            connection,
            max_packet_bytes=self._max_packet_bytes,
            window=self._window,
            grabs_due=self._grabs_due,
            finished=self._finished,
            wake_writer=self._wake_writer,
            resume=self._resume,
        )
        session.open([request(Command.SET_CLIENT_ID, self._client_id.encode())])
        session.open(request(Command.CAN_DO, name) for name in self._capabilities)
        self._window.quiet()
        self._grabs_before = self.grabs
        self._session = session
        if self.drained.is_set():  # a thread has drained the channel just now, and found no connection to close
            connection.close()

    def _announce(self) -> None:
        log.info("connected to %s", self.server)
        self.reconnects += self._connected_before
        self._connected_before = True
        self._backoff.connected()
        self.registered.set()
        self.tried.set()

    def _leave(self, session: Session) -> None:
        """The session is lost: its queued jobs are someone else's now, its running ones go on for nothing."""
        session.connection.close()
        self.registered.clear()
        self.tried.set()
        if self.drained.is_set():
            return
        for job in list(self._assigned):
            if job.session is session:
                self._busy.discard(job)
        self._assigned.clear()
        error = session.error or ConnectionLost(f"lost {self.server}")
        if self._backoff.failed(error):
            running = sum(job.session is session for job in self.jobs)
            log.warning("%s; connecting again%s", error, f"; lost to others, jobs in flight: {running}" * bool(running))

    def _resume(self, job: Job) -> None:
        """Have a job run again that has waited in this process. From any thread."""
        session = job.session
        if session.lost or session.bade_farewell or self.drained.is_set():
            log.info("%s waited to run again; the job server has handed it to another worker", job)
            return
        job.received = self._clock()
        self._busy.add(job)
        self._assigned.append(job)
        if self.assigned is not None:  # nobody notes what is parked, for it cannot kill its process
            self.assigned(self._assigned)
        session.wake_reader()

    # --- the channel's decisions, and its end ---------------------------------------------------------------------

    def _grabs_due(self, owed: int) -> int:
        if self._draining.is_set():
            return 0
        queued = len(self._assigned)
        idle = self.greenlets - len(self._busy)
        return grabs_due(window=self._window.size, owed=owed, queued=queued, idle=idle)

    def _finished(self) -> bool:
        return self._draining.is_set() and not self._busy

    def tick(self) -> None:
        """Called about once a second. Asks again when idle; finds a job server that has stopped answering."""
        session = self._session
        if session is None or session.lost:
            return
        session.age_ticks += 1
        if session.age_ticks == PROVED_TICKS and session.registered:
            self._backoff.succeeded()
        if len(self._busy) >= self.greenlets:
            return  # nobody reads: what may look like silence is not
        if session.owed or session.decoder.in_packet or session.bade_farewell:
            session.silent_ticks += 1
            if session.silent_ticks >= SILENT_TICKS:
                session.lose(ServerTimeout(f"{self.server} has not answered for {SILENT_TICKS} s"))
        elif session.registered:
            session.silent_ticks = 0
            session.ask_again()

    def drain(self) -> None:
        """Grab no more jobs; those in flight go on. Safe to call twice."""
        self._draining.set()
        if (self._session is None or self._session.lost) and not self._busy:
            self._end()
        self._wake_writer()

    def abandon(self) -> list[Job]:
        """Close the connection now: the job server hands the jobs in flight, which are returned, to others."""
        abandoned = [job for job in self.jobs if not job.answered]
        self._draining.set()
        session = self._session
        if session:
            session.lose(ConnectionLost(f"hung up on {self.server}"))
            session.connection.close()
        self._retire()
        return abandoned

    def forked(self, release: Callable[[int], None], end: Callable[[], None]) -> None:
        """This is a child that a job has forked. Touch no lock and say nothing: `release` the descriptor, and `end` the
        process where the greenlet that goes on in it comes back here."""
        self._end_forked = end
        for job in self._busy:
            job.answered = True
        if self._session:
            self._session.lost = True
            release(self._session.connection.descriptor)

    def _end(self) -> None:
        for job in list(self._assigned):  # resumed amid the farewell: closing hands it back
            self._busy.discard(job)
        self._assigned.clear()
        if self._session:
            self._session.connection.close()
        self._retire()

    def _retire(self) -> None:
        self.tried.set()  # or the process would wait for a connection that nobody wants any more
        self.drained.set()
        self._wake_writer()
