"""Jobs that hold the loop: healthy ones are left alone, however many come in a row, and what is said is never cut."""

from __future__ import annotations

import socket as native_socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent import socket

from geard import messages
from geard.config import Capability
from geard.messages import Blocked, CannotStart, Heartbeat, Ready
from geard.protocol import Command
from geard.stats.diff import ProcessDiff
from geard.worker.sender import Sender
from tests.support.daemon import CAPABILITIES, Daemon, submit
from tests.support.pool import Caller, PoolInProcess, start_pool
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

HOLDS = (
    CAPABILITIES
    + '''

from gevent.monkey import get_original

native_sleep = get_original("time", "sleep")


def block(workload):
    """`name seconds`: holds the loop for so long, and uses no CPU."""
    name, seconds = workload.split()
    native_sleep(float(seconds))
    record(name)


def wake_and_block(workload):
    """The same, once all of these have been woken in one turn of the loop."""
    time.sleep(0.5)
    block(workload)
'''
)
CAPABILITIES_OF_HOLDS = {name: f"caps.{name}" for name in ("block", "wake_and_block")}


@pytest.mark.parametrize("function", ["block", "wake_and_block"])
def test_processes_are_not_killed_for_jobs_that_hold_the_loop_one_after_another(function: str) -> None:
    with (
        Gearmand() as gearmand,
        Daemon(gearmand, capabilities=CAPABILITIES_OF_HOLDS, hang_timeout="2s") as daemon,
    ):
        (daemon.directory / "caps.py").write_text(HOLDS)
        daemon.start()
        names = [f"job-{number}" for number in range(10)]
        submit(gearmand, function, *(f"{name} 0.4" for name in names))
        eventually(lambda: set(daemon.runs) == set(names))
        assert set(daemon.runs.values()) == {1}
        assert "hang_timeout" not in daemon.log
        assert "is stuck" not in daemon.log


def test_one_job_that_holds_the_loop_too_long_among_others_is_named_and_its_process_killed() -> None:
    with (
        Gearmand("--job-retries=1") as gearmand,
        Daemon(gearmand, capabilities=CAPABILITIES_OF_HOLDS, hang_timeout="2s", block_warning="300ms") as daemon,
    ):
        (daemon.directory / "caps.py").write_text(HOLDS)
        daemon.start()
        submit(gearmand, "wake_and_block", "short-1 0.4", "stuck 600", "short-2 0.4")
        daemon.wait_for("it is stuck, held by wake_and_block H:")
        daemon.wait_for("was killed by SIGKILL")
        assert "wake_and_block (H:" in daemon.log
        assert "holds the loop for" in daemon.log


def test_the_loop_has_its_turn_between_any_two_jobs_that_hold_it_for_long(gearmand: JobServerProcess) -> None:
    """Each tells how often the loop had gone round when it began. All greenlets are woken by the same write."""
    offered = {"turns": "loop_turns"}
    with start_pool("process", gearmand.address, offered, greenlets_per_server=8), Caller(gearmand.address) as caller:
        caller.submit("turns", *["0"] * 64)  # the window grows
        for _ in range(64):
            caller.packets()
        caller.submit("turns", *["0.05"] * 16)
        turns = [int(caller.packets()[-1].data) for _ in range(16)]
    assert len(set(turns)) == len(turns), turns


# --- an idle process ----------------------------------------------------------------------------------------------


HOLDERS = ("hold", "hold_soon", "hold_in_c", "hold_in_a_row")


@pytest.fixture(scope="module")
def process() -> Iterator[PoolInProcess]:
    """A worker process that is idle between two tests."""
    offered = {name: Capability(f"tests.support.holds.{name}") for name in HOLDERS}
    with (
        Gearmand() as gearmand,
        start_pool("process", gearmand.address, offered, block_warning_seconds=0.4) as pool,
    ):
        assert isinstance(pool, PoolInProcess)
        yield pool


def idle(process: PoolInProcess) -> None:
    for _ in range(2):
        process.hear(Heartbeat, len(process.said))


@pytest.mark.parametrize(
    ("function", "named"), [("hold", "hold (H:"), ("hold_soon", "something that is not a job holds the loop")]
)
def test_what_holds_the_loop_of_an_idle_process_is_named_in_time_and_for_no_longer_than_it_does(
    process: PoolInProcess, tmp_path: Path, function: str, named: str
) -> None:
    idle(process)
    release, said, logged, begun = tmp_path / "release", len(process.said), len(process.log), time.monotonic()
    try:
        with Caller(str(process.config.job_servers[0])) as caller:
            caller.submit(function, str(release))
            eventually(lambda: any(blocked.seconds >= 0.8 for blocked in told(process, said)), what="what holds it")
            assert max(blocked.seconds for blocked in told(process, said)) <= time.monotonic() - begun
            assert named in process.log[logged:]
            assert {blocked.function for blocked in told(process, said)} == {"hold" if function == "hold" else ""}
    finally:
        release.touch()
    eventually(lambda: "the loop is free again" in process.log[logged:], what="the end of the hold")
    eventually(lambda: max(each.loop_lag_seconds for each in counted(process, said)) >= 0.8, what="the lag")
    assert max(each.longest_hold_seconds for each in counted(process, said)) >= 0.8
    assert process.log[logged:].count("holds the loop") == 1


