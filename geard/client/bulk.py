"""Many jobs over one exchange: pipelined submission, and the window of `Client.map`.

Rules: requests are posted in lots and each lot is sent with one write; what is outstanding is bounded, so memory is
flat however long the input is. These are generators: nothing is submitted that is not iterated for.
"""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, Generic, TypeVar

from geard.client.conversation import Conversation
from geard.client.exchange import Exchange
from geard.client.fork import ForkedConnection
from geard.client.reply import Bell, Reply, Submission
from geard.client.task import deadline_after
from geard.errors import ConnectionLost, GeardError, InvalidRequest, JobTimeout, ServerError
from geard.protocol import Command

LOT: Final = 100  # submissions in one write
LOT_BYTES: Final = 256 * 1024
WINDOW: Final = 5 * LOT  # submissions that are not answered yet
HELD: Final = 4  # an ordered map holds so many times its concurrency: done ones wait for one before them
PATIENCE_SECONDS: Final = 30.0  # without a result, after which a map asks itself whether its job server is silent

T = TypeVar("T")
_END: Final = object()


def submit_all(conversation: Conversation, packets: Iterable[bytes], timeout: float | None = None) -> Iterator[bytes]:
    """Submit background jobs and yield their handles, in order. Raises what the answer is if it is an error, and what
    `packets` raises, each in its place."""
    deadline = deadline_after(timeout)
    failures: list[Exception] = []
    source = until_failure(packets, failures)
    replies: deque[Reply] = deque()
    exchange: Exchange | None = None
    lot: list[bytes] = []
    try:
        while True:
            # A connection is asked for again only when there is something to send: who has all handles needs none.
            if exchange is None or (not replies and (lot := lot_of(source))):
                exchange = _next_exchange(conversation, exchange, deadline)
            while len(replies) <= WINDOW - LOT and (lot := lot or lot_of(source)):
                for packet in lot:
                    replies.append(Reply(Command.JOB_CREATED))
                    exchange.post(replies[-1], packet)
                lot = []
                flush(exchange, deadline)
            if not replies:
                if failures:
                    raise failures[0]
                return
            conversation.wait(exchange, replies[0], deadline)
            while replies and (fields := replies[0].fields):
                replies.popleft()
                yield fields[0]
    finally:
        for reply in replies:
            reply.abandon()


def of_our_process(last: Exchange | None) -> None:
    """In a forked child nothing goes on that the parent has begun: both would submit it. Raises ForkedConnection."""
    if last is not None and isinstance(last.lost, ForkedConnection):
        raise last.lost


def _next_exchange(conversation: Conversation, last: Exchange | None, deadline: float | None) -> Exchange:
    """To go on with after `last`."""
    of_our_process(last)
    return conversation.exchange(deadline)


def flush(exchange: Exchange, deadline: float | None) -> None:
    """Send what was posted. Raises JobTimeout."""
    if not exchange.flush(deadline):
        raise JobTimeout(f"{exchange.server} has not taken all jobs in time; those taken may run")


def until_failure(packets: Iterable[bytes], failures: list[Exception]) -> Iterator[bytes]:
    """The packets, up to where there is a failure instead of one."""
    try:
        yield from packets
    except Exception as error:
        failures.append(error)


def lot_of(source: Iterator[bytes]) -> list[bytes]:
    """The packets for the next write."""
    lot, size = [], 0
    for packet in islice(source, LOT):
        lot.append(packet)
        size += len(packet)
        if size >= LOT_BYTES:
            break
    return lot


