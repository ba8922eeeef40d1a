"""Many jobs over many job servers: pipelined submission, and the window of `Client.map`.

Rule: as in `bulk`, with each job at the job server that is chosen for it.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

from geard.client.bulk import LOT, WINDOW, Window, flush, lot_of, of_our_process, until_failure
from geard.client.exchange import Exchange
from geard.client.handle import Handle
from geard.client.reply import Reply, Submission
from geard.client.results import text_of
from geard.client.task import deadline_after
from geard.client.watch import Watch, read_arrived
from geard.errors import JobTimeout
from geard.protocol import Command

if TYPE_CHECKING:
    from geard.client.fleet import Fleet

T = TypeVar("T")


def submit_all(fleet: Fleet, packets: Iterable[bytes], timeout: float | None = None) -> Iterator[Handle]:
    """Submit background jobs and yield their handles, in order. Raises what the answer is if it is an error, and what
    `packets` raises, each in its place."""
    deadline = deadline_after(timeout)
    failures: list[Exception] = []
    source = until_failure(packets, failures)
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
                if failures:
                    raise failures[0]
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
        self._watch = Watch(self._bell)

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
        silent_at = time.monotonic() + self._fleet.answer_timeout_seconds
        until = silent_at if self._deadline is None else min(silent_at, self._deadline)
        while not self._finished:
            for exchange in self._busy:
                if exchange.lost is not None:
                    self._end_all(exchange)
            if self._finished:
                return
            left = until - time.monotonic()
            if left > 0:
                self._watch.wait(self._busy, lambda: self._finished, left)
            elif until < silent_at:
                raise JobTimeout(f"not through within {self._timeout:g} s; what was submitted may still run")
            else:
                self._give_up_silent()
                return

    def _give_up_silent(self) -> None:
        """Nothing was submitted while we waited: what is unanswered was so all the time."""
        for submission, exchange in list(self._places.items()):
            if not submission.answered() and exchange.lost is None:
                self._fleet.give_up(exchange)

    def _end_all(self, exchange: Exchange) -> None:
        """The connection is lost, and with it what had not ended there."""
        for submission, place in list(self._places.items()):
            if place is exchange and not submission.ended():
                self._end(submission, exchange.loss_of(submission))
