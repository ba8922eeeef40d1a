"""Good configs: what the values become."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from geard.config import Capability, Config, JobServer, Tls, config_from, default_path, load_config, read_config
from geard.config.keys import CAPABILITY_KEYS, CONFIG_KEYS, JOB_SERVER_KEYS, LOGGING_KEYS, SCHEDULE_KEYS, TLS_KEYS
from geard.config.model import Schedule
from geard.config.monitor import MONITOR_KEYS
from geard.errors import ConfigError, Problem

EXAMPLE = Path(__file__).parents[2] / "etc" / "geard.yaml"
GOOD = "capabilities: {reverse: app.reverse}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config(text: str, environ: Mapping[str, str] | None = None) -> Config:
    Path("geard.yaml").write_text(text)
    return load_config("geard.yaml", environ or {})


def test_the_least_config_has_every_default() -> None:
    assert config(GOOD) == Config(capabilities={"reverse": Capability("app.reverse")})


def test_every_key_arrives_in_its_unit(here: Path) -> None:
    Path("lib").mkdir()
    found = config("""
job_servers:
  - gearman.example.com
  - 127.0.0.1:4731
  - "[::1]:4732"
  - {host: "::2", port: 4733, tls: true}
  - {host: tls.example.com, tls: {check_hostname: false, server_name: other.example.com}}
  - {host: plain.example.com, tls: false}
greenlets_per_server: 7
encoding: latin-1
exceptions: false
capabilities:
  reverse: app:reverse
  img.resize: {function: app.img.resize, encoding: bytes, timeout: 1m30s, greenlets_per_server: 2, processes: 3}
  pdf: {function: app.pdf, thread: true, timeout: 0.5, encoding: json, exceptions: true}
python_path: [lib]
on_start: app.start
client_id: me
max_packet: 16M
logging: {level: debug, format: json, file: geard.log, repeats: 1m}
processes: 4
shutdown_timeout: 10s
drain_timeout: 2h
max_jobs: 1000
max_memory: 1.5G
max_memory_hard: 2G
max_age: 1d
block_warning: 250ms
hang_timeout: 5
poison_deaths: 5
control_socket: run/geard.sock
schedules:
  nightly: {function: report, workload: daily, cron: "30 2 * * mon-fri", timezone: Europe/Vienna, catch_up: last}
  poll: {function: poll_api, every: 1m30s, workload: [1, 2], encoding: json, unique: polling}
state_directory: run/state
""")
    assert found == Config(
        job_servers=(
            JobServer("gearman.example.com"),
            JobServer("127.0.0.1", 4731),
            JobServer("::1", 4732),
            JobServer("::2", 4733, Tls()),
            JobServer("tls.example.com", tls=Tls(check_hostname=False, server_name="other.example.com")),
            JobServer("plain.example.com"),
        ),
        greenlets_per_server=7,
        encoding="latin-1",
        exceptions=False,
        capabilities={
            "reverse": Capability("app:reverse"),
            "img.resize": Capability("app.img.resize", "bytes", 90.0, 2, 3),
            "pdf": Capability("app.pdf", "json", 0.5, thread=True, exceptions=True),
        },
        python_path=(str(here / "lib"),),
        on_start="app.start",
        client_id="me",
        max_packet_bytes=16 * 1024 * 1024,
        logging=found.logging,
        processes=4,
        shutdown_timeout_seconds=10.0,
        drain_timeout_seconds=7200.0,
        max_jobs=1000,
        max_memory_bytes=3 * 512 * 1024 * 1024,
        max_memory_hard_bytes=2 * 1024**3,
        max_age_seconds=86400.0,
        block_warning_seconds=0.25,
        hang_timeout_seconds=5.0,
        poison_deaths=5,
        control_socket=str(here / "run/geard.sock"),
        schedules={
            "nightly": Schedule(
                function="report",
                workload="daily",
                cron="30 2 * * mon-fri",
                timezone="Europe/Vienna",
                catch_up="last",
            ),
            "poll": Schedule(function="poll_api", workload=[1, 2], every_seconds=90, encoding="json", unique="polling"),
        },
        state_directory=str(here / "run/state"),
    )
    assert msgspec.structs.astuple(found.logging) == ("debug", "json", str(here / "geard.log"), 60.0)


def test_relative_paths_start_in_the_working_directory(here: Path) -> None:
    (here / "site" / "lib").mkdir(parents=True)
    found = config("python_path: [lib]\nworking_directory: site\nlogging: {file: log}\n" + GOOD)
    assert found.working_directory == str(here / "site")
    assert found.python_path == (str(here / "site/lib"),)
    assert found.logging.file == str(here / "site/log")


def test_auto_is_a_worker_process_per_core() -> None:
    assert config("processes: auto\n" + GOOD).processes == len(os.sched_getaffinity(0))


def test_an_empty_value_is_the_default_where_that_is_none() -> None:
    assert config("max_jobs:\nclient_id: ${NAME:-}\nworking_directory: ~\n" + GOOD) == config(GOOD)


def test_aliases_and_merged_mappings_share_limits_between_capabilities() -> None:
    found = config("""
capabilities:
  small: &small {function: app.small, timeout: 5s, encoding: bytes}
  other: {<<: *small, function: app.other}
  third: {<<: [{timeout: 1s}, *small], processes: 2}
  same: *small
