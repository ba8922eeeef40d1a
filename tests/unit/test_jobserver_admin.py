"""The answers to admin commands in pieces, while the state changes between them, and whatever names there are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from geard.errors import GeardError
from geard.jobserver import admin, assignments
from geard.jobserver.admin import RemotePeer
from geard.jobserver.assignments import STEP
from geard.jobserver.queues import MAX_NAME_BYTES
from geard.jobserver.requests import HANDLERS
from geard.jobserver.rules import Rules
from geard.jobserver.state import Ability, Function
from geard.protocol import RESPONSE, Command, Decoder, request
from geard.protocol.admin import FunctionStatus, JobStatus, PriorityStatus, WorkerStatus, answer_to_list

NAMES = st.binary(max_size=8) | st.text("aZ1 \t\n.\r\x1b\\:é\u202eERR", max_size=8).map(str.encode)


def ask(rules: Rules, line: bytes, *peers: RemotePeer) -> bytes:
    return b"".join(admin.answer(rules, peers, line))


def lines(data: bytes) -> list[bytes]:
    found = answer_to_list(data)
    assert found is not None
    return found


@given(st.lists(NAMES, max_size=6, unique=True), NAMES, NAMES)
def test_every_name_is_one_cell_of_one_line_for_every_reader(
    names: list[bytes], client_id: bytes, unique: bytes
) -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    names = [name.replace(b"\0", b"") for name in dict.fromkeys(names)]
    names = list(dict.fromkeys(names))
    peer.client_id = client_id
    for name in names:
        rules.can_do(peer, name)
        rules.submit(peer, name, unique.replace(b"\0", b""), b"w", background=True)
    status = lines(ask(rules, b"status"))
    assert [row.split(b"\t")[1:] for row in status] == [[b"1", b"0", b"1"]] * len(names)
    assert len({row.function for row in map(FunctionStatus.parse, status)}) <= len(names)
    priorities = [PriorityStatus.parse(row) for row in lines(ask(rules, b"prioritystatus"))]
    assert [(row.high, row.normal, row.low, row.workers) for row in priorities] == [(0, 1, 0, 1)] * len(names)
    [worker] = lines(ask(rules, b"workers", peer))
    assert len(WorkerStatus.parse(worker).functions) == len([name for name in names if name])
    assert [row.retries for row in map(JobStatus.parse, lines(ask(rules, b"show jobs")))] == [0] * len(names)
    uniques = lines(ask(rules, b"show unique jobs"))
    assert len(uniques) == len(names)
    everything = b"".join([*status, worker, *uniques]).decode()
    assert everything.replace("\t", "").isprintable()


@given(st.binary(max_size=40) | st.text("maxqueue f-0123456789 +x\r\t", max_size=40).map(str.encode))
@example(b"maxqueue f --5")
@example(b"maxqueue f " + b"9" * 5000)
@example(b"maxqueue f 2147483648")
@example("maxqueue f ²".encode())
@example(b"maxqueue f 1 2 x")
@example(b"maxqueue " + b"f" * 5000 + b" 1")
@example(b"create function " + b"f" * 5000)
@example(b"cancel job " + b"\xff" * 200)
@example(b"show unique jobs now")
def test_any_line_is_answered_with_lines(line: bytes) -> None:
    rules = Rules()
    answer = ask(rules, line)
    assert answer.endswith(b"\n")
    if line.startswith(b"maxqueue f "):
        assert answer.startswith((b"OK", b"ERR INVALID_ARGUMENTS"))


def test_a_number_that_cannot_be_is_said_to_be_none_and_changes_nothing() -> None:
    rules = Rules()
    assert ask(rules, b"maxqueue f 5") == b"OK\r\n"
    for word in (b"--5", b"five", b"9" * 30, b"9" * 5000, b"2147483648", b"1 2 x"):
        expected = b"ERR INVALID_ARGUMENTS maxqueue+takes+numbers+of+jobs+from+0+to+2147483647\r\n"
        assert ask(rules, b"maxqueue f " + word) == expected
    assert rules.limits == {b"f": (5, 5, 5)}
    assert ask(rules, b"maxqueue f -5") == b"OK\r\n"  # as in gearmand: none
    assert rules.limits == {}


PACKETS = st.tuples(
    st.sampled_from([command for command in Command if command != Command.UNUSED]),
    st.lists(NAMES | st.sampled_from([b"H:localhost:1", b"f", b"-1", b"9" * 40, b"exceptions", b"u" * 65]), max_size=8),
)


@given(st.lists(PACKETS, max_size=30))
def test_any_packet_is_answered_or_refused_and_what_is_sent_can_be_read(
    packets: list[tuple[Command, list[bytes]]],
) -> None:
    rules, peer, other = Rules(job_retries=2), RemotePeer(7, "::1"), RemotePeer(8, "::1")
    now = 1e9
    for command, fields in packets:
        now += 1
        try:
            data = request(command, *fields)
        except GeardError:
            continue
        decoder = Decoder(b"\0REQ")
        decoder.feed(data)
        for packet in decoder:
            HANDLERS[packet.command](rules, other if len(fields) % 2 else peer, packet.fields, now)
        rules.tick(now)
        for line in (b"status", b"show jobs", b"workers"):
            lines(ask(rules, line, peer, other))
    heard = Decoder(RESPONSE)
    heard.feed(b"".join(peer.outbox + other.outbox))
    list(heard)
    assert not heard.in_packet
    for each in (peer, other):
        for _ in rules.depart(each):
            pass
    assert all(job.background for job in rules.jobs.values())


def test_a_list_in_pieces_over_changing_state_has_each_line_once() -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    count = admin.ROWS * 4
    for number in range(count):
        rules.submit(peer, b"f%d" % number, b"u%d" % number, b"w", background=True)
    answers = [
        admin.answer(rules, (), line) for line in (b"status", b"prioritystatus", b"show jobs", b"show unique jobs")
    ]
    first = [next(answer) for answer in answers]
    for number in range(count):
        if number % 2:  # gone, and one of the same name is new
            rules.cancel(b"H:localhost:%d" % (number + 1))
            rules.submit(peer, b"f%d" % number, b"u%d" % number, b"w", background=True)
    for piece, answer in zip(first, answers, strict=True):
        data = piece + b"".join(answer)
        assert data.endswith(b"\n.\n")
        rows = lines(data)
        assert len(set(rows)) == len(rows)
        assert count // 2 <= len(rows) < count
        assert piece.count(b"\n") == admin.ROWS


def test_a_function_is_known_while_there_is_a_job_a_worker_a_limit_or_an_operator_who_wants_it() -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    rules.submit(peer, b"job", b"", b"w", background=True)
    rules.can_do(peer, b"worker")
    ask(rules, b"create function created")
    ask(rules, b"maxqueue limited 5")
    rules.submit(peer, b"limited", b"", b"w", background=True)
    assert set(rules.functions) == {b"job", b"worker", b"created", b"limited"}
    for handle in list(rules.jobs):
        rules.cancel(handle)
    rules.cant_do(peer, b"worker")
    assert set(rules.functions) == {b"created", b"limited"}
    ask(rules, b"maxqueue limited")
    assert ask(rules, b"drop function created") == b"OK\r\n"
    assert not rules.functions


def steps(errand: Iterator[None]) -> int:
    return sum(1 for _ in errand)


def test_a_departure_with_much_to_do_is_done_in_steps() -> None:
    rules, peer, worker = Rules(), RemotePeer(7, "::1"), RemotePeer(8, "::1")
    for number in range(STEP * 3):
        rules.can_do(worker, b"f%d" % number)
        rules.submit(peer, b"f%d" % number, b"", b"w", background=True)
        rules.submit(peer, b"g", b"", b"w")
        assert rules.grab(worker, 0.0)
    assert steps(rules.depart(worker)) >= 6
    assert steps(rules.depart(peer)) >= 3
    assert len(rules.jobs) == STEP * 3
    assert not any(job.worker for job in rules.jobs.values())
    assert not any(function.workers or function.running for function in rules.functions.values())


def test_a_worker_that_takes_back_many_functions_leaves_an_errand() -> None:
    rules, worker = Rules(), RemotePeer(8, "::1")
    for number in range(STEP * 10):
        rules.can_do(worker, b"f%d" % number)
    rules.reset_abilities(worker)
    assert steps(rules.errands.pop(worker)) > 3
    assert not rules.functions
    assert not worker.abilities
    rules.can_do(worker, b"f")
    rules.reset_abilities(worker)
    assert not rules.errands


def test_a_job_is_not_lost_when_its_worker_goes_or_runs_over_amid_an_errand() -> None:
    rules, peer, worker = Rules(), RemotePeer(7, "::1"), RemotePeer(8, "::1")
    count = STEP * 10
    rules.can_do(worker, b"f", timeout_seconds=1.0)
    for _ in range(count):
        rules.submit(peer, b"f", b"", b"w", background=True)
        rules.grab(worker, 0.0)
    rules.reset_abilities(worker)
    assert 0 < rules.functions[b"f"].running < count
    rules.tick(2.0)
    assert 0 < rules.functions[b"f"].running < count
    assert steps(rules.depart(worker)) > 1
    assert rules.functions[b"f"].running == 0
    assert rules.functions[b"f"].queued(1) == count
    assert not rules.errands


def test_names_and_the_number_of_functions_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    long = b"f" * (MAX_NAME_BYTES + 1)
    rules.can_do(peer, long)
    rules.submit(peer, long, b"", b"w")
    HANDLERS[Command.SET_CLIENT_ID](rules, peer, [long], 0.0)
    assert len(peer.outbox) == 3
    assert all(b"ARGUMENT_TOO_LARGE" in packet for packet in peer.outbox)
    assert not rules.functions
    assert peer.client_id == b"-"
    monkeypatch.setattr(assignments, "MAX_ABILITIES", 100)
    peer.abilities = {Function(b"%d" % number): Ability() for number in range(100)}
    rules.can_do(peer, b"one more")
    assert b"Too many functions" in peer.outbox[-1]
    assert not rules.functions


@pytest.mark.parametrize("state", ["queued", "delayed"])
def test_what_was_cancelled_is_swept_out(state: str) -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    for number in range(10_000):
        due = 1e9 + number if state == "delayed" else 0.0
        rules.submit(peer, b"f", b"", b"w", background=True, due=due)
        if number:
            rules.cancel(b"H:localhost:%d" % (number + 1))
    assert len(rules.jobs) == 1
    assert len(rules.functions[b"f"].queues[1]) < 300
    assert len(rules._delayed) < 300


def test_a_unique_of_several_functions_is_found_as_long_as_one_of_them_has_it() -> None:
    rules, peer = Rules(), RemotePeer(7, "::1")
    for number in range(5):
        rules.submit(peer, b"f%d" % number, b"u", b"w", background=True)
    for number in (2, 0, 4, 1, 3):
        job = rules.find_unique(b"u")
        assert job is not None
        assert rules.jobs[job.handle] is job
        rules.cancel(b"H:localhost:%d" % (number + 1))
    assert rules.find_unique(b"u") is None
    assert not rules._more_uniques
