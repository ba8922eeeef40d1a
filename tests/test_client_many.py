"""One client over many job servers, real ones: all calls, shares, failures, and what is added while it runs."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from geard import Admin, Client, ConnectionLost, Handle, InvalidRequest
from geard.client.bulk import WINDOW
from geard.client.fleet import Fleet
from geard.errors import CannotConnect
from geard.protocol import Command
from tests.many.trial import Report, Servers, trial, working
from tests.support.commands import geard
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import HOST, free_port
from tests.support.waiting import eventually
from tests.test_client_faults import welcome

NUMBER = 6
BOTH = pytest.mark.parametrize("choose", ["spread", "unique"])


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Six job servers in one process, with a worker for `note`, which returns its workload."""
    started = Servers(str(tmp_path_factory.mktemp("servers")), NUMBER).start()
    with started, working(started.addresses, Report("spread", 0, 0.0)):
        yield started.addresses


def shares(handles: list[str]) -> list[int]:
    counted = Counter(str(handle.server) for handle in handles if isinstance(handle, Handle))
    assert sum(counted.values()) == len(handles)
    return list(counted.values())


def connect(client: Client, number: int) -> None:
    """To all of them, which a question about a unique does."""
    client.status_unique("nobody's")
    assert repr(client).startswith(f"<Client {number} of"), client


@BOTH
def test_shares_are_even(servers: list[str], choose: str) -> None:
    with Client(servers, choose=choose) as client:  # type: ignore[arg-type]
        connect(client, NUMBER)
        jobs = [f"{choose} {number}" for number in range(600)]
        one_by_one = [client.submit_background("idle", job) for job in jobs[:300]]
        many = list(client.submit_many_background("idle", jobs))
        counted = shares(one_by_one)
        assert 0.9 * 300 / NUMBER <= min(counted) <= max(counted) <= 1.1 * 300 / NUMBER
        # Many at a time, a job server that answers sooner may be ahead by what the others owe.
        counted = shares(many)
        assert len(counted) == NUMBER
        assert max(counted) - min(counted) <= 2 * WINDOW / NUMBER


@BOTH
def test_every_call_works_over_all(servers: list[str], choose: str) -> None:
    with Client(servers, choose=choose) as client:  # type: ignore[arg-type]
        jobs = [f"job {number}" for number in range(200)]
        assert list(client.map("note", jobs, concurrency=20)) == jobs
        assert sorted(client.map("note", jobs, ordered=False, unique="workload")) == sorted(jobs)
        assert list(client.map("note", [])) == list(client.submit_many_background("note", [])) == []
        outcomes = [outcome for _, outcome in client.map("note", ["a", None, "b"], pairs=True)]
        assert [outcomes[0], type(outcomes[1]), outcomes[2]] == ["a", InvalidRequest, "b"]
        assert client.run("note", "x", unique="x", timeout=30) == "x"
        task = client.submit("note", "y", on_event=print)
        assert task.result(30) == "y"
        assert isinstance(task.handle, Handle)
        assert str(task.handle.server) in servers
        assert client.echo(b"there?") == b"there?"
        client.option("exceptions")
        delayed = client.submit_background("note", "later", at=3600)
        handle = client.submit_background("idle", "z", unique=f"{choose} z")
        assert isinstance(handle, Handle)
        for each in (delayed, handle, str(handle), Handle(str(handle), str(handle.server))):
            assert client.status(each).known, each
        assert client.status_unique(f"{choose} z").known
        assert not client.status("H:unknown:1").known
        for each in (handle, delayed):
            assert isinstance(each, Handle)
            with Admin(each.server) as admin:
                admin.cancel_job(each)
        assert not client.status(handle).known
        done = client.submit_background("note", "w")
        client.wait(done, timeout=30)
        with pytest.raises(InvalidRequest, match="H:x:1 is a job of elsewhere:4730, which is none of 127"):
            client.status(Handle("H:x:1", "elsewhere"))
    with pytest.raises(InvalidRequest, match="closed"):
        client.echo(b"")


def test_equal_jobs_meet_whichever_client_they_come_from(servers: list[str]) -> None:
    with Client(servers, choose="unique") as one, Client(servers[::-1], choose="unique") as other:
        for number in range(50):
            handles = [client.submit_background("idle", "", unique=f"meet {number}") for client in (one, other, one)]
            assert len({(handle, str(handle.server)) for handle in handles if isinstance(handle, Handle)}) == 1
        both = [list(client.submit_many_background("idle", "abcdef", unique="workload")) for client in (one, other)]
        assert both[0] == both[1]


