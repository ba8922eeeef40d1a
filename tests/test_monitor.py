"""The monitor as a process, before a supervisor that a test plays: what it serves, to whom, and what it survives."""

from __future__ import annotations

import json
import re
import socket
import stat
import subprocess
import time
import urllib.parse
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from geard import exits
from geard.supervisor import answers
from geard.supervisor.answers import Answer
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST, Embedded, JobServerProcess, need
from tests.support.tls import Certificates
from tests.support.waiting import eventually

HOSTILE = "<script>alert(1)</script>\"'&\x1b]0;owned\x07\u202e"


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Embedded() as server:
        yield server


@pytest.fixture(scope="module")
def supervisor(tmp_path_factory: pytest.TempPathFactory, server: JobServerProcess) -> Iterator[FakeSupervisor]:
    with FakeSupervisor(str(tmp_path_factory.mktemp("run") / "s.sock"), server.address) as supervisor:
        supervisor.past(120, {"resize": (100, 0, 20)})
        supervisor.fail(HOSTILE, HOSTILE, traceback=f"Traceback\n  {HOSTILE}", workload=b"\xff</pre>", workload_bytes=9)
        supervisor.count(HOSTILE, failed=1)
        supervisor.run_jobs(120)
        yield supervisor


@pytest.fixture(scope="module")
def monitor(supervisor: FakeSupervisor, server: JobServerProcess) -> Iterator[MonitorProcess]:
    with MonitorProcess(supervisor.path, [server.address, f"{HOST}:1"]) as monitor:
        eventually(lambda: monitor.json("/health/ready")["ok"], what="a ready daemon")
        yield monitor


def form_token(monitor: MonitorProcess, **headers: str) -> str:
    return monitor.get("/processes", **headers)[1].split('name="token" value="')[1].split('"')[0]


def post(monitor: MonitorProcess, path: str, headers: dict[str, str] | None = None, **form: str) -> tuple[int, str]:
    body = urllib.parse.urlencode(form).encode()
    return monitor.request("POST", path, body, {"Accept": "application/json"} | (headers or {}))


# --- for programs -------------------------------------------------------------------------------------------------


def test_what_is_paused_is_shown(monitor: MonitorProcess, supervisor: FakeSupervisor) -> None:
    assert 'geard_function_paused{function="resize"} 0.0' in monitor.get("/metrics")[1]
    try:
        supervisor.paused = {"resize", HOSTILE}
        shown = 'geard_function_paused{function="resize"} 1.0'
        eventually(lambda: shown in monitor.get("/metrics")[1], what="the pause in the metrics")
        assert '<span class="tag">paused</span>' in monitor.get("/functions")[1]
        assert '<span class="tag">paused</span>' in monitor.get("/functions?name=resize")[1]
        assert "Paused: " in monitor.get("/processes")[1]
        assert HOSTILE not in monitor.get("/processes")[1]
        assert "every function is paused" in str(monitor.json("/health/ready")["parts"])
    finally:
        supervisor.paused = set()


def test_metrics_are_what_prometheus_expects(monitor: MonitorProcess, server: JobServerProcess) -> None:
    text = monitor.get("/metrics")[1]
    for name in (
        "geard_jobs_total", "geard_job_seconds_bucket", "geard_job_wait_seconds_count", "geard_jobs_running",
        "geard_greenlets", "geard_job_server_up", "geard_reconnects_total", "geard_worker_processes",
        "geard_worker_ends_total", "geard_reloads_total", "geard_generation",
        "geard_last_reload_success_timestamp_seconds", "geard_worker_memory_bytes", "geard_loop_lag_seconds",
        "geard_build_info", "gearman_up",
    ):  # fmt: skip
        assert f"\n{name}" in text, name
    assert f'gearman_up{{server="{server.address}"}} 1.0' in text
    assert f'gearman_up{{server="{HOST}:1"}} 0.0' in text
    assert monitor.get("/metrics", Accept="application/openmetrics-text; version=1.0.0")[1].endswith("# EOF\n")
    need("/usr/bin/promtool")
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_the_api_tells_what_the_pages_show(monitor: MonitorProcess) -> None:
    assert monitor.json("/api/state")["snapshot"]["generation"] == 3
    assert monitor.json("/api/functions")["resize"]["stats"]["done"] > 0
    assert monitor.json("/api/jobs?limit=5&offset=10")["total"] == 120
    assert monitor.json("/api/failures")[0]["text"] == HOSTILE
    assert len(monitor.json("/api/history?function=resize&limit=60")["done"]) == 60
    assert len(monitor.json("/api/chart?function=resize&span=15m")["time"]) >= 60
    assert any(finding["kind"] == "server" for finding in monitor.json("/api/problems"))
    assert monitor.get("/api/nothing")[0] == 404


