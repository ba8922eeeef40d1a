"""A job over `max_packet`: it fails, is named, and takes nothing else with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.pool import BOTH_WAYS, Caller, PoolInProcess, start_pool
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

LIMIT = 100_000
LARGE = b"x" * 150_000
INNOCENT = 50


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_job_over_max_packet_fails_and_those_beside_it_run_once(job_server: JobServerProcess, mode: str) -> None:
    settings = {"max_packet_bytes": LIMIT, "greenlets_per_server": 10}
    offered = {"echo": "echo", "reverse": "reverse"}
    with start_pool(mode, job_server.address, offered, **settings) as pool, Caller(job_server.address) as caller:
        names = [b"%d" % number for number in range(INNOCENT)]
        workloads = [*names[:20], LARGE, *names[20:40], LARGE, LARGE, *names[40:]]
        handles = caller.submit("echo", *workloads)
        large = {handle for handle, workload in zip(handles, workloads, strict=True) if workload is LARGE}
        ends = [caller.packets() for _ in handles]
        assert all(len(packets) == 1 for packets in ends)
        failed = [packets[0] for packets in ends if packets[0].command.name == "WORK_EXCEPTION"]
        assert {packet.handle.decode() for packet in failed} == large
        for packet in failed:
            assert packet.data.startswith(b"too large for this worker: JOB_ASSIGN_UNIQ of 1500")
            assert packet.data.endswith(b"over the limit of 100000 (max_packet)")
        assert sorted(packets[0].data for packets in ends if packets[0] not in failed) == sorted(names)
        eventually(lambda: pool.counters() == (INNOCENT, 3))  # no job was run twice, nor failed twice
        assert all(f"echo {handle}: too large for this worker" in pool.log for handle in large)
        assert pool.log.count("connected to") == 1, "on one connection"
        pool.drain()
        assert pool.join() == []


def test_a_job_over_max_packet_is_never_held(gearmand: JobServerProcess) -> None:
    with start_pool("process", gearmand.address, {"echo": "echo"}, max_packet_bytes=LIMIT) as pool:
        assert isinstance(pool, PoolInProcess)
        assert pool.process
        before = _most_memory_bytes(pool.process.pid)
        with Caller(gearmand.address) as caller:
            assert caller.run("echo", bytes(60_000_000))[0] == "WORK_EXCEPTION"
            assert caller.run("echo", b"next") == ("WORK_COMPLETE", b"next")  # behind the body
        assert _most_memory_bytes(pool.process.pid) - before < 10_000_000


def _most_memory_bytes(pid: int) -> int:
    """The most that a process has ever had resident."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
