"""Sentry: an event for each job that failed for good. `pip install geard[sentry]`.

    middleware: [geard.contrib.sentry.capture]
    on_start: mypackage.start            # calls sentry_sdk.init(...)

Rules:
- An attempt that will be made again is no event; the last one is, with the error as the function raised it.
- Each attempt has an isolation scope of its own: breadcrumbs, tags and user of one job are in no other's events.
- What geard logs of a failed job is an event by Sentry's logging integration. It is dropped where the failure itself
  has been one: what failed outside of the middleware (a result that cannot be encoded, say) still is reported so.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import sentry_sdk
from sentry_sdk.scope import add_global_event_processor
from sentry_sdk.utils import event_from_exception

from geard.worker import Job

if TYPE_CHECKING:
    from sentry_sdk._types import Event, Hint

MOST_REPORTED: Final = 10_000
_reported: OrderedDict[tuple[str, str], None] = OrderedDict()  # (server, handle) of jobs whose line is yet to be logged


def capture(job: Job, call: Callable[[], Any]) -> Any:
    """Middleware: report what the job raised, if it will not run again. For plain and `async def` capabilities."""
    with sentry_sdk.isolation_scope() as scope:
        scope.clear_breadcrumbs()  # it begins as a copy of what was there
        scope.set_transaction_name(job.function, source="task")
        scope.set_tag("gearman.function", job.function)
        scope.set_tag("gearman.handle", job.handle)
        scope.set_tag("gearman.attempt", str(job.attempt))
        scope.set_context(
            "gearman",
            {
                "function": job.function,
                "handle": job.handle,
                "unique": job.unique,
                "job_server": job.server,
                "attempt": job.attempt,
                "workload_bytes": len(job.workload),
            },
        )
        try:
            return call()
        except BaseException as error:  # SystemExit too ends no more than the job
            if not job.will_retry(error):
                _report(job, error)
            raise


def _report(job: Job, error: BaseException) -> None:
    client = sentry_sdk.get_client()
    if not client.is_active():
        return
    mechanism = {"type": "geard", "handled": False}
    event, hint = event_from_exception(error, client_options=client.options, mechanism=mechanism)
    sentry_sdk.capture_event(event, hint=hint)
    _reported[job.server, job.handle] = None
    while len(_reported) > MOST_REPORTED:
        _reported.popitem(last=False)


def _not_twice(event: Event, hint: Hint) -> Event | None:
    record = hint.get("log_record")
    if record is None or record.name != "geard.worker" or not hasattr(record, "failure"):
        return event
    key = getattr(record, "server", ""), getattr(record, "handle", "")
    if key not in _reported:
        return event
    _reported.pop(key, None)
    return None


add_global_event_processor(_not_twice)
