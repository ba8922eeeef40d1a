"""The admin protocol's text: what gearmand 1.1.20 prints is read, and written, to the byte."""

from __future__ import annotations

import re

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
def test_gearmands_lines_are_read(line: bytes, row: Row) -> None:
    assert type(row).parse(line.rstrip(b"\n")) == row


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


NAMES = st.binary(max_size=6) | st.text("aZ1 \t\n.\r\x1b\\:é\u202e").map(str.encode)
COUNTS = st.integers(0, 2**32)


@given(st.lists(st.tuples(NAMES, COUNTS, COUNTS, COUNTS), max_size=5))
def test_whatever_gearmand_has_for_names_the_numbers_of_a_list_are_read(
    rows: list[tuple[bytes, int, int, int]],
) -> None:
    rows = [row for row in rows if not re.search(rb"\t\d+\s*\Z|\t\d+\t|\n\.\n|\A\.\n", row[0] + b"\n")]
    data = b"".join(b"%b\t%d\t%d\t%d\n" % row for row in rows) + b".\n"
    lines = admin.answer_to_list(data)
    assert lines is not None
    assert [(row.total, row.running, row.workers) for row in FunctionStatus.parse_list(lines)] == [r[1:] for r in rows]


@given(st.lists(st.tuples(COUNTS, NAMES, st.lists(NAMES, max_size=3)), max_size=5))
def test_whatever_gearmand_has_for_names_each_worker_is_read(rows: list[tuple[int, bytes, list[bytes]]]) -> None:
    rows = [
        row for row in rows if not re.search(rb"\n\d+ [0-9A-Fa-f:.%]\S* |\n\.\n", b" ".join((row[1], *row[2])) + b"\n")
    ]
    data = b"".join(b"%d ::1 %b :%b\n" % (fd, name, b"".join(b" " + f for f in names)) for fd, name, names in rows)
    lines = admin.answer_to_list(data + b".\n")
    assert lines is not None
    assert [row.fd for row in WorkerStatus.parse_list(lines)] == [fd for fd, _, _ in rows]


def test_names_with_tabs_and_newlines_are_read_as_they_are() -> None:
    lines = [b"a\tb\t0\t0\t1", b"", b"n", b"m\t2\t1\t1", b"f\t0\t0\t1"]
    assert FunctionStatus.parse_list(lines) == [
        FunctionStatus("a\tb", 0, 0, 1),
        FunctionStatus("\nn\nm", 2, 1, 1),
        FunctionStatus("f", 0, 0, 1),
    ]
    lines = [b"36 127.0.0.1 id", b"x : n", b"m a\tb t", b"37 127.0.0.1 - :"]
    assert WorkerStatus.parse_list(lines) == [
        WorkerStatus(36, "127.0.0.1", "id\nx", ("n\nm", "a\tb", "t")),
        WorkerStatus(37, "127.0.0.1", "-"),
    ]
    for rows in (FunctionStatus, WorkerStatus):
        with pytest.raises(ProtocolError, match="expected a line of"):
            rows.parse_list([b"220 smtp ready"])


def test_a_name_that_is_not_utf8_is_shown_and_not_an_error() -> None:
    assert FunctionStatus.parse(b"f\xff\t0\t0\t0").function == r"f\xff"


def test_a_list_is_complete_with_its_dot_wherever_it_was_cut() -> None:
    whole = b"a\t1\t0\t0\n.\t2\t0\t0\n.\n"
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


def test_a_function_may_be_called_err() -> None:
    line = b"ERR UNKNOWN_JOB\t1\t0\t0\n"
    assert admin.answer_to_list(line) is None
    assert admin.answer_to_list(line + b".\n") == [line[:-1]]


def test_a_line_that_is_neither_ok_nor_an_error_is_a_protocol_error() -> None:
    assert admin.answer_line(b"OK 1.1.20+ds\n") == b"1.1.20+ds"
    assert admin.answer_line(b"OK\r\n") == b""
    with pytest.raises(ProtocolError, match="expected a line with OK or ERR"):
        admin.answer_line(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("word", ["", "a b", "a\nshutdown", "a\0b", " a", "a\t"])
def test_a_name_that_the_text_protocol_cannot_carry_is_refused(word: str) -> None:
    with pytest.raises(InvalidRequest):
        admin.request("drop", "function", word)
