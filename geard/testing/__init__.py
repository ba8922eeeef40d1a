"""Test your capabilities: alone, or on a job server.

Alone, as a unit test. `call` runs one capability in this process, through the code that a worker process runs it with,
and needs neither a job server nor a config:

    from geard.testing import call

    def test_thumbnail_tells_how_far_it_is():
        outcome = call("shop.images.thumbnail", {"width": 64}, encoding="json")
        assert outcome.result == {"pixels": 4096}
        assert outcome.statuses[-1] == (3, 3)

    def test_thumbnail_refuses_a_width_of_nothing():
        assert call("shop.images.thumbnail", {"width": 0}, encoding="json").exception == "ValueError: no width"

With its retries and middleware; what it submits with `job.client` is recorded:

    def test_an_order_is_tried_again_when_the_bank_is_down():
        outcome = call("shop.orders.pay", "order 7", retry=3, dead_letter=True)
        assert (outcome.attempts, outcome.dead_letter) == (2, None)
        assert [submitted.function for submitted in outcome.submissions] == ["receipt"]

As a worker process would run it, patched and in a process of its own, so that a fork or a crash shows in the test:

    def test_a_report_is_made_by_a_pool_of_processes():
        assert call("shop.reports.monthly", "2026-11", isolated=True).result

On a job server, with the fixtures that pytest finds by itself once geard is installed (geard/pytest_plugin.py):

    def test_an_order_is_confirmed_through_the_queue(geard_worker, geard_client):
        geard_worker({"confirm": "shop.orders.confirm"})
        assert geard_client.run("confirm", "order 7") == "order 7 is confirmed"

`job_server` is geard's embedded one, or gearmand with `pytest --job-server=gearmand`. Other test frameworks use what
the fixtures are made of: EmbeddedJobServer and Gearmand are context managers with an `address`.
"""

from geard.jobserver.embedded import EmbeddedJobServer
from geard.testing.attempts import Submitted
from geard.testing.call import Outcome, call
from geard.testing.gearmand import Gearmand

__all__ = ["EmbeddedJobServer", "Gearmand", "Outcome", "Submitted", "call"]
