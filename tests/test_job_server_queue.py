"""The queue file of the embedded job server: what was acknowledged is there, whatever happens."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from geard import exits
from geard.jobserver.store import Store
from geard.protocol import Command, Packet, request
from tests.support.raw import Peer
from tests.support.servers import HOST, Embedded, free_port


class WithQueue(Embedded):
    """An embedded job server with a queue file. `file_limit_bytes` makes its disk full."""

    def __init__(self, queue: Path) -> None:
        super().__init__("--queue", str(queue))
        self.queue = queue
        self.file_limit_bytes = 0

    def command(self) -> list[str]:
        if self.file_limit_bytes:
            return ["prlimit", f"--fsize={self.file_limit_bytes}:unlimited", *super().command()]
        return super().command()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[WithQueue]:
    with WithQueue(tmp_path / "queue") as server:
        assert isinstance(server, WithQueue)
        yield server


def submit_many(server: Embedded, count: int, function: bytes = b"f") -> list[bytes]:
    """Their handles, all acknowledged."""
    with Peer.connect(server.address) as client:
        wire = [request(Command.SUBMIT_JOB_BG, function, b"u%d" % n, b"x" * 64) for n in range(count)]
        handles: list[bytes] = []
        for begin in range(0, count, 1000):
            batch = wire[begin : begin + 1000]
            client.send_bytes(b"".join(batch))
            handles += [client.expect(Command.JOB_CREATED).handle for _ in batch]
        return handles


def run_all(server: Embedded, function: bytes = b"f") -> list[bytes]:
    """Grab and complete until there is none. The handles."""
    done: list[bytes] = []
    with Peer.connect(server.address) as worker:
        worker.send(Command.CAN_DO, function)
        while True:
            worker.send_bytes(request(Command.GRAB_JOB_UNIQ) * 500)
            jobs = [worker.receive() for _ in range(500)]
            handles = [job.handle for job in jobs if job.command == Command.JOB_ASSIGN_UNIQ]
            worker.send_bytes(b"".join(request(Command.WORK_COMPLETE, handle, b"") for handle in handles))
            done += handles
            if len(handles) < 500:
                worker.send(Command.ECHO_REQ, b"")  # all of it was dealt with
                worker.expect(Command.ECHO_RES)
                return done


def test_fifty_thousand_jobs_outlive_kill_9_and_each_is_run_once(server: WithQueue) -> None:
    handles = submit_many(server, 50_000)
    server.restart()
    assert server.status("f") == (50_000, 0, 0)
    assert run_all(server) == handles
    server.restart()
    assert server.status("f") == (0, 0, 0)
    [handle] = submit_many(server, 1)
    assert handle not in handles


def test_everything_about_a_job_outlives_a_restart(server: WithQueue) -> None:
    due = int(time.time()) + 2
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB_LOW_BG, b"f", b"low", b"\0\xff")
        client.send(Command.SUBMIT_JOB_HIGH_BG, b"f", b"high", b"")
        client.send(Command.SUBMIT_REDUCE_JOB_BACKGROUND, b"f", b"reduce", b"reducer", b"", b"w")
        client.send(Command.SUBMIT_JOB_EPOCH, b"f", b"later", b"%d" % due, b"w")
        client.send(Command.SUBMIT_JOB, b"f", b"foreground", b"w")
        handles = [client.expect(Command.JOB_CREATED).handle for _ in range(5)]
        server.restart()
    with Peer.connect(server.address) as worker:
        worker.send(Command.SUBMIT_JOB_BG, b"f", b"low", b"again")
        assert worker.expect(Command.JOB_CREATED).handle == handles[0]
        worker.send(Command.CAN_DO, b"f")
        jobs: list[Packet] = []
        while len(jobs) < 4:
            worker.send(Command.GRAB_JOB_ALL)
            job = worker.receive()
            if job.command == Command.NO_JOB:
                worker.send(Command.PRE_SLEEP)
                worker.expect(Command.NOOP)
            else:
                jobs.append(job)
                assert job.unique != b"later" or time.time() >= due
    later = [handles[3], b"f", b"later", b"w"]
    assert later in [job.fields for job in jobs]
    assert [job.fields for job in jobs if job.fields != later] == [
        [handles[1], b"f", b"high", b""],
        [handles[2], b"f", b"reduce", b"reducer", b"w"],
        [handles[0], b"f", b"low", b"\0\xff"],
    ]


def test_a_job_that_was_running_runs_again_and_a_foreground_job_that_a_background_one_joined_is_kept(
    server: WithQueue,
) -> None:
    with Peer.connect(server.address) as worker, Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"f", b"u", b"w")
        handle = client.expect(Command.JOB_CREATED).handle
        worker.send(Command.CAN_DO, b"f")
        worker.send(Command.GRAB_JOB)
        worker.expect(Command.JOB_ASSIGN)
        client.send(Command.SUBMIT_JOB_BG, b"f", b"u", b"w")
        assert client.expect(Command.JOB_CREATED).handle == handle
        server.restart()
    assert run_all(server) == [handle]


def test_a_kill_between_submissions_loses_nothing_that_was_acknowledged(server: WithQueue) -> None:
    acknowledged: set[bytes] = set()
    for _ in range(3):
        with Peer.connect(server.address) as client:
            client.send_bytes(b"".join(request(Command.SUBMIT_JOB_BG, b"f", b"", b"w") for _ in range(2000)))
            acknowledged |= {client.expect(Command.JOB_CREATED).handle for _ in range(700)}
            server.restart()
    done = run_all(server)
    assert acknowledged <= set(done)
    assert len(done) == len(set(done))


def test_term_leaves_a_whole_file(server: WithQueue) -> None:
    submit_many(server, 100)
    server.stop()
    assert server.process
    assert server.process.returncode == exits.DONE
    assert "stopped; jobs left in its queues: 100\n" in server.log
    assert not server.queue.with_name("queue-wal").exists()
    database = sqlite3.connect(server.queue)
    assert database.execute("SELECT count(*) FROM job").fetchone() == (100,)
    database.close()


def test_when_the_disk_is_full_jobs_are_refused_and_none_is_acknowledged_that_is_not_stored(
    server: WithQueue,
) -> None:
    server.stop()
    server.file_limit_bytes = 400_000
    server.start()
    acknowledged, refused = [], 0
    with Peer.connect(server.address) as client:
        for n in range(200):
            client.send(Command.SUBMIT_JOB_BG, b"f", b"u%d" % n, b"x" * 10_000)
            answer = client.receive()
            if answer.command == Command.JOB_CREATED:
                acknowledged.append(answer.handle)
            else:
                assert answer.fields == [b"QUEUE_ERROR", b"Job server cannot store the job"]
                refused += 1
        assert acknowledged
        assert refused
        client.send(Command.SUBMIT_JOB, b"foreground", b"", b"w")  # needs no disk
        client.expect(Command.JOB_CREATED)
        assert server.status("f") == (len(acknowledged), 0, 0)
        assert "cannot write the queue file" in server.log
        assert server.process
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        client.send(Command.SUBMIT_JOB_BG, b"f", b"space again", b"w")
        acknowledged.append(client.expect(Command.JOB_CREATED).handle)
    server.file_limit_bytes = 0
    server.restart()
    assert run_all(server) == acknowledged


def start_with(queue: Path) -> str:
    """What a job server says that must refuse this queue file."""
    done = subprocess.run(
        [sys.executable, "-m", "geard", "jobserver", "--listen", f"{HOST}:{free_port()}", "--queue", str(queue)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == exits.CONFIG, done
    assert "Traceback" not in done.stderr
    assert str(queue) in done.stderr
    return done.stderr


def test_a_file_that_is_no_queue_is_refused_with_what_to_do_and_left_alone(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    queue.write_bytes(b"Dear diary, " * 1000)
    assert "move the file away" in start_with(queue)
    assert queue.read_bytes() == b"Dear diary, " * 1000


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    queue = tmp_path / "queue"
    database = sqlite3.connect(queue)
    database.execute("CREATE TABLE diary (entry TEXT)")
    database.close()
    assert "not a queue of this version of geard" in start_with(queue)


def test_a_damaged_queue_is_refused_with_what_to_do(server: WithQueue) -> None:
    submit_many(server, 5000)
    server.stop()
    data = bytearray(server.queue.read_bytes())
    data[40_000:60_000] = b"\xff" * 20_000
    server.queue.write_bytes(data)
    assert ".recover" in start_with(server.queue)


def test_a_recovered_queue_may_have_lost_its_counter(server: WithQueue) -> None:
    handles = submit_many(server, 3, b"f")
    lost = {b"g": "DELETE FROM counter", b"h": "UPDATE counter SET next_number = 1"}
    for function, statement in lost.items():
        server.stop()
        with closing(sqlite3.connect(server.queue, isolation_level=None)) as database:
            database.execute(statement)
        server.start()
        handles += submit_many(server, 1, function)
    assert len(set(handles)) == 5
    server.restart()
    assert [handle for function in (b"f", *lost) for handle in run_all(server, function)] == handles


@pytest.mark.parametrize(
    "statement",
    ["INSERT INTO job VALUES (9, x'66', x'', 'text', 1, x'', 0)", "UPDATE job SET priority = 7", "DROP TABLE job"],
)
def test_a_queue_whose_rows_are_no_jobs_is_refused_with_what_to_do(server: WithQueue, statement: str) -> None:
    submit_many(server, 1)
    server.stop()
    with closing(sqlite3.connect(server.queue, isolation_level=None)) as database:
        database.execute(statement)
    assert ".recover" in start_with(server.queue)


def test_whatever_its_name_a_queue_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite has names that are none."""
    monkeypatch.chdir(tmp_path)
    store = Store(":memory:")
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == [":memory:"]


def test_two_job_servers_do_not_share_a_queue(server: WithQueue) -> None:
    assert "another job server uses this queue file" in start_with(server.queue)
