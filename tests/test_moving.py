"""docs/from-pygearman.md: what its middleware does for clients that cannot read the answer to an exception."""

from __future__ import annotations

import pytest

from geard.protocol import Command
from geard.testing import call
from tests.support.daemon import Daemon
from tests.support.documents import ROOT, blocks
from tests.support.raw import Peer
from tests.support.servers import Gearmand

PLAIN = next(block.body for block in blocks(ROOT / "docs" / "from-pygearman.md") if block.file == "plain.py")
RAISES = "def raises(workload):\n    raise ValueError(workload)\n"


@pytest.mark.parametrize("plain", [False, True])
def test_a_client_that_did_not_ask_for_exceptions_sees_its_job_fail_with_the_middleware_alone(plain: bool) -> None:
    """Without it gearmand 1.1 writes a NUL behind the handle, and such clients do not know the job."""
    capabilities = {"raises": "own.raises"}
    with (
        Gearmand() as gearmand,
        Daemon(gearmand, capabilities=capabilities, middleware=["plain.failures"] if plain else []) as daemon,
    ):
        (daemon.directory / "own.py").write_text(RAISES)
        (daemon.directory / "plain.py").write_text(PLAIN)
        daemon.start()
        with Peer.connect(gearmand.address) as client:
            client.send(Command.SUBMIT_JOB, b"raises", b"", b"no route")
            handle = client.expect(Command.JOB_CREATED).handle
            failed = client.expect(Command.WORK_FAIL)
        assert failed.handle == (handle if plain else handle + b"\0")
        daemon.wait_for("ValueError: no route")


def test_with_the_middleware_a_job_still_runs_again_and_fails_after_its_last_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names: dict[str, object] = {}
    exec(PLAIN, names)
    exec(RAISES, names)
    middleware = [names["failures"]]
    outcome = call(names["raises"], "no route", middleware=middleware, retry=2)  # type: ignore[arg-type]
    assert outcome.failed
    assert outcome.attempts == 3
    assert caplog.text.count("failed\nTraceback") == 1
