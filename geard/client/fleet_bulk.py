"""Many jobs over many job servers: pipelined submission, and the window of `Client.map`.

Rules: as in `bulk`, with each job at the job server that is chosen for it. Who waits for news of several connections
watches them all, and reads what comes, for everybody, as any caller of an exchange does.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar, cast

from geard.client.bulk import LOT, PATIENCE_SECONDS, WINDOW, Window, flush, lot_of, of_our_process
from geard.client.exchange import LOOK_SECONDS, RECHECK_SECONDS, Exchange
from geard.client.handle import Handle
from geard.client.reply import Reply, Submission
from geard.client.results import text_of
from geard.client.task import deadline_after
from geard.errors import ConnectionLost, JobTimeout, ServerError
from geard.protocol import Command

if TYPE_CHECKING:
    from geard.client.fleet import Fleet

T = TypeVar("T")


def submit_all(fleet: Fleet, packets: Iterable[bytes], timeout: float | None = None) -> Iterator[Handle]:
    """Submit background jobs and yield their handles, in order. Raises what the answer is if it is an error."""
    deadline = deadline_after(timeout)
    source = iter(packets)
    sent: deque[tuple[Reply, Exchange]] = deque()
    last: Exchange | None = None
    more = True
    try:
        while True:
            while more and len(sent) <= WINDOW - LOT:
                of_our_process(last)
                read_arrived({exchange: None for _, exchange in sent})  # or who has answered would count as who has not
                lot = lot_of(source)
                more = bool(lot)
                touched: dict[Exchange, None] = {}
                for packet in lot:
                    last = fleet.exchange(packet, deadline)
                    touched[last] = None
                    sent.append((Reply(Command.JOB_CREATED), last))
                    last.post(sent[-1][0], packet)
                for exchange in touched:
                    flush(exchange, deadline)
            if not sent:
                return
            reply, exchange = sent[0]
            fleet.wait(exchange, reply, deadline)
            while sent and (fields := sent[0][0].fields):
                yield Handle(text_of(fields[0]), sent.popleft()[1].server)
    finally:
        for reply, _ in sent:
            reply.abandon()


class FleetWindow(Window[T]):
    """The jobs of one map over many job servers."""

    def __init__(
        self,
        fleet: Fleet,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
        timeout: float | None = None,
    ) -> None:
        super().__init__(packet_of, workloads, concurrency=concurrency, ordered=ordered, timeout=timeout)
        self._fleet = fleet
        self._last: Exchange | None = None
        self._touched: dict[Exchange, None] = {}  # posted to, and not flushed
        self._places: dict[Submission, Exchange] = {}  # of those that run
        self._busy: Counter[Exchange] = Counter()  # how many of those each has
        self._doorbell: Doorbell | None = None

    def _poster(self) -> Callable[[Submission, bytes], None]:
        of_our_process(self._last)
        return self._place

    def _place(self, submission: Submission, packet: bytes) -> None:
        exchange = self._last = self._fleet.exchange(packet, self._deadline)
        self._touched[exchange] = None
        self._places[submission] = exchange
        self._busy[exchange] += 1
        exchange.post(submission, packet)

    def _flush(self) -> None:
        while self._touched:
            flush(self._touched.popitem()[0], self._deadline)

    def _took(self, ended: list[Submission]) -> None:
        for submission in ended:
            exchange = self._places.pop(submission, None)
            if exchange is not None:
                self._busy[exchange] -= 1
                if not self._busy[exchange]:
                    del self._busy[exchange]

    def _wait(self) -> None:
        patience = time.monotonic() + PATIENCE_SECONDS
        until = min(patience, self._deadline or patience)
        while not self._finished:
            for exchange in self._busy:
                if exchange.lost is not None:
                    self._end_all(exchange)
            if self._finished:
                return
            left = until - time.monotonic()
            if left > 0:
                self._watch(left)
            elif until < patience:
                raise JobTimeout(f"not through within {self._timeout:g} s; what was submitted may still run")
            else:
                self._are_they_silent()
                return

    def _watch(self, seconds: float) -> None:
        """Read what arrives on any of our connections, or until others have read something that is ours."""
        doorbell = self._doorbell = self._doorbell or Doorbell()
        bell = cast("SimpleQueue[None]", doorbell)
        poll, exchanges = watching(self._busy)
        poll.register(doorbell.descriptor, select.POLLIN)
        try:
            self._bell.append(bell)
            # Look again, now that we can be woken.
            if self._finished:
                return
            ready = poll.poll(min(seconds, RECHECK_SECONDS) * 1000)
        finally:
            if bell in self._bell:
                self._bell.remove(bell)
        doorbell.silence()
        if not ready:  # what a caller was interrupted with, nobody delivers: each is read once, arrived or not
            ready = [(descriptor, 0) for descriptor in exchanges]
        for descriptor, _ in ready:
            if descriptor in exchanges:
                read_once(exchanges[descriptor])

    def _are_they_silent(self) -> None:
        for submission, exchange in list(self._places.items()):
            with contextlib.suppress(ServerError, ConnectionLost):  # it has ended then
                self._fleet.wait(exchange, submission)

    def _end_all(self, exchange: Exchange) -> None:
        """The connection is lost, and with it what had not ended there."""
        for submission, place in list(self._places.items()):
            if place is exchange and not submission.ended():
                self._end(submission, exchange.loss_of(submission))


def watching(exchanges: Iterable[Exchange]) -> tuple[select.poll, dict[int, Exchange]]:
    """What tells which of them something has arrived on, by their descriptors."""
    poll, found = select.poll(), {}
    for exchange in exchanges:
        if (descriptor := exchange.descriptor) >= 0:
            found[descriptor] = exchange
            poll.register(descriptor, select.POLLIN)
    return poll, found


def read_arrived(exchanges: Iterable[Exchange]) -> None:
    """Read what has arrived on any of them, without waiting for more."""
    poll, found = watching(exchanges)
    for descriptor, _ in poll.poll(0) if found else ():
        read_once(found[descriptor])


def read_once(exchange: Exchange) -> None:
    """Read what has arrived, and give it to whom it belongs. Does nothing where another caller is at it."""
    asked: list[None] = []

    def happened() -> bool:
        asked.append(None)
        return len(asked) > 1

    with contextlib.suppress(ConnectionLost):
        exchange.wait(Reply(Command.NOOP), happened, time.monotonic() + LOOK_SECONDS)


class Doorbell:
    """Hangs in a Bell among the queues of other callers, and makes a descriptor readable.

    It is closed when nobody knows it any more: whoever rings it must not write to another's descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        if "descriptor" in self.__dict__:
            os.close(self.descriptor)

    def put(self, _: None) -> None:
        """Ring."""
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        """Not readable until it is rung again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
