"""geard.contrib with the real SDKs: what Sentry and OpenTelemetry get to see of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from geard import Capability, Client, Job, WorkerPool, config_from
from geard.config.model import Retry, Wait
from geard.contrib import opentelemetry
from geard.errors import CannotConnect, JobException
from tests.support import observed
from tests.support.pool import start_pool
from tests.support.servers import JobServerProcess
from tests.support.waiting import DEADLINE_SECONDS, eventually

HERE = observed.__name__
AGAIN = Retry(times=1, wait=Wait(0.01, 0.01))
CAPABILITIES = {
    "fails_slowly": Capability(f"{HERE}.fails_slowly"),
    "fails_in_thread": Capability(f"{HERE}.fails_slowly", thread=True),
    "fails_later": Capability(f"{HERE}.fails_later"),
    "fails_twice": Capability(f"{HERE}.fails_twice", retry=AGAIN),
    "fails_at_once": Capability(f"{HERE}.fails_at_once", retry=AGAIN),
    "hangs": Capability(f"{HERE}.hangs", timeout_seconds=0.05),
    "unencodable": Capability(f"{HERE}.unencodable"),
    "succeeds": Capability(f"{HERE}.succeeds"),
}


def events(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_sentry_has_one_event_for_each_job_that_failed_for_good(
    job_server: JobServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events"
    monkeypatch.setenv("EVENTS", str(path))
    settings = {"on_start": f"{HERE}.start", "middleware": ("geard.contrib.sentry.capture",)}
    together = ("fails_slowly", "fails_in_thread", "fails_later")
    alone = ("fails_twice", "fails_at_once", "hangs", "unencodable")
    with (
        start_pool("process", job_server.address, CAPABILITIES, **settings) as pool,
        Client(job_server.address) as client,
    ):
        tasks = [client.submit(function, f"{function} {number}") for function in together for number in range(3)]
        tasks += [client.submit(function, "job") for function in alone]
        for task in tasks:
            with pytest.raises(JobException):
                task.result(DEADLINE_SECONDS)
        assert client.run("succeeds", "fine", timeout=DEADLINE_SECONDS) == "fine"
        pool.drain()
        pool.join()
    found = events(path)
    handles = {event["tags"]["gearman.handle"]: event for event in found if "tags" in event}
    assert len(found) == len(tasks), [event.get("exception", event.get("logentry")) for event in found]
    for task in tasks[:-1]:
        event = handles[task.handle]
        (exception,) = event["exception"]["values"]
        assert event["tags"]["gearman.function"] == event["transaction"] == task.function
        if task.function in together:
            crumbs = [crumb["message"] for crumb in event["breadcrumbs"]["values"]]
            assert crumbs == [f"begin {exception['value']}", f"end {exception['value']}"]
    by_function = {task.function: handles.get(task.handle) for task in tasks}
    values = {
        name: (event["tags"]["gearman.attempt"], event["exception"]["values"][0]["type"])
        for name, event in by_function.items()
        if event and name in alone
    }
    assert values == {
        "fails_twice": ("2", "OSError"),
        "fails_at_once": ("1", "Fail"),
        "hangs": ("1", "JobTimeout"),
    }
    assert any(event.get("logger") == "geard.worker" for event in found)  # unencodable: outside of the middleware


# --- OpenTelemetry ------------------------------------------------------------------------------------------------

_exporter = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):  # once a process
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_exporter))
        trace.set_tracer_provider(provider)
    _exporter.clear()
    opentelemetry.instrument()
    opentelemetry.instrument()
    yield _exporter
    opentelemetry.uninstrument()


def parent(job: Job, workload: str) -> str:
    job.client.submit_background("child", workload, unique="u-1")
    return workload


async def child(workload: str) -> str:
    trace.get_current_span().set_attribute("inside", True)
    raise ValueError(workload)


def kinds(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_opentelemetry_has_a_span_for_each_job_and_each_submission(
    job_server: JobServerProcess, spans: InMemorySpanExporter
) -> None:
    config = config_from(
        {
            "job_servers": [job_server.address],
            "middleware": [opentelemetry.trace],
            "capabilities": {"parent": parent, "child": child},
        }
    )
    with WorkerPool(config), Client(job_server.address) as client:
        handle = client.submit("parent", "hi").handle
        eventually(lambda: {"process parent", "process child"} <= kinds(spans).keys())
        assert list(client.map("parent", ["a", "b"])) == ["a", "b"]
    found = {span.name: span for span in reversed(spans.get_finished_spans())}  # the first of each name
    submitted, ran = found["submit parent"], found["process parent"]
    assert (submitted.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    assert submitted.attributes is not None
    assert dict(ran.attributes or {}) == {
        "messaging.system": "gearman",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "parent",
        "messaging.message.id": handle,
        "messaging.message.conversation_id": (ran.attributes or {})["messaging.message.conversation_id"],
        "messaging.message.body.size": 2,
        "server.address": "127.0.0.1",
        "server.port": int(job_server.address.rpartition(":")[2]),
        "gearman.attempt": 1,
    }
    assert submitted.attributes["messaging.message.id"] == handle
    assert submitted.attributes["messaging.operation.type"] == "send"
    follow, failed = found["submit child"], found["process child"]
    assert follow.parent is not None
    assert ran.context is not None
    assert follow.parent.span_id == ran.context.span_id
    assert failed.attributes is not None
    assert (failed.attributes["error.type"], failed.attributes["inside"]) == ("ValueError", True)
    assert failed.attributes["messaging.message.conversation_id"] == "u-1"
    assert failed.status.description == "ValueError: hi"
    batches = [span.attributes or {} for span in spans.get_finished_spans() if span.name == "submit parent"]
    assert [span.get("messaging.batch.message_count") for span in batches] == [None, 2]


def test_a_span_tells_why_a_submission_failed(spans: InMemorySpanExporter) -> None:
    with Client("127.0.0.1:1", connect_timeout_seconds=1) as client, pytest.raises(CannotConnect):
        client.submit_background("f", "x")
    (span,) = spans.get_finished_spans()
    assert (span.attributes or {})["error.type"] == "CannotConnect"


def test_what_was_instrumented_can_be_undone() -> None:
    before = Client.run
    opentelemetry.instrument()
    assert Client.run is not before
    opentelemetry.uninstrument()
    opentelemetry.uninstrument()
    assert Client.run is before
