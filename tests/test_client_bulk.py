"""Many jobs with one call: map and submit_many_background on real job servers."""

from __future__ import annotations

import itertools
import socket
import threading
import tracemalloc
from collections.abc import Iterator

import pytest

from geard import Client, ConnectionLost, JobFailed
from geard.client.bulk import WINDOW
from geard.errors import CannotConnect, InvalidRequest
from geard.protocol import Command, Packet, response
from tests.support.raw import Peer, ScriptedServer
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually
from tests.test_client_faults import welcome

JOBS = [f"job {number}" for number in range(300)]


@pytest.fixture
def client(job_server: JobServerProcess) -> Iterator[Client]:
    with Client([job_server.address]) as client:
        yield client


def odd_fails(peer: Peer, job: Packet) -> None:
    if int(job.workload) % 2:
        peer.send(Command.WORK_FAIL, job.handle)
    else:
        peer.send(Command.WORK_COMPLETE, job.handle, job.workload)


def test_map_yields_every_result_in_order(job_server: JobServerProcess, client: Client) -> None:
    with RawWorker(job_server.address, {"reverse": reverse}), RawWorker(job_server.address, {"reverse": reverse}):
        assert list(client.map("reverse", JOBS, concurrency=20)) == [job[::-1] for job in JOBS]
        assert list(client.map("reverse", iter(JOBS), concurrency=1)) == [job[::-1] for job in JOBS]
        assert list(client.map("reverse", [])) == []
        client.map("reverse", ["never iterated, never submitted"])
        assert list(client.map("reverse", [11, 22], encoding="json", unique="workload", priority="high")) == [11, 22]


def test_map_out_of_order_yields_each_result_as_it_comes(job_server: JobServerProcess, client: Client) -> None:
    with Peer.connect(job_server.address) as worker:
        worker.send(Command.CAN_DO, b"f")
        results = client.map("f", "abc", ordered=False, pairs=True)
        jobs: dict[str, bytes] = {}

        def take() -> None:
            while len(jobs) < 3:
                worker.send(Command.GRAB_JOB)
                packet = worker.receive()
                if packet.command is Command.JOB_ASSIGN:
                    jobs[packet.workload.decode()] = packet.handle
            worker.send(Command.WORK_COMPLETE, jobs["c"], b"C")

        taking = threading.Thread(target=take)
        taking.start()
        assert next(results) == ("c", "C")
        taking.join()
        worker.send(Command.WORK_COMPLETE, jobs["a"], b"A")
        assert next(results) == ("a", "A")
        worker.send(Command.WORK_FAIL, jobs["b"])
        workload, failure = next(results)
        assert (workload, type(failure)) == ("b", JobFailed)
        assert list(results) == []


def test_map_raises_the_first_failure_in_its_place_or_pairs_it_with_its_workload(
    job_server: JobServerProcess, client: Client
) -> None:
    with RawWorker(job_server.address, {"f": odd_fails}):
        results = client.map("f", ["0", "2", "3", "4"])
        assert [next(results), next(results)] == ["0", "2"]
        with pytest.raises(JobFailed):
            next(results)
        pairs = list(client.map("f", ["0", "1", 2, "3", "4"], pairs=True, concurrency=2))
        assert [workload for workload, _ in pairs] == ["0", "1", 2, "3", "4"]
        assert [type(outcome) for _, outcome in pairs] == [str, JobFailed, InvalidRequest, JobFailed, str]


def test_map_takes_no_more_workloads_than_it_may_run(job_server: JobServerProcess, client: Client) -> None:
    drawn = itertools.count()
    taken = []

    def workloads() -> Iterator[str]:
        for number in drawn:
            taken.append(number)
            yield str(number)

    results = client.map("reverse", workloads(), concurrency=5)
    assert taken == []  # nothing until it is iterated
    with RawWorker(job_server.address, {"reverse": reverse}):
        for number in range(40):
            assert next(results) == str(number)[::-1]
            assert len(taken) <= number + 1 + 5 * 4
    del results
    assert client.echo(b"still in order") == b"still in order"


def test_the_memory_of_map_is_flat(job_server: JobServerProcess, client: Client) -> None:
    def peak_of(jobs: int) -> int:
        tracemalloc.reset_peak()
        for _ in client.map("reverse", ("x" * 1000 for _ in range(jobs)), concurrency=10):
            pass
        return tracemalloc.get_traced_memory()[1]

    with RawWorker(job_server.address, {"reverse": reverse}) as worker:
        worker.jobs = Forgetful()
        peak_of(50)
        tracemalloc.start()
        try:
            few, many = peak_of(100), peak_of(2000)
        finally:
            tracemalloc.stop()
    assert many < few * 2  # a result kept for each job would be twenty times as much


class Forgetful(list[Packet]):
    """A list that keeps nothing."""

    def append(self, item: Packet) -> None:
        pass


def test_many_background_jobs_are_submitted_in_order(job_server: JobServerProcess, client: Client) -> None:
    handles = list(client.submit_many_background("f", JOBS * 5, priority="high"))
    assert len(set(handles)) == len(JOBS) * 5
    assert job_server.status("f")[0] == len(JOBS) * 5
    with RawWorker(job_server.address, {"f": reverse}) as worker:
        for handle in handles:
            client.wait(handle)
    assert [job.workload.decode() for job in worker.jobs] == JOBS * 5
    assert [job.handle.decode() for job in worker.jobs] == handles
    assert list(client.submit_many_background("f", [])) == []


