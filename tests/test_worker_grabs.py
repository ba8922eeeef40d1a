"""What a channel asks for and when it speaks, as a job server sees it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard.protocol import Command, Packet, response
from tests.support import capabilities
from tests.support.pool import BOTH_WAYS, Caller, background, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

GREENLETS = 5
RESULTS = (Command.WORK_COMPLETE, Command.WORK_EXCEPTION, Command.WORK_FAIL)


class Accountant:
    """A job server that keeps account: `most_at_once` is the most unanswered grabs and unfinished jobs together."""

    def __init__(self, jobs: list[bytes], function: bytes = b"sleep") -> None:
        self.jobs = jobs
        self.function = function
        self.running = 0
        self.most_at_once = 0
        self.asleep = False
        self.packets: list[Packet] = []
        self.results: list[bytes] = []
        self.batches: list[int] = []

    def play(self, peer: Peer, number: int) -> None:
        peer.socket.settimeout(None)
        while True:
            packet = peer.receive()
            grabs = []
            while True:  # all that came in one write
                self.packets.append(packet)
                grabs.append(packet) if packet.command is Command.GRAB_JOB_UNIQ else self.hear(peer, packet)
                if not peer._packets:
                    break
                packet = peer._packets.pop(0)
            self.answer(peer, len(grabs))

    def hear(self, peer: Peer, packet: Packet) -> None:
        if packet.command in RESULTS:
            self.running -= 1
            self.results.append(packet.fields[-1])
        elif packet.command is Command.PRE_SLEEP:
            self.asleep = True
        elif packet.command is Command.ECHO_REQ:
            peer.send(Command.ECHO_RES, packet.data)

    def answer(self, peer: Peer, grabs: int) -> None:
        if grabs:
            self.asleep = False
            self.batches.append(grabs)
            self.most_at_once = max(self.most_at_once, grabs + self.running)
        out = b""
        for _ in range(grabs):
            if self.jobs:
                self.running += 1
                out += response(Command.JOB_ASSIGN_UNIQ, b"H:%d" % len(self.jobs), self.function, b"", self.jobs.pop(0))
            else:
                out += response(Command.NO_JOB)
        if self.asleep and self.jobs:
            out += response(Command.NOOP)
            self.asleep = False
        peer.send_bytes(out)


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_no_more_is_asked_for_than_greenlets_are_free_to_run(mode: str) -> None:
    jobs = [b"%d 0.00%d" % (number, number % 4) for number in range(300)]
    accountant = Accountant(list(jobs))
    with (
        ScriptedServer(accountant.play) as scripted,
        start_pool(mode, scripted.address, {"sleep": "sleep"}, greenlets_per_server=GREENLETS) as pool,
    ):
        eventually(lambda: len(accountant.results) == len(jobs))
        pool.drain()
        assert pool.join() == []
    assert sorted(accountant.results) == sorted(jobs)
    assert accountant.most_at_once <= GREENLETS
    assert max(accountant.batches) > 1, "a backlog is grabbed in batches"


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_quiet_channel_asks_for_one_job_and_sleeps_in_the_same_write(mode: str) -> None:
    writes: list[list[str]] = []

    def record(peer: Peer, number: int) -> None:
        peer.socket.settimeout(None)
        while True:
            names = [peer.receive().command.name]
            while peer._packets:
                names.append(peer._packets.pop(0).command.name)
            writes.append(names)
            peer.send_bytes(response(Command.NO_JOB) * names.count("GRAB_JOB_UNIQ"))

    with (
        ScriptedServer(record) as scripted,
        start_pool(mode, scripted.address, {"sleep": "sleep", "echo": "echo"}, greenlets_per_server=50),
    ):
        eventually(lambda: len(writes) >= 2, what="asking again, idle")
    assert writes[0] == ["SET_CLIENT_ID", "CAN_DO", "CAN_DO", "GRAB_JOB_UNIQ", "PRE_SLEEP"]
    assert writes[1] == ["GRAB_JOB_UNIQ", "PRE_SLEEP"]


def test_abilities_are_told_once_for_each_connection_and_channel(gearmand: JobServerProcess) -> None:
    offered: dict[str, str] = {"a": "echo", "b": "echo"}
    with start_pool("threads", gearmand.address, offered, client_id="the name of the worker"):
        assert gearmand.status("a") == (0, 0, 1), "one worker, whatever its number of greenlets"
        [line] = [line for line in gearmand.text("workers") if ": a" in line or ": b" in line]
        assert "the name of the worker" in line


@pytest.fixture
def gate() -> Iterator[None]:
    capabilities.GATE.clear()
    yield
    capabilities.GATE.set()


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_results_are_sent_while_another_job_of_the_batch_runs_on(
    gearmand: JobServerProcess, gate: None, mode: str
) -> None:
    offered = {"long": "wait_for_gate", "echo": "echo", "open": "open_gate"}
    with (
        start_pool(mode, gearmand.address, offered) as pool,
        Caller(gearmand.address) as caller,
    ):
        caller.submit("long", "long")
        for number in range(20):
            assert caller.run("echo", str(number)) == ("WORK_COMPLETE", str(number).encode())
        assert [job.function for job in pool.jobs()] == ["long"]
        caller.run("open")
        assert caller.packets()[-1].data == b"long"


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_quick_jobs_result_does_not_wait_behind_a_slow_job_of_a_kind_never_seen(mode: str) -> None:
    """Both come in one batch, and the slow one holds the processor: the quick one's result goes out before."""
    alone: list[bool] = []

    def assign(peer: Peer, number: int) -> None:
        peer.skip_to(Command.GRAB_JOB_UNIQ)
        peer.send(Command.JOB_ASSIGN_UNIQ, b"H:0", b"echo", b"", b"opens the window")
        for _ in range(2):
            peer.skip_to(Command.GRAB_JOB_UNIQ)
        quick = response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"echo", b"", b"quick")
        peer.send_bytes(quick + response(Command.JOB_ASSIGN_UNIQ, b"H:2", b"spin", b"", b"slow 0.5"))
        while peer.skip_to(Command.WORK_COMPLETE).data != b"quick":
            pass
        alone.append(not any(packet.command is Command.WORK_COMPLETE for packet in peer._packets))
        alone.append(peer.skip_to(Command.WORK_COMPLETE).data == b"slow 0.5")

    with ScriptedServer(assign) as scripted, start_pool(mode, scripted.address, {"echo": "echo", "spin": "spin"}):
        eventually(lambda: len(alone) == 2)
    assert alone == [True, True]


