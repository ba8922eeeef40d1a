"""The client against real job servers: what a program that submits jobs relies on."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from geard import Client, ConfigError, JobException, JobFailed, JobTimeout
from geard.client import Complete, Data, Event, JobState, Priority, Status, Warning, When  # noqa: A004
from geard.errors import InvalidResult, QueueFull, ServerError
from geard.protocol import Command, Packet
from tests.support.raw import Peer
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import JobServerProcess, need, stop_process
from tests.support.waiting import eventually


@pytest.fixture
def client(job_server: JobServerProcess) -> Iterator[Client]:
    with Client([job_server.address]) as client:
        yield client


def stream(peer: Peer, job: Packet) -> None:
    """Progress, data cut within a character, a warning, and an end."""
    peer.send(Command.WORK_STATUS, job.handle, b"1", b"3")
    peer.send(Command.WORK_DATA, job.handle, "hé".encode()[:2])
    peer.send(Command.WORK_WARNING, job.handle, b"careful")
    peer.send(Command.WORK_DATA, job.handle, "hé".encode()[2:])
    peer.send(Command.WORK_STATUS, job.handle, b"3", b"3")
    peer.send(Command.WORK_COMPLETE, job.handle, b"llo")


STREAMED = [Status(1, 3), Data("h"), Warning("careful"), Data("é"), Status(3, 3), Complete("llo")]


def test_run_returns_what_the_gearman_tool_as_a_worker_answers(job_server: JobServerProcess, client: Client) -> None:
    need("gearman", "rev")
    command = ["gearman", "-h", "127.0.0.1", "-p", str(job_server.port), "-w", "-f", "rev", "--", "rev"]
    worker = subprocess.Popen(command)
    try:
        assert client.run("rev", "hello").strip() == "olleh"
    finally:
        stop_process(worker)


def test_workloads_and_results_go_through_in_their_encoding(job_server: JobServerProcess, client: Client) -> None:
    def echo(peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_COMPLETE, job.handle, job.workload)

    def empty(peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_COMPLETE, job.handle, b"")

    def junk(peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_COMPLETE, job.handle, b"{")

    everything = bytes(range(256)) * 5
    with RawWorker(job_server.address, {"echo": echo, "empty": empty, "junk": junk}) as worker:
        assert client.run("echo", "grüße") == "grüße"
        assert client.run("echo", "grüße", encoding="latin-1") == "grüße"
        assert worker.jobs[-1].workload == b"gr\xfc\xdfe"
        assert client.run("echo", everything, encoding="bytes") == everything
        assert client.run("echo", bytearray(everything), encoding="bytes") == everything
        assert client.run("echo", {"a": [1, None, "ü"]}, encoding="json") == {"a": [1, None, "ü"]}
        assert client.run("echo", "") == ""
        with pytest.raises(InvalidResult, match="the result is not utf-8") as caught:
            client.run("echo", b"\xff\xfe")
        assert caught.value.data == b"\xff\xfe"
        assert client.run("empty", [], encoding="json") is None
        with pytest.raises(InvalidResult, match="the result is not json"):
            client.run("junk", [], encoding="json")


def test_a_large_workload_and_result_go_through(job_server: JobServerProcess, client: Client) -> None:
    large = bytes(range(256)) * (20 * 4096)
    with RawWorker(job_server.address, {"reverse": reverse}):
        assert client.run("reverse", large, encoding="bytes") == large[::-1]


def test_events_come_in_order_and_the_result_joins_the_pieces(job_server: JobServerProcess, client: Client) -> None:
    with RawWorker(job_server.address, {"stream": stream}):
        task = client.submit("stream", "x")
        assert list(task.events()) == STREAMED
        assert task.result() == "héllo"
        assert task.progress == Status(3, 3)
        assert task.done()
        assert list(task.events()) == STREAMED  # from the start, each time
        assert repr(task) == f"<Task stream {task.handle} WORK_COMPLETE>"


def test_a_callback_hears_each_event_once(job_server: JobServerProcess, client: Client) -> None:
    heard: list[Event] = []
    with RawWorker(job_server.address, {"stream": stream}):
        task = client.submit("stream", "x", on_event=heard.append)
        assert task.result() == task.result() == "héllo"
        assert heard == STREAMED[:-1]
        heard.clear()
        assert client.run("stream", "x", on_event=heard.append, timeout=30) == "héllo"
        assert heard == STREAMED[:-1]


def test_a_task_can_be_watched_without_waiting_for_it(job_server: JobServerProcess, client: Client) -> None:
    with Peer.connect(job_server.address) as worker:
        worker.send(Command.CAN_DO, b"slow")
        task = client.submit("slow", "x")
        assert not task.done()
        assert task.progress is None
        worker.send(Command.GRAB_JOB_UNIQ)
        job = worker.expect(Command.JOB_ASSIGN_UNIQ)
        assert (job.handle.decode(), job.unique.decode()) == (task.handle, task.unique)
        worker.send(Command.WORK_STATUS, job.handle, b"2", b"5")
        assert eventually(lambda: task.progress) == Status(2, 5)
        worker.send(Command.WORK_COMPLETE, job.handle, b"at last")
        eventually(task.done)
        assert task.result(timeout=0) == "at last"


def test_a_failed_job_is_an_exception(job_server: JobServerProcess, client: Client) -> None:
    def fail(peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_FAIL, job.handle)

    with RawWorker(job_server.address, {"fail": fail}):
        with pytest.raises(JobFailed, match=r"fail: the job failed"):
            client.run("fail", "x")
        task = client.submit("fail", "x")
        with pytest.raises(JobFailed):
            list(task.events())
        with pytest.raises(JobFailed):
            task.result()


def test_a_workers_exception_comes_with_its_text_unless_switched_off(job_server: JobServerProcess) -> None:
    def explode(peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_DATA, job.handle, b"so far")
        peer.send(Command.WORK_EXCEPTION, job.handle, "ValueError: nö".encode())

    with RawWorker(job_server.address, {"explode": explode}):
        with Client([job_server.address]) as client:
            with pytest.raises(JobException, match="explode: ValueError: nö") as caught:
                client.run("explode", "x")
            assert caught.value.text == "ValueError: nö"
        with Client([job_server.address], exceptions=False) as client:
            with pytest.raises(JobFailed) as failed:
                client.run("explode", "x")
            assert not isinstance(failed.value, JobException)
            client.option("exceptions")
            with pytest.raises(JobException):
                client.run("explode", "x")


def test_a_timeout_leaves_the_job_and_the_client_as_they_were(job_server: JobServerProcess, client: Client) -> None:
    begun = time.monotonic()
    with pytest.raises(JobTimeout, match=r"nobody: no result within 0\.05 s"):
        client.run("nobody", "x", timeout=0.05)
    task = client.submit("nobody", "y")
    for wait in (lambda: task.result(0.05), lambda: list(task.events(0.05)), lambda: task.result(0)):
        with pytest.raises(JobTimeout):
            wait()
    assert time.monotonic() - begun >= 0.15
    assert job_server.status("nobody")[0] == 2
    with RawWorker(job_server.address, {"nobody": reverse}):
        assert task.result() == "y"
        assert client.run("nobody", "abc") == "cba"


def test_jobs_with_the_same_unique_are_one_job_and_each_submission_gets_all_of_its_result(
    job_server: JobServerProcess, client: Client
) -> None:
    first = client.submit("stream", "x", unique="same")
    second = client.submit("stream", "x", unique="same")
    third = client.submit("stream", "other", unique="different")
    assert first.handle == second.handle != third.handle
    assert client.status_unique("same") == JobState(True, False, 0, 0, clients=2)
    with RawWorker(job_server.address, {"stream": stream}) as worker:
        assert [list(task.events()) for task in (second, first, third)] == [STREAMED] * 3
        assert len(worker.jobs) == 2


def test_a_unique_of_the_workload_makes_equal_jobs_one(job_server: JobServerProcess, client: Client) -> None:
    handles = [client.submit_background("f", workload, unique="workload") for workload in ("a", "b", "a")]
    assert handles[0] == handles[2] != handles[1]
    assert client.submit_background("g", "a", unique="workload") not in handles
    assert len({client.submit_background("f", "a") for _ in range(5)}) == 5  # random ones otherwise


def test_priorities_decide_who_runs_first(job_server: JobServerProcess, client: Client) -> None:
    priorities: tuple[Priority, ...] = ("low", "normal", "high")
    for priority in priorities:
        client.submit_background("reverse", priority, priority=priority)
    foreground = [client.submit("reverse", f"{priority} too", priority=priority) for priority in priorities[::2]]
    with RawWorker(job_server.address, {"reverse": reverse}) as worker:
        for task in foreground:
            task.result()
        eventually(lambda: len(worker.jobs) == 5)
    assert [job.workload.decode() for job in worker.jobs] == ["high", "high too", "normal", "low", "low too"]


@pytest.mark.parametrize("form", ["seconds", "timedelta", "datetime"])
def test_a_delayed_job_starts_no_earlier_than_asked(job_server: JobServerProcess, client: Client, form: str) -> None:
    due = time.time() + 0.5
    forms: dict[str, When] = {
        "seconds": 0.5,
        "timedelta": timedelta(seconds=0.5),
        "datetime": datetime.fromtimestamp(due, UTC),
    }
    with Peer.connect(job_server.address) as worker:
        worker.send(Command.CAN_DO, b"later")
        client.submit_background("later", "x", at=forms[form])

        def grab() -> bool:
            worker.send(Command.GRAB_JOB)
            return worker.receive().command is Command.JOB_ASSIGN

        eventually(grab)
        assert time.time() >= due


def test_a_reduce_job_tells_its_worker_the_reducer(job_server: JobServerProcess, client: Client) -> None:
    with Peer.connect(job_server.address) as worker:
        worker.send(Command.CAN_DO, b"split")
        task = client.submit("split", "a\0b", reducer="count")
        client.submit_background("split", "in the background", reducer="count")
        for workload in (b"a\0b", b"in the background"):
            worker.send(Command.GRAB_JOB_ALL)
            job = worker.expect(Command.JOB_ASSIGN_ALL)
            assert (job.reducer, job.workload) == (b"count", workload)
            worker.send(Command.WORK_COMPLETE, job.handle, b"done")
        assert task.result() == "done"


def test_a_background_job_can_be_followed_by_its_handle_or_unique(job_server: JobServerProcess, client: Client) -> None:
    states: list[JobState] = []
    with Peer.connect(job_server.address) as worker:
        handle = client.submit_background("slow", "x", unique="mine")
        assert client.status(handle) == JobState(True, False, 0, 0)
        worker.send(Command.CAN_DO, b"slow")
        worker.send(Command.GRAB_JOB)
        worker.expect(Command.JOB_ASSIGN)
        worker.send(Command.WORK_STATUS, handle.encode(), b"1", b"2")
        eventually(lambda: client.status(handle) == JobState(True, True, 1, 2))
        assert client.status_unique("mine") == JobState(True, True, 1, 2, clients=0)
        with pytest.raises(JobTimeout):
            client.wait(handle, timeout=0.05)

        def hear(state: JobState) -> None:
            states.append(state)
            worker.send(Command.WORK_COMPLETE, handle.encode(), b"")

        assert client.wait(handle, hear, timeout=30)
    assert states == [JobState(True, True, 1, 2)]
    assert not client.wait("H:nowhere:1")
    assert not client.status("H:nowhere:1").known
    assert not client.status_unique("nowhere").known


def test_echo_and_options(client: Client) -> None:
    assert client.echo(b"any\0thing") == b"any\0thing"
    with pytest.raises(ServerError, match="UNKNOWN_OPTION"):
        client.option("teleport")
    assert client.echo(b"") == b""


def test_a_full_queue_has_an_error_of_its_own(job_server: JobServerProcess, client: Client) -> None:
    client.submit_background("f", "x")
    job_server.text("maxqueue f 1")
    with pytest.raises(QueueFull):
        client.submit_background("f", "x")
    with pytest.raises(QueueFull):
        client.run("f", "x")
    with pytest.raises(QueueFull):
        list(client.submit_many_background("f", "xyz"))
    assert all(isinstance(outcome, QueueFull) for _, outcome in client.map("f", "xyz", pairs=True))
    assert client.echo(b"still here") == b"still here"


def test_a_client_of_the_job_servers_in_a_config_file(job_server: JobServerProcess, tmp_path: Path) -> None:
    config = tmp_path / "geard.yaml"
    config.write_text(f"job_servers: ['{job_server.address}']\ncapabilities: {{f: '${{GEARD_NO_SUCH_SECRET}}'}}\n")
    with Client.from_config(config, encoding="bytes") as client:
        assert client.echo(b"hello") == b"hello"
    config.write_text("job_servers: [{host: localhost, tls: {ca: 5}}]\n")
    with pytest.raises(ConfigError, match="job_servers"):
        Client.from_config(config)