def test_submit_on_the_command_line_chooses_too(servers: list[str]) -> None:
    def submitted(*arguments: str) -> list[str]:
        done = geard("submit", *arguments, "-s", ",".join(servers))
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().splitlines()

    assert submitted("note", "x", "--choose", "spread") == ["x"]
    for way in ([], ["-b"]):
        told = json.loads(submitted("note", "x", "--json", "--choose", "spread", *way)[0])
        assert told["handle"].startswith("H:")
    handles = [submitted("idle", "x", "-b", "-u", "the shell's", "--choose", "unique") for _ in range(2)]
    assert handles[0] == handles[1]
    assert geard("submit", "--wait", "H:x:1", "--choose", "unique").returncode == 2


@BOTH
def test_a_workload_that_cannot_be_sent_raises_in_its_place(servers: list[str], choose: str) -> None:
    with Client(servers, choose=choose) as client:  # type: ignore[arg-type]
        handles: list[str] = []
        with pytest.raises(InvalidRequest, match="the workload is None"):
            handles.extend(client.submit_many_background("idle", [*map(str, range(150)), None, "after it"]))
        assert len(handles) == 150


def test_many_threads_share_one_client(servers: list[str]) -> None:
    def calls(number: int) -> None:
        jobs = [f"{number}.{index}" for index in range(10)]
        assert list(client.map("note", jobs, concurrency=4)) == jobs
        assert [client.run("note", job) for job in jobs] == jobs
        assert all(isinstance(client.submit_background("note", job), Handle) for job in jobs)

    with Client(servers, choose="spread") as client, ThreadPoolExecutor(20) as pool:
        list(pool.map(calls, range(20)))


@pytest.mark.parametrize("patch", ["", "from gevent import monkey; monkey.patch_all()"])
def test_it_works_in_greenlets_and_on_both_sides_of_a_fork(servers: list[str], patch: str) -> None:
    program = f"""
        {patch}
        import json, os, sys
        from concurrent.futures import ThreadPoolExecutor
        from geard import Client, GeardError

        jobs = [str(number) for number in range(20)]
        def calls(number):
            assert list(client.map("note", jobs, concurrency=5)) == jobs
            return [client.run("note", job) for job in jobs] == jobs

        with Client({servers}, choose="spread") as client:
            with ThreadPoolExecutor(10) as pool:
                said = [all(pool.map(calls, range(10)))]
            many = client.submit_many_background("idle", map(str, range(700)))
            results = client.map("note", jobs, concurrency=1)  # so that there is something left to submit
            next(many), next(results)
            task = client.submit("idle", "x")
            read, write = os.pipe()
            if not os.fork():
                said.append(calls(0))
                for call in (lambda: list(many), lambda: list(results), task.result):
                    try:
                        call()
                        said.append("went on")
                    except GeardError as error:
                        said.append("those of the parent" in str(error))
                os.write(write, json.dumps(said).encode() + b"\\n")
                os._exit(0)
            os.close(write)
            with os.fdopen(read) as pipe:
                said = json.loads(pipe.readline())
            print(json.dumps([*said, calls(1), len(list(many)), list(results) == jobs[1:]]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout) == [True, True, True, True, True, True, 699, True]


# --- what goes wrong ---------------------------------------------------------------------------------------------


class Silent:
    """Accepts, and never answers. A context manager."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._server = ScriptedServer(lambda peer, number: self._over.wait(60))  # type: ignore[arg-type]

    def __enter__(self) -> str:
        return self._server.__enter__().address

    def __exit__(self, *arguments: object) -> None:
        self._over.set()
        self._server.__exit__(None, None, None)


@BOTH
def test_nobody_waits_for_one_that_cannot_be_reached(servers: list[str], choose: str) -> None:
    with Silent() as silent:
        addresses = [f"{HOST}:{free_port()}", silent, *servers]
        with Client(addresses, choose=choose, connect_timeout_seconds=120) as client:  # type: ignore[arg-type]
            begin = time.monotonic()
            handles = [client.submit_background("idle", "", unique=f"dead {number}") for number in range(100)]
            assert {str(handle.server) for handle in handles if isinstance(handle, Handle)} == set(servers)
            assert time.monotonic() - begin < 60
            assert client.run("note", "x", timeout=60) == "x"
            with pytest.raises(ConnectionLost):  # it may be known to one that cannot be asked
                client.status("H:unknown:1", timeout=2)


