"""Choosing among many job servers: even shares, and only the share of one that comes or goes moves."""

from __future__ import annotations

import pickle
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.client import Handle, requests
from geard.client.choice import least
from geard.client.requests import BACKGROUND, FOREGROUND, background_job, job, placed_by
from geard.client.state import JobState, most_telling
from geard.config import JobServer
from geard.errors import InvalidRequest
from geard.rendezvous import choose

NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=16)
SERVERS = [f"10.0.0.{number}:4730" for number in range(20)]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 1000))
def test_who_owes_the_least_is_chosen(loads: list[int], turn: int) -> None:
    assert loads[least(range(len(loads)), loads.__getitem__, turn=turn)] == min(loads)


@given(st.integers(1, 20), st.integers(0, 1 << 30), st.integers(1, 500))
def test_shares_are_even_whatever_is_answered_meanwhile(servers: int, turn: int, jobs: int) -> None:
    idle = Counter(least(range(servers), lambda _: 0, turn=turn + number) for number in range(jobs))
    assert max(idle.values()) - min(idle[each] for each in range(servers)) <= 1
    owing: Counter[int] = Counter()
    for number in range(jobs):
        owing[least(range(servers), lambda each: owing[each], turn=turn + number)] += 1
    assert max(owing.values()) - min(owing[each] for each in range(servers)) <= 1


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=20), st.integers(0, 1000))
def test_of_those_that_owe_equally_little_the_one_that_was_given_the_fewest(
    numbers: list[tuple[int, int]], turn: int
) -> None:
    chosen = least(numbers, lambda each: each[0], lambda each: each[1], turn)
    assert chosen == min(numbers)


def test_nobody_is_chosen_from_nobody() -> None:
    with pytest.raises(ValueError, match="empty"):
        least([], lambda _: 0)


@given(NAMES, NAMES, st.binary(max_size=100))
def test_a_job_is_placed_by_its_function_and_unique_alone(function: str, unique: str, workload: bytes) -> None:
    if len(unique.encode()) > 64 or unique == requests.UNIQUE_OF_WORKLOAD:
        return
    key = function.encode() + b"\0" + unique.encode()
    for packet in (
        job(FOREGROUND, function, unique, workload),
        job(BACKGROUND, function, unique, workload, "high"),
        job(FOREGROUND, function, unique, workload, reducer="r"),
        background_job(function, unique, workload, "normal", None, 60, lambda: 0.0),
    ):
        assert placed_by(packet) == key
    assert placed_by(job(FOREGROUND, function, None, workload)) is None
    one, other = (placed_by(job(FOREGROUND, function, "workload", data)) for data in (workload, workload + b"x"))
    assert None not in (one, other)
    assert one != other


@given(st.lists(NAMES, min_size=1, max_size=200, unique=True), st.sampled_from(SERVERS))
def test_only_the_share_of_a_job_server_that_comes_or_goes_moves(uniques: list[str], changed: str) -> None:
    others = [server for server in SERVERS if server != changed]
    for unique in uniques:
        key = placed_by(job(BACKGROUND, "f", unique[:16], b""))
        if key is None:
            continue
        before, after = choose(key, SERVERS), choose(key, others)
        assert before in (changed, after)


def test_a_handle_is_a_str_that_remembers_its_job_server() -> None:
    handle = Handle("H:x:1", "[::1]:4731")
    assert handle == "H:x:1"
    assert hash(handle) == hash("H:x:1")
    assert handle.server == JobServer("::1", 4731)
    copy = pickle.loads(pickle.dumps(handle))
    assert (copy, copy.server, type(copy)) == (handle, handle.server, Handle)
    with pytest.raises(InvalidRequest, match="in brackets"):
        Handle("H:x:1", "no:address:")


def test_of_what_several_know_the_most_telling_is_told() -> None:
    unknown, waits, runs = JobState(False, False, 0, 0), JobState(True, False, 0, 0), JobState(True, True, 1, 2)
    assert most_telling([unknown, waits, runs, unknown]) == runs
    assert most_telling([unknown, waits]) == waits
    assert most_telling([unknown]) == most_telling([]) == unknown
    asked_by_unique = [waits._replace(clients=2), runs._replace(clients=1), unknown._replace(clients=0)]
    assert most_telling(asked_by_unique) == runs._replace(clients=3)
