"""Choosing among many job servers: even shares, and only the share of one that comes or goes moves."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.client import Handle, requests
from geard.client.choice import MOST_MISSED, Spread
from geard.client.requests import BACKGROUND, FOREGROUND, background_job, job, placed_by
from geard.client.state import JobState, most_telling
from geard.config import JobServer
from geard.errors import InvalidRequest
from geard.rendezvous import choose

NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=16)
SERVERS = [f"10.0.0.{number}:4730" for number in range(20)]


class Server:
    """A candidate: what it owes, and how many times it was chosen."""

    def __init__(self, number: int, outstanding: int = 0) -> None:
        self.number = number
        self.outstanding = outstanding
        self.turn = self.missed = 0.0
        self.taken = self.answered = self.heard = 0

    def answer(self, most: int) -> None:
        self.outstanding -= min(most, self.outstanding)


def made(number: int) -> list[Server]:
    servers = [Server(each) for each in range(number)]
    for server in servers:
        Spread[Server]().join(server)
    return servers


def choose_for(spread: Spread[Server], jobs: int) -> Counter[int]:
    """Submit so many jobs; how many went to each."""
    chosen = Counter[int]()
    for _ in range(jobs):
        server = spread.take()
        assert server is not None
        server.outstanding += 1
        chosen[server.number] += 1
    return chosen


def apart(shares: Counter[int], numbers: Iterable[int]) -> float:
    """How far the share of any is from their mean, as a part of it."""
    counted = [shares[number] for number in numbers]
    mean = sum(counted) / len(counted)
    return max(abs(each - mean) for each in counted) / mean


@given(st.integers(1, 20), st.integers(1, 500))
def test_shares_are_even_whatever_is_answered_meanwhile(servers: int, jobs: int) -> None:
    for answers in (0, 1):
        shares, candidates = Counter[int](), made(servers)
        spread = Spread(candidates)
        for _ in range(jobs):
            shares += choose_for(spread, 1)
            for candidate in candidates:
                candidate.answer(answers)
        assert max(shares.values()) - min(shares[each] for each in range(servers)) <= 1


@pytest.mark.parametrize("seed", range(5))
def test_shares_are_even_where_answers_come_in_bursts_some_always_later(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty on two cores: those of one process answer together, and seldom; who answers sooner gets no more."""
    monkeypatch.setattr("geard.client.choice.random", random.Random(seed))  # where in the round each begins
    chance, servers, shares = random.Random(seed), made(20), Counter[int]()
    spread = Spread(servers)
    for moment in range(300):
        shares += choose_for(spread, max(200 - sum(server.outstanding for server in servers), 0))
        for server in servers:
            if server.number < 5 or moment % 2 == server.number % 2:
                server.answer(chance.randrange(60))
    assert apart(shares, range(20)) < 0.05


@pytest.mark.parametrize("callers", [4, 12, 40])
@pytest.mark.parametrize(("number", "stalled"), [(2, 1), (3, 2), (10, 1), (10, 5), (20, 2)])
def test_of_callers_that_each_wait_few_end_up_at_those_that_stall(number: int, stalled: int, callers: int) -> None:
    servers, chance = made(number), random.Random(callers)
    spread = Spread(servers)
    choose_for(spread, callers)

    def go(answers: int, among: list[Server]) -> None:
        for _ in range(answers):
            if owing := [server for server in among if server.outstanding]:
                chance.choice(owing).answer(1)
                choose_for(spread, 1)

    go(1000, servers)
    before = sum(server.outstanding for server in servers[:stalled])
    go(1000, servers[stalled:])
    after = sum(server.outstanding for server in servers[:stalled])
    assert after <= max(1.5 * callers * stalled / number, before) + stalled


def test_who_has_not_answered_gets_nothing_while_another_owes_nothing() -> None:
    servers = made(2)
    spread = Spread(servers)
    choose_for(spread, 2)
    for _ in range(100):
        servers[1].answer(1)
        assert choose_for(spread, 1) == {1: 1}


@pytest.mark.parametrize("stalled", [1, 10, 19])
def test_load_leaves_those_that_stall(stalled: int) -> None:
    servers = made(20)
    spread = Spread(servers)
    for _ in range(100):
        choose_for(spread, 200)
        for server in servers:
            server.answer(1000)
    for _ in range(100):
        choose_for(spread, 200)
        for server in servers[stalled:]:
            server.answer(200)
    most = max(server.outstanding for server in servers[:stalled])
    assert most <= 3 * 200 / (20 - stalled) + 10


def test_one_that_is_slow_gets_what_it_can_do_and_keeps_no_long_queue() -> None:
    servers, shares = made(10), Counter[int]()
    spread = Spread(servers)
    for _ in range(500):
        shares += choose_for(spread, 100)
        for server in servers:
            server.answer(2 if server.number == 0 else 20)
    assert shares[0] / 500 < 2.2
    assert servers[0].outstanding <= 40
    assert apart(shares, range(1, 10)) < 0.05


@pytest.mark.parametrize("paused", [10, 10_000])
def test_one_that_is_back_gets_no_flood_to_make_up_for_the_past(paused: int) -> None:
    servers = made(10)
    spread = Spread(servers)

    def go(moments: int, answering: list[Server]) -> list[Counter[int]]:
        seen = []
        for _ in range(moments):
            seen.append(choose_for(spread, 100))
            for server in answering:
                server.answer(1000)
        return seen

    go(10, servers)
    go(paused, servers[1:])
    servers[0].answer(1000)
    after = go(100, servers)
    assert max(chosen[0] for chosen in after) <= 20  # at twice the pace of the others
    assert sum(chosen[0] for chosen in after) <= 100 * 10 + MOST_MISSED + 1
    spread.join(servers[0])  # and one that was not there makes up for nothing
    assert abs(sum(chosen[0] for chosen in go(100, servers)) - 100 * 10) <= 1


def test_a_question_is_nobodys_turn() -> None:
    """Or a caller that asks before each submission would submit to every other one only."""
    spread, shares = Spread(made(2)), Counter[int]()
    for _ in range(100):
        assert spread.peek() is not None
        shares += choose_for(spread, 1)
    assert apart(shares, range(2)) == 0


def test_nobody_is_chosen_from_nobody() -> None:
    spread = Spread[Server]()
    assert spread.take() is spread.peek() is None


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
