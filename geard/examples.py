"""Example capabilities: what a function for geard looks like.

They are plain Python: nothing here imports geard to run, and each can be called, and tested, without a job server.
etc/geard.yaml offers them all; `geard submit FUNCTION WORKLOAD` calls one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geard.worker import Job


def reverse(workload: str) -> str:
    """One argument: it gets the workload, and what it returns is the job's result."""
    return workload[::-1]


def count_slowly(job: Job, workload: str) -> str:
    """Two arguments: hands-on. It tells clients how far it is while it runs. The workload is how far to count.

    time.sleep holds up no other job: within geard, whatever waits lets the other greenlets run."""
    steps = int(workload or "5")
    for step in range(1, steps + 1):
        time.sleep(0.2)
        job.status(step, steps)
    return f"counted to {steps}"


def upper_lines(workload: str) -> Iterator[str]:
    """A generator: clients get each item at once (WORK_DATA), and all of them together are the result."""
    for line in workload.splitlines(keepends=True):
        time.sleep(0.2)  # as if it took work
        yield line.upper()


def divide(workload: dict[str, float]) -> dict[str, float]:
    """`encoding: json`: it gets and returns what JSON can say. Try {"dividend": 7, "divisor": 2}."""
    return {"quotient": workload["dividend"] / workload["divisor"]}


def fail(workload: str) -> str:
    """What it raises ends the job: clients get the type and message, the log gets the traceback."""
    raise ValueError(f"cannot do anything with {workload!r}")
