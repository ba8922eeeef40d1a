"""The pytest plugin: fixtures with which users test their capabilities on a job server. See geard.testing.

Rule: pytest loads this for every project where geard is installed; so it imports nothing until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from geard.client import Client
    from geard.testing import EmbeddedJobServer, Gearmand
    from geard.worker import WorkerPool

REGISTRATION_SECONDS: Final = 10.0
_TEST_SETTINGS: Final = {"greenlets_per_server": 4, "shutdown_timeout": "5s"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Choose the job server of the `job_server` fixture."""
    parser.getgroup("geard").addoption(
        "--job-server",
        choices=["embedded", "gearmand"],
        default="embedded",
        help="the job server that the fixture job_server starts (default: embedded)",
    )


@pytest.fixture
def job_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedJobServer | Gearmand]:
    """A job server of its own for this test, with nothing in its queues; `job_server.address` is where it listens."""
    from geard.config import Logging
    from geard.testing import EmbeddedJobServer, Gearmand

    gearmand = request.config.getoption("--job-server") == "gearmand"
    with Gearmand() if gearmand else EmbeddedJobServer(logging=Logging(level="warning")) as server:
        yield server


@pytest.fixture
def geard_worker(job_server: EmbeddedJobServer | Gearmand) -> Iterator[Callable[..., WorkerPool]]:
    """A function that starts workers on the job server, in threads of this process, until the test's end.

        geard_worker({"reverse": reverse, "resize": "shop.images.resize"}, encoding="json")

    The first argument is the config's `capabilities`, in which a function may stand for its dotted path; all other
    keys of the config may follow. It returns when the job server knows the capabilities."""
    from geard.config import config_from
    from geard.worker import WorkerPool

    with ExitStack() as pools:

        def start(capabilities: Mapping[str, Any], **settings: Any) -> WorkerPool:
            ours = {"job_servers": [job_server.address], "capabilities": capabilities}
            pool = WorkerPool(config_from(_TEST_SETTINGS | settings | ours))
            pools.enter_context(pool)
            for channel in pool.channels:
                if not channel.registered.wait(REGISTRATION_SECONDS):
                    pytest.fail(f"{channel} is not registered after {REGISTRATION_SECONDS:.0f} s")
            return pool

        yield start


@pytest.fixture
def geard_client(job_server: EmbeddedJobServer | Gearmand) -> Iterator[Client]:
    """A client of the job server; each of its calls may have an `encoding` of its own."""
    from geard.client import Client

    with Client(job_server.address) as client:
        yield client
