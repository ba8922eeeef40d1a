"""Wait for an event under a generous deadline; never sleep and hope."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_SECONDS = 30.0
"""Long enough for a loaded two-core machine; a passing test never comes near it."""


def eventually(probe: Callable[[], T], *, within: float = DEADLINE_SECONDS, what: str = "") -> T:
    """The first true value of `probe()`, asked again every 10 ms. Fails with the last value when time is up."""
    deadline = time.monotonic() + within
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what or 'it'} did not happen within {within:.0f} s; last seen: {value!r}")
        time.sleep(0.01)
