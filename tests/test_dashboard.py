"""The dashboard in a real Chromium: every page, an action, live numbers, hostile text, a phone, without JavaScript.

`make screenshots` makes the pictures of the README from here: SCREENSHOTS names the directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest

from geard import Admin, Client
from geard.supervisor import answers
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST, Embedded, JobServerProcess, need
from tests.support.waiting import eventually

CHROMIUM = "/usr/bin/chromium"
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
FUNCTIONS = {
    "resize": (140.0, 2.0, 35.0), "mail.send": (60.0, 0.0, 180.0), "thumbnail": (320.0, 0.0, 4.0),
    "report.daily": (1.0, 0.0, 2400.0), "index.update": (25.0, 0.0, 60.0), "webhook": (12.0, 0.0, 410.0),
}  # fmt: skip
HOSTILE = "<img src=x onerror=document.title='owned'><script>document.title='owned'</script>\x1b[2J\u202egnp.exe"
SCREENSHOTS = os.environ.get("SCREENSHOTS", "")
KEYBOARD = """
() => {
  const wanted = [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary")]
    .filter((each) => each.checkVisibility() && !each.classList.contains("skip"));
  window.wanted = new Set(wanted);
  window.missed = () => [...window.wanted].filter((each) => each.isConnected);  // an update may have taken one away
  document.activeElement.blur();
  return wanted.length;
}"""
FOCUSED = """
() => {
  const at = document.activeElement, style = getComputedStyle(at);
  at.scrollIntoView({ block: "nearest", behavior: "instant" });  // an update since the key may have moved it away
  const box = at.getBoundingClientRect();
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0;
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + Math.min(box.height, innerHeight) / 2);
  window.wanted.delete(at);
  return { name: at.tagName + " " + at.className + " " + at.textContent.trim().slice(0, 30), body: at === document.body,
    seen, covered: !(top && (at.contains(top) || top.contains(at))), left: window.missed().length };
}"""

playwright: Any = (
    import_module("playwright.sync_api") if os.environ.get("CI") else pytest.importorskip("playwright.sync_api")
)
Page = Any
Browser = Any


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Embedded() as server:
        yield server


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory, server: JobServerProcess) -> Iterator[FakeSupervisor]:
    with FakeSupervisor(str(tmp_path_factory.mktemp("run") / "s.sock"), server.address) as supervisor:
        supervisor.past(1000 if SCREENSHOTS else 120, FUNCTIONS)
        supervisor.keep_on(FUNCTIONS)
        for number in range(4):
            supervisor.fail("resize", f"no object img/229{number}.jpg in the store")
        supervisor.run_jobs(120, numerator=40)
        yield supervisor


@pytest.fixture(scope="module")
def monitor(supervisor: FakeSupervisor, server: JobServerProcess) -> Iterator[MonitorProcess]:
    with MonitorProcess(supervisor.path, [server.address]) as monitor:
        eventually(lambda: monitor.json("/health/ready")["ok"], what="a ready daemon")
        yield monitor


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    need(CHROMIUM)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page that fails the test when anything is wrong on its console."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    yield page
    context.close()
    assert wrong == []


def test_every_page_shows_what_it_should(page: Page, monitor: MonitorProcess, server: JobServerProcess) -> None:
    shown = {
        "Overview": "done per second",
        "Functions": "thumbnail",
        "Running": "H:host:0",
        "Failures": "FileNotFoundError: no object",
        "Processes": "Generation 3",
        "Job servers": server.address,
    }
    page.goto(monitor.url)
    for name, text in shown.items():
        page.click(f"header nav >> text={name}")
        page.get_by_text(text).first.wait_for()
        assert page.locator("h1").inner_text() == name
    page.goto(f"{monitor.url}/functions?sort=rate")
    assert page.locator("tbody tr").first.locator("td").first.inner_text() == "thumbnail"
    page.click("th >> text=p95")
    page.click("tbody >> text=report.daily")
    page.locator("h1", has_text="report.daily").wait_for()
    page.locator(".charts canvas").first.wait_for()


def test_numbers_move_and_a_filter_works_without_loading_the_page(
    page: Page,
    monitor: MonitorProcess,
    supervisor: FakeSupervisor,
) -> None:
    page.goto(f"{monitor.url}/functions")
    page.evaluate("window.stays = true")
    done = page.locator("tr[data-key=thumbnail] td").nth(9)
    before = done.inner_text()
    eventually(lambda: done.inner_text() != before, what="a number that moves")
    page.fill("input[name=q]", "mail")
    eventually(lambda: page.locator("tbody tr").count() == 1, what="the filtered table")
    assert page.input_value("input[name=q]") == "mail"
    assert page.evaluate("window.stays")


def test_a_traceback_is_two_clicks_away_and_stays_open(page: Page, monitor: MonitorProcess) -> None:
    page.goto(monitor.url)
    page.click("text=Failures")
    page.locator("details").first.locator("summary").click()
    page.get_by_text('File "/opt/geard/lib/store.py", line 17, in open').first.wait_for()
    page.wait_for_timeout(1500)  # at least one live update
    assert page.locator("details").first.get_attribute("open") is not None


def test_actions_show_their_outcome(
    page: Page, monitor: MonitorProcess, supervisor: FakeSupervisor, server: JobServerProcess
) -> None:
    page.goto(f"{monitor.url}/processes")
    page.click("button >> text=Reload")
    page.get_by_text("generation 4 serves").wait_for()
    assert "said" not in page.url
    page.wait_for_timeout(1500)  # at least one live update
    assert page.locator("main > :first-child").inner_text() == "generation 4 serves"
    page.locator("tr[data-key='4712'] >> text=Replace").click()
    page.get_by_text("worker of pid 4712 is replaced").wait_for()
    assert any(request.command == answers.REPLACE for request in supervisor.asked)
    with Client(server.address) as client:
        handle = client.submit_background("nobody.serves", "x")
        page.goto(f"{monitor.url}/servers?name={server.address}")
        page.get_by_text(handle).wait_for()
        page.on("dialog", lambda dialog: dialog.accept())
        page.locator(f"tr[data-key='{handle}'] button").click()
        page.get_by_text(f"dropped {handle}").wait_for()
        assert not client.status(handle).known


def test_what_is_wrong_is_on_top_in_words(
    page: Page, monitor: MonitorProcess, supervisor: FakeSupervisor, server: JobServerProcess
) -> None:
    page.goto(monitor.url)
    page.get_by_text("All is well").wait_for()
    supervisor.last_refusal = "reload refused at 03:12:44: geard.yaml:9:3: module 'tasks' has no 'shuot'"
    with Client(server.address) as client:
        handles = [client.submit_background("invoice.render", "x") for _ in range(3)]
        page.get_by_text("3 jobs wait for invoice.render, which no worker anywhere serves").wait_for()
        page.get_by_text("module 'tasks' has no 'shuot'").wait_for()
        assert page.title().startswith("(2) ")
        page.locator(".charts .u-legend").first.wait_for()
        assert page.locator(".charts").count() == 1
        if SCREENSHOTS:
            page.locator(".charts canvas").first.wait_for()
            page.wait_for_timeout(1500)
            page.screenshot(path=f"{SCREENSHOTS}/overview.png")
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 390, "height": 800})
            page.reload()
            page.wait_for_timeout(1500)
            page.screenshot(path=f"{SCREENSHOTS}/overview-phone.png")
            page.emulate_media(color_scheme="light")
            page.set_viewport_size({"width": 1280, "height": 640})
            page.goto(f"{monitor.url}/failures")
            page.locator("summary").first.click()
            page.screenshot(path=f"{SCREENSHOTS}/failures.png")
        supervisor.last_refusal = ""
        for handle in handles:
            with Admin(server.address) as admin:
                admin.cancel_job(handle)


def test_hostile_names_and_tracebacks_stay_text(
    page: Page, monitor: MonitorProcess, supervisor: FakeSupervisor
) -> None:
    supervisor.count(HOSTILE, failed=9)
    supervisor.fail(HOSTILE, HOSTILE, kind=HOSTILE, traceback=HOSTILE, handle=HOSTILE, unique=HOSTILE)
    supervisor.run_jobs(1, HOSTILE)
    eventually(lambda: "onerror" in monitor.get("/functions")[1], what="the hostile function")
    for path in ("/", "/functions", "/failures", "/running", "/processes"):
        page.goto(monitor.url + path)
        page.wait_for_timeout(300)
        assert "owned" not in page.title()
        assert page.locator("main img").count() == 0
    page.goto(f"{monitor.url}/failures")
    page.locator("summary").first.click()
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e")
    assert page.locator("details pre").first.inner_text() == shown
    supervisor.run_jobs(120, numerator=40)


def test_a_phone_shows_everything_within_its_width(page: Page, monitor: MonitorProcess) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    for path in ("/", "/functions", "/function?name=resize", "/running", "/failures", "/processes", "/servers"):
        page.goto(monitor.url + path)
        page.locator("h1").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


def test_every_action_is_within_reach_of_the_keyboard_and_its_focus_is_seen(
    page: Page, monitor: MonitorProcess, supervisor: FakeSupervisor, server: JobServerProcess
) -> None:
    supervisor.run_jobs(3)
    with Client(server.address) as client:
        handle = client.submit_background("nobody", "waits")
    servers = f"/servers?name={server.address}"
    eventually(lambda: str(handle) in monitor.get(servers)[1], what="the waiting job")
    for path in ("/", "/functions", "/function?name=resize", "/running", "/failures", "/processes", servers):
        page.goto(monitor.url + path)
        page.locator("#theme").wait_for()
        stops = page.evaluate(KEYBOARD)
        rounds = 0  # an update may move a row to before the focus: the next round comes to it
        for _ in range(3 * (stops + 30)):
            page.keyboard.press("Tab")
            focused = page.evaluate(FOCUSED)
            if focused["body"]:
                rounds += 1
                if rounds == 3:
                    break
                continue
            assert focused["seen"], f"{path}: the focus on {focused} is not seen"
            assert not focused["covered"], f"{path}: {focused} is covered"
            if not focused["left"]:
                break
        assert page.evaluate("window.missed().map((each) => each.outerHTML.slice(0, 200))") == [], path
    page.goto(f"{monitor.url}/processes")
    page.locator("button >> text=Reload").focus()
    page.keyboard.press("Enter")
    page.get_by_text("generation 4 serves").wait_for()
    page.goto(f"{monitor.url}/failures")
    summary = page.locator("summary").first
    summary.focus()
    page.keyboard.press("Space")
    page.wait_for_timeout(1200)  # at least one live update
    assert page.locator("details").first.get_attribute("open") is not None
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY", "an update leaves the focus where it is"
    page.locator("select").focus()
    page.evaluate("window.stays = true")
    page.keyboard.press("ArrowDown")
    page.wait_for_timeout(300)  # a submission that must not be would come at once
    assert page.evaluate("window.stays"), "an arrow key chooses, and the button beside it asks"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/failures?function=*")
    page.goto(f"{monitor.url}/functions?sort=name")
    first = page.locator("tbody tr").first.get_attribute("data-key")
    page.evaluate("document.querySelector('tbody').append(document.querySelector('tbody tr'))")
    page.evaluate("document.querySelector('tbody tr:last-child a').focus()")
    rows = page.locator("tbody tr")
    eventually(lambda: rows.first.get_attribute("data-key") == first, what="the rows in order again")
    assert page.evaluate("document.activeElement.textContent") == first, "a row that moves keeps the focus"
    page.locator("input[name=q]").focus()
    page.keyboard.type("mail")
    eventually(lambda: page.locator("tbody tr").count() == 1, what="the filtered table")
    page.keyboard.press("Escape")
    eventually(lambda: page.locator("tbody tr").count() > 1, what="the whole table")
    page.locator("th >> text=p95").focus()
    page.keyboard.press("Enter")
    page.locator("th[aria-sort=descending] >> text=p95").wait_for()
    page.locator("#theme").focus()
    before = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("Space")
    assert page.evaluate("document.documentElement.dataset.theme") != before
    supervisor.run_jobs(120, numerator=40)
    with Admin(server.address) as admin:
        admin.cancel_job(str(handle))


def test_without_javascript_the_tables_are_there(browser: Browser, monitor: MonitorProcess) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(monitor.url)
    page.click("text=Functions")
    page.fill("input[name=q]", "thumb")
    page.click("button >> text=Filter")
    eventually(lambda: page.locator("tbody tr").count() == 1, what="the filtered table")
    page.click("th >> text=p95")
    page.click("text=Processes")
    page.click("button >> text=Reload")
    page.get_by_text("generation 4 serves").wait_for()
    context.close()


def test_a_lost_connection_is_said_and_comes_back(browser: Browser, supervisor: FakeSupervisor) -> None:
    with MonitorProcess(supervisor.path, [f"{HOST}:1"]) as monitor:
        page = browser.new_page()
        page.goto(f"{monitor.url}/functions")
        page.locator("tr[data-key=thumbnail]").wait_for()
        monitor.stop()
        page.get_by_text("The connection to the monitor is lost").wait_for()
        monitor.start()
        page.locator("#lost").wait_for(state="hidden")
        page.close()