def test_nothing_from_jobs_reaches_a_page_unescaped(monitor: MonitorProcess) -> None:
    name = urllib.parse.quote(HOSTILE)
    pages = ["/", "/functions", "/failures", "/running", "/processes", "/servers", f"/function?name={name}"]
    pages += [f"/failures?function={name}", f"/?said={name}", f"/functions?q={name}", f"/functions?sort={name}"]
    for path in pages:
        status, body = monitor.get(path)
        body = re.sub(r' (value|data-function)="[^"<>]*"', "", body)  # what goes back as it came
        assert status == 200, path
        assert "<script>alert" not in body, path
        assert "\x1b" not in body, path
        assert "\u202e" not in body, path
        assert "</pre>&lt;" not in body, path
    assert "&lt;script&gt;alert(1)" in monitor.get("/failures")[1]


def test_a_page_is_small_and_keeps_its_browser_on_a_short_leash(monitor: MonitorProcess) -> None:
    sizes = 0
    for path in (
        "/",
        "/static/uplot.js",
        "/static/uplot.css",
        "/static/geard.css",
        "/static/geard.js",
        "/static/icon.svg",
    ):
        with socket.create_connection((HOST, monitor.port), 30) as connection:
            connection.sendall(
                f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n".encode()
            )
            answer = connection.makefile("rb").read()
        assert b"Content-Security-Policy: default-src 'none'; script-src 'self'" in answer
        sizes += len(answer)
    assert sizes < 100_000


# --- who may ------------------------------------------------------------------------------------------------------


def test_actions_need_the_token_of_the_page_and_come_from_no_other_site(
    monitor: MonitorProcess, supervisor: FakeSupervisor
) -> None:
    token = form_token(monitor)
    assert monitor.get("/reload")[0] == 405
    assert post(monitor, "/reload")[0] == 403
    assert post(monitor, "/reload", token="wrong")[0] == 403
    for origin in ("http://evil.example", "null", "http://["):
        assert post(monitor, "/reload", {"Origin": origin}, token=token)[0] == 403
    assert answers.RELOAD not in [request.command for request in supervisor.asked]
    status, body = post(monitor, "/reload", {"Origin": monitor.url}, token=token)
    assert (status, json.loads(body)["message"]) == (200, "generation 4 serves")
    supervisor.reload_answer = Answer(exits.CONFIG, "reload refused")
    assert post(monitor, "/reload", token=token)[0] == 409
    assert post(monitor, "/replace", token=token, pid="4711")[0] == 200
    assert supervisor.asked[-1].pid == 4711 or any(request.pid == 4711 for request in supervisor.asked)


def test_a_waiting_job_is_dropped(monitor: MonitorProcess, server: JobServerProcess) -> None:
    from geard import Client

    with Client(server.address) as client:
        handle = client.submit_background("nobody", "x")
        status, _ = post(monitor, "/drop", token=form_token(monitor), server=server.address, handle=handle)
        assert status == 200
        assert not client.status(handle).known
    assert post(monitor, "/drop", token=form_token(monitor), server=server.address, handle="H:x:1")[0] == 409
    assert post(monitor, "/drop", token=form_token(monitor), server="elsewhere:1", handle="H:x:1")[0] == 404


def test_a_name_that_is_not_ours_is_refused(monitor: MonitorProcess) -> None:
    assert monitor.get("/api/state", Host="evil.example")[0] == 421
    assert monitor.get("/api/state", Host="evil.example:80")[0] == 421
    assert monitor.get("/api/state", Host=f"localhost:{monitor.port}")[0] == 200
    assert monitor.get("/api/state", Host="[::1]:1")[0] == 200


