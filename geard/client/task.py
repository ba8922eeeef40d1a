"""Task: a foreground job as its client sees it.

Rule: nothing happens behind the caller's back. Whoever waits for a task (result, events) or looks at it (done,
progress) reads what has arrived for it; callbacks run in the caller that waits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

from geard.client.exchange import Exchange
from geard.client.reply import Submission
from geard.client.results import Pieces, number, piece, result_of, text_of, what_ended, words
from geard.codec import Codec
from geard.errors import JobTimeout
from geard.protocol import Command, Oversized, Packet


class Status(NamedTuple):
    """How far the job is, as its worker counts (WORK_STATUS)."""

    numerator: int
    denominator: int


class Data(NamedTuple):
    """A piece of the result (WORK_DATA), in the task's encoding."""

    data: Any


class Warning(NamedTuple):  # noqa: A001 - the protocol's own word; the builtin is not used here
    """What the worker wants the client to know (WORK_WARNING)."""

    text: str


class Complete(NamedTuple):
    """The end of the job and the last piece of its result (WORK_COMPLETE), in the task's encoding."""

    data: Any


Event: TypeAlias = Status | Data | Warning | Complete


class Task:
    """A job that was submitted in the foreground. Made by Client.submit.

    What it receives is kept for as long as the task is. One caller at a time may wait for it."""

    def __init__(
        self,
        function: str,
        unique: str,
        submission: Submission,
        exchange: Exchange,
        codec: Codec,
        on_event: Callable[[Event], None] | None = None,
        handle_of: Callable[[Submission, Exchange], str] | None = None,
    ) -> None:
        self.function = function
        self.unique = unique
        self._submission = submission
        self._exchange = exchange
        self._codec = codec
        self._on_event = on_event
        self._handle_of = handle_of
        self._told = 0  # how many events on_event has been called with
        self._told_pieces = Pieces(codec)

    def __del__(self) -> None:
        if "_submission" in self.__dict__:  # not one whose making failed
            self._submission.abandon()

    def __repr__(self) -> str:
        end = self._submission.end
        state = end.command.name if end else "running" if self._submission.result is None else "WORK_COMPLETE"
        return f"<Task {self.function} {self.handle} {state}>"

    @property
    def handle(self) -> str:
        """The job server's name for the job; of a client that uses several job servers a Handle."""
        if self._handle_of is not None:
            return self._handle_of(self._submission, self._exchange)
        return text_of((self._submission.fields or [b""])[0])

    @property
    def progress(self) -> Status | None:
        """The last status that has arrived; None before the first."""
        self._look()
        for packet in reversed(self._submission.news):
            if packet.command is Command.WORK_STATUS and type(packet) is not Oversized:
                return Status(*map(number, packet.fields[1:]))
        return None

    def done(self) -> bool:
        """Whether the job has ended, well or not, or its connection is lost. Does not wait."""
        self._look()
        return self._submission.ended() or self._exchange.lost is not None

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the end, `timeout` seconds at most, and return the result: all its data, in the task's encoding.

        Calls `on_event` with what it has not been called with. Raises JobFailed, JobException, JobTimeout,
        InvalidResult, ResultTooLarge, and ConnectionLost, after which the job's fate is unknown."""
        deadline = deadline_after(timeout)
        if self._on_event is not None:
            while packet := self._news(self._told, deadline):
                self._told += 1
                self._on_event(self._event(packet, self._told_pieces))
        elif not self._exchange.wait(self._submission, self._submission.ended, deadline):
            raise JobTimeout(f"{self.function}: no result within {timeout:g} s; the job may still run")
        return result_of(self._submission, self.function, self._codec)

    def events(self, timeout: float | None = None) -> Iterator[Event]:
        """All that the worker sends, from the job's start, in order; the last is Complete.

        Raises what `result` raises, after the events that came before it. `timeout` bounds the whole."""
        deadline, pieces, seen = deadline_after(timeout), Pieces(self._codec), 0
        while packet := self._news(seen, deadline):
            seen += 1
            yield self._event(packet, pieces)
        submission = self._submission
        if submission.result is None:
            raise what_ended(submission, self.function, self._codec)
        yield Complete(pieces.decode(submission.result, last=True))

    def _news(self, seen: int, deadline: float | None) -> Packet | None:
        """Wait for what comes after the first `seen` packets; None at the end of the job."""
        submission = self._submission
        if not self._exchange.wait(submission, lambda: len(submission.news) > seen or submission.ended(), deadline):
            raise JobTimeout(f"{self.function}: not done in time; the job may still run")
        return submission.news[seen] if len(submission.news) > seen else None

    def _event(self, packet: Packet, pieces: Pieces) -> Event:
        data = piece(packet, self.function)
        if packet.command is Command.WORK_STATUS:
            return Status(*map(number, packet.fields[1:]))
        if packet.command is Command.WORK_DATA:
            return Data(pieces.decode(data, last=False))
        return Warning(words(data, self._codec))

    def _look(self) -> None:
        """Take in what has arrived, without waiting for more."""
        if not self._submission.ended():
            self._exchange.look()


def deadline_after(timeout: float | None) -> float | None:
    """The moment, by time.monotonic(), at which a wait of `timeout` seconds ends."""
    return None if timeout is None else time.monotonic() + timeout


def left(deadline: float | None) -> float | None:
    """How many seconds there are until then; None for no deadline."""
    return None if deadline is None else max(deadline - time.monotonic(), 0)
