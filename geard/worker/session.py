"""One connection's worth of a channel: what was asked for, what waits to be sent, and whether the job server sleeps.

A channel makes a new session for each connection, so what belongs to a connection that is gone can never reach the
next one.

Rules:
- Packets wait in the outbox; whoever flushes sends all of it in one write, with the grabs that are due. Only one
  flushes at a time. Who comes meanwhile leaves, since the one who flushes looks again when he is done.
- The reader, and nobody else, calls `heard`.
- Any greenlet may find the connection broken, and says so with `lose`; the reader then takes leave of the session.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from geard import native
from geard.connection import Connection
from geard.errors import ConnectionLost
from geard.protocol import Command, Decoder, request
from geard.worker.window import GrabWindow

if TYPE_CHECKING:  # a job knows its session; a session only hands it on
    from geard.worker.job import Job

OUTBOX_LIMIT_BYTES: Final = 1024 * 1024
"""A job that streams waits while more than this is unsent."""

FAREWELL: Final = b"drained"
"""What the ECHO_REQ holds that a drain ends with: its answer proves that the job server has read every result."""

_GRAB = request(Command.GRAB_JOB_UNIQ)
_PRE_SLEEP = request(Command.PRE_SLEEP)
_FAREWELL = request(Command.ECHO_REQ, FAREWELL)

LOOK: Final = b"look"
"""What the ECHO_REQ holds whose answer makes the reader look at the queue again."""

_LOOK = request(Command.ECHO_REQ, LOOK)


class Session:
    """The state of one connection. Made by its channel, which hands in the two decisions that are the channel's:

    `grabs_due(owed)` how many grabs to send now, and `finished()` whether a drain is through but for the farewell. The
    window and `resume` are the channel's too."""

    __slots__ = (
        "_finished",
        "_grabs_due",
        "_outbox_bytes",
        "_room",
        "_send_lock",
        "_state_lock",
        "_window",
        "address",
        "age_ticks",
        "asleep",
        "bade_farewell",
        "connection",
        "decoder",
        "error",
        "flushed_at",
        "grabs",
        "lost",
        "more",
        "outbox",
        "owed",
        "registered",
        "resume",
        "silent_ticks",
        "wake",
    )

    def __init__(
        self,
        connection: Connection,
        *,
        max_packet_bytes: int,
        window: GrabWindow,
        grabs_due: Callable[[int], int],
        finished: Callable[[], bool],
        wake_writer: Callable[[], None],
        resume: Callable[[Job], None] = lambda job: None,
    ) -> None:
        self.connection = connection
        self.address = str(connection.server)
        self.decoder = Decoder(max_packet_bytes=max_packet_bytes, skip=True)
        self.owed = 0  # grabs not answered yet
        self.grabs = 0  # grabs sent
        self.more = True  # the job server may have jobs for us: it has not said NO_JOB since it last had one
        self.asleep = False  # PRE_SLEEP is sent and no NOOP has come since
        self.registered = False  # it has answered, so it has read our CAN_DOs
        self.bade_farewell = False
        self.lost = False
        self.error: ConnectionLost | None = None
        self.age_ticks = 0
        self.silent_ticks = 0  # clock ticks since anything was heard, while something is owed
        self.flushed_at = 0.0
        self._window = window
        self._grabs_due = grabs_due
        self._finished = finished
        self.wake = wake_writer  # have the writer flush soon
        self.resume = resume  # have a job of this session run again
        self.outbox: list[bytes] = []  # packets that wait to be sent
        self._outbox_bytes = 0
        self._room = threading.Event()
        self._room.set()
        self._send_lock = native.allocate_lock()  # nobody waits for it
        self._state_lock = native.allocate_lock()  # held for some instructions, without a switch

    def __repr__(self) -> str:
        state = "lost" if self.lost else "asleep" if self.asleep else "awake" if self.registered else "new"
        return f"<Session {self.address} {state} owed={self.owed} outbox={len(self.outbox)}>"

    # --- sending --------------------------------------------------------------------------------------------------

    @property
    def behind(self) -> bool:
        """Whether the outbox is over its limit."""
        return not self._room.is_set() and not self.lost

    def answer(self, packet: bytes) -> bool:
        """Take a job's last packet; it is sent with the next flush. False if the connection is gone: it is dropped, for
        the job server has handed the job to another worker."""
        if self.lost:
            return False
        self.outbox.append(packet)
        return True

    def send(self, packet: bytes) -> None:
        """Send a packet soon. Waits while the outbox is over its limit."""
        if self.lost:
            return
        self.outbox.append(packet)
        self._outbox_bytes += len(packet)
        if self._outbox_bytes > OUTBOX_LIMIT_BYTES:
            self._room.clear()
            if not self.outbox:  # another thread has taken it all since, and will not say so again
                self._room.set()
        self.wake()
        while not self._room.is_set() and not self.lost:
            from geard.worker.current import async_job  # it imports this module, and is seldom needed here

            if async_job.get():  # the loop of all coroutines must not wait; an async generator does it itself
                return
            self._room.wait(1.0)

    def open(self, packets: Iterable[bytes]) -> None:
        """Put the first packets into the outbox: who we are and what we can do."""
        self.outbox.extend(packets)

    def flush(self) -> None:
        """Send what waits, and the grabs that are due, in one write. Never raises ConnectionLost: see `lose`."""
        while not self.lost and self._due() and self._send_lock.acquire(blocking=False):
            try:
                self.connection.send(self._take())
            except ConnectionLost as error:
                self.lose(error)
            finally:
                self._send_lock.release()

    def _due(self) -> bool:
        return (
            bool(self.outbox)
            or bool(self.connection.unsent)
            or (not self.asleep and self._wants_to_speak())
            or (not self.bade_farewell and self._finished() and not self.owed)
        )

    def _wants_to_speak(self) -> bool:
        return self._grabs_due(self.owed) > 0 if self.more else not self.owed

    def _take(self) -> bytes:
        outbox = self.outbox
        packets = outbox[:]
        del outbox[: len(packets)]  # what a thread has added since stays
        self._outbox_bytes = 0
        self._room.set()
        with self._state_lock:
            if not self.asleep:
                self._ask(packets)
            # In this order: a job leaves its answer in the outbox before it is no longer busy.
            if not self.owed and not self.bade_farewell and self._finished() and not outbox:
                self.bade_farewell = True
                packets.append(_FAREWELL)
        try:
            return b"".join(packets)
        except MemoryError:  # large results: one at a time then, which takes none
            outbox[:0] = packets[1:]
            return packets[0]

    def _ask(self, packets: list[bytes]) -> None:
        """Grabs while there may be more; once there is not, PRE_SLEEP. A quiet channel saves a turn: it sends PRE_SLEEP
        right behind its single grab."""
        if self.more:
            grabs = self._grabs_due(self.owed)
            if not grabs:
                return
            packets.append(_GRAB * grabs)
            self.owed += grabs
            self.grabs += grabs
            if self._window.size > 1:
                return
        elif self.owed:
            return
        packets.append(_PRE_SLEEP)
        self.asleep = True

    # --- hearing --------------------------------------------------------------------------------------------------

    def receive(self) -> None:
        """Block until something arrives, and give it to the decoder. Raises ConnectionLost."""
        self._feed(self.connection.receive())

    def receive_at_once(self) -> bool:
        """The same for what has arrived already. False if nothing has."""
        data = self.connection.receive_at_once()
        if data is not None:
            self._feed(data)
        return data is not None

    def _feed(self, data: bytes | None) -> None:
        if self.lost or data is None:
            raise self.error or ConnectionLost(f"lost {self.address}")
        if not self.bade_farewell:  # to which there is one answer: nothing else puts off the end of a drain
            self.silent_ticks = 0
        self.decoder.feed(data)

    def heard(self, *, jobs: int, no_jobs: int, noop: bool) -> None:
        """Account for what came in one read."""
        with self._state_lock:
            self.registered = True
            self.owed -= jobs + no_jobs
            if no_jobs:
                self.more = False
            elif jobs and not self.asleep:
                self.more = True
            if noop:
                self.asleep, self.more = False, True

    def ask_again(self) -> None:
        """The channel was idle for a while: ask for a job though no NOOP came (a delayed job's falling due sends
        none), which also finds out whether the job server is still there. Does not block: a clock serves all channels.
        """
        with self._state_lock:
            if not self.owed:
                self.asleep, self.more = False, True
        self.wake()

    def wake_reader(self) -> None:
        """Have whoever reads look at the queue of jobs, in which there is one that no packet brought."""
        self.answer(_LOOK)
        self.wake()

    def lose(self, error: ConnectionLost) -> None:
        """The connection is broken. The first reason counts. Wakes the reader, who leaves the session."""
        if self.lost:
            return
        self.error = error
        self.lost = True
        self._room.set()
        self.connection.interrupt()
