"""A real Prometheus: it scrapes the monitor, and its promtool checks and tests the alerts."""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml

from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST, free_port, need, stop_process
from tests.support.waiting import eventually

ETC = Path(__file__).parents[1] / "etc"
RULES = ETC / "prometheus" / "geard.rules.yaml"


def promtool(*arguments: str) -> None:
    need("/usr/bin/promtool")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_fires_when_it_should(tmp_path: Path) -> None:
    promtool("check", "rules", str(RULES))
    text = (Path(__file__).parent / "prometheus" / "geard.rules.test.yaml").read_text()
    tests = tmp_path / "test.yaml"
    tests.write_text(text.replace("RULES", str(RULES)))
    promtool("test", "rules", str(tests))


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MonitorProcess]:
    with FakeSupervisor(str(tmp_path_factory.mktemp("run") / "s.sock")) as supervisor:
        supervisor.count('a "quoted" \\ function\n', done=7)
        with MonitorProcess(supervisor.path, [f"{HOST}:1"]) as monitor:
            yield monitor


def test_the_rules_and_the_dashboard_name_metrics_that_exist(monitor: MonitorProcess) -> None:
    eventually(lambda: "geard_jobs_total{" in monitor.get("/metrics")[1], what="a job")
    text = monitor.get("/metrics")[1]
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    panels = json.loads((ETC / "grafana" / "geard.json").read_text())["panels"]
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in panels for target in panel.get("targets", ())]
    named = {
        word.removesuffix("_bucket")
        for expression in expressions
        for word in expression.replace("(", " ").replace("{", " ").replace(")", " ").replace("[", " ").split()
        if word.startswith(("geard_", "gearman_"))
    }
    assert len(named) > 10
    assert named <= known


def test_prometheus_scrapes_it(monitor: MonitorProcess, tmp_path: Path) -> None:
    need("/usr/bin/prometheus")
    port = free_port()
    config = {
        "global": {"scrape_interval": "500ms", "scrape_timeout": "400ms"},
        "rule_files": [str(RULES)],
        "scrape_configs": [{"job_name": "geard", "static_configs": [{"targets": [f"{HOST}:{monitor.port}"]}]}],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = [
        "prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
        f"--web.listen-address={HOST}:{port}",
    ]  # fmt: skip
    with (tmp_path / "log").open("wb") as log:
        prometheus = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=tmp_path)
    try:
        results = eventually(lambda: ask(port, 'geard_jobs_total{outcome="done"} == 7'), what="a scrape")
        assert results[0]["metric"]["function"] == 'a "quoted" \\ function\n'
        assert ask(port, "up == 1")
        assert ask(port, "histogram_quantile(0.5, geard_job_seconds_bucket)")
    finally:
        stop_process(prometheus)


def ask(port: int, query: str) -> list[dict[str, dict[str, str]]]:
    """The vector that Prometheus answers a query with."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/api/v1/query?query={quote(query)}", timeout=10) as answer:
            found: list[dict[str, dict[str, str]]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []
