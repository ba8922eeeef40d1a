"""Jobs that are to be stored at the end of a turn: whatever else the turn holds, an acknowledged one is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import cast

import gevent
import pytest

from geard.jobserver import answers
from geard.jobserver.commits import Commits
from geard.jobserver.rules import Rules
from geard.jobserver.state import Job, Peer
from geard.jobserver.store import CannotStore, Store

FULL = answers.error("QUEUE_ERROR", "full")


def depart(rules: Rules, peer: Peer) -> None:
    for _ in rules.depart(peer):
        pass


def test_who_leaves_before_his_job_is_refused_harms_no_other() -> None:
    rules, leaves, stays = Rules(durable=True), Peer(), Peer()
    for peer in (leaves, stays):
        rules.submit(peer, b"f", b"", b"w", background=True)
    depart(rules, leaves)
    rules.refuse("full")
    assert (leaves.outbox, stays.outbox) == ([], [FULL])
    assert not rules.jobs
    assert not rules.functions


@pytest.mark.parametrize("runs", [False, True])
@pytest.mark.parametrize("fits", [True, False])
def test_a_background_job_that_was_a_foreground_job_outlives_its_client_in_the_same_turn(
    runs: bool, fits: bool
) -> None:
    rules, waits, worker, submits = Rules(durable=True), Peer(), Peer(), Peer()
    rules.submit(waits, b"f", b"u", b"w")
    if runs:
        rules.can_do(worker, b"f")
        assert rules.grab(worker, 0)
    rules.submit(submits, b"f", b"u", b"w", background=True)
    depart(rules, waits)
    depart(rules, worker)
    if not fits:
        rules.refuse("full")
        assert submits.outbox == [FULL]
        assert not rules.jobs
        return
    [job] = rules.to_store()
    rules.admit()
    assert submits.outbox == [answers.job_created(job.handle)]
    other = Peer()
    rules.can_do(other, b"f")
    assert rules.grab(other, 0) is job


def test_a_foreground_job_goes_on_when_the_background_one_that_joined_it_is_refused() -> None:
    rules, waits, submits = Rules(durable=True), Peer(), Peer()
    rules.submit(waits, b"f", b"u", b"w")
    rules.submit(submits, b"f", b"u", b"w", background=True)
    rules.refuse("full")
    assert submits.outbox == [FULL]
    assert len(rules.jobs) == 1
    depart(rules, waits)
    assert not rules.jobs


class FakeStore:
    """A queue file whose disk may be full."""

    def __init__(self) -> None:
        self.full = True
        self.attempts = 0
        self.jobs: set[int] = set()

    def commit(self, added: Iterable[Job], ended: Iterable[int], next_number: int) -> None:
        self.attempts += 1
        if self.full:
            raise CannotStore("cannot write the queue file: the disk is full")
        self.jobs = self.jobs.union(job.number for job in added).difference(ended)


def test_a_queue_file_that_cannot_be_written_is_said_once_and_so_is_that_it_can_be_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    rules, store = Rules(durable=True), FakeStore()
    commits = Commits(cast("Store", store), rules, retry_seconds=0.001)
    store.full = False
    rules.submit(Peer(), b"f", b"", b"w", background=True)
    commits.end_turn()
    [job] = rules.jobs.values()
    assert store.jobs == {job.number}
    store.full = True
    rules.cancel(job.handle)

    def turns_until(attempts: int) -> None:
        deadline = time.monotonic() + 30
        while store.attempts < attempts:
            assert time.monotonic() < deadline
            commits.end_turn()
            gevent.sleep(0)

    turns_until(5)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    store.full = False
    turns_until(6)
    assert not store.jobs
    assert [record.getMessage() for record in caplog.records[1:]] == ["the queue file can be written again"]
