"""A client of many job servers where they, or its callers, do what they had better not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import pytest

from geard import Client, ConnectionLost, Handle, InvalidRequest, JobServer
from geard.client.choice import Choose
from geard.client.fleet import Fleet
from geard.client.member import Member
from geard.config.model import Tls
from geard.errors import CannotConnect
from geard.protocol import Command
from tests.many.trial import Servers
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import HOST, free_port
from tests.support.waiting import eventually
from tests.test_client_faults import welcome
from tests.test_client_many import Silent

WAYS: list[Choose] = ["spread", "unique"]
BOTH = pytest.mark.parametrize("choose", WAYS)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with Servers(str(tmp_path_factory.mktemp("servers")), 4).start() as started:
        yield started.addresses


def fleet_of(client: Client) -> Fleet:
    assert isinstance(client._conversation, Fleet)
    return client._conversation


def place(handle: str) -> str:
    assert isinstance(handle, Handle)
    return str(handle.server)


def test_the_list_is_changed_by_two_while_eight_submit(servers: list[str]) -> None:
    """No caller hears of it, and no connection is taken from under one."""
    with Client(servers, choose="spread") as client, ThreadPoolExecutor(10) as pool:
        over = threading.Event()

        def change(offset: int) -> None:
            for turn in range(600):
                client.set_servers([servers[(turn + offset + index) % 4] for index in range(2)])
                time.sleep(0.0005)

        def submit(number: int) -> int:
            count = 0
            while not over.is_set():
                assert isinstance(client.submit_background("idle", "", timeout=60), Handle)
                count += 1
            return count

        submitting = [pool.submit(submit, number) for number in range(8)]
        changing = [pool.submit(change, offset) for offset in (0, 2)]
        wait(changing)
        over.set()
        for each in changing:
            each.result()
        assert all(each.result() for each in submitting)


def test_a_connection_to_one_that_was_taken_out_is_closed_when_nobody_wants_it(servers: list[str]) -> None:
    with Client(servers[:2], choose="spread") as client:
        client.status_unique("nobody's")
        old = fleet_of(client)._known[servers[0]]
        handle = next(
            handle for handle in [client.submit_background("idle", "") for _ in range(9)] if place(handle) == servers[0]
        )
        client.set_servers(servers[1:])
        client.set_servers(servers[1:])
        assert client.status(handle).known  # just used: it stays
        eventually(lambda: old.conversation.idle)
        client.set_servers(servers[1:])
        assert old.conversation.state == "closed"
        with pytest.raises(InvalidRequest, match="none of"):
            client.status(handle)


def test_the_same_job_server_may_be_named_twice_but_not_in_two_ways(servers: list[str]) -> None:
    with Client([servers[0]] * 3 + [servers[1]], choose="spread") as client:
        assert Counter(place(client.submit_background("idle", "")) for _ in range(40)).keys() == {*servers[:2]}
        port = int(servers[0].rpartition(":")[2])
        tls = JobServer(HOST, port, Tls())
        with pytest.raises(InvalidRequest, match=f"{servers[0]} is named twice, with different TLS settings"):
            client.set_servers([servers[0], tls])
        with pytest.raises(InvalidRequest, match=f"{servers[0]} is known with other TLS settings"):
            client.set_servers([servers[1], tls])
        assert repr(client) == "<Client 2 of 2 job servers connected>"  # as before


def test_equal_jobs_meet_again_on_one_that_is_back_whoever_finds_that_out(servers: list[str], tmp_path: Path) -> None:
    """A question about its job connects to it, and it counts as up from then on."""
    with Servers(str(tmp_path), 1).start() as one, Client(one.addresses + servers[:2], choose="unique") as client:
        jobs = [f"back {number}" for number in range(60)]
        handles = [client.submit_background("idle", "", unique=job) for job in jobs]
        job, handle = next(pair for pair in zip(jobs, handles, strict=True) if place(pair[1]) == one.addresses[0])
        one.kill()

        def elsewhere() -> bool:
            try:
                return place(client.submit_background("idle", "", unique=job)) != one.addresses[0]
            except ConnectionLost:
                return False

        eventually(elsewhere)
        with pytest.raises(CannotConnect):
            client.status(handle)
        one.start()
        assert client.status(handle).known
        assert place(client.submit_background("idle", "", unique=job)) == one.addresses[0]


@BOTH
def test_a_job_server_that_is_lost_as_soon_as_it_has_answered_holds_up_nobody(choose: Choose) -> None:
    """Another caller may have found out that it is lost before those are woken who wait for it."""
    with ScriptedServer(lambda peer, number: welcome(peer)) as server, Client(server.address, choose=choose) as client:
        fleet = fleet_of(client)
        ended = fleet._chooser.dials._ended

        def lose_it_first(member: Member) -> None:
            if exchange := member.conversation.current:
                exchange.fail(ConnectionLost("lost"))
            ended(member)

        fleet._chooser.dials._ended = lose_it_first
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(client.echo, b"")
            wait([call], timeout=20)
            client.close()  # or it waits on for ever, where it does
            with pytest.raises(CannotConnect, match="has closed a fresh connection"):
                call.result(30)


@BOTH
def test_one_that_closes_after_each_job_loses_none_that_it_has_acknowledged(servers: list[str], choose: Choose) -> None:
    taken: list[str] = []

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        packet = peer.receive()
        if packet.command is not Command.SUBMIT_JOB_BG:
            return
        taken.append(packet.unique.decode())
        peer.send(Command.JOB_CREATED, b"H:1")

    acknowledged: list[str] = []
    in_doubt: dict[str, bool | None] = {}

    def submit(number: int) -> None:
        for count in range(60):
            job = f"{number}.{count}"
            try:
                if place(client.submit_background("idle", "", unique=job, timeout=60)) == closing.address:
                    acknowledged.append(job)
            except ConnectionLost as error:
                in_doubt[job] = error.job_created

    with (
        ScriptedServer(script) as closing,
        Client([closing.address, *servers], choose=choose) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        list(pool.map(submit, range(4)))
        assert len(taken) == len(set(taken))
        assert set(in_doubt.values()) <= {None}
        assert set(acknowledged) <= set(taken)
        assert set(taken) <= {*acknowledged, *in_doubt}
        assert taken


@BOTH
def test_one_that_answers_rubbish_gets_no_second_job(servers: list[str], choose: Choose) -> None:
    def script(peer: Peer, number: int) -> None:
        if number:
            peer.send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        else:
            welcome(peer)
            peer.expect(Command.SUBMIT_JOB_BG)
            peer.send_bytes(b"rubbish, more than a header")

    with ScriptedServer(script) as rubbish, Client([rubbish.address, *servers], choose=choose) as client:
        failures: list[bool | None] = []
        for number in range(100):
            try:
                assert place(client.submit_background("idle", "", unique=f"{choose} {number}", timeout=60)) in servers
            except ConnectionLost as error:
                failures.append(error.job_created)
        assert failures == [None]


@BOTH
def test_199_of_200_refuse_and_hold_up_nobody(servers: list[str], choose: Choose) -> None:
    nobody = free_port()
    addresses = [f"127.0.1.{number}:{nobody}" for number in range(1, 200)]
    with Client([*addresses, servers[0]], choose=choose) as client:
        places = [place(client.submit_background("idle", "", unique=f"few {n}", timeout=30)) for n in range(20)]
        assert set(places) == {servers[0]}


def test_many_mute_ones_are_waited_for_together_and_not_one_by_one(servers: list[str]) -> None:
    """Under `unique` one that was never tried is waited for, a second: sixty of them would take a minute."""
    with Silent() as silent:
        port = silent.rpartition(":")[2]
        mute = [f"{'0' * zeros}177.1:{port}" for zeros in range(1, 61)]  # 127.0.0.1, each
        with Client([*mute, servers[0]], choose="unique", connect_timeout_seconds=120) as client:
            begun = time.monotonic()
            handles = [client.submit_background("idle", "", unique=f"mute {number}") for number in range(100)]
            assert {place(handle) for handle in handles} == {servers[0]}
            assert time.monotonic() - begun < 30


@BOTH
def test_all_are_down_and_one_comes_back_while_callers_wait(choose: Choose, tmp_path: Path) -> None:
    with (
        Silent() as silent,
        Servers(str(tmp_path), 1) as down,
        Client([silent, f"{HOST}:{free_port()}"], choose=choose, connect_timeout_seconds=100) as client,
        ThreadPoolExecutor(4) as pool,
    ):
        calls = [pool.submit(client.submit_background, "idle", "", unique="x", timeout=90) for _ in range(4)]
        eventually(lambda: all(member.tried_at or member.dialling for member in fleet_of(client)._members))
        down.start()
        client.set_servers(down.addresses)  # and the callers that wait look at the new list
        assert {place(call.result(30)) for call in calls} == {*down.addresses}
