"""Capabilities that hold the loop of their worker process, and use no CPU for it."""

from __future__ import annotations

import os
import time

import gevent
from gevent.monkey import get_original

native_sleep = get_original("time", "sleep")


def hold(path: str) -> None:
    """Until this file exists."""
    while not os.path.exists(path):
        native_sleep(0.02)


def hold_soon(path: str) -> None:
    """The same, in a greenlet that is no job, some time after the job that started it."""
    gevent.spawn_later(0.5, hold, path)


def hold_in_c(seconds: str) -> None:
    """The same for so many seconds, in a greenlet that has no Python frame."""
    gevent.spawn_later(0.1, native_sleep, float(seconds))


def hold_in_a_row(workload: str) -> str:
    """Greenlets that are no jobs, all woken in one turn of the loop, hold it for so long each. The longest hold."""
    greenlets = [gevent.spawn_later(0.5, _timed, float(seconds)) for seconds in workload.split()]
    return str(max(greenlet.get() for greenlet in greenlets))


def _timed(seconds: float) -> float:
    began = time.monotonic()
    native_sleep(seconds)
    return time.monotonic() - began
