"""Capabilities, and middleware that tells in its result, or in a warning, what it saw."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from geard import Fail, Job, current_job

Call = Callable[[], Any]
around: ContextVar[str] = ContextVar("around", default="nothing")


def outer(job: Job, call: Call) -> Any:
    return f"outer({call()})"


def inner(job: Job, call: Call) -> Any:
    assert current_job() is job
    token = around.set(f"inner of {job.function}")
    try:
        return f"inner({call()})"
    finally:
        around.reset(token)


async def awaiting(job: Job, call: Callable[[], Awaitable[Any]]) -> Any:
    await asyncio.sleep(0)
    return f"awaiting({await call()})"


def saw(job: Job, call: Call) -> Any:
    """Tells what went by."""
    try:
        return call()
    except BaseException as error:
        job.warning(f"{type(error).__name__}: {error}")
        raise


def instead(job: Job, call: Call) -> Any:
    """Gives a result where there is none."""
    try:
        return call()
    except Exception as error:
        return f"instead of {type(error).__name__}"


def no_call(call: Call) -> Any: ...


def pieces_of(job: Job, call: Call) -> Iterator[Any]:
    yield call()


def plain(workload: str) -> str:
    return f"{workload} in {around.get()}"


def pieces(workload: str) -> Generator[str, None, str]:
    yield from workload
    return "!"


async def later(workload: str) -> str:
    await asyncio.sleep(0)
    return f"{workload} in {around.get()}"


async def pieces_later(workload: str) -> AsyncIterator[str]:
    for piece in workload:
        yield piece


def fails(workload: str) -> str:
    raise ValueError(workload)


def slow(workload: str) -> None:
    time.sleep(600)


async def slow_later(workload: str) -> None:
    await asyncio.sleep(600)


def stop() -> None:
    """on_stop that leaves a note where the environment says."""
    Path(os.environ["ON_STOP"]).write_text("stopped")


def stop_badly() -> None:
    raise SystemExit("no way")


def stop_never() -> None:
    threading.Event().wait()


def follow(job: Job, workload: str) -> str:
    """A capability that has others do the work."""
    assert job.client is job.client
    job.client.submit_background("plain", "in the background")
    return f"follow({job.client.run('plain', workload, timeout=60)})"


async def follow_later(job: Job, workload: str) -> str:
    return f"follow({await asyncio.to_thread(job.client.run, 'plain', workload, timeout=60)})"


def follow_in_fork(job: Job, workload: str) -> str:
    """Parent and child use it, both after the parent has."""
    assert job.client.run("plain", "parent", timeout=60)
    end, other = os.pipe()
    child = os.fork()
    if not child:
        os.write(other, job.client.run("plain", workload, timeout=60).encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert job.client.run("plain", "parent", timeout=60)
    return f"follow({os.read(end, 1000).decode()})"


def will_retry(job: Job, workload: str) -> str:
    errors = [ValueError(), OSError(), KeyboardInterrupt(), Fail()]
    return " ".join(str(job.will_retry(error)) for error in errors)
