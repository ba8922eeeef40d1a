"""The line through the samples of a soak."""

from __future__ import annotations

import random

import pytest

from tests.soak.slope import fit


def test_points_on_a_line_have_its_slope_and_no_error() -> None:
    value, error = fit([(x, 3.0 + 2.5 * x) for x in range(10)])
    assert value == pytest.approx(2.5)
    assert error == pytest.approx(0.0, abs=1e-9)


def test_the_slope_of_noisy_points_is_within_a_few_errors() -> None:
    rng = random.Random(1)
    value, error = fit([(x / 100, x / 100 + rng.gauss(0, 1)) for x in range(1000)])
    assert abs(value - 1.0) < 4 * error
    assert 0.005 < error < 0.02  # 1 / (sqrt(1000) * 10 / sqrt(12))