""")
    small = Capability("app.small", "bytes", 5.0)
    assert found.capabilities == {
        "small": small,
        "other": Capability("app.other", "bytes", 5.0),
        "third": Capability("app.small", "bytes", 1.0, None, 2),
        "same": small,
    }


@pytest.mark.parametrize(
    ("written", "environ", "number"),
    [
        ("${GREENLETS:-50}", {}, 50),
        ("${GREENLETS:-50}", {"GREENLETS": "7"}, 7),
        ("${GREENLETS:-50}", {"GREENLETS": ""}, 50),
        ("${TENS}${ONES:-0}", {"TENS": "4"}, 40),
    ],
)
def test_a_variable_is_filled_in_before_the_type_is_decided(written: str, environ: dict[str, str], number: int) -> None:
    assert config(f"greenlets_per_server: {written}\n{GOOD}", environ).greenlets_per_server == number


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("'${ID}'", "12"),  # quoted, it stays text
        ("w-${ID}", "w-12"),
        ("$${ID}", "${ID}"),
        ("$$${ID}", "$${ID}"),
        ("$ID", "$ID"),
        ("${INJECTED}", "a,b:[c]#d"),  # what a variable holds is not read as YAML
        ("${NONE:-}x", "x"),
        ('"${NONE:-a\\tb}"', None),
    ],
)
def test_variables_in_texts(written: str, text: str | None) -> None:
    environ = {"ID": "12", "INJECTED": "a,b:[c]#d"}
    if text is None:
        with pytest.raises(ConfigError, match="text without spaces"):
            config(f"client_id: {written}\n{GOOD}", environ)
    else:
        assert config(f"client_id: {written}\n{GOOD}", environ).client_id == text


def test_variables_name_functions_and_job_servers() -> None:
    found = config('job_servers: ["${HOST}:4731"]\ncapabilities: {"${PREFIX}reverse": app.reverse}\n',
                   {"HOST": "far.example.com", "PREFIX": "test."})  # fmt: skip
    assert found.job_servers == (JobServer("far.example.com", 4731),)
    assert list(found.capabilities) == ["test.reverse"]


def test_a_byte_order_mark_is_no_part_of_the_first_key() -> None:
    assert config("\ufeff" + GOOD) == config(GOOD)


def test_a_program_may_hand_in_callables() -> None:
    def reverse(workload: str) -> str:
        return workload[::-1]

    found = config_from({"job_servers": ["localhost:1"], "capabilities": {"a": reverse, "b": {"function": reverse}}})
    assert found.capabilities == {"a": Capability(reverse), "b": Capability(reverse)}


def test_what_turns_out_wrong_later_is_put_at_its_line(here: Path) -> None:
    Path("geard.yaml").write_text("processes: 1\ncapabilities:\n  a.b: app.f\n  'two words': {function: app.g}\n")
    source = read_config("geard.yaml")
    places = {
        key: source.locate(Problem("is wrong", key=key))
        for key in ("capabilities.a.b", "capabilities.two words.encoding", "on_start", "capabilities.none")
    }
    assert [(problem.line, problem.column) for problem in places.values()] == [(3, 3), (4, 3), (0, 0), (2, 1)]
    assert str(places["capabilities.a.b"]) == "geard.yaml:3:3: capabilities.a.b: is wrong"


def test_the_config_is_found_where_people_put_it(here: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config file"):
        default_path({})
    (here / "etc").mkdir()
    Path("etc/geard.yaml").touch()
    assert default_path({}) == "etc/geard.yaml"
    Path("geard.yaml").touch()
    assert default_path({}) == "geard.yaml"
    assert default_path({"GEARD_CONFIG": "/elsewhere.yaml"}) == "/elsewhere.yaml"


def test_the_example_config_loads_and_differs_from_the_defaults_in_its_capabilities_only() -> None:
    found = load_config(EXAMPLE, {})
    assert msgspec.structs.replace(found, capabilities={}) == Config()


def test_the_example_config_shows_every_key_with_its_default() -> None:
    # Uncommented, what it shows of each key is a config by itself.
    text = EXAMPLE.read_text().partition("# --- job servers ---")[2]
    lines = [line.removeprefix("# ") if is_key(line) else line for line in text.splitlines()]
    assert all(f"\n#   {key}: " in text for key in MONITOR_KEYS)
    shown = yaml.safe_load("\n".join(lines).replace("${GREENLETS:-50}", "50"))
    assert set(shown) == set(CONFIG_KEYS)
    assert set(shown["logging"]) == set(LOGGING_KEYS)
    given = {key: value for key, value in shown.items() if key != "capabilities" and value is not None}
    found = config_from({**given, "capabilities": {"reverse": len}})
    assert msgspec.structs.replace(found, capabilities={}) == Config()
    for key in [*CAPABILITY_KEYS, *JOB_SERVER_KEYS, *TLS_KEYS, *SCHEDULE_KEYS]:
        assert f" {key}: " in text


def is_key(line: str) -> bool:
    """Whether a comment of the example is a key of the config or of `logging`, commented out."""
    name = line.removeprefix("# ").partition(":")[0]
    known: set[Any] = {*CONFIG_KEYS, *(f"  {key}" for key in LOGGING_KEYS)}
    return line.startswith("# ") and name in known
