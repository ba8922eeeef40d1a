"""OpenTelemetry: a span for each attempt at a job, and for each submission. `pip install geard[opentelemetry]`.

    middleware: [geard.contrib.opentelemetry.trace]
    on_start: mypackage.start            # sets the tracer provider, and calls geard.contrib.opentelemetry.instrument()

Rules:
- Names and attributes are those of the semantic conventions for messaging: the function is the destination, the handle
  the message's id, the unique its conversation.
- A job carries no headers, so that the span of a job is in no trace of its client's: the two have the handle in common.
- Nothing here gets between a caller and what is raised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from typing import Any, Final

from opentelemetry.trace import Span, SpanKind, Status, StatusCode, get_tracer

from geard import __version__
from geard.client import Client, Task
from geard.worker import Job
from geard.worker.run import describe

SYSTEM: Final = "gearman"
_originals: dict[str, Callable[..., Any]] = {}


def trace(job: Job, call: Callable[[], Any]) -> Any:
    """Middleware: a CONSUMER span around the job. The current one in it, in a coroutine and its tasks too."""
    host, _, port = job.server.rpartition(":")
    attributes: dict[str, str | int] = {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": job.function,
        "messaging.message.id": job.handle,
        "messaging.message.body.size": len(job.workload),
        "server.address": host.strip("[]") or job.server,
        "gearman.attempt": job.attempt,
    }
    if port.isdigit():
        attributes["server.port"] = int(port)
    if job.unique:
        attributes["messaging.message.conversation_id"] = job.unique
    with _span(f"process {job.function}", SpanKind.CONSUMER, attributes) as span:
        result = call()
        if job.failed:  # answered by itself
            span.set_attribute("error.type", "JobFailed")
            span.set_status(Status(StatusCode.ERROR))
        return result


def instrument() -> None:
    """From now on, a PRODUCER span for each call of a Client that submits: job.client's too. Safe to call twice.

    A call that submits one job (run, submit, submit_background) is a span while it lasts. With submit_many_background
    and map it is one for all of them, from the first to the last, with their number."""
    if _originals:
        return
    for name, observed in _OBSERVED.items():
        _originals[name] = getattr(Client, name)
        setattr(Client, name, observed(_originals[name]))


def uninstrument() -> None:
    """Undo `instrument`. Safe to call twice."""
    while _originals:
        name, original = _originals.popitem()
        setattr(Client, name, original)


def _one(submit: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(submit)
    def observed(client: Client, function: str, workload: Any, **options: Any) -> Any:
        attributes = _submission(function)
        if options.get("unique"):
            attributes["messaging.message.conversation_id"] = options["unique"]
        if isinstance(workload, bytes):
            attributes["messaging.message.body.size"] = len(workload)
        with _span(f"submit {function}", SpanKind.PRODUCER, attributes) as span:
            result = submit(client, function, workload, **options)
            if isinstance(result, Task):
                span.set_attribute("messaging.message.id", result.handle)
            elif submit.__name__ == "submit_background":
                span.set_attribute("messaging.message.id", result)
            return result

    return observed


def _many(submit: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(submit)
    def observed(client: Client, function: str, workloads: Any, **options: Any) -> Iterator[Any]:
        # Outside of the generator: what is wrong with the arguments is raised by the call.
        return _each(function, submit(client, function, workloads, **options))

    return observed


def _each(function: str, results: Iterator[Any]) -> Iterator[Any]:
    # Not the current span: the caller's own code runs between the items.
    span = get_tracer("geard", __version__).start_span(
        f"submit {function}", kind=SpanKind.PRODUCER, attributes=_submission(function)
    )
    count = 0
    try:
        for result in results:
            count += 1
            yield result
    except BaseException as error:
        if not isinstance(error, GeneratorExit):  # whoever iterates has had enough
            _failed(span, error)
        raise
    finally:
        span.set_attribute("messaging.batch.message_count", count)
        span.end()


def _submission(function: str) -> dict[str, str | int]:
    return {
        "messaging.system": SYSTEM,
        "messaging.operation.name": "submit",
        "messaging.operation.type": "send",
        "messaging.destination.name": function,
    }


@contextmanager
def _span(name: str, kind: SpanKind, attributes: dict[str, str | int]) -> Iterator[Span]:
    tracer = get_tracer("geard", __version__)
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield span
        except BaseException as error:
            _failed(span, error)
            raise


def _failed(span: Span, error: BaseException) -> None:
    with suppress(Exception):  # the text of an error may be whatever user code has made of it
        span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, describe(error)))


_OBSERVED: Final = {
    "run": _one,
    "submit": _one,
    "submit_background": _one,
    "submit_many_background": _many,
    "map": _many,
}
