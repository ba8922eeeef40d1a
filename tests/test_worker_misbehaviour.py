"""Ten thousand jobs of every kind of misbehaviour: each is answered once, and the worker is as it was before."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from geard.config import Capability
from geard.protocol import Command
from tests.support.capabilities import ANYWHERE, KINDS
from tests.support.pool import BOTH_WAYS, Caller, capability, start_pool
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

GREENLETS = 20
JOBS = 10_000
MEMORY_BYTES = 12 * 1024 * 1024
CERTAIN = {  # kind -> how it ends, where no other job can interfere
    "raise": b"ValueError: as it does",
    "unprintable": b"UnprintableError: its __str__ raised ValueError",
    "nameless": b"NamelessError: all the same",
    "classless": b"ClasslessError: all the same",
    "stubborn": b"StubbornError: has a text",
    "bytearray": b"in bytes",
    "wrong type": b"TypeError: with `encoding: utf-8` a result is str, not int (`json` is for other values)",
    "SystemExit": b"SystemExit: 3",
    "KeyboardInterrupt": b"KeyboardInterrupt",
    "GeneratorExit": b"GeneratorExit",
    "BaseException": b"BaseException: the root of it",
    "GreenletExit": b"GreenletExit",
    "kill": b"GreenletExit",
    "overrun": b"misbehave ran longer than its timeout of 0.2 s",
}


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_each_kind_of_misbehaviour_ends_its_job_and_says_how(gearmand: JobServerProcess, mode: str) -> None:
    kinds = sorted(set(KINDS if mode == "process" else ANYWHERE) & set(CERTAIN))
    with (
        start_pool(mode, gearmand.address, {"misbehave": capability("misbehave", timeout=0.2)}) as pool,
        Caller(gearmand.address) as caller,
    ):
        for kind in kinds:
            assert caller.story("misbehave", kind) == [("WORK_EXCEPTION", CERTAIN[kind])]
        ((ending, text),) = caller.story("misbehave", "recurse")
        assert (ending, text[:16]) == ("WORK_EXCEPTION", b"RecursionError: ")
        assert caller.run("misbehave", "fine") == ("WORK_COMPLETE", b"fine")
        eventually(lambda: pool.counters() == (1, len(kinds) + 1), what="each job counted once")
        assert eventually(lambda: "Traceback" in pool.log or mode == "threads")


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_after_ten_thousand_of_every_kind_all_greenlets_are_idle_and_memory_is_where_it_was(
    gearmand: JobServerProcess, mode: str
) -> None:
    kinds = sorted(KINDS if mode == "process" else ANYWHERE)
    seed = random.Random(4730)
    # Each overrun costs its timeout, and each recursion a long traceback in the log: some of them are enough.
    rare = {"overrun": 0.1, "recurse": 0.1}
    jobs = seed.choices(kinds, [rare.get(kind, 1.0) for kind in kinds], k=JOBS)
    offered: dict[str, str | Capability] = {
        "misbehave": capability("misbehave", timeout=0.2),
        "memory": "memory",
        "sleep": "sleep",
    }
    with (
        start_pool(mode, gearmand.address, offered, greenlets_per_server=GREENLETS) as pool,
        Caller(gearmand.address) as caller,
    ):
        answered = endings(caller, jobs[:2000])
        before = int(caller.run("memory")[1])
        answered += endings(caller, jobs[2000:])
        assert set(answered.values()) == {1}, "each job has one answer"
        assert len(answered) == JOBS
        eventually(lambda: not pool.jobs(), what="the end of all jobs")
        assert int(caller.run("memory")[1]) - before < MEMORY_BYTES
        # Every greenlet is there: as many jobs as there are greenlets run at once.
        caller.submit("sleep", *(["1"] * GREENLETS))
        eventually(lambda: gearmand.status("sleep")[1] == GREENLETS, what=f"{GREENLETS} jobs running at once")
        for _ in range(GREENLETS):
            assert caller.packets()[-1].command is Command.WORK_COMPLETE
        assert sum(pool.counters()) >= JOBS
        pool.drain()
        assert pool.join() == []
        eventually(lambda: gearmand.status("misbehave") == (0, 0, 0))
        assert "no longer knows a job" not in pool.log


def endings(caller: Caller, kinds: list[str]) -> Counter[bytes]:
    """Run a job of each kind; how many endings each had."""
    handles = caller.submit("misbehave", *kinds)
    ended = [caller.packets()[-1] for _ in handles]
    return Counter(packet.fields[0].rstrip(b"\0") for packet in ended)  # gearmand adds a NUL to a WORK_FAIL of its own
