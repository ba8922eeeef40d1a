"""Fixtures that many tests share: real job servers."""

from __future__ import annotations

import importlib.util
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import Embedded, Gearmand, JobServerProcess

# Where this runs in the background of a shell, Ctrl-C is ignored, and would be in all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes an example slow, not wrong.
settings.register_profile("geard", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("geard")

# Optional packages, which an older virtual environment may lack; where CI is set, what is missing is a failure.
OPTIONAL = {"test_contrib.py": ("sentry_sdk", "opentelemetry")}
collect_ignore = [
    file
    for file, packages in OPTIONAL.items()
    if not os.environ.get("CI") and not all(map(importlib.util.find_spec, packages))
]

# Most of what they take is waiting. Whole files are given to several processes: the longest must not come last.
LONGEST_FIRST = [
    "test_systemd.py",
    "test_retries.py",
    "test_reload.py",
    "test_scheduler.py",
    "test_run_supervisor.py",
    "test_chaos.py",
    "test_worker_faults.py",
    "test_dashboard.py",
    "test_client_deadlines.py",
    "test_cli_inspect.py",
    "test_upgrade.py",
    "test_worker_drain.py",
    "test_monitor_letters.py",
    "test_readme.py",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest."""
    place = {name: index for index, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.name, len(place)))


SERVERS: dict[str, type[JobServerProcess]] = {"gearmand": Gearmand, "embedded": Embedded}


@pytest.fixture
def gearmand() -> Iterator[JobServerProcess]:
    """A gearmand of its own for this test."""
    with Gearmand() as server:
        yield server


@pytest.fixture
def embedded() -> Iterator[JobServerProcess]:
    """An embedded job server of its own for this test."""
    with Embedded() as server:
        yield server


@pytest.fixture(params=list(SERVERS))
def job_server(request: pytest.FixtureRequest) -> Iterator[JobServerProcess]:
    """Each job server there is, in turn: what is tested on one holds on the other."""
    with SERVERS[request.param]() as server:
        yield server


@pytest.fixture(params=list(SERVERS), scope="module")
def shared_job_server(request: pytest.FixtureRequest) -> Iterator[JobServerProcess]:
    """Each job server there is, one for all tests of a module: each test has function names of its own."""
    with SERVERS[request.param]() as server:
        yield server
