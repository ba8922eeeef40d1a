"""The JSON Schema of a config: what the daemon takes an editor takes too, and marks what is wrong by itself."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from geard.config import config_from, format_duration, format_size
from geard.config.keys import CAPABILITY_KEYS, CONFIG_KEYS
from geard.errors import ConfigError
from geard.reference import config_keys, schema
from tests.support.commands import geard
from tests.support.documents import configs

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SCHEMA = schema()
VALIDATOR = jsonschema.Draft7Validator(SCHEMA)
CASES = re.split(r"^=== (.+)\n", (HERE / "bad_configs.txt").read_text(), flags=re.MULTILINE)[1:]
BAD = {name: body.partition("---\n")[0] for name, body in zip(CASES[::2], CASES[1::2], strict=True)}
GOOD = re.findall(r'config\("""(.*?)"""', (HERE / "test_config_good.py").read_text(), re.DOTALL)


class EditorsLoader(yaml.SafeLoader):
    """YAML 1.2, as editors read it: `on` and `yes` are texts."""


EditorsLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":bool", ":timestamp"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
EditorsLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)$"), list("tf"))


def complaints(text: str) -> list[str]:
    """What the schema finds wrong."""
    return [error.message for error in VALIDATOR.iter_errors(yaml.load(text, EditorsLoader))]


def test_it_is_a_schema_and_describes_every_key() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    assert len(GOOD) == 2
    assert set(SCHEMA["properties"]) == set(CONFIG_KEYS)
    texts = json.dumps(SCHEMA)
    assert [key.name for key in config_keys() if json.dumps(key.paragraph.rstrip("."))[1:-1] not in texts] == []
    assert set(re.findall(r'"\$ref": "([^"]*)"', texts)) == {"#/definitions/reference"}  # nothing outside of it


@pytest.mark.parametrize("path", ["etc/geard.yaml", "tests/bench/geard.yaml", "geard/cli/init/files/geard.yaml.txt"])
def test_the_configs_of_the_repository_are_valid(path: str) -> None:
    assert complaints((ROOT / path).read_text()) == []


def test_the_configs_of_the_documentation_are_valid() -> None:
    assert [(place, complaints(text)) for place, text in configs() if complaints(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        *GOOD,
        "capabilities: {a: m.f, b: 'm:f.g', c: {function: m.f, retry: 3}}",
        "capabilities: {a: {function: m.f, retry: {times: 3, wait: 2s..1h, on: [OSError], not_on: [a.B]}}}",
        "capabilities: {a: {function: m.f, rate: 5/s+9}, b: {function: m.f, rate: 100/h}}",
        "capabilities: {a: {function: m.f, retry: {times: '${TIMES:-3}', wait: 90}, processes: auto}}",
        "capabilities: {a: '${FUNCTION}'}\nprocesses: ${N}\njob_servers: ['${HOST}']\nkeep_workloads: ${KEEP:-true}",
        "capabilities: {a: m.f}\nmax_jobs:\nclient_id: ~\nmonitor:\nmax_memory: 64MiB\nmax_age: 1h30m",
        "capabilities: {a: m.f}\nmonitor: 127.0.0.1:8733\ndead_letters: letters.sqlite\njob_servers: ['[::1]']",
        "capabilities: {a: m.f}\nmonitor: {listen: /run/geard/monitor, peers: ['https://host2:8733'], base_path: /}",
        "schedules: {n: {function: f, every: 15, workload: [1, {b: 2}], encoding: json}}\ncapabilities: {a: m.f}",
        "capabilities: {a: &a {function: m.f, timeout: 0.5}, b: {<<: *a, thread: true}}",
    ],
)  # fmt: skip
def test_short_forms_units_and_references_are_valid(text: str) -> None:
    assert complaints(text) == []


SEEN_BY_THE_DAEMON_ONLY = """
lone surrogate; a key twice; a capability twice; an octal number; a sexagesimal duration; encoding yes
an unknown encoding; a codec that is not of text; a function with a NUL; a function without a name
a function with a number for a name; a function called yes; port zero; a port too large; a host with a port
a job server twice; a hasty age; no end of time; a hang within a heartbeat; a huge packet
a hard limit below the soft one; a hang before its warning; a warning after the hang; a key without a certificate
a TLS file that does not exist; a TLS file that is a directory; no such working directory; no such python path
a file as working directory; no directory for the log; a long socket path; an unset variable
an unset variable in a key; a malformed reference; an open reference; a reference in a default
a variable of the wrong type
"""


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_by_itself_is_marked(name: str) -> None:
    try:
        found = complaints(BAD[name])
    except yaml.YAMLError:
        return
    unseen = re.split(r"[;\n] ?", SEEN_BY_THE_DAEMON_ONLY)
    assert bool(found) == (name not in unseen), found


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**33),
    st.floats(-1, 1e6),
    st.floats(0, 1e6).map(format_duration),
    st.integers(0, 2**40).map(format_size),
    st.from_regex(r"\A[a-z]{1,3}([.:][a-z]{1,3}){0,2}(:[0-9]{1,4})?\Z"),
    st.sampled_from(["auto", "1.5G", "2MiB", "1h30m", "5", "0.5", "json", "bytes", "info", "2s..1h", "3/m", "@daily"]),
    st.text(max_size=4),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["host", "port", "level", "file", "keep", "listen", "times", "a"]), inner),
    ),
    max_leaves=4,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted({*CONFIG_KEYS} - {"capabilities"})), VALUES, max_size=4),
    st.dictionaries(st.sampled_from(sorted({*CAPABILITY_KEYS} - {"function"})), VALUES, max_size=4),
)
def test_whatever_the_daemon_takes_is_valid(config: dict[str, Any], capability: dict[str, Any]) -> None:
    configs = [{name: value, "capabilities": {"a": "m.f"}} for name, value in config.items()]
    configs += [{"capabilities": {"a": {"function": "m.f", name: value}}} for name, value in capability.items()]
    for data in configs:
        try:
            config_from(data)
        except ConfigError:
            continue
        assert [error.message for error in VALIDATOR.iter_errors(data)] == [], data


def test_geard_check_prints_it_where_there_is_no_config(tmp_path: Path) -> None:
    done = geard("check", "--schema", cwd=tmp_path)
    assert done.returncode == 0
    assert json.loads(done.stdout) == SCHEMA