def test_greenlets_that_hold_the_loop_one_after_another_are_not_taken_for_one(process: PoolInProcess) -> None:
    said = len(process.said)
    with Caller(str(process.config.job_servers[0])) as caller:
        _, longest = caller.run("hold_in_a_row", "0.3 " * 6)
    assert all(blocked.seconds <= float(longest) + 0.1 for blocked in told(process, said))


def test_what_holds_the_loop_in_c_code_alone_is_not_shown_as_code_of_ours(process: PoolInProcess) -> None:
    logged = len(process.log)
    with Caller(str(process.config.job_servers[0])) as caller:
        caller.run("hold_in_c", "2")
    eventually(lambda: "the loop is free again" in process.log[logged:], what="the end of the hold")
    assert "something that is not a job holds the loop" in process.log[logged:]
    assert "in C code, which nothing in Python has called" in process.log[logged:]
    assert "watchdog.py" not in process.log[logged:]


def told(process: PoolInProcess, after: int) -> list[Blocked]:
    return [message for message in process.said[after:] if isinstance(message, Blocked)]


def counted(process: PoolInProcess, after: int) -> list[ProcessDiff]:
    beats = [message for message in process.said[after:] if isinstance(message, Heartbeat)]
    return [ProcessDiff(), *(beat.counted.process for beat in beats if beat.counted)]


# --- the way to the supervisor ------------------------------------------------------------------------------------


def test_no_message_is_cut_whoever_sends_and_however_slowly_the_supervisor_reads() -> None:
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    reader = native_socket.socket(fileno=theirs.detach())
    reader.setblocking(False)
    sender = Sender(ours)
    lines: list[bytes] = []
    accepted: list[float] = []
    over = threading.Event()

    def beside() -> None:
        """What the watchdog does, more often."""
        number = 0.0
        while not over.is_set():
            number += 1
            if sender.send_from_thread(Blocked(number, "f" * 3000, "H:1", "")):
                accepted.append(number)
            gevent.sleep(0)

    def read_slowly() -> None:
        received = b""
        while True:
            try:
                data = reader.recv(1500)
            except BlockingIOError:
                gevent.sleep(0.0005)
                continue
            if not data:
                lines.extend(received.splitlines(keepends=True))
                return
            received += data

    thread = gevent.get_hub().threadpool.spawn(beside)
    reading = gevent.spawn(read_slowly)
    sent = [Ready(registered=(f"{number}" * 2000,)) for number in range(50)]
    for message in sent:
        sender.send(message)
        gevent.sleep(0.001)
    over.set()
    thread.get()
    sender.send(CannotStart((), 0))
    ours.close()
    reading.get()
    reader.close()
    heard = [messages.load_from_child(line) for line in lines]
    assert [message for message in heard if isinstance(message, Ready)] == sent
    assert [message.seconds for message in heard if isinstance(message, Blocked)] == accepted
    assert len(heard) == len(sent) + len(accepted) + 1


def test_a_thread_never_waits_for_a_supervisor_that_does_not_read() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        sender = Sender(ours)
        while sender.send_from_thread(Blocked(1.0, "f" * 100_000, "H:1", "")):
            pass
        started = time.monotonic()
        assert not sender.send_from_thread(Blocked(2.0, "f", "H:1", ""))
        assert time.monotonic() - started < 30


def test_a_supervisor_that_does_not_read_does_not_keep_a_channel_from_asking_again() -> None:
    """gearmand says nothing when a delayed job falls due: a quiet channel asks once a second."""
    asked = []

    def deny(peer: Peer, number: int) -> None:
        while True:
            peer.skip_to(Command.GRAB_JOB_UNIQ)
            asked.append(number)
            peer.send(Command.NO_JOB)

    with ScriptedServer(deny) as scripted, start_pool("process", scripted.address, {"echo": "echo"}) as pool:
        assert isinstance(pool, PoolInProcess)
        pool.turn_deaf()
        at_first = len(asked)
        eventually(lambda: len(asked) >= at_first + 4, what="more grabs")


def test_what_is_said_to_a_supervisor_that_is_gone_is_dropped() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    with ours:
        sender = Sender(ours)
        sender.send(Ready(()))
        assert not sender.send_from_thread(Blocked(1.0, "f", "H:1", ""))
        sender.send(Ready(()))
