"""CONTRIBUTING, SECURITY and the statement of what is stable: they name only what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import geard.testing
from geard import pytest_plugin
from geard.cli import COMMANDS
from geard.reference import config_keys

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("CONTRIBUTING.md", "SECURITY.md", "docs/stability.md")
KEYS = {part for key in config_keys() for part in key.name.split(".")}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_it_names_only_files_commands_and_targets_that_there_are(name: str) -> None:
    text = (ROOT / name).read_text()
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:etc|systemd|geard|tests|docs|\.ci)/[\w./-]*)`", text)
    assert [link for link in links if not ((ROOT / name).parent / link).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [one for one in re.findall(r"`geard ([a-z]+)", text) if one not in COMMANDS] == []
    targets = [one for line in re.findall(r"(?:`|^)make ([a-z ]+)", text, re.MULTILINE) for one in line.split()]
    known = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [one for one in targets if one not in known] == []


def test_what_is_called_stable_is_there() -> None:
    text = (ROOT / "docs" / "stability.md").read_text()
    assert geard.__all__
    assert geard.testing.__all__
    for fixture in ("job_server", "geard_worker", "geard_client"):
        assert f"`{fixture}`" in text
        assert hasattr(pytest_plugin, fixture)


def test_the_trust_model_names_keys_that_there_are() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", text)) | {"tls", "certificate"}
    assert named
    assert named <= KEYS
