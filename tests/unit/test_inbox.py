"""The inbox of an exchange: whatever comes, in whatever pieces, is given to whom it belongs."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.client.inbox import Inbox
from geard.client.reply import Bell, Reply, Submission
from geard.errors import ProtocolError, ResultTooLarge, ServerError
from geard.protocol import Command
from geard.protocol.encode import response

ENDS = (Command.WORK_COMPLETE, Command.WORK_FAIL, Command.WORK_EXCEPTION)
JOBS = st.lists(
    st.tuples(
        st.integers(0, 5),  # the handle: equal ones are one job to the job server
        st.lists(st.binary(max_size=8), max_size=2),  # pieces of the result
        st.sampled_from(ENDS),
        st.booleans(),  # whether an answer to another question comes after its JOB_CREATED
    ),
    max_size=12,
)


@given(JOBS, st.lists(st.integers(1, 60), min_size=1), st.data())
def test_each_submission_gets_its_own_however_the_stream_is_cut(
    jobs: list[tuple[int, list[bytes], Command, bool]], cuts: list[int], data: st.DataObject
) -> None:
    inbox = Inbox(max_packet_bytes=1 << 20)
    finished: deque[Submission] = deque()
    submissions = [Submission(finished=finished) for _ in jobs]
    questions = []
    created, work, mates = [], [], dict[bytes, list[int]]()
    for number, (key, pieces, end, asks) in enumerate(jobs):
        handle = b"H:x:%d" % key
        inbox.owed.append(submissions[number])
        created.append(response(Command.JOB_CREATED, handle))
        if asks:
            questions.append(Reply(Command.ECHO_RES))
            inbox.owed.append(questions[-1])
            created.append(response(Command.ECHO_RES, b"%d" % number))
        mates.setdefault(handle, []).append(number)
        if len(mates[handle]) == 1:
            work.append([response(Command.WORK_DATA, handle, piece) for piece in pieces])
            last = (handle,) if end is Command.WORK_FAIL else (handle, b"end of %d" % number)
            work[-1].append(response(end, *last))
    # As a job server does it: what it answers first, then what the workers send, one copy to each that has submitted.
    packets = list(created)
    for handle, job in zip(mates, work, strict=True):
        packets += [packet for packet in job for _ in mates[handle]]
    stream = b"".join(packets)
    bells: list[Bell] = []
    while stream:
        cut = data.draw(st.sampled_from(cuts))
        inbox.chunks.append(stream[:cut])
        inbox.deliver(bells)
        stream = stream[cut:]
    assert inbox.is_empty
    assert not inbox.owed
    assert not inbox.running
    for numbers in mates.values():
        _, pieces, end, _ = jobs[numbers[0]]
        for number in numbers:
            submission = submissions[number]
            assert submission.ended()
            assert [packet.fields[1] for packet in submission.news] == pieces
            if end is Command.WORK_COMPLETE:
                assert (submission.result, submission.end) == (b"end of %d" % numbers[0], None)
            else:
                assert submission.result is None
                assert submission.end is not None
                assert submission.end.command is end
    assert sorted(map(id, finished)) == sorted(map(id, submissions))
    assert all(question.answered() for question in questions)


@pytest.mark.parametrize(
    "packet",
    [
        response(Command.JOB_CREATED, b"H:x:1"),
        response(Command.WORK_COMPLETE, b"H:x:1", b"result"),
        response(Command.WORK_DATA, b"H:x:1", b"piece"),
        response(Command.NOOP),
    ],
)
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("more", [b"", response(Command.NOOP)])
def test_what_belongs_to_nobody_is_an_error(packet: bytes, asked: bool, more: bytes) -> None:
    inbox = Inbox(max_packet_bytes=1 << 20)
    if asked:
        inbox.owed.append(Reply(Command.ECHO_RES))
    inbox.chunks.append(packet + more)
    with pytest.raises(ProtocolError, match=r"came"):
        inbox.deliver([])


def test_an_error_and_what_is_too_large_are_for_him_alone_whose_they_are() -> None:
    inbox, bells = Inbox(max_packet_bytes=100), list[Bell]()
    refused, large, fine = Submission(), Submission(), Submission()
    inbox.owed.extend((refused, large, fine))
    for packet in (
        response(Command.ERROR, b"NO", b"not you"),
        response(Command.JOB_CREATED, b"H:x:1"),
        response(Command.JOB_CREATED, b"H:x:2"),
        response(Command.WORK_COMPLETE, b"H:x:1", b"x" * 100),
        response(Command.WORK_COMPLETE, b"H:x:2", b"fine"),
    ):
        inbox.chunks.append(packet)
        inbox.deliver(bells)
    assert isinstance(refused.error, ServerError)
    assert large.result is None
    assert large.end is not None
    assert fine.result == b"fine"
    question = Reply(Command.ECHO_RES)
    inbox.owed.append(question)
    inbox.chunks.append(response(Command.ECHO_RES, b"x" * 100))
    inbox.deliver(bells)
    assert isinstance(question.error, ResultTooLarge)