def test_many_background_jobs_are_taken_lazily_from_an_endless_input(
    job_server: JobServerProcess, client: Client
) -> None:
    handles = client.submit_many_background("f", map(str, itertools.count()))
    assert len(set(itertools.islice(handles, 2000))) == 2000
    del handles
    assert client.echo(b"still in order") == b"still in order"
    assert 2000 <= job_server.status("f")[0] <= 3000


def test_who_has_all_handles_needs_the_job_server_no_more(job_server: JobServerProcess) -> None:
    client = Client(job_server.address)
    handles: list[str] = []
    for handle in client.submit_many_background("f", JOBS):
        handles.append(handle)
        if len(handles) == len(JOBS):
            client.close()
    assert len(set(handles)) == len(JOBS)


def test_nor_does_who_has_them_all_at_once_after_a_full_last_lot() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        for _ in range(WINDOW):
            peer.expect(Command.SUBMIT_JOB_BG)
        peer.send_bytes(b"".join(response(Command.JOB_CREATED, b"H:%d" % each) for each in range(WINDOW)))
        peer.receive()

    with ScriptedServer(script) as server, Client(server.address) as client:
        handles: list[str] = []
        for handle in client.submit_many_background("f", map(str, range(WINDOW))):
            handles.append(handle)
            if len(handles) == WINDOW:
                client.close()
        assert len(handles) == WINDOW


def test_a_workload_that_cannot_be_sent_raises_in_its_place(job_server: JobServerProcess, client: Client) -> None:
    handles: list[str] = []
    with pytest.raises(InvalidRequest, match="the workload is None"):
        handles.extend(client.submit_many_background("f", [*JOBS, *JOBS, None, "after it"]))
    assert len(set(handles)) == 2 * len(JOBS) == job_server.status("f")[0]


def test_handles_that_came_before_the_connection_was_lost_are_yielded() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        for job in range(7):
            peer.expect(Command.SUBMIT_JOB_BG)
            peer.send(Command.JOB_CREATED, b"H:%d" % job)
        peer.socket.shutdown(socket.SHUT_WR)
        while True:  # a close with something unread would make the system forget what was sent
            peer.receive()

    with ScriptedServer(script) as server, Client(server.address) as client:
        handles: list[str] = []
        with pytest.raises(ConnectionLost) as caught:
            handles.extend(client.submit_many_background("f", "x" * 1000))
        assert caught.value.job_created is None
        assert handles == [f"H:{job}" for job in range(7)]


@pytest.mark.parametrize("ordered", [True, False])
def test_a_map_in_pairs_goes_on_with_a_new_connection_and_submits_nothing_twice(ordered: bool) -> None:
    submitted: list[bytes] = []

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        while True:
            job = peer.expect(Command.SUBMIT_JOB)
            submitted.append(job.workload)
            peer.send(Command.JOB_CREATED, b"H:" + job.workload)
            if job.workload == b"4":
                peer.socket.shutdown(socket.SHUT_WR)  # a reset would take JOB_CREATED with it
                while peer.socket.recv(65536):
                    pass
                return
            peer.send(Command.WORK_COMPLETE, b"H:" + job.workload, job.workload)

    with ScriptedServer(script) as server, Client(server.address) as client:
        pairs = list(client.map("f", "0123456789", pairs=True, ordered=ordered, concurrency=3))
    lost = {workload: outcome for workload, outcome in pairs if isinstance(outcome, ConnectionLost)}
    assert lost.keys() >= {"4"}
    assert lost["4"].job_created is True
    assert sorted(workload for workload, _ in pairs) == list("0123456789")
    assert {workload for workload, outcome in pairs if outcome == workload} == set("0123456789") - lost.keys()
    assert len(submitted) == len(set(submitted))


def test_a_map_whose_connection_another_caller_finds_lost_waits_for_nothing_there() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        if number == 0:
            for handle in (b"H:1", b"H:2"):
                peer.expect(Command.SUBMIT_JOB)
                peer.send(Command.JOB_CREATED, handle)
            peer.send(Command.WORK_COMPLETE, b"H:1", b"A")
            return
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)
        peer.expect(Command.SUBMIT_JOB)
        peer.send(Command.JOB_CREATED, b"H:3")
        peer.send(Command.WORK_COMPLETE, b"H:3", b"C")
        peer.receive()

    def echoes(client: Client) -> bool:
        try:
            return client.echo(b"?") == b"?"
        except ConnectionLost:
            return False

    with ScriptedServer(script) as server, Client(server.address) as client:
        results = client.map("f", "abc", pairs=True, concurrency=2, timeout=30)
        assert next(results) == ("a", "A")
        eventually(lambda: echoes(client))
        (workload, failure), last = results
        assert (workload, type(failure), last) == ("b", ConnectionLost, ("c", "C"))


@pytest.mark.parametrize("more", [True, False])
def test_a_map_in_pairs_tells_of_all_that_it_submitted_when_no_job_server_is_left(more: bool) -> None:
    def script(peer: Peer, number: int) -> None:
        if number:
            return
        welcome(peer)
        for handle in (b"H:1", b"H:2"):
            peer.expect(Command.SUBMIT_JOB)
            peer.send(Command.JOB_CREATED, handle)
        peer.send(Command.WORK_COMPLETE, b"H:1", b"A")

    with ScriptedServer(script) as server, Client(server.address) as client:
        results = client.map("f", "abc" if more else "ab", pairs=True, concurrency=2)
        assert next(results) == ("a", "A")
        with pytest.raises(ConnectionLost):
            client.echo(b"?")
        workload, failure = next(results)
        assert (workload, type(failure)) == ("b", ConnectionLost)
        if more:
            with pytest.raises(CannotConnect):
                next(results)
        else:
            assert list(results) == []
