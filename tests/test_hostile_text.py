"""Text from outside at every place that shows it: it sets no terminal's title, and is no line of its own."""

from __future__ import annotations

import io
import json
import logging
import unicodedata
from collections.abc import Callable
from typing import Any, cast

import pytest
from rich.console import Console

from geard.cli import admin, bar, output
from geard.cli.answers import Row, tables
from geard.cli.control import draw
from geard.cli.lines import Failures
from geard.cli.output import Line
from geard.cli.servers import Answer
from geard.config import Capability, JobServer
from geard.errors import GeardError, JobException, Problem, ServerError
from geard.logs import formats, journal
from geard.messages import CannotStart, RunningJob, Stack, dump, load_from_child
from geard.protocol import Command, Packet
from geard.supervisor import decisions, sd_notify
from geard.supervisor.answers import GenerationView, Overview, ProcessView
from geard.worker.capability import bind
from geard.worker.job import Job
from geard.worker.pool import log_job
from geard.worker.run import label, late_text, refuse, run

FORGED = "2026-11-24 00:00:00.000 error"
HOSTILE = f"\x1b]0;owned\x07\n{FORGED} supervisor[1]: forged\r\x9b2J\u202e\x7f"
AS_BYTES = HOSTILE.encode() + b"\x9b"
REFUSED = Packet(Command.JOB_ASSIGN_UNIQ, [AS_BYTES, AS_BYTES, b"", b""])


def check(shown: str) -> None:
    """It steers no terminal, and no line of it is forged."""
    assert "owned" in shown
    assert not [c for c in shown if c != "\n" and unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"}]
    assert not any(line.lstrip("<0123456789>").startswith(FORGED[4:]) for line in shown.splitlines())


class Session:
    """As much of one as a job asks for."""

    address = "localhost:4730"

    def answer(self, packet: bytes) -> bool:
        return False

    def wake(self) -> None:
        """Nobody listens."""


def job(function: Callable[..., Any] = str) -> Job:
    capability = bind(HOSTILE, Capability(function), "utf-8")
    return Job(cast("Any", Session()), capability, AS_BYTES, AS_BYTES, b"w", 0.0)


def fails(workload: str) -> None:
    raise ValueError(HOSTILE)


LOGGED: dict[str, Callable[[], object]] = {
    "a job that fails, whose result is dropped too": lambda: run(job(fails)),
    "a job that is done": lambda: log_job(job()),
    "a job that is refused": lambda: refuse(None, REFUSED),
    "a line of user code": lambda: logging.getLogger("images").error("cannot read %s", HOSTILE),
    "the name of a logger": lambda: logging.getLogger(HOSTILE.replace(".", "")).error("owned"),
}
FORMATS: dict[str, formats.Format] = {
    "text": formats.Text("worker 1"),
    "journal lines": formats.JournalLines("worker 1"),
    "json": formats.Json("worker 1"),
}


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", LOGGED)
def test_a_record_of_the_log_is_one_record(name: str, form: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        LOGGED[name]()
    assert caplog.records
    for record in caplog.records:
        text = FORMATS[form](record).decode()
        check(text)
        first, *others = text.splitlines()
        assert all(line.lstrip("<0123456789>").startswith("    ") for line in others)
        if form == "json":
            assert json.loads(first)["level"]
            assert not others


def test_a_value_adds_no_field_to_what_the_journal_gets() -> None:
    record = logging.makeLogRecord(
        {"name": "images", "levelno": 40, "msg": "owned", "function": HOSTILE, "handle": HOSTILE}
    )
    data = formats.JournalFields("worker 1")(record)
    assert journal.encode({"MESSAGE": "a\nPRIORITY=0"}) == b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\n"
    sent = {name: value for name, _, value in (line.partition(b"=") for line in data.splitlines())}
    check(sent[b"GEARD_FUNCTION"].decode())


def written(lines: list[Line]) -> str:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        output.write_lines(lines)
    return stream.buffer.getvalue().decode()


def said(error: GeardError) -> str:
    stream = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stderr", stream)
        output.say_error(error)
    return stream.getvalue()


def drawn(renderable: Any) -> str:
    stream = io.StringIO()
    Console(file=stream, width=500).print(renderable)
    return stream.getvalue()


def failures() -> str:
    found = Failures()
    found.add(1, GeardError(HOSTILE))
    return "".join(found)


def cells() -> str:
    lines = tables([Answer(JobServer("h"), 1)], ("A",), lambda _: [Row((HOSTILE,))])
    return lines[2].text


PLACES: dict[str, Callable[[], str]] = {
    "a job's label": lambda: label(job()),
    "a time limit": lambda: late_text(job(), 1.0),
    "systemd's status": lambda: sd_notify.status(HOSTILE),
    "jobs left to others": lambda: decisions.name_jobs([RunningJob(HOSTILE, HOSTILE, "", "", 1.0)], 1),
    "what a worker raised": lambda: said(JobException(HOSTILE, "")),
    "what a job server refused": lambda: said(ServerError("CODE", HOSTILE)),
    "a line": lambda: written([Line(HOSTILE)]),
    "a table": cells,
    "a bar": lambda: drawn(bar.bar_line(HOSTILE, 1, 2, "1/2")),
    "a list of failures": failures,
    "JSON": lambda: output.json_line({"function": HOSTILE}).decode(),
    "the admin protocol": lambda: admin.shown_on_terminal(HOSTILE),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_one_line_and_steers_no_terminal(place: str) -> None:
    shown = PLACES[place]()
    check(shown)
    assert "\n" not in shown.removesuffix("\n")


def test_geard_ps_shows_it_in_its_place() -> None:
    running = RunningJob(HOSTILE, HOSTILE, HOSTILE, HOSTILE, 1.0)
    process = ProcessView(
        pid=1, number=1, state="ready", capability=HOSTILE, age_seconds=1, heard_seconds=0, held_by=HOSTILE,
        memory_bytes=0, running=1, greenlets=1, done=0, failed=0, connected=(), disconnected=(HOSTILE,), jobs=(running,)
    )  # fmt: skip
    overview = Overview(
        pid=1, version=HOSTILE, config=HOSTILE, state=HOSTILE, age_seconds=1, memory_bytes=0, done=0, failed=0,
        last_refusal=HOSTILE, generations=(GenerationView(1, "current", (process,)),)
    )  # fmt: skip
    check(written(list(draw(overview, None))))


def test_what_a_process_says_is_read_whatever_texts_of_user_code_are_in_it() -> None:
    said = Stack("H:1", "/srv/\udcff/app.py"), CannotStart((Problem("half a pair: \ud800"),), 78)
    stack, cannot_start = (load_from_child(dump(message)) for message in said)
    assert stack == Stack("H:1", "/srv/\\udcff/app.py")
    assert cannot_start == CannotStart((Problem("half a pair: \\ud800"),), 78)