def test_a_password_or_token_is_asked_for_and_read_only_takes_actions_away(
    supervisor: FakeSupervisor, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("sésame\n")
    (tmp_path / "token").write_text("t0ken\n")
    options: dict[str, Any] = {
        "password_file": str(tmp_path / "password"),
        "token_file": str(tmp_path / "token"),
        "read_only": True,
    }
    with MonitorProcess(supervisor.path, [f"{HOST}:1"], base_path="/geard", **options) as monitor:
        assert monitor.get("/")[0] == 401
        assert monitor.get("/", Authorization="Basic " + b64encode(b"x:wrong").decode())[0] == 401
        assert monitor.get("/", Authorization="Basic !")[0] == 401
        assert monitor.get("/metrics", Authorization="Bearer wrong")[0] == 401
        assert monitor.get("/metrics", Authorization="Bearer t0ken")[0] == 200
        right = {"Authorization": "Basic " + b64encode("anyone:sésame".encode()).decode()}
        status, page = monitor.get("/processes", **right)
        assert status == 200
        assert "Reload</button>" not in page
        assert 'href="/geard/functions"' in page
        assert monitor.request("POST", "/reload", b"", {"Authorization": "Bearer t0ken"})[0] in (403, 404)
        assert monitor.json("/health/live") == {"ok": True}


# --- what it survives ---------------------------------------------------------------------------------------------


def test_slow_readers_and_many_connections_hold_up_nobody(monitor: MonitorProcess) -> None:
    streams = []
    for _ in range(100):
        stream = socket.create_connection((HOST, monitor.port), 30)
        stream.sendall(b"GET /events?view=/functions HTTP/1.1\r\nHost: localhost\r\n\r\n")  # and never reads
        streams.append(stream)
    idle = [socket.create_connection((HOST, monitor.port), 30) for _ in range(200)]
    try:
        assert monitor.get("/health/live")[0] == 200
        assert monitor.get("/functions")[0] == 200
        eventually(lambda: b"event: page" in streams[0].recv(65536), what="an event")
    finally:
        for connection in [*streams, *idle]:
            connection.close()


def test_an_address_that_is_none_is_no_page_and_no_error(monitor: MonitorProcess) -> None:
    with socket.create_connection((HOST, monitor.port), 30) as stream:
        stream.sendall(b"GET /events?view=//%5B HTTP/1.1\r\nHost: localhost\r\n\r\n")
        events = stream.makefile("rb")
        eventually(lambda: b"data: " in events.readline(), what="an event")
    assert "Traceback" not in monitor.log


def test_however_it_is_hammered_the_supervisor_is_asked_within_bounds(
    monitor: MonitorProcess, supervisor: FakeSupervisor
) -> None:
    before, begin = len(supervisor.asked), time.monotonic()
    statuses = [monitor.get(f"/api/history?function=f{number}")[0] for number in range(300)]
    seconds = time.monotonic() - begin
    assert len(supervisor.asked) - before <= 50 * (seconds + 2) + 3 * (seconds + 2)
    assert 200 in statuses


def test_a_supervisor_that_is_mute_or_gone_is_said_and_comes_back(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with MonitorProcess(path, [f"{HOST}:1"]) as monitor:
        assert monitor.get("/health/live")[0] == 503
        assert "the daemon does not answer" in monitor.get("/")[1]
        with FakeSupervisor(path) as supervisor:
            eventually(lambda: monitor.get("/health/live")[0] == 200, what="the daemon's answer")
            supervisor.mute = True
            begin = time.monotonic()
            assert monitor.get("/functions")[0] == 200
            assert time.monotonic() - begin < 2
        eventually(lambda: monitor.get("/health/live")[0] == 503, what="the daemon's end")


def test_a_unix_socket_is_served_and_a_leftover_of_it_replaced(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    path = tmp_path / "monitor.sock"
    with socket.socket(socket.AF_UNIX) as leftover:
        leftover.bind(str(path))
    with MonitorProcess(supervisor.path, [f"{HOST}:1"], listen=str(path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: geard.example.com\r\nConnection: close\r\n\r\n")
            assert b" 200 OK\r\n" in connection.makefile("rb").read()


def test_peers_are_summed_over_tls_and_one_that_is_silent_is_named(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    made = Certificates(tmp_path)
    (tmp_path / "token").write_text("t0ken")
    token = {"token_file": str(tmp_path / "token"), "trusted": made.path("authority")}
    tls = {"certificate": made.path("localhost"), "key": made.path("localhost", "key")}
    nobody = [f"{HOST}:1"]
    with (
        FakeSupervisor(str(tmp_path / "other.sock")) as other,
        MonitorProcess(other.path, nobody, **token, **tls) as peer,
        socket.create_connection((HOST, peer.port), 30),  # says nothing, not even hello
    ):
        other.count("resize", done=1000)
        other.count("only.there", done=5, running=2)
        other.fail("only.there", "broken over there")
        other.run_jobs(3, "only.there")
        peers = [peer.url, f"https://{HOST}:1"]
        with MonitorProcess(supervisor.path, nobody, peers=peers, **token) as monitor:
            bearer = {"Authorization": "Bearer t0ken"}
            eventually(lambda: "only.there" in monitor.get("/functions", **bearer)[1], what="the peer's function")
            page = monitor.get("/", **bearer)[1]
            assert f"{HOST}:1: the daemon does not answer" in page
            assert f"{HOST}:{peer.port}" in page
            assert "broken over there" in monitor.get("/failures", **bearer)[1]
            assert "only.there" in monitor.get("/running?function=only.there", **bearer)[1]
            assert "only.there" in monitor.get("/function?name=only.there", **bearer)[1]
            names = json.loads(monitor.get("/api/functions", **bearer)[1])
            assert names["resize"]["stats"]["done"] > 1000
