"""Capabilities of a worker process that tells Sentry of failures; the transport writes each event to a file."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from geard import Fail, Job

log = logging.getLogger("app")


class ToFile(Transport):
    """Writes events where $EVENTS says, one a line."""

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event:
            with Path(os.environ["EVENTS"]).open("a") as file:
                file.write(json.dumps(event, default=str) + "\n")


def start() -> None:
    """on_start."""
    sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=ToFile, integrations=[])


def fails_slowly(job: Job, workload: str) -> None:
    log.info("begin %s", workload)
    time.sleep(0.1)  # the others go on
    log.info("end %s", workload)
    raise ValueError(workload)


async def fails_later(job: Job, workload: str) -> None:
    log.info("begin %s", workload)
    await asyncio.sleep(0.1)
    log.info("end %s", workload)
    raise ValueError(workload)


def fails_twice(job: Job, workload: str) -> None:
    raise OSError(f"{workload} at {job.attempt}")


def fails_at_once(job: Job, workload: str) -> None:
    raise Fail(f"{workload} at {job.attempt}")


def hangs(workload: str) -> None:
    time.sleep(600)


def unencodable(workload: str) -> Any:
    return object()


def succeeds(workload: str) -> str:
    return workload