@pytest.mark.parametrize("mode", BOTH_WAYS)
def test_a_result_does_not_wait_for_the_jobs_behind_one_of_its_kind_that_waits(mode: str, tmp_path: Path) -> None:
    """The kind was quick so far. Of one batch the first job is too, the second waits, and the third holds the loop:
    another greenlet begins it, and has to send the result of the first before."""
    results: list[bytes] = []

    def assign(peer: Peer, number: int) -> None:
        grabs = 0
        while grabs < 3:  # at once: until then each gets a job, which opens the window
            grabs += peer.receive().command is Command.GRAB_JOB_UNIQ
            if grabs < 3 and not peer._packets:
                job = response(Command.JOB_ASSIGN_UNIQ, b"H:1", b"f", b"", b"quick")
                peer.send_bytes(job * grabs + response(Command.NOOP))
                grabs = 0
        workloads = b"first", f"waits {tmp_path}/seen".encode(), f"spins {tmp_path}/seen".encode()
        jobs = [response(Command.JOB_ASSIGN_UNIQ, b"H:2", b"f", b"", workload) for workload in workloads]
        peer.send_bytes(b"".join(jobs))
        while peer.skip_to(Command.WORK_COMPLETE).data != b"first":
            pass
        (tmp_path / "seen").touch()
        results.extend(peer.skip_to(Command.WORK_COMPLETE).data for _ in range(2))

    with ScriptedServer(assign) as scripted, start_pool(mode, scripted.address, {"f": "until_file"}):
        eventually(lambda: len(results) == 2)
    assert sorted(results) == [b"spins", b"waits"]


@pytest.mark.parametrize("burst", [0, 2000])
def test_two_worker_processes_share_cpu_bound_jobs_about_evenly(gearmand: JobServerProcess, burst: int) -> None:
    """Also right after a burst of tiny jobs, which has opened their windows."""
    offered = {"process_id": "process_id", "echo": "echo"}
    pools = [start_pool("process", gearmand.address, offered, greenlets_per_server=50) for _ in range(2)]
    with pools[0], pools[1], Caller(gearmand.address) as caller:
        if burst:
            background(gearmand.address, "echo", *map(str, range(burst)))
        count = 120
        caller.submit("process_id", *["0.01"] * count)
        shares = Counter(caller.packets()[-1].data for _ in range(count))
    assert len(shares) == 2
    assert min(shares.values()) >= count * 0.25, shares


def test_many_sleeping_jobs_run_at_once_on_one_connection(gearmand: JobServerProcess) -> None:
    with (
        start_pool("process", gearmand.address, {"sleep": "sleep"}, greenlets_per_server=200),
        Caller(gearmand.address) as caller,
    ):
        caller.submit("sleep", *["1"] * 200)
        eventually(lambda: gearmand.status("sleep")[1] == 200)
        assert gearmand.status("sleep")[2] == 1
        assert all(caller.packets()[-1].command is Command.WORK_COMPLETE for _ in range(200))
