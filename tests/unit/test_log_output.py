"""What is printed becomes lines, each with its job."""

from __future__ import annotations

import io
import os
from typing import Any

import pytest

from geard.logs import output
from geard.logs.output import LONGEST_LINE_BYTES, LineOutput


class Work:
    """Something that stands for a job."""

    function = handle = unique = server = ""

    def __init__(self) -> None:
        self.answered = False


class Printed:
    """A stream, whose job the test sets, and the lines that came of it."""

    def __init__(self) -> None:
        self.job: Any = None
        self.lines: list[tuple[str, Any]] = []
        self.binary = LineOutput("stdout", 1, lambda _, text, job: self.lines.append((text, job)), lambda: self.job)
        self.text = io.TextIOWrapper(self.binary, encoding="utf-8", errors="backslashreplace", write_through=True)


@pytest.fixture
def printed() -> Printed:
    return Printed()


def test_a_line_is_out_when_it_ends(printed: Printed) -> None:
    print("a", 1, end="", file=printed.text)
    assert not printed.lines
    print(" b\r\nc", file=printed.text)
    assert printed.lines == [("a 1 b", None), ("c", None)]


def test_what_is_written_as_bytes_and_as_text_makes_one_line(printed: Printed) -> None:
    printed.text.write("a")
    printed.text.buffer.write(b"b\xff\n")
    assert printed.lines == [("ab\\xff", None)]


def test_what_a_job_did_not_end_is_a_line_of_its_own_once_the_job_has(printed: Printed) -> None:
    first, printed.job = Work(), None
    printed.job = first
    printed.text.write("half")
    printed.binary.end_partials()
    assert not printed.lines, "the job goes on"
    first.answered = True
    printed.binary.end_partials()
    assert printed.lines == [("half", first)]


def test_the_next_job_of_the_same_greenlet_does_not_go_on_with_the_line(printed: Printed) -> None:
    first, second = Work(), Work()
    printed.job = first
    printed.text.write("half")
    printed.job = second
    printed.text.write("whole\n")
    assert printed.lines == [("half", first), ("whole", second)]


def test_a_line_without_an_end_is_cut_where_it_is_too_long(printed: Printed) -> None:
    printed.text.write("x" * (2 * LONGEST_LINE_BYTES + 1))
    assert [len(text) for text, _ in printed.lines] == [LONGEST_LINE_BYTES, LONGEST_LINE_BYTES, 1]


def test_a_line_that_nothing_is_added_to_is_written_in_the_end(
    printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed.text.write("> ")
    printed.binary.end_partials()
    assert not printed.lines
    monkeypatch.setattr(output, "PARTIAL_SECONDS", -1.0)
    printed.binary.end_partials()
    assert printed.lines == [("> ", None)]


def test_a_forked_child_writes_what_it_flushes(printed: Printed, monkeypatch: pytest.MonkeyPatch) -> None:
    printed.text.write("half")
    printed.text.flush()
    assert not printed.lines, "whole lines are out already"
    monkeypatch.setattr(os, "getpid", lambda: -1)
    printed.text.flush()
    assert printed.lines == [("half", None)]
