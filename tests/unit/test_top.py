"""The screen of `geard top`: what is drawn of which Snapshots, within which bounds; keys; and a failure as lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from geard.cli.failures import drawn
from geard.cli.top.command import turned
from geard.cli.top.draw import COLUMNS, FUNCTIONS, JOBS, PARTS, View, draw, rates
from geard.cli.top.look import Look, Watcher
from geard.cli.top.report import report
from geard.cli.top.terminal import keys_of
from geard.errors import CannotConnect, GeardError
from geard.messages import RunningJob
from geard.monitor.problems import Finding
from geard.stats.failures import Failure
from geard.stats.snapshot import Build, FunctionStats, GenerationStats, Recent, ServerStats, Snapshot
from geard.supervisor.answers import JobPage, JobView, Request
from tests.support.fake_supervisor import process

HOSTILE = "\x1b[2Jowned\u202e\n數字" * 20


def snapshot(time: float = 1000.0, functions: dict[str, FunctionStats] | None = None, **fields: Any) -> Snapshot:
    known: dict[str, Any] = {
        "pid": 4700, "hostname": "host", "build": Build("0.1.0", "3.13", "25"), "config": "/etc/geard.yaml",
        "state": "running", "age_seconds": 90.0, "memory_bytes": 1, "generation": 3,
        "generations": (GenerationStats(3, "current", (process(4711), process(4712))),), "recent": Recent(),
        "functions": functions or {}, "servers": {"gear1:4730": ServerStats(connected=2)}, "reloads": {},
        "last_reload_time": 0.0, "last_refusal": "", "worker_ends": {}, "recent_worker_deaths": 0, "failures": (),
        "last_failure_number": 0,
    }  # fmt: skip
    return Snapshot(time, **(known | fields))


def jobs(count: int, function: str = "resize") -> JobPage:
    views = [JobView(RunningJob(function, f"H:a:{i}", "", "s", 9.0 - i / 10, 1, 3), 4711, 1, 3) for i in range(count)]
    return JobPage(count, tuple(views))


def texts(look: Look, view: View | None = None, **size: Any) -> list[str]:
    return [line.text for line in draw(look, view or View(), **size)]


def test_rates_are_what_was_done_between_the_two_snapshots() -> None:
    before = snapshot(1000.0, {"a": FunctionStats(done=100, failed=1, timed_out=1)})
    now = snapshot(1010.0, {"a": FunctionStats(done=150, failed=3, timed_out=4), "new": FunctionStats(done=20)})
    assert rates(before, now) == {"a": (5.0, 0.5), "new": (2.0, 0.0)}
    shown = texts(Look(now, before))
    assert any("7 done/s  0.5 failed/s" in line for line in shown)


def test_rates_over_a_restart_are_those_that_the_new_daemon_tells() -> None:
    before = snapshot(1000.0, {"a": FunctionStats(done=100)}, pid=1)
    now = snapshot(1010.0, {"a": FunctionStats(done=7, recent=Recent(per_second=3.0, failed_per_second=1.0))})
    assert rates(before, now) == rates(None, now) == {"a": (2.0, 1.0)}


def test_an_idle_daemon_is_well_and_a_job_server_that_is_down_shows() -> None:
    now = snapshot(servers={"gear1:4730": ServerStats(connected=1, disconnected=1), "gear2:4730": ServerStats(0, 2)})
    shown = texts(Look(now))
    assert "All is well." in shown
    assert "job servers: gear1:4730 1/2, gear2:4730 DOWN" in shown
    assert "no functions" in shown
    assert "0 jobs running" in shown


def test_what_is_wrong_is_on_top() -> None:
    problems = tuple(Finding("bad", "server", f"job server gear{i} does not answer", "no route") for i in range(5))
    shown = draw(Look(snapshot(), problems=problems), View(), width=80, height=24, keys=True)
    assert shown[1] == ("job server gear0 does not answer (no route)", "bold red")
    assert shown[4].text == "and 2 more things that are wrong"
    assert not any("All is well" in line.text for line in shown)


def test_a_key_sorts_and_another_turns_the_order_round() -> None:
    names = {name: FunctionStats(running=running, done=running) for name, running in (("b", 1), ("a", 3), ("c", 2))}
    look, view = Look(snapshot(functions=names)), View(part=FUNCTIONS)

    def order() -> str:
        return "".join(line[0] for line in texts(look, view)[-3:])

    heads = []
    for _ in COLUMNS:
        view = turned(view, "s")
        heads.append(next(word for word in texts(look, view)[-4].split() if word[-1] in "▼▲"))
    assert heads == ["FAIL/S▼", "RUNNING▼", "P50▼", "P95▼", "FAILED▼", "DONE▼", "FUNCTION▲", "DONE/S▼"]
    view = turned(turned(view, "s"), "s")
    assert order() == "acb"
    view = turned(view, "r")
    assert order() == "bca"


def test_scrolling_reaches_the_last_line_and_stays_within_the_list() -> None:
    look, view = Look(snapshot(), jobs=jobs(100)), View(part=JOBS)
    assert "H:a:0" in texts(look, view, width=80, height=24)[7]
    for _ in range(50):
        view = turned(view, "page down", most=100)
    assert "H:a:99" in texts(look, view, width=80, height=24)[-1]
    assert turned(turned(view, "home", most=100), "up", most=100).offset == 0
    assert turned(View(), "?") == View()
    assert turned(View(paused=True), "p") == View()


def test_without_a_snapshot_it_says_what_it_waits_for() -> None:
    problem = Finding("bad", "daemon", "the daemon does not answer", "nobody there")
    assert texts(Look(error="nobody there", problems=(problem,)), width=80, height=24, keys=True)[:2] == [
        "geard top: waiting for the daemon",
        "the daemon does not answer (nobody there)",
    ]


@given(
    width=st.integers(1, 200),
    height=st.integers(1, 60),
    part=st.sampled_from(PARTS),
    offset=st.integers(0, 300),
    functions=st.dictionaries(st.text(max_size=30) | st.just(HOSTILE), st.integers(0, 10**12), max_size=12),
    count=st.integers(0, 100),
    keys=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_no_screen_is_larger_than_the_terminal_or_steers_it(
    width: int, height: int, part: str, offset: int, functions: dict[str, int], count: int, keys: bool
) -> None:
    stats = {name: FunctionStats(done=done, running=done) for name, done in functions.items()}
    problem = Finding("bad", "x", HOSTILE, HOSTILE)
    now = snapshot(functions=stats, servers={HOSTILE: ServerStats()})
    look = Look(now, jobs=jobs(count, HOSTILE), problems=(problem,) * (count % 5))
    shown = draw(
        look, View(part=part, offset=offset, sort=offset % len(COLUMNS)), width=width, height=height, keys=keys
    )
    assert len(shown) <= height
    assert max(cell_len(line.text) for line in shown) <= width
    assert not any(re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", line.text) for line in shown)


def test_keys_are_told_from_what_terminals_send() -> None:
    assert keys_of("qs\x1b[A\x1b[6~\t\x1b[Z\x1bOB ") == [
        "q",
        "s",
        "up",
        "page down",
        "tab",
        "back tab",
        "down",
        "space",
    ]
    assert keys_of("\x1b[200~x\x1b[15~r\x1b") == ["x", "r"]


class Scripted:
    """A daemon that answers in turn; a string is an error."""

    def __init__(self, *answers: Snapshot | str) -> None:
        self._answers: Iterator[Snapshot | str] = iter(answers)
        self._asked: list[Request] = []

    def state(self) -> Snapshot:
        answer = next(self._answers)
        if isinstance(answer, str):
            raise CannotConnect(answer)
        return answer

    def jobs(self, request: Request) -> JobPage:
        return jobs(1)

    def failures(self, request: Request) -> Any:
        raise GeardError("not asked")

    history = stack = failures


def test_a_daemon_that_goes_is_said_and_one_that_comes_back_is_shown() -> None:
    first, second = snapshot(1000.0, {"a": FunctionStats()}), snapshot(1020.0, {"b": FunctionStats()}, pid=2)
    watcher = Watcher(Scripted("early", first, "gone", second), interval_seconds=1, news=lambda: None)
    assert watcher.look().now is None
    assert watcher.look().error == ""
    gone = watcher.look()
    shown = texts(gone)
    assert "last heard at" in shown[0]
    assert shown[1].startswith("the daemon does not answer (gone)")
    assert any(line.startswith("a ") for line in shown)
    back = watcher.look()
    assert (back.error, back.before) == ("", None)
    assert "All is well." in texts(back)


def test_rates_are_told_over_some_seconds_however_often_it_looks() -> None:
    snapshots = [snapshot(1000.0 + second) for second in range(12)]
    watcher = Watcher(Scripted(*snapshots), interval_seconds=1, news=lambda: None)
    looks = [watcher.look() for _ in snapshots]
    assert looks[3].before is None
    assert looks[11].before is snapshots[6]


def test_what_programs_are_told_is_what_is_on_the_screen() -> None:
    now = snapshot(functions={"a": FunctionStats(done=5, failed=1, running=2)})
    told = msgspec.json.decode(msgspec.json.encode(report(Look(now, snapshot(990.0), jobs(2)))))
    assert told["functions"]["a"]["done_per_second"] == 0.5
    assert (told["greenlets"], told["jobs"]["total"], told["job_servers"]["gear1:4730"]["connected"]) == (100, 2, 2)
    assert msgspec.json.decode(msgspec.json.encode(report(Look(error="gone")))) == {"error": "gone", "problems": []}


@pytest.mark.parametrize(("kind", "text"), [("ValueError", HOSTILE), ("timeout", ""), ("", "no"), ("", "")])
def test_a_failure_steers_no_terminal(kind: str, text: str) -> None:
    failure = Failure(HOSTILE, HOSTILE, HOSTILE, "s", 0.0, kind, text, HOSTILE, HOSTILE.encode(), 9999, HOSTILE)
    lines = [line.text for line in drawn(failure)]
    assert not any(re.search(r"[\x00-\x1f\x7f-\x9f\u202e]", line) for line in lines)
    assert lines[0].endswith({"ValueError": "數字", "timeout": "timeout"}.get(kind, text or "without a reason"))
    assert any("workload, its begin: " in line for line in lines)
