"""Errors keep what they say when they leave the process that raised them."""

from __future__ import annotations

import pickle

import pytest

from geard.errors import (
    CannotConnect,
    ConfigError,
    ConnectionLost,
    GeardError,
    InvalidResult,
    JobException,
    JobTimeout,
    Problem,
    QueueFull,
    ResultTooLarge,
)

ERRORS: list[GeardError] = [
    CannotConnect("cannot connect to gear1:4730: connection refused", refused=True),
    ConfigError([Problem("unknown key", "geard.yaml", 2, 1, key="greenlets")]),
    ConnectionLost("lost gear1:4730", job_created=True),
    InvalidResult("the result is not JSON", b"\xff"),
    JobException("resize: ValueError: no image", "ValueError: no image"),
    JobTimeout("resize: not done in time"),
    QueueFull("QUEUE_ERROR", "Job queue is full"),
    ResultTooLarge("resize: too large for this client"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_out_of_a_process_pool_as_it_was(error: GeardError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))
