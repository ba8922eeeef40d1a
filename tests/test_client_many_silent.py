"""A client of many job servers, some of which were up, and say nothing any more."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from geard import Client, ConnectionLost, InvalidRequest
from geard.client.choice import CHOICES, Choose
from geard.errors import ServerTimeout
from geard.protocol import Command
from tests.support.raw import Peer, ScriptedServer
from tests.support.waiting import eventually
from tests.test_client_faults import welcome
from tests.test_client_many import BOTH

LONG_SECONDS = 200.0
"""Nobody waits for so long, nor for a part of it."""


class Falling(ScriptedServer):
    """Answers until `asleep` is set, then reads and says nothing. With `known` it knows every job that it is asked for.

    Of a submission it says what its kind wants: JOB_CREATED, and for a foreground job the workload as its result."""

    def __init__(self, *, known: bool = False) -> None:
        self.asleep = threading.Event()
        self._known = b"1" if known else b"0"
        super().__init__(self._play_until_asleep)

    def _play_until_asleep(self, peer: Peer, number: int) -> None:
        if not self.asleep.is_set():
            welcome(peer)
        while True:
            packet = peer.receive()
            if self.asleep.is_set():
                continue
            if packet.command is Command.GET_STATUS:
                peer.send(Command.STATUS_RES, packet.handle, self._known, b"0", b"0", b"0")
            elif packet.command is Command.GET_STATUS_UNIQUE:
                peer.send(Command.STATUS_RES_UNIQUE, packet.unique, self._known, b"0", b"0", b"0", b"0")
            elif packet.command is Command.OPTION_REQ:
                peer.send(Command.OPTION_RES, packet.fields[0])
            else:
                peer.send(Command.JOB_CREATED, b"H:1")
                if packet.command is Command.SUBMIT_JOB:
                    peer.send(Command.WORK_COMPLETE, b"H:1", packet.workload)


@pytest.fixture
def servers() -> Iterator[list[Falling]]:
    """Two that will fall silent, and one that knows every job."""
    started = [Falling(), Falling(), Falling(known=True)]
    with contextlib.ExitStack() as stack:
        for server in started:
            stack.enter_context(server)
        yield started


def connected(servers: list[Falling], choose: Choose, answer_timeout_seconds: float = LONG_SECONDS) -> Client:
    client = Client(
        [server.address for server in servers], choose=choose, answer_timeout_seconds=answer_timeout_seconds
    )
    client.status_unique("u")
    eventually(lambda: repr(client) == "<Client 3 of 3 job servers connected>")
    for server in servers[:2]:
        server.asleep.set()
    return client


@BOTH
@pytest.mark.parametrize("timeout", [None, 0.5])
def test_one_that_says_nothing_holds_up_no_answer_of_another(
    servers: list[Falling], choose: Choose, timeout: float | None
) -> None:
    with connected(servers, choose) as client:
        begun = time.monotonic()
        assert client.status("H:1", timeout=timeout).known
        assert client.status_unique("u", timeout=timeout).known
        assert time.monotonic() - begun < LONG_SECONDS / 4


@BOTH
def test_those_that_owe_an_answer_for_too_long_are_given_up_together(servers: list[Falling], choose: Choose) -> None:
    with connected(servers, choose, answer_timeout_seconds=1.0) as client:
        begun = time.monotonic()
        client.option("o")
        assert time.monotonic() - begun < 20
        assert repr(client).startswith("<Client 1 of 3")


@BOTH
def test_a_map_gives_up_those_that_say_nothing_after_the_time_for_an_answer(
    servers: list[Falling], choose: Choose
) -> None:
    with connected(servers, choose, answer_timeout_seconds=1.0) as client:
        begun = time.monotonic()
        pairs = list(client.map("f", map(str, range(60)), concurrency=6, pairs=True, unique="workload"))
        assert time.monotonic() - begun < 25
        assert [workload for workload, _ in pairs] == list(map(str, range(60)))
        lost = [outcome for _, outcome in pairs if isinstance(outcome, ConnectionLost)]
        assert 2 <= len(lost) <= 12
        assert {type(error) for error in lost} == {ServerTimeout}
        assert all(outcome == workload for workload, outcome in pairs if outcome not in lost)


@pytest.mark.parametrize("choose", CHOICES)
def test_a_client_that_is_closed_while_it_connects_keeps_no_connection(choose: Choose) -> None:
    closed = threading.Event()
    received: list[object] = []

    def script(peer: Peer, number: int) -> None:
        peer.expect(Command.OPTION_REQ)
        asking.set()
        closed.wait(30)
        peer.send(Command.OPTION_RES, b"exceptions")
        peer.expect(Command.ECHO_REQ)
        peer.send(Command.ECHO_RES, b"geard")
        try:
            received.append(peer.receive())
        except (EOFError, OSError):
            received.append("the end")

    asking = threading.Event()
    with ScriptedServer(script) as server, Client(server.address, choose=choose) as client:
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.submit_background, "f", "")
            assert asking.wait(30)
            client.close()
            closed.set()
            with pytest.raises(InvalidRequest, match="closed"):
                call.result(30)
        eventually(lambda: received)
        assert received == ["the end"]
