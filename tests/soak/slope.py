"""A line through points, and how sure its slope is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Slope(NamedTuple):
    """Of a straight line, with its standard error; in units of y for one of x."""

    value: float
    error: float


def fit(points: Sequence[tuple[float, float]]) -> Slope:
    """By least squares. Needs three points at least, at different x."""
    count = len(points)
    mean_x = sum(x for x, _ in points) / count
    mean_y = sum(y for _, y in points) / count
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    value = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - value * (x - mean_x)) ** 2 for x, y in points)
    return Slope(value, math.sqrt(rest / (count - 2) / spread))
