"""What the man pages and the site's reference are made of: complete, and read from the code."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from geard import exits
from geard.cli import COMMANDS
from geard.reference import commands, config_keys, error_classes, example_config, exit_codes, metrics

ROOT = Path(__file__).parents[2]
KEYS = {key.name: key for key in config_keys()}


def test_every_key_has_a_paragraph_a_kind_and_its_default() -> None:
    assert [name for name, key in KEYS.items() if not key.paragraph or not key.kind] == []
    assert [name for name, key in KEYS.items() if re.search(r"\w+: .*#", key.paragraph)] == []
    assert KEYS["shutdown_timeout"].default == "25s"
    assert KEYS["max_packet"].default == "64M"
    assert KEYS["capabilities.NAME.retry.wait"].default == "2s..1h"
    assert KEYS["job_servers"].default == "[localhost:4730]"
    assert KEYS["monitor.listen"].default == "127.0.0.1:8733"
    assert KEYS["job_servers[].tls.check_hostname"].default == "true"
    assert {name for name, key in KEYS.items() if key.required} == {
        "job_servers[].host",
        "capabilities.NAME.function",
        "capabilities.NAME.retry.times",
        "schedules.NAME.function",
        "dead_letters.file",
    }


@pytest.mark.parametrize(
    ("name", "paragraph"),
    [
        ("max_age", "A worker process is replaced, without a gap, after so many jobs, over so much memory"),
        ("capabilities.NAME.rate", "so many more at once after a quiet time. What is over it stays in the job server."),
        ("job_servers[].tls.key", "its key, unless it is in the certificate's file"),
        ("monitor.key", "unless it is in the certificate's file"),
        ("schedules.NAME.every", "counted from the Unix epoch"),
        ("middleware", "Code around all jobs, outermost first"),
        ("capabilities.NAME.middleware", "code around this function"),
    ],
)  # fmt: skip
def test_a_key_has_the_text_of_its_own_place_in_the_example_config(name: str, paragraph: str) -> None:
    assert paragraph in KEYS[name].paragraph


def test_the_example_config_is_that_of_the_repository() -> None:
    assert example_config() == (ROOT / "etc" / "geard.yaml").read_text()


def test_every_command_is_there_with_an_example_and_every_option_with_its_help() -> None:
    found = {command.name: command for command in commands(hidden=True)}
    assert {name.split()[0] for name in found} == set(COMMANDS)
    assert "reap" not in {command.name for command in commands()}
    assert [name for name, command in found.items() if not command.examples] == []
    assert [name for name, command in found.items() if not command.summary or not command.help] == []
    assert found["dead list"].usage == "geard dead list [OPTIONS] [ID]..."
    assert found["submit"].examples[0] == "geard submit reverse hello"
    assert found["submit"].exit_codes.startswith("0 done, 1 the job failed")
    config = next(option for option in found["submit"].options if "--config" in option.names)
    assert config.metavar == "FILE"
    signals = next(block for block in found["run"].help if block.verbatim)
    assert signals.text.splitlines()[1].startswith("QUIT ")


def test_every_exit_code_has_a_meaning() -> None:
    constants = {value for name, value in vars(exits).items() if name.isupper() and isinstance(value, int)}
    assert {code.code for code in exit_codes()} == constants
    assert click.UsageError("").exit_code == exits.USAGE


def test_every_error_says_what_it_means() -> None:
    assert [error.name for error in error_classes() if not error.text] == []
    assert "ConnectionLost" in {error.name for error in error_classes()}


def test_every_metric_is_named_as_it_is_queried_with_its_labels() -> None:
    found = {metric.name: metric for metric in metrics()}
    assert found["geard_jobs_total"].labels == ("function", "outcome")
    assert found["geard_job_seconds"].labels == ("function",)
    assert found["gearman_jobs_queued"].labels == ("server", "function", "priority")
    assert found["geard_build_info"].type == "gauge"
    assert [name for name, metric in found.items() if not metric.help] == []
    source = (ROOT / "geard" / "monitor" / "metrics.py").read_text()
    known = set(re.findall(r'"(gear(?:d|man)_[a-z_0-9]+)"', source))
    assert {name.removesuffix("_total").removesuffix("_info") for name in found} == known