class Window(ABC, Generic[T]):
    """The jobs of one map: iterate it for (workload, submission that has ended), at most `concurrency` at a time.

    A submission that could not be made, or whose connection was lost, has ended with that error. When none can be made
    any more that is raised, after all that were made; but not where there was nothing left to submit."""

    def __init__(
        self,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
        timeout: float | None = None,
    ) -> None:
        self._packet_of = packet_of
        self._source = iter(workloads)
        self._more = True
        self._failure: GeardError | None = None  # why no more can be submitted
        self._timeout = timeout
        self._deadline: float | None = None  # from the first iteration
        self._concurrency = concurrency
        self._ordered = ordered
        self._running = 0
        self._held: dict[Submission, T] = {}  # submitted and not yielded, in the order of the workloads
        self._bell: Bell = []
        self._finished: deque[Submission] = deque()  # put there by whoever reads

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._running}/{self._concurrency} running, {len(self._held)} held>"

    def __iter__(self) -> Iterator[tuple[T, Submission]]:
        self._deadline = deadline_after(self._timeout)
        begun = False
        try:
            while True:
                # Refill before yielding: the workers go on while our caller is busy with what it gets.
                self._refill()
                begun = begun or bool(self._held)
                ready = self._take_ready()
                for submission in ready:
                    yield self._held.pop(submission), submission
                if not ready:
                    if self._held:
                        self._wait()
                    elif self._failure is None or (begun and next(self._source, _END) is _END):
                        return
                    else:
                        raise self._failure
        finally:
            for submission in self._held:
                submission.abandon()

    def _refill(self) -> None:
        free = min(self._concurrency - self._running, HELD * self._concurrency - len(self._held))
        if not self._more or free <= 0:
            return
        try:
            post = self._poster()
        except (ConnectionLost, InvalidRequest) as error:
            self._failure, self._more = error, False
            return
        bell, finished, held, packet_of = self._bell, self._finished, self._held, self._packet_of
        held_before = len(held)
        for workload in islice(self._source, free):
            submission = Submission(bell=bell, finished=finished)
            held[submission] = workload
            try:
                packet = packet_of(workload)
            except InvalidRequest as error:
                self._end(submission, error)
                continue
            try:
                post(submission, packet)
            except (ConnectionLost, InvalidRequest) as error:
                self._end(submission, error)
                self._failure = error
                break
        drawn = len(held) - held_before
        self._running += drawn
        self._more = drawn == free and self._failure is None
        self._flush()

    def _take_ready(self) -> list[Submission]:
        take = self._finished.popleft
        ended = [take() for _ in range(len(self._finished))]
        self._running -= len(ended)
        self._took(ended)
        if not self._ordered:
            return ended
        ready = []
        for submission in self._held:
            if submission.result is None and not submission.ended():
                break
            ready.append(submission)
        return ready

    def _end(self, submission: Submission, error: GeardError) -> None:
        submission.error = error
        self._finished.append(submission)

    @abstractmethod
    def _poster(self) -> Callable[[Submission, bytes], None]:
        """What posts a submission where it belongs. Both raise ConnectionLost or InvalidRequest where there is none."""

    @abstractmethod
    def _flush(self) -> None:
        """Send what was posted. Raises JobTimeout."""

    @abstractmethod
    def _took(self, ended: list[Submission]) -> None:
        """These do not run any more."""

    @abstractmethod
    def _wait(self) -> None:
        """Wait until a job ends; those of a lost connection have. Raises JobTimeout."""


class LineWindow(Window[T]):
    """The jobs of one map over one connection at a time."""

    def __init__(
        self,
        conversation: Conversation,
        packet_of: Callable[[T], bytes],
        workloads: Iterable[T],
        *,
        concurrency: int,
        ordered: bool,
        timeout: float | None = None,
    ) -> None:
        super().__init__(packet_of, workloads, concurrency=concurrency, ordered=ordered, timeout=timeout)
        self._conversation = conversation
        self._exchange: Exchange | None = None

    def _poster(self) -> Callable[[Submission, bytes], None]:
        if self._exchange is None or self._exchange.lost is not None:
            if self._exchange is not None:
                self._end_all(self._exchange)  # nobody would wait for them on the next
            self._exchange = _next_exchange(self._conversation, self._exchange, self._deadline)
        return self._exchange.post

    def _flush(self) -> None:
        if self._exchange is not None:
            flush(self._exchange, self._deadline)

    def _took(self, ended: list[Submission]) -> None:
        pass

    def _wait(self) -> None:
        exchange = self._exchange
        assert exchange is not None
        some, patience = next(iter(self._held)), time.monotonic() + PATIENCE_SECONDS
        try:
            if exchange.wait(some, lambda: bool(self._finished), min(patience, self._deadline or patience)):
                return
            if self._deadline is not None and self._deadline < patience:
                raise JobTimeout(f"not through within {self._timeout:g} s; what was submitted may still run")
            for submission in self._held:
                with contextlib.suppress(ServerError):  # it has ended then
                    self._conversation.wait(exchange, submission)
        except ConnectionLost:
            self._end_all(exchange)

    def _end_all(self, exchange: Exchange) -> None:
        for submission in self._held:
            if not submission.ended():
                self._end(submission, exchange.loss_of(submission))
