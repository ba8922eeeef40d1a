"""Dockerfile, compose.yaml and etc/kubernetes: no daemon of theirs runs here, so they are held against schemas, and
against each other and what geard really has."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from compose_spec import PyCompose

from geard.config import examine_config
from geard.reference import schema
from tests.support.servers import need

ROOT = Path(__file__).parents[1]
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
MANIFESTS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted((ROOT / "etc/kubernetes").glob("*.yaml"))}
POD = MANIFESTS["deployment"]["spec"]["template"]
CONTAINER = POD["spec"]["containers"][0]
CONFIGS = {
    "image": (ROOT / "etc/docker/geard.yaml").read_text(),
    "compose": (ROOT / "etc/docker/monitored.yaml").read_text(),
    "kubernetes": MANIFESTS["configmap"]["data"]["geard.yaml"],
}


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile: (instruction, what follows), its continued lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line.strip())]


INSTRUCTIONS = instructions()
LAST = dict(INSTRUCTIONS)  # of each instruction the last, which is the one that counts


# --- the image ----------------------------------------------------------------------------------------------------


def test_the_dockerfile_copies_what_is_there_and_all_that_the_wheel_needs() -> None:
    known = {
        "FROM",
        "WORKDIR",
        "COPY",
        "RUN",
        "ENV",
        "USER",
        "EXPOSE",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "ENTRYPOINT",
        "CMD",
    }
    assert {name for name, _ in INSTRUCTIONS} <= known
    copied = [rest.split()[:-1] for name, rest in INSTRUCTIONS if name == "COPY" and "--from" not in rest]
    sources = [source for each in copied for source in each]
    assert [source for source in sources if not (ROOT / source).exists()] == []
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [
        source for source in sources if not any(fnmatch(source, one) or source.startswith(f"{one}/") for one in let_in)
    ] == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [project["project"]["readme"], *project["project"]["license-files"], *wheel["packages"]]
    needed += [*wheel["force-include"], *wheel.get("shared-data", ())]
    assert [path for path in needed if not {path, *map(str, Path(path).parents)} & {*sources}] == []


def test_the_image_runs_geard_as_pid_1_and_not_as_root() -> None:
    assert json.loads(LAST["ENTRYPOINT"]) + json.loads(LAST["CMD"]) == ["geard", "run"]  # lists: no shell before it
    assert LAST["STOPSIGNAL"] == "SIGTERM"
    check = LAST["HEALTHCHECK"]
    assert json.loads(check.partition(" CMD ")[2]) == ["geard", "health"]
    assert all(f"--{option}=" in check for option in ("interval", "timeout", "start-period", "retries"))
    user = LAST["USER"].split(":")[0]
    assert int(user) > 0
    assert f"--uid {user}" in next(rest for name, rest in INSTRUCTIONS if name == "RUN" and "useradd" in rest)
    security = POD["spec"]["securityContext"]
    assert (security["runAsNonRoot"], security["runAsUser"]) == (True, int(user))


@pytest.mark.parametrize("name", CONFIGS)
def test_each_config_can_run_with_its_secret_and_stops_within_the_time_it_has(name: str, tmp_path: Path) -> None:
    jsonschema.validate(yaml.safe_load(CONFIGS[name]), schema())
    (tmp_path / "token").write_text("secret")
    text = re.sub(r"/etc/geard/(secret/)?token", str(tmp_path / "token"), CONFIGS[name]).replace("/app", str(tmp_path))
    (tmp_path / "geard.yaml").write_text(text)
    source = examine_config(tmp_path / "geard.yaml", {})
    assert source.problems == ()
    granted = {
        "image": 30,  # docker stop --time 30, says the Dockerfile
        "compose": int(COMPOSE["services"]["geard"]["stop_grace_period"].removesuffix("s")),
        "kubernetes": POD["spec"]["terminationGracePeriodSeconds"],
    }
    assert granted[name] >= source.config.shutdown_timeout_seconds + 5
    monitor = source.config.monitor
    assert (monitor is None) == (name == "image")
    assert monitor is None or str(monitor.listen.port) == LAST["EXPOSE"]


# --- compose ------------------------------------------------------------------------------------------------------


def test_compose_is_valid_and_names_files_that_are_there() -> None:
    parsed = PyCompose.from_yaml((ROOT / "compose.yaml").read_text())
    assert sorted(parsed.service_names()) == ["geard", "gearmand", "prometheus"]
    with pytest.raises(Exception, match="restrat"):
        PyCompose.from_yaml("services: {a: {image: b, restrat: always}}")  # it does find what is wrong
    configs = COMPOSE["configs"]
    assert [one for one in configs.values() if "file" in one and not (ROOT / one["file"]).is_file()] == []
    used = {one["source"] for service in COMPOSE["services"].values() for one in service.get("configs", ())}
    assert used == set(configs)


def test_prometheus_reads_its_config_with_the_rules_and_scrapes_geard(tmp_path: Path) -> None:
    scrape = yaml.safe_load((ROOT / "etc/prometheus/prometheus.yaml").read_text())["scrape_configs"][0]
    host, _, port = scrape["static_configs"][0]["targets"][0].partition(":")
    monitor = yaml.safe_load(CONFIGS["compose"])["monitor"]
    assert host in COMPOSE["services"]
    assert host in monitor["hosts"]  # or the monitor refuses the name
    assert monitor["listen"].endswith(f":{port}")
    need("promtool")
    for name in ("prometheus.yaml", "geard.rules.yaml"):
        shutil.copy(ROOT / "etc/prometheus" / name, tmp_path)
    (tmp_path / "token").write_text("secret")
    done = subprocess.run(["promtool", "check", "config", str(tmp_path / "prometheus.yaml")], capture_output=True)
    assert done.returncode == 0, done.stderr


# --- Kubernetes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["configmap", "deployment"])
def test_kubernetes_knows_every_field_of_the_manifests(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], kubernetes_validate.latest_version(), strict=True)


def test_a_field_that_kubernetes_does_not_know_would_be_found() -> None:
    wrong: dict[str, Any] = json.loads(json.dumps(MANIFESTS["deployment"]))
    wrong["spec"]["template"]["spec"]["containers"][0]["livenessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_probes_and_the_pod_monitor_ask_what_the_monitor_answers() -> None:
    routes = (ROOT / "geard/monitor/api.py").read_text()
    probes = {name: CONTAINER[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startupProbe": "/health/live",
        "livenessProbe": "/health/live",
        "readinessProbe": "/health/ready",
    }
    monitor = MANIFESTS["podmonitor"]
    endpoint = monitor["spec"]["podMetricsEndpoints"][0]
    for path in (*(probe["path"] for probe in probes.values()), endpoint["path"]):
        assert f'"{path}"' in routes
    ports = {port["name"]: port["containerPort"] for port in CONTAINER["ports"]}
    assert {endpoint["port"], *(probe["port"] for probe in probes.values())} <= set(ports)
    assert str(ports["monitor"]) == LAST["EXPOSE"]
    assert "preStop" not in json.dumps(POD)


def test_the_pod_monitor_has_the_fields_of_its_kind_and_the_pods_label() -> None:
    monitor = MANIFESTS["podmonitor"]
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert set(monitor) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(monitor["spec"]) == {"selector", "podMetricsEndpoints"}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "path", "interval", "authorization"}
    labels = POD["metadata"]["labels"]
    assert monitor["spec"]["selector"]["matchLabels"] == labels
    assert MANIFESTS["deployment"]["spec"]["selector"]["matchLabels"] == labels
    volumes = {volume["name"]: volume for volume in POD["spec"]["volumes"]}
    assert endpoint["authorization"]["credentials"] == {
        "name": volumes["secret"]["secret"]["secretName"],
        "key": "token",
    }
    assert volumes["config"]["configMap"]["name"] == MANIFESTS["configmap"]["metadata"]["name"]
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == set(volumes)
