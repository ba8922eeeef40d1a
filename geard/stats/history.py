"""History: per function and for all together, an hour in seconds and a day in minutes, in arrays that never grow.

Rules:
- All series share one clock: slot k of each is the same second (minute). A second that nobody told about is all zero.
- The clock may be put forward and back: what is kept is what was told since, and of before what lies before now.
- A function has arrays while it did something within their span, and at most MOST_SERIES functions have them: 70 KB
  each, 9 MiB in all. The series of all functions together has the name "" and is always there.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Final, NamedTuple

from msgspec import Struct

from geard.stats.histogram import MICROSECONDS, add_counts, middle_us, quantile_bucket

SECONDS_KEPT: Final = 3600
MINUTES_KEPT: Final = 1440
MOST_SERIES: Final = 128
ALL: Final = ""
"""The name of the series of all functions together."""
_MOST_COUNT: Final = 2**32 - 1


Counted = tuple[int, int, int, Mapping[int, int]]
"""What a function did in a second: (done, failed, running, the durations of those that ended)."""


class Sample(NamedTuple):
    """What is kept of a function for one second or minute. The quantiles are buckets (see histogram.py)."""

    done: int = 0
    failed: int = 0  # timed out ones too
    running: int = 0  # of a minute: the most
    p50: int = 0
    p95: int = 0


class History(Struct, frozen=True):
    """One series as it is shown: lists of equal length, oldest first; the last value is of the time `end`."""

    function: str
    step_seconds: int
    end: int  # Unix time at which the last value's second or minute began
    done: tuple[int, ...]
    failed: tuple[int, ...]
    running: tuple[int, ...]
    p50_seconds: tuple[float, ...]
    p95_seconds: tuple[float, ...]


class _Columns:
    """The arrays of one series in one resolution: 14 bytes a slot."""

    __slots__ = ("columns",)

    def __init__(self, length: int) -> None:
        counts = [array("I", bytes(4 * length)) for _ in range(3)]
        buckets = [array("B", bytes(length)) for _ in range(2)]
        self.columns = (*counts, *buckets)

    def put(self, slot: int, sample: Sample) -> None:
        for column, value in zip(self.columns, sample, strict=True):
            column[slot] = min(value, _MOST_COUNT)

    def clear(self, slot: int) -> None:
        for column in self.columns:
            column[slot] = 0


class Rings:
    """All series in one resolution. Times are whole Unix seconds; `put` those of one time, then those of the next."""

    def __init__(self, length: int, step_seconds: int, most_series: int = MOST_SERIES) -> None:
        self.step_seconds = step_seconds
        self._length = length
        self._most = most_series
        self._series: dict[str, _Columns] = {ALL: _Columns(length)}
        self._active: dict[str, int] = {}  # the tick at which each did something last
        self._tick = 0

    def put(self, time: int, samples: Mapping[str, Sample]) -> None:
        """The samples of the step that holds this time; of two for the same step, the first. Where the clock was put
        back, what it called later is forgotten."""
        tick = time // self.step_seconds
        if tick == self._tick:
            return
        if tick < self._tick:
            self._forget_from(tick)
        self._forget_until(tick)
        self._tick = tick
        for name, sample in samples.items():
            columns = self._series.get(name) or (self._make(name) if any(sample) else None)
            if columns:
                columns.put(tick % self._length, sample)
                if any(sample):
                    self._active[name] = tick

    def history(self, function: str = ALL, most: int = 0) -> History | None:
        """The last `most` values (0: all there are) of a function; None when it did nothing within the span."""
        columns = self._series.get(function)
        if columns is None:
            return None
        length = min(most or self._length, self._length)
        first = (self._tick + 1 - length) % self._length
        done, failed, running, p50, p95 = (_unrolled(column, first, length) for column in columns.columns)
        return History(
            function,
            self.step_seconds,
            self._tick * self.step_seconds,
            done,
            failed,
            running,
            tuple(map(_SECONDS.__getitem__, p50)),
            tuple(map(_SECONDS.__getitem__, p95)),
        )

    def _make(self, name: str) -> _Columns | None:
        if len(self._series) > self._most:
            return None
        columns = self._series[name] = _Columns(self._length)
        return columns

    def _forget_from(self, tick: int) -> None:
        """Clear the slots from this tick to the last one, which is the one before then."""
        for columns in self._series.values():
            for later in range(max(tick, self._tick + 1 - self._length), self._tick + 1):
                columns.clear(later % self._length)
        self._active = {name: min(last, tick - 1) for name, last in self._active.items()}
        self._tick = tick - 1

    def _forget_until(self, tick: int) -> None:
        """Clear the slots between the last tick and this one, and drop the series that are empty by now."""
        oldest = tick - self._length
        for name in [name for name, last in self._active.items() if last <= oldest and name != ALL]:
            del self._active[name], self._series[name]
        for columns in self._series.values():
            for missed in range(max(self._tick + 1, oldest + 1), tick + 1):
                columns.clear(missed % self._length)


class Recorder:
    """Takes what was counted each second, and keeps it by second and by minute."""

    def __init__(self, most_series: int = MOST_SERIES) -> None:
        self.seconds = Rings(SECONDS_KEPT, 1, most_series)
        self.minutes = Rings(MINUTES_KEPT, 60, most_series)
        self._minute = 0
        self._so_far: dict[str, _Minute] = {}

    def put(self, time: int, counted: Mapping[str, Counted]) -> None:
        """What each function did in this second."""
        if time // 60 != self._minute:
            samples = {name: minute.sample() for name, minute in self._so_far.items()}
            self.minutes.put(self._minute * 60, samples)
            self._minute, self._so_far = time // 60, {}
        self.seconds.put(time, {name: _sample(*numbers) for name, numbers in counted.items()})
        for name, numbers in counted.items():
            self._so_far.setdefault(name, _Minute()).add(*numbers)


class _Minute:
    """A minute as it fills."""

    __slots__ = ("done", "durations", "failed", "running")

    def __init__(self) -> None:
        self.done = self.failed = self.running = 0
        self.durations: dict[int, int] = {}

    def add(self, done: int, failed: int, running: int, durations: Mapping[int, int]) -> None:
        self.done += done
        self.failed += failed
        self.running = max(self.running, running)
        add_counts(self.durations, durations)

    def sample(self) -> Sample:
        return _sample(self.done, self.failed, self.running, self.durations)


def added(histories: Iterable[History]) -> History | None:
    """Several daemons' histories of one function as one: counts added, of the quantiles the worst. None for none."""
    found = list(histories)
    if not found:
        return None
    end = max(history.end for history in found)
    length = max(len(history.done) for history in found)
    columns = list(zip(*(_aligned(history, end, length) for history in found), strict=True))
    counts = [tuple(int(sum(values)) for values in zip(*column, strict=True)) for column in columns[:3]]
    quantiles = [tuple(max(values) for values in zip(*column, strict=True)) for column in columns[3:]]
    return History(found[0].function, found[0].step_seconds, end, *counts, *quantiles)


def _aligned(history: History, end: int, length: int) -> tuple[Sequence[float], ...]:
    """Its lists, moved so that they end at `end`, zero where nothing is known."""
    late = (end - history.end) // history.step_seconds
    columns = (history.done, history.failed, history.running, history.p50_seconds, history.p95_seconds)
    return tuple(_fit((*column, *repeat(0, late)), length) for column in columns)


def _fit(values: tuple[float, ...], length: int) -> tuple[float, ...]:
    return (*repeat(0, length - len(values)), *values[max(len(values) - length, 0) :])


def _sample(done: int, failed: int, running: int, durations: Mapping[int, int]) -> Sample:
    return Sample(done, failed, running, quantile_bucket(durations, 0.5), quantile_bucket(durations, 0.95))


def _unrolled(column: Sequence[int], first: int, length: int) -> tuple[int, ...]:
    return (*column[first : first + length], *column[: max(first + length - len(column), 0)])


_SECONDS: Final = tuple(round(middle_us(bucket)) / MICROSECONDS for bucket in range(256))
