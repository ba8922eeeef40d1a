"""What is measured of a running worker: how fast it drains a queue, and a round trip."""

from __future__ import annotations

import statistics
import time

from geard.protocol import Command, request
from tests.bench.workers import Running
from tests.support.raw import Peer
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually


def submit(server: JobServerProcess, function: str, jobs: int, size: int) -> None:
    """Queue background jobs, in pipelined batches."""
    with Peer.connect(server.address) as client:
        for first in range(0, jobs, 500):
            batch = range(first, min(first + 500, jobs))
            packets = [
                request(Command.SUBMIT_JOB_BG, function.encode(), b"%d" % number, b"x" * size) for number in batch
            ]
            client.send_bytes(b"".join(packets))
            for _ in batch:
                client.expect(Command.JOB_CREATED)


def drain(server: JobServerProcess, worker: Running, function: str, jobs: int) -> dict[str, float]:
    """Jobs a second and CPU microseconds a job, between a tenth and nine tenths of the queue."""
    high, low = int(jobs * 0.9), int(jobs * 0.1)
    eventually(lambda: server.status(function)[0] <= high)
    begun, used, first = time.perf_counter(), worker.cpu_seconds(), server.status(function)[0]
    while (left := server.status(function)[0]) > low:
        time.sleep(0.002)
    done = first - left
    return {
        "jobs/s": done / (time.perf_counter() - begun),
        "CPU us/job": (worker.cpu_seconds() - used) / done * 1e6,
    }


def round_trip(server: JobServerProcess, calls: int) -> dict[str, float]:
    """Microseconds from submission to result of one foreground job at a time: the median."""
    eventually(lambda: server.status("echo")[2] > 0)
    times = []
    with Peer.connect(server.address) as client:
        for call in range(calls + 100):
            begun = time.perf_counter()
            client.send(Command.SUBMIT_JOB, b"echo", b"", b"x" * 100)
            client.expect(Command.JOB_CREATED)
            client.expect(Command.WORK_COMPLETE)
            if call >= 100:
                times.append(time.perf_counter() - begun)
    return {"p50 us": statistics.median(times) * 1e6}
