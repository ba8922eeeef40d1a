"""Dead letters and schedules in the monitor: pages, actions, metrics; in Chromium too."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from geard import Admin
from geard.deadletters.letter import DeadLetter
from geard.deadletters.store import BUSY_SECONDS, DeadLetters, Filter
from geard.monitor.letters import key_of
from geard.scheduler.states import ScheduleState
from tests.support.fake_supervisor import TRACEBACK, FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import Embedded, JobServerProcess, need
from tests.support.waiting import eventually
from tests.test_dashboard import CHROMIUM, OPTIONS, playwright

HOSTILE = "<script>document.title='owned'</script>\"'&\x1b]0;owned\x07\u202e\nnext line"
LONG = "ValueError: cannot open " + "x" * 500


def letter(function: str, error: str, *, unique: str = "") -> DeadLetter:
    now = time.time()
    return DeadLetter(function, b"work", unique, "H:a:1", "a:4730", 3, now - 60, now, error, TRACEBACK)


@pytest.fixture
def server() -> Iterator[JobServerProcess]:
    with Embedded() as server:
        yield server


@pytest.fixture
def supervisor(tmp_path: Path, server: JobServerProcess) -> Iterator[FakeSupervisor]:
    with FakeSupervisor(str(tmp_path / "s.sock"), server.address) as supervisor:
        times = {"next_at": 1900000000.0, "last_at": 1800000000.0, "submitted_at": 1800000001.5}
        supervisor.schedules = (
            ScheduleState("nightly", "report", "30 2 * * *", waiting=2, **times),
            ScheduleState(HOSTILE, HOSTILE, "5m", None, None, None, 0),
        )
        yield supervisor


@pytest.fixture
def letters(tmp_path: Path) -> Iterator[DeadLetters]:
    with DeadLetters(str(tmp_path / "dead.sqlite")) as letters:
        letters.add([letter("mail", "Timeout: 5 s", unique=f"u{i}") for i in range(3)])
        letters.add([letter("mail", "Timeout: 5 s, and more"), letter("mail", HOSTILE), letter("resize", LONG)])
        yield letters


@pytest.fixture
def monitor(supervisor: FakeSupervisor, server: JobServerProcess, letters: DeadLetters) -> Iterator[MonitorProcess]:
    with MonitorProcess(supervisor.path, [server.address], dead_letters=letters.path) as monitor:
        eventually(lambda: "Dead letters" in monitor.get("/schedules")[1], what="the pages")
        eventually(lambda: "nightly" in monitor.get("/schedules")[1], what="the schedules")
        eventually(lambda: "5 s, and more" in monitor.get("/letters")[1], what="the letters")
        yield monitor


def post(monitor: MonitorProcess, path: str, **fields: str) -> tuple[int, str]:
    """As a program that has a page's token."""
    found = re.search(r'name="token" value="([^"]+)"', monitor.get("/processes")[1])
    assert found
    body = urlencode({"token": found[1], **fields}).encode()
    return monitor.request("POST", path, body, {"Accept": "application/json"})


def test_in_a_browser_letters_are_retried_and_dropped_by_error(
    monitor: MonitorProcess, letters: DeadLetters, server: JobServerProcess
) -> None:
    need(CHROMIUM)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        page: Any = browser.new_page(viewport={"width": 1280, "height": 800})
        wrong: list[str] = []
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: dialog.accept())
        page.goto(monitor.url)
        page.click("header nav >> text=Dead letters")
        page.get_by_text("6 jobs that failed for good").wait_for()
        page.locator(f"tr[data-key='{key_of('mail', 'Timeout: 5 s')}'] >> text=Retry").click()
        page.get_by_text("submitted again: 3").wait_for()
        assert letters.count() == 3
        page.locator("tr", has_text="next line").locator("text=Drop").click()  # its line break survives the browser
        page.get_by_text("dropped: 1").wait_for()
        page.click("main >> text=mail")
        page.get_by_text("2 jobs that failed for good; these are of mail").wait_for()
        page.locator("details summary").first.click()
        page.get_by_text('File "/opt/geard/lib/store.py", line 17, in open').first.wait_for()
        page.click("header nav >> text=Schedules")
        page.get_by_text("nightly").wait_for()
        assert "owned" not in page.title()
        page.set_viewport_size({"width": 390, "height": 844})
        for path in ("/letters", "/letters?function=mail", "/schedules"):
            page.goto(monitor.url + path)
            page.locator("h1").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        browser.close()
        assert wrong == []
    with Admin(server.address) as admin:
        assert {row.function: row.total for row in admin.status()} == {"mail": 3}


