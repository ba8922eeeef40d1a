"""Many jobs over one exchange: pipelined submission, and the window of `Client.map`.

Rules: requests are posted in lots and each lot is sent with one write; what is outstanding is bounded, so memory is
flat however long the input is. These are generators: nothing is submitted that is not iterated for.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice, takewhile
from typing import Final, Generic, TypeVar

from geard.client.conversation import Conversation
from geard.client.exchange import Exchange
from geard.client.reply import Bell, Reply, Submission
from geard.errors import ConnectionLost, GeardError, InvalidRequest, ServerError
from geard.protocol import Command

LOT: Final = 100  # submissions in one write
LOT_BYTES: Final = 256 * 1024
WINDOW: Final = 5 * LOT  # submissions that are not answered yet
HELD: Final = 4  # an ordered map holds so many times its concurrency: done ones wait for one before them
PATIENCE_SECONDS: Final = 30.0  # without a result, after which a map asks itself whether its job server is silent

T = TypeVar("T")


def submit_all(conversation: Conversation, packets: Iterable[bytes]) -> Iterator[bytes]:
    """Submit background jobs and yield their handles, in order. Raises what the answer is if it is an error."""
    source = iter(packets)
    replies: deque[Reply] = deque()
    more = True
    try:
        while True:
            if not replies:
                exchange = conversation.exchange()
            while more and len(replies) <= WINDOW - LOT:
                lot = _lot(source)
                more = bool(lot)
                for packet in lot:
                    replies.append(Reply(Command.JOB_CREATED))
                    exchange.post(replies[-1], packet)
                exchange.flush()
            if not replies:
                return
            conversation.wait(exchange, replies[0])
            while replies and (fields := replies[0].fields):
                replies.popleft()
                yield fields[0]
    finally:
        for reply in replies:
            reply.abandoned = True


def _lot(source: Iterator[bytes]) -> list[bytes]:
    lot, size = [], 0
    for packet in islice(source, LOT):
        lot.append(packet)
        size += len(packet)
        if size >= LOT_BYTES:
            break
    return lot


class Window(Generic[T]):
    """The jobs of one map: iterate it for (workload, submission that has ended), at most `concurrency` at a time.

    A submission that could not be made, or whose connection was lost, has ended with that error."""

    def __init__(
        self,
        conversation: Conversation,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
    ) -> None:
        self._conversation = conversation
        self._packet_of = packet_of
        self._source = iter(workloads)
        self._more = True
        self._concurrency = concurrency
        self._ordered = ordered
        self._running = 0
        self._held: dict[Submission, T] = {}  # submitted and not yielded, in the order of the workloads
        self._bell: Bell = []
        self._finished: deque[Submission] = deque()  # put there by whoever reads

    def __repr__(self) -> str:
        return f"<Window {self._running}/{self._concurrency} running, {len(self._held)} held>"

    def __iter__(self) -> Iterator[tuple[T, Submission]]:
        try:
            exchange = self._conversation.exchange()
            while True:
                # Refill before yielding: the workers go on while our caller is busy with what it gets.
                if exchange.lost is not None and self._more:
                    exchange = self._conversation.exchange()
                self._refill(exchange)
                ready = self._take_ready()
                for submission in ready:
                    yield self._held.pop(submission), submission
                if not ready:
                    if not self._held:
                        return
                    self._wait(exchange)
        finally:
            for submission in self._held:
                submission.abandoned = True

    def _refill(self, exchange: Exchange) -> None:
        free = min(self._concurrency - self._running, HELD * self._concurrency - len(self._held))
        if not self._more or free <= 0:
            return
        drawn = 0
        for workload in islice(self._source, free):
            drawn += 1
            submission = Submission(self._bell, finished=self._finished)
            self._held[submission] = workload
            self._running += 1
            try:
                exchange.post(submission, self._packet_of(workload))
            except InvalidRequest as error:
                self._end(submission, error)
        self._more = drawn == free
        exchange.flush()

    def _take_ready(self) -> list[Submission]:
        ended = []
        while self._finished:
            ended.append(self._finished.popleft())
        self._running -= len(ended)
        if not self._ordered:
            return ended
        return list(takewhile(Submission.ended, self._held))

    def _wait(self, exchange: Exchange) -> None:
        """Wait until a job ends. When the connection is lost, all have ended."""
        some = next(iter(self._held))
        try:
            if exchange.wait(some, lambda: bool(self._finished), time.monotonic() + PATIENCE_SECONDS):
                return
            for submission in self._held:
                with contextlib.suppress(ServerError):  # it has ended then
                    self._conversation.wait(exchange, submission)
        except ConnectionLost:
            for submission in self._held:
                if not submission.ended():
                    self._end(submission, exchange.loss_of(submission))

    def _end(self, submission: Submission, error: GeardError) -> None:
        submission.error = error
        self._finished.append(submission)
