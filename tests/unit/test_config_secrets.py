"""What came from the environment is never told by a config's errors: the variable is named instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from geard.config import examine_config
from geard.config.keys import CAPABILITY_KEYS, CONFIG_KEYS, JOB_SERVER_KEYS, LOGGING_KEYS, TLS_KEYS
from geard.errors import Problem
from geard.supervisor import summary

SECRETS = (
    "Kx9qZw7Rt3",
    'p"4\\s5w0rd-\u00e9ZZ',
    "s3cretmdl.s3cretnm",
    "/s3cretroot//s3cretplace/../s3cretfile",
    "-313374217",
    "s3crethost:99999",
    "Qz7" * 40,
    "7331739173ms",
)
TEXTS = ("${SECRET}", "a-${SECRET}.b", "/x/${SECRET}/y.pem")
PIECE = 6


def wrong_places(text: str) -> dict[str, Any]:
    """Configs with `text` at every key there is, and where no key is."""
    good = {"capabilities": {"reverse": "app.reverse"}}
    places: dict[str, Any] = {"at the top": text, "as a key": {**good, text: 1}}
    for name in CONFIG_KEYS:
        places[name] = good | {name: text}
        places[f"{name} in a list"] = good | {name: [text, text]}
        places[f"{name} in a mapping"] = good | {name: {text: text, "other": {text: [text]}}}
    for name in CAPABILITY_KEYS:
        places[f"capability {name}"] = {"capabilities": {"reverse": {"function": "app.reverse", name: text}}}
        places[f"capability {name} of its own"] = {"capabilities": {text: {name: text}}}
    for name in JOB_SERVER_KEYS:
        places[f"job server {name}"] = good | {"job_servers": [{"host": "a", name: text}, {"host": "a", name: text}]}
    for name in TLS_KEYS:
        places[f"tls {name}"] = good | {"job_servers": [{"host": "a", "tls": {name: text}}]}
    for name in LOGGING_KEYS:
        places[f"logging {name}"] = good | {"logging": {name: text}}
    places["both timeouts"] = good | {"hang_timeout": text, "block_warning": text}
    return places


def told(problems: tuple[Problem, ...]) -> str:
    return "\n".join(map(str, problems)) + summary.first(problems) if problems else ""


def shows(text: str, secret: str) -> str:
    """A piece of the secret that the text holds, in whatever way it is quoted, or ""."""
    forms = {secret, repr(secret), json.dumps(secret)}
    pieces = {form[start : start + PIECE] for form in forms for start in range(len(form) - PIECE + 1)}
    return next((piece for piece in pieces if piece.lower() in text.lower()), "")


@pytest.mark.parametrize("secret", SECRETS)
def test_no_error_shows_what_a_variable_holds(secret: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    named = 0
    for text in TEXTS:
        for place, data in wrong_places(text).items():
            Path("geard.yaml").write_text(yaml.safe_dump(data))
            problems = examine_config("geard.yaml", {"SECRET": secret}).problems
            assert not shows(told(problems), secret), f"{text} {place}: {told(problems)}"
            named += "SECRET" in told(problems)
    assert named > 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("encoding: ${SECRET}", "encoding: what ${SECRET} stands for is not a text codec"),
        ("max_jobs: ${SECRET}", "max_jobs: cannot be what ${SECRET} stands for"),
        ("job_servers: ['x-${SECRET}/:1']", "job_servers[0]: what x-${SECRET}/:1 stands for is not an address"),
        (
            "python_path: [lib, '${SECRET}/lib']",
            "python_path[1]: what ${SECRET}/lib stands for cannot be used: no such",
        ),
        ("${SECRET}: 1", "${SECRET}: unknown key"),
        ("logging: {'${SECRET}': 1}", "logging.${SECRET}: unknown key"),
    ],
)
def test_the_variable_is_named(text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lib").mkdir()
    Path("geard.yaml").write_text(f"capabilities: {{a: b.c}}\n{text}\n")
    assert message in told(examine_config("geard.yaml", {"SECRET": "Kx9qZw7Rt3"}).problems)


def test_what_is_found_later_passes_the_same_gate(tmp_path: Path) -> None:
    file = tmp_path / "geard.yaml"
    file.write_text("capabilities: {reverse: '${MODULE}.reverse'}\n")
    source = examine_config(file, {"MODULE": "s3cretmodule.inner"})
    assert source.problems == ()
    problem = source.locate(Problem("No module named 's3cretmodule'", key="capabilities.reverse"))
    assert "s3cret" not in str(problem)
    assert "${MODULE}" in str(problem)


def test_a_default_in_the_file_and_a_text_without_variables_are_told_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "geard.yaml"
    file.write_text("capabilities: {a: b.c}\nencoding: ${NONE:-wrong}\nclient_id: ${NAME}\nmax_jobs: x\n")
    text = told(examine_config(file, {"NAME": "x"}).problems)
    assert "'wrong' is not a text codec" in text
    assert 'cannot be the text "x"' in text