def test_of_a_huge_error_the_page_shows_the_begin(monitor: MonitorProcess, letters: DeadLetters) -> None:
    letters.add([letter("huge", "ValueError: " + "x" * 1_000_000)])
    eventually(lambda: "ValueError: xxx" in monitor.get("/letters")[1], what="the letter")
    assert len(monitor.get("/letters")[1]) < 100_000


def test_a_program_names_a_function_or_one_letter(
    monitor: MonitorProcess, letters: DeadLetters, server: JobServerProcess
) -> None:
    assert post(monitor, "/letters/drop")[0] == 400
    assert post(monitor, "/letters/drop", key="0" * 64)[0] == 409
    assert monitor.request("POST", "/letters/drop", b"function=mail")[0] == 403
    assert letters.count() == 6
    (resize,) = letters.find(Filter(function="resize"))
    assert '"submitted again: 1"' in post(monitor, "/letters/retry", id=str(resize.id))[1]
    assert '"dropped: 5"' in post(monitor, "/letters/drop", function="mail")[1]
    assert letters.count() == 0
    server.stop()
    letters.add([letter("resize", LONG)])
    status, body = post(monitor, "/letters/retry", function="resize")
    assert (status, letters.count()) == (409, 1)
    assert "submitted 0 again, then:" in body


def test_metrics_tell_of_schedules_and_letters_while_the_file_is_locked(
    monitor: MonitorProcess, letters: DeadLetters
) -> None:
    text = monitor.get("/metrics")[1]
    assert 'geard_schedule_next_timestamp_seconds{schedule="nightly"} 1.9e+09' in text
    assert 'geard_schedule_last_submitted_timestamp_seconds{schedule="nightly"} 1.8000000015e+09' in text
    assert 'geard_schedule_waiting{schedule="nightly"} 2.0' in text
    assert 'geard_dead_letters{function="mail"} 5.0' in text
    need("/usr/bin/promtool")
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    letters.close()
    locked = sqlite3.connect(letters.path, isolation_level=None)
    locked.execute("PRAGMA locking_mode = EXCLUSIVE")
    locked.execute("BEGIN EXCLUSIVE")
    unaware, longest, page = 0, 0.0, ""
    deadline = time.monotonic() + 60
    while True:
        begin = time.monotonic()
        page = monitor.get("/letters")[1]
        longest = max(longest, time.monotonic() - begin)
        if "database is locked" in page or time.monotonic() > deadline:
            break
        unaware += 1
        assert 'geard_dead_letters{function="mail"} 5.0' in monitor.get("/metrics")[1]
    assert "database is locked" in page
    assert unaware, "a request waited for the lock, and came back with its error"
    assert longest < BUSY_SECONDS - 0.5, "a request waited for the lock"
    locked.close()


def test_read_only_shows_them_and_does_nothing(
    supervisor: FakeSupervisor, server: JobServerProcess, letters: DeadLetters
) -> None:
    where = letters.path
    with MonitorProcess(supervisor.path, [server.address], dead_letters=where, read_only=True) as monitor:
        eventually(lambda: "5 s, and more" in monitor.get("/letters")[1], what="the letters")
        text = monitor.get("/letters")[1]
        assert "<form" not in text
        assert HOSTILE not in text
        assert "<script>document" not in text
        assert monitor.request("POST", "/letters/drop", b"function=mail")[0] in (403, 404)
    assert letters.count() == 6
