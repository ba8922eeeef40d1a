"""A flood of the same failure is one traceback and a count."""

from __future__ import annotations

from geard.logs.repeats import MOST_KEYS, Repeated, Repeats, places


def test_the_first_is_whole_and_the_others_are_counted_in_each_interval() -> None:
    repeats: Repeats[str] = Repeats(10.0)
    assert repeats.is_first("key", "1", 0.0)
    assert [repeats.is_first("key", str(number), number) for number in (1, 2, 3)] == [False] * 3
    assert repeats.due(9.9) == []
    assert repeats.due(10.0) == [Repeated(3, 10.0, "3")]
    assert not repeats.is_first("key", "4", 15.0), "the flood goes on"
    assert repeats.due(20.0) == [Repeated(1, 10.0, "4")]
    assert repeats.due(30.0) == []
    assert repeats.is_first("key", "5", 31.0), "it had ended: the next is whole again"


def test_different_failures_are_each_written_whole() -> None:
    repeats: Repeats[str] = Repeats(10.0)
    assert repeats.is_first("one", "", 0.0)
    assert repeats.is_first("two", "", 0.0)


def test_the_end_tells_every_count() -> None:
    repeats: Repeats[str] = Repeats(10.0)
    for number in range(3):
        repeats.is_first("key", str(number), 0.0)
    assert repeats.due(1.0, all_of_them=True) == [Repeated(2, 1.0, "2")]
    assert not len(repeats)


def test_memory_is_bounded_and_what_makes_room_is_told() -> None:
    repeats: Repeats[int] = Repeats(10.0)
    told = []
    for key in range(3 * MOST_KEYS):
        repeats.is_first(key, key, 0.0)
        repeats.is_first(key, key, 0.0)
        told += repeats.due(0.0)
        assert len(repeats) <= MOST_KEYS
    told += repeats.due(0.0, all_of_them=True)
    assert [repeated.last for repeated in told] == list(range(3 * MOST_KEYS))


def test_an_interval_of_nothing_counts_nothing() -> None:
    repeats: Repeats[str] = Repeats(0.0)
    assert all(repeats.is_first("key", "", 0.0) for _ in range(3))
    assert repeats.due(100.0, all_of_them=True) == []


def failing(depth: int) -> None:
    if depth:
        failing(depth - 1)
    else:
        raise ValueError


def test_a_traceback_is_told_apart_by_its_places() -> None:
    found = []
    for depth in (3, 3, 4):
        try:
            failing(depth)
        except ValueError as error:
            found.append(places(error.__traceback__))
    assert found[0] == found[1] != found[2]
