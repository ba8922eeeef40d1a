"""What a job server knows of a job, and waiting until it no longer does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from geard.client.results import number
from geard.client.task import deadline_after, left
from geard.errors import JobTimeout

POLL_SECONDS: Final = (0.05, 1.0)  # it is asked again after the first, and ever later up to the second


class JobState(NamedTuple):
    """What the job server knows of a job. One that it does not know has ended, or never was."""

    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int | None = None  # that wait for it; only status_unique tells


def job_state(fields: list[bytes]) -> JobState:
    """What a STATUS_RES or STATUS_RES_UNIQUE says."""
    _, known, running, *numbers = fields
    return JobState(known != b"0", running != b"0", *map(number, numbers))


def most_telling(states: Sequence[JobState]) -> JobState:
    """What several job servers know of a job together: of those that know it, one where it runs goes before one where
    it waits. The clients of all are counted."""
    counted = [state.clients for state in states if state.clients is not None]
    best = max(states, key=lambda state: (state.known, state.running), default=JobState(False, False, 0, 0))
    return best._replace(clients=sum(counted)) if counted else best


def wait_until_unknown(
    handle: str,
    status: Callable[..., JobState],
    on_progress: Callable[[JobState], None] | None,
    timeout: float | None,
) -> bool:
    """Ask for a job's status until the job is not known; see Client.wait."""
    deadline = deadline_after(timeout)
    pause, longest = POLL_SECONDS
    last: JobState | None = None
    while (state := status(handle, timeout=left(deadline))).known:
        if state != last and on_progress is not None:
            on_progress(state)
        last = state
        if deadline is not None:
            if time.monotonic() >= deadline:
                raise JobTimeout(f"{handle}: not done within {timeout:g} s; the job may still run")
            pause = min(pause, max(deadline - time.monotonic(), 0))
        time.sleep(pause)
        pause = min(pause * 1.5, longest)
    return last is not None
