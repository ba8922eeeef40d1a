"""The attempts to connect to many job servers: so many at a time, and no mute one holds up another."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import cast

import pytest

from geard import Client
from geard.client.choice import Choose
from geard.client.dials import LONG, PLACES, Attempt, Dials
from geard.client.member import Member
from geard.errors import CannotConnect, InvalidRequest
from tests.many.trial import Servers
from tests.support.waiting import eventually
from tests.test_client_many import BOTH
from tests.test_client_many_faults import place


class Fake:
    """A member whose connection is made when `answers` is set, or refused where `refuses`."""

    def __init__(self, name: str, *, refuses: bool = False) -> None:
        self.address = name
        self.answers = threading.Event()
        self.refuses = refuses
        self.conversation = SimpleNamespace(exchange=self._exchange)
        self.times: list[float | None] = []
        self.outcome: object = None
        self.tried_at = 0.0
        self.up = False

    def _exchange(self, until: float | None) -> None:
        self.times.append(until)
        if self.refuses:
            raise CannotConnect("refused", refused=True)
        if not self.answers.wait(60 if until is None else until - time.monotonic()):
            raise CannotConnect("mute")

    def came_up(self) -> None:
        self.outcome, self.up = "up", True

    def fail(self, error: Exception) -> None:
        self.outcome = error


def of(fake: Fake) -> Member:
    return cast(Member, fake)


@pytest.fixture
def ended() -> list[str]:
    return []


@pytest.fixture
def dials(ended: list[str]) -> Iterator[Dials]:
    made = Dials(60, lambda member: ended.append(member.address))
    yield made
    made.close()


@contextlib.contextmanager
def mute(dials: Dials, number: int) -> Iterator[list[Fake]]:
    """So many that say nothing are dialled."""
    fakes = [Fake(f"mute {each}") for each in range(number)]
    dials.want(*map(of, fakes))
    try:
        yield fakes
    finally:
        dials.close()
        for fake in fakes:
            fake.answers.set()


def test_so_many_at_a_time_and_mute_ones_hold_up_nobody(dials: Dials, ended: list[str]) -> None:
    with mute(dials, 100) as fakes:
        assert LONG <= len(dials._threads) <= PLACES
        refusing = [Fake(f"refusing {each}", refuses=True) for each in range(100)]
        dials.want(*map(of, refusing))
        up = Fake("up")
        up.answers.set()
        dials.want(of(up))
        eventually(lambda: up.outcome == "up" and all(fake.outcome for fake in refusing))
        assert len(dials._threads) <= PLACES
        # Each of the mute ones has had its moment, and some have all their time now; nobody has failed of it.
        eventually(lambda: sum(fake.times[-1:] == [None] for fake in fakes) == LONG and all(f.times for f in fakes))
        assert not [name for name in ended if name.startswith("mute")]
        late = Fake("late", refuses=True)
        dials.want(of(late))
        eventually(lambda: late.outcome)
        # One of those that have all their time answers, and makes room for the next.
        slow = next(fake for fake in fakes if fake.times[-1] is None)
        slow.answers.set()
        eventually(lambda: slow.outcome == "up" and sum(None in fake.times for fake in fakes) == LONG + 1)


def test_few_have_all_their_time_at_once(dials: Dials) -> None:
    with mute(dials, LONG) as fakes:
        eventually(lambda: all(fake.times for fake in fakes))
        # The first were begun before the others were wanted.
        assert all(fake.times == [None] for fake in fakes)


def take_all_places(dials: Dials) -> None:
    for _ in range(PLACES):
        dials._threads[threading.Thread()] = time.monotonic() + 60


def test_who_is_waited_for_goes_first(dials: Dials, ended: list[str]) -> None:
    take_all_places(dials)
    first, second, urgent = (Fake(name, refuses=True) for name in ("first", "second", "urgent"))
    dials.want(of(first), of(second), of(urgent))
    assert list(dials._waiting) == [of(first), of(second), of(urgent)]
    dials.want(of(urgent), urgent=True)
    assert list(dials._waiting) == [of(urgent), of(first), of(second)]
    dials._threads.popitem()
    dials.want()
    eventually(lambda: not dials._attempts)
    assert ended[0] == "urgent"


def test_an_interrupted_caller_leaves_nothing_that_the_next_does_not_mend(dials: Dials) -> None:
    fake = Fake("f", refuses=True)
    dials._attempts[of(fake)] = Attempt()  # and was not put in line
    for _ in range(PLACES):
        dials._threads[threading.Thread()] = time.monotonic() - 60  # and was not started
    assert dials.has(of(fake))
    dials.want(of(fake))
    eventually(lambda: fake.outcome and not dials._threads)


def test_without_a_thread_to_be_had_they_fail(dials: Dials, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    fake = Fake("f")
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", start)
        dials.want(of(fake), urgent=True)
    assert str(fake.outcome) == "cannot connect to f: can't start new thread"
    assert not dials.has(of(fake))


def test_a_closed_one_begins_nothing_more(dials: Dials) -> None:
    take_all_places(dials)
    fake = Fake("f", refuses=True)
    dials.want(of(fake))
    assert dials.has(of(fake))
    dials.close()
    dials._threads.clear()
    dials.want(of(fake), urgent=True)
    assert not dials._threads
    assert not dials.has(of(fake))
    assert not fake.times


# --- with a client -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with Servers(str(tmp_path_factory.mktemp("servers")), 1).start() as started:
        yield started.addresses[0]


def dialling() -> int:
    return sum(thread.name.startswith("dial") for thread in threading.enumerate())


@BOTH
@pytest.mark.parametrize("kind", ["mute", "refusing"])
def test_199_of_200_cannot_be_reached_and_few_are_dialled_at_a_time(server: str, choose: Choose, kind: str) -> None:
    before = dialling()
    with contextlib.ExitStack() as stack:
        # Nobody accepts: the system does, and that is all that is heard.
        listeners = [socket.create_server((f"127.0.1.{number}", 0)) for number in range(1, 200)]
        for listener in listeners:
            stack.enter_context(listener)
        nobodies = ["{}:{}".format(*listener.getsockname()) for listener in listeners]
        if kind == "refusing":
            stack.close()
        client = stack.enter_context(Client([*nobodies, server], choose=choose, connect_timeout_seconds=100))
        most, begun = 0, time.monotonic()
        for number in range(300):
            assert place(client.submit_background("idle", "", unique=f"{kind} {number}", timeout=90)) == server
            most = max(most, dialling() - before)
        assert most <= PLACES
        with pytest.raises(CannotConnect):
            client.status("H:unknown:1", timeout=1)
        assert time.monotonic() - begun < 90
    with pytest.raises(InvalidRequest, match="closed"):
        client.echo(b"")
