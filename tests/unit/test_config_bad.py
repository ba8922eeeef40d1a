"""Bad config files: what the person who wrote one gets to read. Most are in the table of bad_configs.txt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from geard.config import config_from, examine_config, load_config
from geard.errors import ConfigError

CASES = re.split(r"^=== (.+)\n", (Path(__file__).parent / "bad_configs.txt").read_text(), flags=re.MULTILINE)[1:]
ENVIRON = {"WORD": "word", "HOME": "/root"}
GOOD = "capabilities: {reverse: app.reverse}\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(data: str | bytes, environ: Mapping[str, str] = ENVIRON) -> str:
    """All that is said of a file with this in it."""
    Path("geard.yaml").write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(ConfigError) as caught:
        load_config("geard.yaml", environ)
    return str(caught.value)


@pytest.mark.parametrize(
    "case", [pytest.param(body, id=name) for name, body in zip(CASES[::2], CASES[1::2], strict=True)]
)
def test_the_message_says_what_is_wrong_and_where(case: str, here: Path) -> None:
    text, _, message = case.partition("---\n")
    assert complaint(text).replace(str(here), "HERE") == message.strip()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "geard.yaml: the file is empty\n    expected: at least `capabilities`"),
        (b"processes: 2\nclient_id: \xe9\n", "geard.yaml:2:12: the byte 0xe9 is not UTF-8\n    expected: UTF-8 text"),
        ("encoding: utf-8\n".encode("utf-16"), "geard.yaml:1:1: the byte 0xff is not UTF-8\n    expected: UTF-8 text"),
        (b"encoding: utf-8\nclient_id: \x07\n", "geard.yaml:2:12: not valid YAML: the character U+0007 is not allowed"),
        (
            GOOD + "---\n" + GOOD,
            "geard.yaml:2:1: a second document starts here\n    a config is one YAML document",
        ),
        (b"#" * 1024 * 1024 + b"\n", "geard.yaml: is over 1 MiB\n    expected: a config of geard"),
        ("client_id: " + "[" * 5000, "geard.yaml: nested more than 20 levels deep"),
        ("client_id: " + "[" * 30 + "]" * 30, "geard.yaml:1:31: nested more than 20 levels deep"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_config_at_all_is_told_as_such(data: str | bytes, message: str) -> None:
    assert complaint(data) == message


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(
            "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
            + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)),
            id="lists of lists",
        ),
        pytest.param(f"a: &a {'x' * 100_000}\nb: [{', '.join(['*a'] * 1000)}]\n", id="long texts"),
        pytest.param("a: &a ${LONG}\nb: [" + ", ".join(["*a"] * 1000) + "]\n", id="long variables"),
    ],
)
def test_a_small_file_cannot_fill_the_memory(text: str) -> None:
    assert "its aliases and variables expand to too much" in complaint(text, {"LONG": "x" * 100_000})


def test_a_file_that_cannot_be_read_is_named(here: Path) -> None:
    for path, reason in [("none.yaml", "no such file or directory"), (".", "is a directory")]:
        problem = examine_config(path).problems[0]
        assert (problem.file, problem.message) == (path, f"cannot be read: {reason}")


def test_tls_files_that_openssl_cannot_use_are_found_at_once(here: Path) -> None:
    said = complaint("job_servers: [{host: localhost, tls: {ca: geard.yaml}}]\n" + GOOD)
    assert said.startswith(f"geard.yaml:1:39: job_servers[0].tls.ca: {here}/geard.yaml: OpenSSL says ")
    said = complaint("job_servers: [{host: localhost, tls: {certificate: geard.yaml}}]\n" + GOOD)
    assert said.startswith(f"geard.yaml:1:39: job_servers[0].tls.certificate: {here}/geard.yaml: OpenSSL says ")


def test_a_bad_value_does_not_hide_the_rest(here: Path) -> None:
    Path("geard.yaml").write_text("processes: many\nencoding: bytes\ncapabilities: {a: app.a, b: 5}\n")
    config = examine_config("geard.yaml").config
    assert (config.processes, config.encoding, list(config.capabilities)) == (1, "bytes", ["a"])


def test_values_that_depend_on_a_bad_one_are_not_blamed() -> None:
    assert complaint("hang_timeout: x\nblock_warning: 2m\n" + GOOD).count("geard.yaml:") == 1


def test_a_program_gets_the_same_messages_without_places() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from({"processes": True, "capabilities": {"reverse": 5, 404: "app.f"}, "nonsense": 1})
    assert [problem.key for problem in caught.value.problems] == [
        "processes",
        "capabilities.reverse",
        "capabilities.404",
        "nonsense",
    ]
