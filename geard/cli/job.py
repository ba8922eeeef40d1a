"""One job of `geard submit`: run it, start it in the background, or wait for one that was started so.

Rules: bytes pass through as they are. A job is submitted once; whatever goes wrong after that says so and names it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from types import FrameType
from typing import Literal

from geard.cli.bar import FootLine, JobProgress
from geard.cli.output import json_line, json_member, say, write_bytes
from geard.cli.servers import ask_all, fail
from geard.client import Choose, Client, Complete, Data, JobState, Priority, Status
from geard.config import JobServer, format_duration
from geard.errors import JobFailed, JobTimeout
from geard.printable import printable

ENCODING: Literal["bytes"] = "bytes"


class _TimeIsUp(BaseException):
    """Like an interrupt, no Exception: nothing on its way takes it for a job's failure."""


@contextmanager
def time_limit(seconds: float | None, what: str) -> Iterator[None]:
    """Raise JobTimeout when the block takes longer: connecting, submitting and waiting together."""
    if seconds is None:
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise _TimeIsUp

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    except _TimeIsUp:
        raise JobTimeout(
            f"{what}: not done within {format_duration(seconds)}; what was submitted may still run"
        ) from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def run_job(
    servers: tuple[JobServer, ...],
    function: str,
    workload: bytes,
    *,
    priority: Priority,
    unique: str | None,
    timeout_seconds: float | None,
    as_json: bool,
    choose: Choose,
) -> None:
    """Submit a job and print what comes of it, as it comes; as JSON, when it has ended."""
    progress = JobProgress(function)
    result: list[bytes] = []
    warnings: list[str] = []
    handle = ""
    with (
        time_limit(timeout_seconds, function),
        FootLine(progress.render) as foot,
        Client(servers, choose=choose, encoding=ENCODING) as client,
    ):
        try:
            task = client.submit(function, workload, priority=priority, unique=unique)
            handle = task.handle
            for event in task.events():
                if isinstance(event, Status):
                    progress.update(*event)
                elif isinstance(event, Data | Complete):
                    if as_json:
                        result.append(event.data)
                    else:
                        foot.write(event.data)
                else:
                    foot.say(printable(event.text))
                    warnings.append(event.text)
        except JobFailed as error:
            if as_json:
                foot.write(json_line({"handle": str(handle), "error": str(error), "warnings": warnings}))
            raise
        except KeyboardInterrupt:
            raise KeyboardInterrupt(
                f"{handle} may still run" if handle else "whether the job was submitted is unknown"
            ) from None
        if as_json:
            foot.write(
                json_line({"handle": str(handle), **json_member("result", b"".join(result)), "warnings": warnings})
            )


def start_job(
    servers: tuple[JobServer, ...],
    function: str,
    workload: bytes,
    *,
    priority: Priority,
    unique: str | None,
    at: datetime | None,
    as_json: bool,
    choose: Choose,
) -> None:
    """Submit a job in the background and print its handle."""
    with Client(servers, choose=choose, encoding=ENCODING) as client:
        handle = client.submit_background(function, workload, priority=priority, unique=unique, at=at)
    write_bytes(json_line({"handle": str(handle)}) if as_json else printable(handle).encode() + b"\n")


def wait_for_job(servers: tuple[JobServer, ...], handle: str, *, timeout_seconds: float | None, as_json: bool) -> None:
    """Wait until the job server that knows the job knows it no more. How the job ended, nobody can tell."""
    progress = JobProgress(handle)

    def known(server: JobServer) -> bool:
        with Client(server) as client:
            return client.status(handle).known

    def show(state: JobState) -> None:
        if state.denominator:
            progress.update(state.numerator, state.denominator)

    with time_limit(timeout_seconds, handle):
        answers = ask_all(servers, known)
        holder = next((answer.server for answer in answers if answer.value), None)
        if holder is None:
            fail([answer.error for answer in answers if answer.error])
            say(f"no job server knows {printable(handle)}: it has ended, or never was")
        else:
            with FootLine(progress.render), Client(holder) as client:
                client.wait(handle, show)
    if as_json:
        write_bytes(json_line({"handle": str(handle), "was_known": holder is not None}))
