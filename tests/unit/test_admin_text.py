"""The admin protocol's text: what gearmand 1.1.20 prints is read, and written, to the byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.errors import InvalidRequest, ProtocolError, ServerError
from geard.protocol import admin
from geard.protocol.admin import FunctionStatus, JobStatus, PriorityStatus, Row, WorkerStatus

AS_PRINTED: list[tuple[bytes, Row]] = [
    (b"foo\t3\t2\t1\n", FunctionStatus("foo", total=3, running=2, workers=1)),
    (b"\t0\t0\t0\n", FunctionStatus("", 0, 0, 0)),
    (b"foo\t1\t2\t3\t4\n", PriorityStatus("foo", high=1, normal=2, low=3, workers=4)),
    (b"H:vm:1\t0\t1\t0\n", JobStatus("H:vm:1", retries=0, ignored=True, queued=False)),
    (b"37 127.0.0.1 my id : bar foo\n", WorkerStatus(37, "127.0.0.1", "my id", ("bar", "foo"))),
    (b"36 127.0.0.1 - :\n", WorkerStatus(36, "127.0.0.1", "-", ())),
    (b"5 ::1 a:b : f\n", WorkerStatus(5, "::1", "a:b", ("f",))),
]


@pytest.mark.parametrize(("line", "row"), AS_PRINTED)
def test_gearmands_lines_are_read_and_written_alike(line: bytes, row: Row) -> None:
    assert type(row).parse(line.rstrip(b"\n")) == row
    assert row.format() == line


def test_a_newer_servers_columns_are_ignored() -> None:
    assert FunctionStatus.parse(b"foo\t3\t2\t1\t9\tx") == FunctionStatus("foo", 3, 2, 1)
    assert JobStatus.parse(b"H:1\t0\t0\t1\tnew") == JobStatus("H:1", 0, False, True)


@pytest.mark.parametrize("line", [b"", b"foo", b"foo\t1\t2", b"foo\ta\t2\t3", b"OK"])
def test_a_line_of_something_else_is_a_protocol_error_that_shows_it(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected a line of function, total, running, workers"):
        FunctionStatus.parse(line)


@pytest.mark.parametrize("line", [b"", b"37", b"37 127.0.0.1 :", b"x 127.0.0.1 - : f", b"37 127.0.0.1 - f"])
def test_a_worker_line_that_is_none_is_a_protocol_error(line: bytes) -> None:
    with pytest.raises(ProtocolError, match="expected a line of fd, address, client_id"):
        WorkerStatus.parse(line)


NAMES = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Z")), min_size=1)
COUNTS = st.integers(0, 2**32)


@given(NAMES, COUNTS, COUNTS, COUNTS)
def test_every_row_is_read_back_as_it_was_written(name: str, first: int, second: int, third: int) -> None:
    for row in (FunctionStatus(name, first, second, third), PriorityStatus(name, first, second, third, 1)):
        assert type(row).parse(row.format()[:-1]) == row


@given(NAMES.filter(lambda name: ":" not in name), st.lists(NAMES.filter(lambda name: ":" not in name)), COUNTS)
def test_every_worker_is_read_back_as_it_was_written(client_id: str, functions: list[str], fd: int) -> None:
    row = WorkerStatus(fd, "127.0.0.1", client_id, tuple(functions))
    assert WorkerStatus.parse(row.format()[:-1]) == row


def test_a_name_that_is_not_utf8_is_shown_and_not_an_error() -> None:
    assert FunctionStatus.parse(b"f\xff\t0\t0\t0").function == r"f\xff"


def test_a_list_is_complete_with_its_dot_wherever_it_was_cut() -> None:
    whole = admin.format_list([FunctionStatus("a", 1, 0, 0), FunctionStatus(".", 2, 0, 0)])
    assert whole == b"a\t1\t0\t0\n.\t2\t0\t0\n.\n"
    for cut in range(len(whole)):
        assert admin.answer_to_list(whole[:cut]) is None
    assert admin.answer_to_list(whole) == [b"a\t1\t0\t0", b".\t2\t0\t0"]
    assert admin.answer_to_list(b".\n") == []


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"ERR UNKNOWN_COMMAND Unknown+server+commandbogus\r\n", "UNKNOWN_COMMAND", "Unknown server commandbogus"),
        (b"ERR UNKNOWN_JOB\r\n", "UNKNOWN_JOB", "unknown job"),
        (b"ERR function not found\r\n", "ERR", "function not found"),
    ],
)
def test_an_error_says_what_the_job_server_said(line: bytes, code: str, text: str) -> None:
    for read in (admin.answer_line, admin.answer_to_list):
        with pytest.raises(ServerError) as caught:
            read(line)
        assert (caught.value.code, caught.value.text) == (code, text)


def test_a_line_that_is_neither_ok_nor_an_error_is_a_protocol_error() -> None:
    assert admin.answer_line(b"OK 1.1.20+ds\n") == b"1.1.20+ds"
    assert admin.answer_line(b"OK\r\n") == b""
    with pytest.raises(ProtocolError, match="expected a line with OK or ERR"):
        admin.answer_line(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("word", ["", "a b", "a\nshutdown", "a\0b", " a", "a\t"])
def test_a_name_that_the_text_protocol_cannot_carry_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        admin.request("drop", "function", word)
