"""The monitor beside a real daemon: started and replaced by it, seen by it no further, and told the truth by it."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

from geard import Client
from tests.support.daemon import Daemon
from tests.support.servers import HOST, Embedded, free_port
from tests.support.waiting import eventually

COUNTING = """
from prometheus_client import Counter, Gauge

RENDERED = Counter("images_rendered", "Images.", ["size"])
OPEN = Gauge("images_open", "Open now.", multiprocess_mode="livesum")


def render(workload):
    RENDERED.labels(workload).inc()
    OPEN.set(1)
    return workload


def crash(workload):
    import os
    RENDERED.labels("crash").inc()
    os.kill(os.getpid(), 9)
"""


def get(port: int, path: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}{path}", timeout=10) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def monitor_pid(daemon: Daemon) -> int:
    """Of the monitor that runs now."""
    for pid in daemon.children:
        try:
            if "geard: monitor" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        except OSError:
            continue
    return 0


def test_the_daemon_keeps_its_monitor_and_does_not_mind_what_becomes_of_it() -> None:
    port, port_after = free_port(), free_port()
    with Embedded() as server, Daemon(server, monitor=f"{HOST}:{port}") as daemon, Client(server.address) as client:
        daemon.start()
        eventually(lambda: '"ok":true' in get(port, "/health/ready"), what="a ready daemon")
        first = eventually(lambda: monitor_pid(daemon), what="the monitor")
        os.kill(first, signal.SIGSTOP)  # hung: the daemon goes on
        assert client.run("count", "one") == "one"
        assert daemon.reload().returncode == 0
        os.kill(first, signal.SIGKILL)
        eventually(lambda: monitor_pid(daemon) not in (0, first), what="another monitor")
        eventually(lambda: '"generation":2' in get(port, "/api/state"), what="its answer")
        daemon.write_config(monitor={"listen": f"{HOST}:{port_after}", "read_only": True})
        assert daemon.reload().returncode == 0
        eventually(lambda: '"ok":true' in get(port_after, "/health/live"), what="a monitor elsewhere")
        eventually(lambda: not get(port, "/health/live"), what="the end of the old monitor")
        daemon.write_config(monitor=None)
        assert daemon.reload().returncode == 0
        eventually(lambda: not monitor_pid(daemon), what="no monitor")
        assert client.run("count", "two") == "two"
        assert daemon.stop() == 0


def test_what_capabilities_count_is_summed_and_outlives_their_processes() -> None:
    port = free_port()
    with Embedded() as server, Daemon(server, monitor=f"{HOST}:{port}", processes=2) as daemon:
        (daemon.directory / "counting.py").write_text(COUNTING)
        daemon.write_config(capabilities={"render": "counting.render", "crash": "counting.crash"})
        daemon.start()
        with Client(server.address) as client:
            for _ in range(20):
                client.run("render", "large")

            def rendered(line: str) -> bool:
                return f"\n{line}\n" in get(port, "/metrics")

            eventually(lambda: rendered('images_rendered_total{size="large"} 20.0'), what="twenty images")
            assert daemon.reload().returncode == 0
            eventually(lambda: "generation 1" not in text_of(daemon), what="the end of the old processes")
            eventually(lambda: rendered('images_rendered_total{size="large"} 20.0'), what="the same twenty images")
            client.run("render", "large")
            eventually(lambda: rendered('images_rendered_total{size="large"} 21.0'), what="one image more")
            eventually(lambda: rendered("images_open 1.0"), what="the gauge of one living process")


def text_of(daemon: Daemon) -> str:
    return " ".join(f"generation {generation.number}" for generation in daemon.overview.generations)


def test_the_stack_of_a_running_job_and_a_replaced_process_are_the_daemon_s() -> None:
    port = free_port()
    with Embedded() as server, Daemon(server, monitor=f"{HOST}:{port}") as daemon, Client(server.address) as client:
        daemon.start()
        client.submit_background("hold", "one 0")

        def job() -> dict[str, Any]:
            text = get(port, "/api/jobs")
            jobs: list[dict[str, Any]] = json.loads(text)["jobs"] if text else []
            return jobs[0] if jobs else {}

        found = eventually(job, what="a running job")
        assert found["job"]["function"] == "hold"
        stack = get(port, f"/api/stack?pid={found['pid']}&handle={found['job']['handle']}")
        assert "in hold" in stack
        daemon.release()
        token = get(port, "/processes").split('name="token" value="')[1].split('"')[0]
        body = f"token={token}&pid={found['pid']}".encode()
        asked = urllib.request.Request(f"http://{HOST}:{port}/replace", body, {"Accept": "application/json"})
        with urllib.request.urlopen(asked, timeout=30) as answer:
            assert json.load(answer)["ok"]
        eventually(lambda: [p.pid for p in daemon.processes] != [found["pid"]], what="another worker process")
        assert daemon.stop() == 0
