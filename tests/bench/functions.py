"""What the benchmark's geard serves."""

from __future__ import annotations

import time


def echo(workload: bytes) -> bytes:
    """Nothing but the daemon's own work."""
    return workload


def sleep100(workload: bytes) -> bytes:
    """A job that waits, as most do."""
    time.sleep(0.1)
    return workload
