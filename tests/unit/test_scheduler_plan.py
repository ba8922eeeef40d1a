"""The scheduler's decisions, played against simulated job servers and clocks: each time exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from geard.config.model import Schedule
from geard.scheduler.plan import CATCH_UP_SECONDS, LEAST_SECONDS, Cancellation, Planner, Remembered, unique_of

START = 1_800_000_000
EVERY_10 = {"poll": Schedule(function="poll", every_seconds=10)}


@dataclass
class FakeJobServer:
    """Keeps delayed jobs: one for each unique that waits. What falls due runs. As gearmand, it keeps what was cancelled
    until it is due, and the same unique joins it."""

    waiting: dict[str, tuple[int, str]] = field(default_factory=dict)  # unique -> (due, handle)
    cancelled: set[str] = field(default_factory=set)  # handles
    runs: Counter[str] = field(default_factory=Counter)
    up: bool = True
    number: int = 0

    def submit(self, unique: str, at: int) -> str:
        if unique not in self.waiting:
            self.number += 1
            self.waiting[unique] = (at, f"H:{self.number}")
        return self.waiting[unique][1]

    def cancel(self, handle: str) -> None:
        self.cancelled.add(handle)

    def pass_to(self, now: float) -> None:
        for unique, (at, handle) in list(self.waiting.items()):
            if at <= now:
                del self.waiting[unique]
                self.runs[unique] += handle not in self.cancelled


@dataclass
class Host:
    """A scheduler with a wall clock of its own."""

    planner: Planner
    behind_seconds: float = 0.0
    running: bool = True
    to_cancel: list[Cancellation] = field(default_factory=list)

    def turn(self, now: float, servers: dict[str, FakeJobServer]) -> None:
        wall = now - self.behind_seconds
        answering = [name for name, server in servers.items() if server.up]
        for submission in self.planner.due(wall, now, answering):
            self.planner.sent(submission, wall, now)
            handle = servers[submission.server].submit(submission.unique, submission.at)
            self.to_cancel += self.planner.acknowledged(submission, handle, wall)
        left = [each for each in self.to_cancel if not servers[each.server].up]
        for each in self.to_cancel:
            if servers[each.server].up:
                servers[each.server].cancel(each.handle)
        self.to_cancel = left


def play(seconds: int, hosts: list[Host], servers: dict[str, FakeJobServer], start: int = START) -> None:
    """Half a second at a time."""
    for half in range(seconds * 2):
        now = start + half / 2
        for host in hosts:
            if host.running:
                host.turn(now, servers)
        for server in servers.values():
            if server.up:
                server.pass_to(now)


def all_runs(servers: dict[str, FakeJobServer]) -> Counter[str]:
    return sum((server.runs for server in servers.values()), Counter[str]())


def expected(name: str, schedule: Schedule, start: int, end: int, every: int) -> set[str]:
    return {unique_of(name, schedule, time) for time in range(start, end) if time % every == 0}


def test_each_time_runs_once_however_many_hosts_and_a_clock_that_is_behind() -> None:
    servers = {"a": FakeJobServer(), "b": FakeJobServer()}
    hosts = [Host(Planner(EVERY_10)), Host(Planner(EVERY_10), behind_seconds=3.0), Host(Planner(EVERY_10))]
    play(120, hosts, servers)
    runs = all_runs(servers)
    assert set(runs) == expected("poll", EVERY_10["poll"], START + 10, START + 120, 10)
    assert set(runs.values()) == {1}


def test_a_job_server_that_lost_its_memory_has_the_next_times_again() -> None:
    servers = {"a": FakeJobServer()}
    host = Host(Planner(EVERY_10))
    play(30, [host], servers)
    servers["a"].waiting.clear()
    play(60, [host], servers, START + 30)
    missing = expected("poll", EVERY_10["poll"], START + 10, START + 90, 10) - set(servers["a"].runs)
    assert missing <= {unique_of("poll", EVERY_10["poll"], START + 30)}  # too near to be sure that it had not begun


def test_what_waits_on_a_job_server_that_went_and_came_back_is_cancelled_there() -> None:
    servers = {"a": FakeJobServer(), "b": FakeJobServer()}
    host = Host(Planner(EVERY_10))
    play(20, [host], servers)
    chosen = next(name for name, server in servers.items() if server.waiting)
    servers[chosen].up = False
    play(12, [host], servers, START + 20)
    servers[chosen].up = True
    play(60, [host], servers, START + 32)
    assert max(all_runs(servers).values()) == 1


@given(st.integers(-7200, 7200), st.integers(20, 60))
@settings(max_examples=50)
def test_a_clock_that_jumps_and_comes_back_runs_nothing_twice(jump: int, at: int) -> None:
    servers = {"a": FakeJobServer()}
    host = Host(Planner(EVERY_10))
    play(at, [host], servers)
    host.behind_seconds = float(-jump)
    play(20, [host], servers, START + at)
    host.behind_seconds = 0.0
    play(100, [host], servers, START + at + 20)
    runs = all_runs(servers)
    assert max(runs.values()) == 1
    late = expected("poll", EVERY_10["poll"], START + at + 20 + LEAST_SECONDS + 10, START + at + 110, 10)
    assert late <= set(runs)


def test_a_schedule_that_changes_leaves_nothing_of_the_old_one() -> None:
    servers = {"a": FakeJobServer()}
    host = Host(Planner(EVERY_10))
    play(15, [host], servers)
    new = {"poll": Schedule(function="poll", every_seconds=7), "more": Schedule(function="f", every_seconds=10)}
    host.to_cancel += host.planner.replace(new)
    play(60, [host], servers, START + 15)
    ran = [unique for unique, count in servers["a"].runs.items() if count]
    assert set(servers["a"].runs.values()) <= {0, 1}
    after = [int(u.split(":")[2]) for u in ran if u.startswith("geard:poll:") and int(u.split(":")[2]) > START + 16]
    assert sorted(after) == [time for time in range(START + 17, START + 75) if time % 7 == 0 and time > START + 20]


def test_one_that_is_acknowledged_after_its_schedule_changed_is_cancelled() -> None:
    planner = Planner(EVERY_10)
    submission = planner.due(START, START, ["a"])[0]
    planner.sent(submission, START, START)
    planner.replace({})
    assert planner.acknowledged(submission, "H:1", START) == [Cancellation("a", "H:1")]


def test_a_restart_takes_up_what_waits_and_cancels_what_is_no_more() -> None:
    servers = {"a": FakeJobServer()}
    both = EVERY_10 | {"old": Schedule(function="old", every_seconds=10)}
    host = Host(Planner(both))
    play(15, [host], servers)
    remembered = host.planner.remembered(START + 15, START + 15)
    again = Host(Planner(EVERY_10))
    again.to_cancel += again.planner.restore(remembered, START + 15, 500.0)
    cancelled = {each.handle for each in again.to_cancel}
    for unique, (_, handle) in servers["a"].waiting.items():
        assert (handle in cancelled) == unique.startswith("geard:old:")
    play(20, [again], servers, START + 15)
    assert max(servers["a"].runs.values()) == 1


def test_the_last_time_that_was_missed_is_made_up_for_by_all_as_one_job() -> None:
    daily = {"daily": Schedule(function="f", cron="0 3 * * *", catch_up="last")}
    seen, now = START - 3 * 86400.0, float(START)
    first, second = (Planner(daily).missed("daily", seen, now + late, ["a"]) for late in (0.0, 2.0))
    assert first is not None
    assert second is not None
    assert first.unique == second.unique
    assert first.at == START + CATCH_UP_SECONDS
    assert Planner(daily).missed("daily", now - 60.0, now, ["a"]) is None
    planner = Planner(daily)
    planner.restore({"daily": Remembered(daily["daily"], {first.time: (now, {"a": "H:1"})})}, now, 0.0)
    assert planner.missed("daily", seen, now, ["a"]) is None  # a job server has it
    none = {"daily": Schedule(function="f", cron="0 3 * * *")}
    assert Planner(none).missed("daily", seen, now, ["a"]) is None


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=80), st.integers(0, 2**33))
def test_a_unique_fits_and_is_its_own(name: str, time: int) -> None:
    schedule = Schedule(function="f", every_seconds=10)
    unique = unique_of(name, schedule, time)
    assert len(unique.encode()) <= 64
    assert unique != unique_of(name + "x", schedule, time)
    assert unique != unique_of(name, schedule, time + 1)
