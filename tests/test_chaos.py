"""A short storm on each job server; `make chaos` has the long ones."""

from __future__ import annotations

from tests.chaos.storm import storm
from tests.support.servers import Embedded, Gearmand

SECONDS = 3.0


def test_signals_and_bad_weather_cost_no_job_and_run_none_twice() -> None:
    with Gearmand() as server:
        report = storm(server, seconds=SECONDS, rough=False, vandals=False, seed=1)
    assert report.jobs > 100
    assert not report.broken_promises, report


def test_kills_resets_and_vandals_cost_no_job() -> None:
    with Embedded() as server:
        report = storm(server, seconds=SECONDS, rough=True, vandals=True, seed=2)
    assert report.jobs > 100
    assert not report.broken_promises, report
