"""`geard demo` as a newcomer runs it: in a pipe, on a terminal, and interrupted at any time."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import exits
from geard.cli.demo.jobs import Row
from geard.cli.demo.stage import row_line
from geard.client import Status
from tests.support.commands import Running, geard
from tests.support.left_behind import nothing_left
from tests.support.waiting import eventually


@pytest.fixture
def surroundings() -> Iterator[dict[str, str]]:
    """Environment variables for the demo, of which nothing may be left."""
    with nothing_left() as variables:
        yield variables


def test_it_shows_each_kind_of_job_in_plain_lines_where_there_is_no_terminal(surroundings: dict[str, str]) -> None:
    done = geard("demo", variables=surroundings)
    lines = done.stdout.decode()
    assert (done.returncode, done.stderr) == (exits.DONE, b""), done
    assert "reverse draeg morf olleh -> hello from geard (" in lines
    assert "SO MUCH / DEPENDS UPON / A RED WHEEL / BARROW (" in lines
    assert "count_slowly 6 -> counted to 6 (" in lines
    assert 'divide {"dividend": 22, "divisor": 7} -> {"quotient": 3.142857142857143} (' in lines
    assert "fail on purpose failed: ValueError: cannot do anything with 'on purpose' (" in lines
    assert re.search(r"reverse 20,000 jobs -> [\d,]+ jobs a second", lines)
    assert "\x1b" not in lines


def test_it_draws_bars_on_a_terminal_and_says_what_to_try_next(surroundings: dict[str, str]) -> None:
    with Running("demo", terminal=True, variables=surroundings) as running:
        running.sees(r"count_slowly  12\s+━+ \d+/12")
        running.sees(r"✓  count_slowly  6\s+counted to 6")
        running.sees("run --embedded .*# in this terminal")
        running.sees("submit reverse hello")
        assert running.ends() == exits.DONE


@pytest.mark.parametrize("moment", ["runs Python functions", "starting", "A job server and", "count_slowly  12.* 3/12"])
def test_ctrl_c_ends_it_at_any_moment(surroundings: dict[str, str], moment: str) -> None:
    with Running("demo", terminal=True, variables=surroundings) as running:
        running.sees(moment)
        running.interrupt()
        assert running.ends() == exits.INTERRUPTED, running.text
        assert "geard: interrupted" in running.text
        assert "Traceback" not in running.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_cleans_up_when_it_is_terminated_or_its_terminal_is_closed(
    surroundings: dict[str, str], number: signal.Signals
) -> None:
    with Running("demo", variables=surroundings) as running:
        eventually(lambda: list(Path(surroundings["TMPDIR"]).glob("geard-demo-*/log")), what="the start of the daemon")
        running.process.send_signal(number)
        assert running.ends() == exits.INTERRUPTED


def test_ctrl_c_again_and_again_does_not_stop_the_cleaning_up(surroundings: dict[str, str]) -> None:
    with Running("demo", terminal=True, variables=surroundings) as running:
        running.sees("count_slowly  12")
        while running.process.poll() is None:
            running.interrupt()
        assert running.ends() == exits.INTERRUPTED, running.text


def test_a_daemon_that_cannot_start_is_told_with_its_reason(surroundings: dict[str, str]) -> None:
    too_long_for_a_socket = Path(surroundings["TMPDIR"], "x" * 100)
    too_long_for_a_socket.mkdir()
    done = geard("demo", variables={"TMPDIR": str(too_long_for_a_socket)})
    assert done.returncode == exits.FAILED
    assert b"geard: the daemon does not start:\n" in done.stderr
    assert b"control_socket: " in done.stderr
    assert b"Traceback" not in done.stderr
    too_long_for_a_socket.rmdir()  # it is empty


def test_a_row_is_a_line_that_says_how_far_its_job_is() -> None:
    row = Row("count_slowly", "a workload too long for its place")
    row.progress = Status(1, 4)
    assert re.fullmatch(r". {2}count_slowly {2}a workload too … {2}━{24} 1/4", row_line(row, 0.0).plain)
    row.text, row.seconds = "one\ntwo\n", 0.1
    assert row_line(row, 0.0).plain == "✓  count_slowly  a workload too …  one / two"
    row.failed = True
    assert row_line(row, 0.0).plain.startswith("✗  count_slowly")
