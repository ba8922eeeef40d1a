"""The token bucket behind `rate`, under a clock of its own; and how rates are written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geard.config.model import Rate
from geard.config.units import format_rate, parse_rate
from geard.errors import InvalidRequest
from geard.worker.bucket import SLACK_SECONDS, TokenBucket

rates = st.builds(Rate, st.integers(1, 10_000), st.sampled_from([1, 60, 3600]), st.integers(0, 1000))


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def drink(bucket: TokenBucket, clock: Clock, pauses: list[float]) -> int:
    """Take all that is there after each pause."""
    taken = 0
    for pause in pauses:
        clock.now += pause
        available = bucket.available(0)
        bucket.take(available)
        taken += available
    return taken


@given(rates, st.integers(1, 16), st.lists(st.floats(0, 5), min_size=1, max_size=100))
def test_never_more_than_the_rate_and_what_may_be_kept(rate: Rate, sharers: int, pauses: list[float]) -> None:
    clock = Clock()
    buckets = [TokenBucket(rate, clock, sharers=sharers, place=number) for number in range(1, sharers + 1)]
    began, taken = clock.now, 0
    for pause in pauses:
        clock.now += pause
        for bucket in buckets:
            taken += drink(bucket, clock, [0.0])
    elapsed = clock.now - began
    kept = (sharers + 1) + SLACK_SECONDS * rate.per_second + rate.burst
    assert taken <= rate.per_second * elapsed + kept + 1e-6


@settings(max_examples=30)
@given(rates, st.integers(1, 4), st.lists(st.floats(0.001, SLACK_SECONDS), min_size=50, max_size=200))
def test_who_asks_often_enough_gets_the_whole_rate(rate: Rate, sharers: int, pauses: list[float]) -> None:
    clock = Clock()
    buckets = [TokenBucket(rate, clock, sharers=sharers, place=number) for number in range(1, sharers + 1)]
    began, taken = clock.now, 0
    for pause in pauses:
        clock.now += pause
        taken += sum(drink(bucket, clock, [0.0]) for bucket in buckets)
    assert taken >= rate.per_second * (clock.now - began) - sharers


@settings(max_examples=30)
@given(rates, st.integers(1, 4), st.lists(st.floats(0.0, 1.0), min_size=50, max_size=200))
def test_who_is_woken_late_catches_up_and_takes_no_more_in_any_second(
    rate: Rate, sharers: int, lateness: list[float]
) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock, sharers=sharers)
    drink(bucket, clock, [0.0])
    began, taken = clock.now, [(clock.now, 0)]
    for late in lateness:
        clock.now += bucket.wait_seconds(0) * (1 + 1e-9) + late * SLACK_SECONDS * 0.99
        taken.append((clock.now, drink(bucket, clock, [0.0])))
    share = rate.per_second / sharers
    assert sum(jobs for _, jobs in taken) >= share * (clock.now - began) - 2
    for begin, _ in taken:
        within = sum(jobs for at, jobs in taken if begin <= at <= begin + 1)
        assert within <= share * (1 + SLACK_SECONDS) + rate.burst / sharers + 2


@given(rates, st.integers(0, 20))
def test_after_the_wait_one_more_may_be_asked_for(rate: Rate, taken: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    bucket.take(taken)
    wait = bucket.wait_seconds(0)
    assert (wait > 0) == (bucket.available(0) == 0)
    clock.now += wait * (1 + 1e-9)
    assert bucket.available(0) >= 1


def test_the_processes_of_a_daemon_begin_in_turn() -> None:
    clock = Clock()
    buckets = [TokenBucket(Rate(1, 1), clock, sharers=4, place=number) for number in (1, 2, 3, 4)]
    assert sorted(bucket.wait_seconds(0) for bucket in buckets) == [0.0, 1.0, 2.0, 3.0]


def test_what_is_owed_may_not_be_asked_for_again() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(10, 1, 10), clock)
    clock.now += 0.4
    assert [bucket.available(owed) for owed in (0, 3, 5, 9)] == [5, 2, 0, 0]


def test_another_number_of_processes_takes_effect_at_once_and_keeps_no_more_than_it_may() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(10, 1), clock)
    bucket.take(1)
    clock.now += 0.2
    bucket.share(2)
    clock.now += 0.2
    assert bucket.available(0) == 2  # and one more would be there without the other process
    clock.now += 100
    assert bucket.available(0) == 2
    bucket.share(1)
    clock.now += 100
    assert bucket.available(0) == 3


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    clock = Clock()
    bucket = TokenBucket(Rate(10, 1), clock)
    bucket.take(1)
    clock.now -= 50
    assert bucket.available(0) == 0
    clock.now += 0.1
    assert bucket.available(0) == 1


@given(rates)
def test_a_rate_is_read_as_it_is_written(rate: Rate) -> None:
    assert parse_rate(format_rate(rate)) == rate


@pytest.mark.parametrize(
    "text", ["", "50", "50/", "/s", "0/s", "-1/s", "1.5/s", "50/d", "50/s+", "50/s+-1", "50 / s", "٣/s"]
)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_rate(text)
