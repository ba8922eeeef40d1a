"""docs/scaling.md: its arithmetic follows from its figures, and the commands and metrics in it exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from geard.cli import COMMANDS
from tests.support.scaling import COLUMN, FIGURE, FILE, SPAN, computed, evaluate

TEXT = FILE.read_text()


def test_the_arithmetic_follows_from_the_figures() -> None:
    assert computed(TEXT) == TEXT, "python -m tests.support.scaling computes it anew"


def test_every_figure_is_used_and_a_change_of_it_changes_what_follows() -> None:
    assert len(FIGURE.findall(TEXT)) >= 15
    assert len(SPAN.findall(TEXT)) >= 12
    assert len(COLUMN.findall(TEXT)) == 8
    for name, value in FIGURE.findall(TEXT):
        more = re.sub(
            rf"^\| `{name}` \| {re.escape(value)} ", f"| `{name}` | {float(value) * 7:.4f} ", TEXT, flags=re.M
        )
        assert more != TEXT
        assert computed(more) != more, f"nothing follows from `{name}`"


def test_expressions_are_read_as_they_are_written() -> None:
    assert evaluate("⌈load ÷ capacity⌉ + 1", {"load": 100.0, "capacity": 30.0}) == 5
    assert evaluate("2 × (1,000 + 24) ÷ 2↑10", {}) == 2
    assert evaluate("⌈0.1 × 3 ÷ 0.3⌉", {}) == 1  # and not two, for what floats are
    with pytest.raises(KeyError):
        evaluate("1 ÷ nothing", {})


def test_commands_and_metrics_that_it_names_exist() -> None:
    for command in re.findall(r"`geard (\w+)", TEXT) + re.findall(r"^geard (\w+)", TEXT, re.MULTILINE):
        assert command in COMMANDS, command
    known = Path("geard/monitor/metrics.py").read_text()
    for metric in re.findall(r"`(gear\w+_\w+)`", TEXT):
        assert f'"{metric.removesuffix("_total")}"' in known, metric
