"""A real Prometheus: it scrapes the monitor, and its promtool checks and tests the alerts."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from geard.client import Client
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.monitor import MonitorProcess
from tests.support.servers import HOST, Embedded, free_port, need, stop_process
from tests.support.waiting import eventually

ETC = Path(__file__).parents[1] / "etc"
RULES = ETC / "prometheus" / "geard.rules.yaml"
DASHBOARD = json.loads((ETC / "grafana" / "geard.json").read_text())


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
        supervisor.count("resize", done=3)  # whose name a regular expression's dot matches
        supervisor.totals.worker_ends["crashed"] = 1
        with Embedded() as server, Client(server.address) as client:
            client.submit_background("resize", "waits")
            with MonitorProcess(supervisor.path, [server.address]) as monitor:
                yield monitor


def test_the_rules_and_the_dashboard_name_metrics_that_exist(monitor: MonitorProcess) -> None:
    eventually(lambda: "geard_jobs_total{" in monitor.get("/metrics")[1], what="a job")
    text = monitor.get("/metrics")[1]
    known = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    expressions = [rule["expr"] for rule in rules]
    expressions += [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
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
        holds(port)
    finally:
        stop_process(prometheus)


def queries() -> set[str]:
    """What the panels and variables of the dashboard ask, for all instances and functions."""
    panels = DASHBOARD["panels"]
    asked = {target["expr"] for panel in panels for target in panel.get("targets", ())}
    for name, value in (("$instance", ".*"), ("$function", ".*"), ("$__rate_interval", "1m")):
        asked = {expression.replace(name, value) for expression in asked}
    for variable in DASHBOARD["templating"]["list"]:
        if found := re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]):
            metric, label = found.groups()
            asked.add(f'count by ({label}) ({metric}{{{label}!=""}})')
    return asked


def test_the_dashboard_is_one_that_grafana_takes() -> None:
    assert {"title", "uid", "schemaVersion"} <= DASHBOARD.keys()
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    asked = [*panels, *(variable for variable in variables.values() if variable["type"] == "query")]
    assert all(each["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for each in asked)
    used = set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD)))
    assert used - {"__rate_interval"} == set(variables), "each variable is used, and each that is used is there"
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        cells = {(column, row) for column in range(x, x + w) for row in range(y, y + h)}
        assert 0 <= x < x + w <= 24, panel["title"]
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells


def holds(port: int) -> None:
    """Prometheus parses all that the dashboard asks, and has an answer with the labels that its legends show."""
    for query in queries():
        eventually(lambda query=query: vector(port, query), what=f"an answer to {query}")  # type: ignore[misc]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            expression, legend = target["expr"], target.get("legendFormat", "")
            shown = set(re.findall(r"\{\{(\w+)\}\}", legend))
            grouped = {name for names in re.findall(r"by \(([^)]*)\)", expression) for name in names.split(", ")}
            matched = set(re.findall(r"[{,](\w+)(?:=~|!=|=)", expression))
            for metric in re.findall(r"(?:geard|gearman)_\w+", expression):
                labels = get(port, f"labels?match[]={metric}")
                assert shown | grouped | matched <= set(labels), f"{metric} has {labels}"


def get(port: int, path: str) -> Any:
    """What the API answers. Raises HTTPError for a query that Prometheus cannot parse."""
    with urllib.request.urlopen(f"http://{HOST}:{port}/api/v1/{path}", timeout=10) as answer:
        return json.load(answer)["data"]


def vector(port: int, query: str) -> list[dict[str, Any]]:
    """The vector that a query is answered with."""
    found: list[dict[str, Any]] = get(port, f"query?query={quote(query)}")["result"]
    return found


def ask(port: int, query: str) -> list[dict[str, Any]]:
    """As `vector`; nothing while Prometheus does not answer yet."""
    try:
        return vector(port, query)
    except OSError:
        return []
