"""What nobody waits for is dropped as it arrives."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest

from geard import Client, JobTimeout
from geard.client.requests import MAX_DELAY_SECONDS, epoch_seconds
from geard.errors import InvalidRequest
from geard.protocol import Command
from tests.support.raw import Peer, ScriptedServer
from tests.test_client_faults import welcome

PIECE = bytes(100_000)
PIECES = 300


def streaming(peer: Peer, number: int) -> None:
    """Takes one job, and streams its data between the answers to echoes."""
    welcome(peer)
    peer.expect(Command.SUBMIT_JOB)
    peer.send(Command.JOB_CREATED, b"H:1")
    peer.send(Command.WORK_DATA, b"H:1", PIECE)
    while True:
        data = peer.expect(Command.ECHO_REQ).data
        for _ in range(PIECES // 10):
            peer.send(Command.WORK_DATA, b"H:1", PIECE)
            peer.send(Command.WORK_WARNING, b"H:1", PIECE)
        peer.send(Command.ECHO_RES, data)


def run(client: Client) -> None:
    with pytest.raises(JobTimeout):
        client.run("f", "x", timeout=1.0)


def run_with_events(client: Client) -> None:
    with pytest.raises(JobTimeout):
        client.run("f", "x", timeout=1.0, on_event=lambda event: None)


def submit_and_forget(client: Client) -> None:
    client.submit("f", "x")


def map_and_leave(client: Client) -> None:
    results = client.map("f", ["x"], timeout=1.0)
    with pytest.raises(JobTimeout):
        next(results)


def interrupted(client: Client) -> None:
    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        client.run("f", "x", on_event=interrupt)


@pytest.mark.parametrize("call", [run, run_with_events, submit_and_forget, map_and_leave, interrupted])
def test_the_data_of_a_job_that_nobody_waits_for_is_dropped_as_it_arrives(call: Callable[[Client], None]) -> None:
    with ScriptedServer(streaming) as server, Client(server.address) as client:
        call(client)
        gc.collect()
        tracemalloc.start()
        try:
            for _ in range(10):
                client.echo(b"x")
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert kept < 10 * len(PIECE)  # and not 600 times


def test_the_data_of_a_task_is_kept_for_as_long_as_the_task_is() -> None:
    with ScriptedServer(streaming) as server, Client(server.address) as client:
        task = client.submit("f", b"x", encoding="bytes")
        client.echo(b"x")
        assert len(task._submission.news) == 1 + 2 * (PIECES // 10)
        submission = task._submission
        del task
        assert submission.news == []


def test_a_number_of_seconds_that_was_meant_as_a_moment_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"a delay of 57 years.*write at=datetime\.fromtimestamp\(1790000000\)"):
        epoch_seconds(1790000000, 1790000000 - 60)
    assert epoch_seconds(MAX_DELAY_SECONDS, 1.0) == MAX_DELAY_SECONDS + 1
