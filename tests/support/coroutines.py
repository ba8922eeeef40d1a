"""Asynchronous capabilities."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from geard.worker import Job
from geard.worker.current import current_job


async def reverse(workload: str) -> str:
    await asyncio.sleep(0.001)
    return workload[::-1]


async def sleep(workload: str) -> str:
    await asyncio.sleep(float(workload))
    return workload


async def hands_on(job: Job, workload: str) -> str:
    job.status(1, 2)
    await asyncio.sleep(0)
    job.data("piece")
    job.warning("careful")
    return "done"


async def answers_itself(job: Job, workload: str) -> str:
    job.complete("early")
    await asyncio.sleep(0.01)
    return "ignored"


async def spoken(workload: str) -> AsyncIterator[str]:
    for word in workload.split():
        await asyncio.sleep(0)
        yield word


async def streams(workload: str) -> AsyncIterator[str]:
    """`count bytes`: much to say."""
    count, size = map(int, workload.split())
    for _ in range(count):
        yield "x" * size


async def fails(workload: str) -> str:
    await asyncio.sleep(0)
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "KeyboardInterrupt": KeyboardInterrupt}[workload]


async def meets(workload: str) -> str:
    """Waits until so many of it run at once, and says how many native threads there are then."""
    global MET
    MET = MET or asyncio.Event()
    ARRIVED.append(workload)
    if len(ARRIVED) == int(workload):
        MET.set()
    await MET.wait()
    return str(len(os.listdir("/proc/self/task")))


async def leaves_a_failing_task(workload: str) -> str:
    async def leave() -> None:
        raise SystemExit(3)

    TASKS.append(asyncio.create_task(leave()))
    await asyncio.sleep(0.01)
    return workload


async def refuses_to_end(workload: str) -> str:
    while True:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            CANCELLED.append(workload)


async def cleans_up(workload: str) -> str:
    try:
        await asyncio.sleep(30)
    finally:
        CANCELLED.append(workload)
    return workload


async def waits_for_gate(workload: str) -> str:
    while workload not in OPEN:
        await asyncio.sleep(0.01)
    return workload


async def opens_gate_later(workload: str) -> str:
    name, seconds = workload.split()
    await asyncio.sleep(float(seconds))
    OPEN.append(name)
    return workload


OPEN: list[str] = []


def cancelled(workload: str) -> str:
    return " ".join(CANCELLED)


async def who(workload: str) -> str:
    """The unique of the current job, seen from a task of its own."""

    async def ask() -> str:
        await asyncio.sleep(0.01)
        job = current_job()
        return job.unique if job else "none"

    return await asyncio.create_task(ask())


async def hands_off(workload: str) -> str:
    """Blocks a thread, as C code does, while the loop goes on."""
    sleeper = asyncio.to_thread(native_sleep, 0.3)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await sleeper
    ticking.cancel()
    return str(ticks > 5)


async def echo_over_tcp(workload: str) -> str:
    """A server and a client in this loop, the server found by its name."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline())[::-1])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "localhost", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(workload.encode() + b"\n")
        answer = await reader.read()
        writer.close()
    return answer.decode().strip()


async def program(workload: str) -> str:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", f"print({workload!r}[::-1])", stdout=asyncio.subprocess.PIPE
    )
    said, _ = await child.communicate()
    return f"{said.decode().strip()} {child.returncode}"


async def forks(job: Job, workload: str) -> str:
    pid = os.fork()
    if not pid:
        job.data("of the child")
        if workload == "awaits":
            await asyncio.sleep(0.01)
        return "the child's"
    _, status = await asyncio.to_thread(os.waitpid, pid, 0)
    return str(os.waitstatus_to_exitcode(status))


def runs_a_loop(workload: str) -> str:
    """A plain function that runs a loop of its own."""
    return asyncio.run(sleep(workload))


async def shares_out(workload: str) -> str:
    """Work for processes, from the loop."""
    loop = asyncio.get_running_loop()
    with concurrent.futures.ProcessPoolExecutor(2) as workers:
        return str(sum(await asyncio.gather(*[loop.run_in_executor(workers, abs, -number) for number in range(10)])))


class Service:
    async def __call__(self, workload: str) -> str:
        return await reverse(workload)


SERVICE = Service()
PARTIAL = functools.partial(reverse)
TASKS: list[Any] = []
CANCELLED: list[str] = []
ARRIVED: list[str] = []
MET: asyncio.Event | None = None


def native_sleep(seconds: float) -> None:
    if "gevent" in sys.modules:
        from gevent.monkey import get_original

        get_original("time", "sleep")(seconds)
    else:
        time.sleep(seconds)