@BOTH
def test_with_all_down_a_call_tries_them_now_and_says_why_not_each(choose: str, tmp_path: Path) -> None:
    with Servers(str(tmp_path), 2) as down, Client(down.addresses, choose=choose) as client:  # type: ignore[arg-type]
        for _ in range(2):
            with pytest.raises(CannotConnect, match="no job server can be reached:\n  cannot") as caught:
                client.run("note", "x", unique="x")
            assert caught.value.refused
            assert all(address in str(caught.value) for address in down.addresses)
        down.start()
        assert client.submit_background("idle", "x", unique="x")  # at once, however long it was away
    with (
        Silent() as silent,
        Client(silent, choose=choose) as client,  # type: ignore[arg-type]
        pytest.raises(CannotConnect, match="no time left"),
    ):
        client.echo(b"", timeout=0.1)


def drop_submission(peer: Peer, number: int) -> None:
    welcome(peer)
    peer.expect(Command.SUBMIT_JOB_BG)


def test_what_was_sent_and_not_acknowledged_is_never_sent_to_another(servers: list[str]) -> None:
    with ScriptedServer(drop_submission) as dropping, Client([dropping.address, *servers], choose="spread") as client:
        lost: list[bool | None] = []
        for number in range(200):
            try:
                client.submit_background("once", "x", unique=f"once {number}")
            except ConnectionLost as error:
                lost.append(error.job_created)
        assert lost
        assert set(lost) == {None}
        total = 0
        for address in servers:
            with Admin(address) as admin:
                total += sum(row.total for row in admin.status() if row.function == "once")
        assert total == 200 - len(lost)


def test_a_map_goes_on_where_one_of_many_is_lost(servers: list[str]) -> None:
    def drop_job(peer: Peer, number: int) -> None:
        welcome(peer)
        peer.expect(Command.SUBMIT_JOB)
        peer.send(Command.JOB_CREATED, b"H:1")

    with ScriptedServer(drop_job) as dropping, Client([dropping.address, *servers], choose="spread") as client:
        assert isinstance(client._conversation, Fleet)
        client._conversation._chooser.dials.want(*client._conversation._members)
        eventually(lambda: repr(client).startswith("<Client 7 of 7"), what="connections to all")
        pairs = list(client.map("note", map(str, range(100)), pairs=True))
        assert [workload for workload, _ in pairs] == [str(number) for number in range(100)]
        failed = [outcome for _, outcome in pairs if isinstance(outcome, ConnectionLost)]
        assert 0 < len(failed) < 30
        assert all(outcome == workload for workload, outcome in pairs if outcome not in failed)


def test_a_map_hears_what_another_caller_reads(servers: list[str]) -> None:
    """Somebody leads on every connection, so the map never reads anything itself."""
    with Client(servers, choose="spread") as client:
        connect(client, NUMBER)
        over = threading.Event()
        waiting = [client.submit("nobody's", "") for _ in range(NUMBER)]

        def lead(number: int) -> None:
            while not over.is_set():
                with pytest.raises(TimeoutError):
                    waiting[number].result(1)

        with ThreadPoolExecutor(NUMBER) as pool:
            leading = [pool.submit(lead, number) for number in range(NUMBER)]
            jobs = [str(number) for number in range(300)]
            assert list(client.map("note", jobs, timeout=60)) == jobs
            over.set()
            for each in leading:
                each.result()


def test_the_list_may_change_while_it_runs(servers: list[str]) -> None:
    with Client(servers[:2], choose="spread") as client:
        old = client.submit_background("idle", "x")
        task = client.submit("nobody's", "x")
        client.set_servers(servers[2:])
        new = list(client.submit_many_background("idle", map(str, range(100))))
        assert {str(handle.server) for handle in new if isinstance(handle, Handle)} <= set(servers[2:])
        assert client.status(old).known
        assert not task.done()
        with pytest.raises(InvalidRequest, match="at least one"):
            client.set_servers([])
    with Client(servers) as client:
        assert type(client.submit("idle", "").handle) is type(client.submit_background("idle", "")) is str
        with pytest.raises(InvalidRequest, match="set_servers"):
            client.set_servers(servers)
    with pytest.raises(InvalidRequest, match="choose is one of first, spread, unique, not 'all'"):
        Client(servers, choose="all")  # type: ignore[arg-type]


def test_three_of_twenty_are_killed_and_two_added_and_nothing_acknowledged_is_lost() -> None:
    """`make many` has the same with 100,000 jobs, for each way to choose."""
    report = trial(1200, "spread")
    assert not report.lost, report
    assert not report.doubled, report
    assert not report.wrong, report
    assert all(report.shares[address] for address in (*report.steady, *report.killed, *report.added)), report
