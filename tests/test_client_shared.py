"""One client, many callers: nothing is lost, nobody gets another's result, and a caller that dies harms nobody."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import FrameType

import pytest

from geard import Client, JobTimeout
from geard.protocol import Command, Packet
from tests.support.raw import Peer, ScriptedServer
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

CALLERS = 50


@pytest.fixture
def client(job_server: JobServerProcess) -> Iterator[Client]:
    with Client([job_server.address]) as client:
        yield client


def everything_a_caller_does(client: Client, caller: int) -> int:
    """Each kind of call, checked; returns how many background jobs it has left in the queue."""
    for number in range(5):
        text = f"{caller}.{number}"
        assert client.run("reverse", text) == text[::-1]
        assert client.echo(text.encode()) == text.encode()
        assert client.submit("reverse", f"{text}.t").result() == f"{text}.t"[::-1]
        assert client.status(client.submit_background("nobody", text)).known
        assert list(client.map("reverse", [text, text * 2], concurrency=2)) == [text[::-1], text[::-1] * 2]
    return 5


def test_fifty_threads_share_one_client_and_lose_nothing(job_server: JobServerProcess, client: Client) -> None:
    with RawWorker(job_server.address, {"reverse": reverse}), ThreadPoolExecutor(CALLERS) as pool:
        submitted = sum(pool.map(everything_a_caller_does, [client] * CALLERS, range(CALLERS)))
    assert job_server.status("nobody")[0] == submitted == CALLERS * 5
    assert sum(row.startswith("H:") for row in job_server.text("show jobs")) == submitted


def greenlet_script(body: str) -> list[str]:
    """A program that runs in a patched process, as a capability would."""
    return [sys.executable, "-c", f"from gevent import monkey; monkey.patch_all()\n{textwrap.dedent(body)}"]


def test_fifty_greenlets_share_one_client_and_lose_nothing(job_server: JobServerProcess) -> None:
    program = f"""
        import gevent
        from geard import Client
        from tests.test_client_shared import everything_a_caller_does
        with Client(["{job_server.address}"]) as client:
            callers = [gevent.spawn(everything_a_caller_does, client, n) for n in range({CALLERS})]
            print(sum(caller.get() for caller in callers))
    """
    with RawWorker(job_server.address, {"reverse": reverse}):
        submitted = subprocess.run(greenlet_script(program), capture_output=True, timeout=60, check=False)
    assert submitted.stdout == b"250\n", submitted.stderr.decode()
    assert job_server.status("nobody")[0] == 250


def test_greenlets_that_are_timed_out_or_killed_anywhere_leave_the_client_to_the_others(
    job_server: JobServerProcess,
) -> None:
    program = f"""
        import random, gevent
        from geard import Client
        client = Client(["{job_server.address}"])
        state = {{"stop": False}}

        def steady(caller):
            count = 0
            while not state["stop"]:
                text = f"{{caller}}.{{count}}"
                assert client.run("reverse", text) == text[::-1]
                count += 1
            return count

        def victim(seed):
            chance = random.Random(seed)
            while not state["stop"]:
                with gevent.Timeout(chance.random() * 0.003, False):
                    while True:
                        client.run("reverse", "x" * chance.choice([1, 300000]))
                        client.submit_background("nobody", "y")
                        list(client.map("reverse", "abc"))

        steadies = [gevent.spawn(steady, n) for n in range(5)]
        victims = [gevent.spawn(victim, n) for n in range(5)]
        for n in range(60):
            gevent.sleep(0.02)
            victims.pop(0).kill()
            victims.append(gevent.spawn(victim, 10 + n))
        state["stop"] = True
        with gevent.Timeout(30):
            print(min(caller.get() for caller in steadies) > 0, client.echo(b"in order"))
    """
    with RawWorker(job_server.address, {"reverse": reverse}):
        done = subprocess.run(greenlet_script(program), capture_output=True, timeout=60, check=False)
    assert done.stdout == b"True b'in order'\n", done.stderr.decode()


class Interrupt(BaseException):
    """As KeyboardInterrupt, raised by a signal handler between any two steps."""


def test_signals_that_strike_anywhere_in_a_call_leave_the_client_in_order(
    job_server: JobServerProcess, client: Client
) -> None:
    """A timer interrupts the main thread at random while other threads rely on the same client."""
    stop = threading.Event()

    def strike(signum: int, frame: FrameType | None) -> None:
        raise Interrupt

    def steady(caller: int) -> int:
        count = 0
        while not stop.is_set():
            text = f"{caller}.{count}"
            assert client.run("reverse", text) == text[::-1]
            assert client.echo(text.encode()) == text.encode()
            count += 1
        return count

    submitted = interrupted = 0
    previous = signal.signal(signal.SIGALRM, strike)
    try:
        with RawWorker(job_server.address, {"reverse": reverse}), ThreadPoolExecutor(2) as pool:
            others = [pool.submit(steady, caller) for caller in range(2)]
            try:
                for round_number in range(400):
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 0.0001 + round_number % 40 * 0.00003)
                        while True:
                            client.submit_background("nobody", "x")
                            submitted += 1
                            assert client.echo(b"mine") == b"mine"
                    except Interrupt:
                        interrupted += 1
                    finally:
                        signal.setitimer(signal.ITIMER_REAL, 0)
            finally:
                stop.set()
            assert all(other.result(timeout=60) > 0 for other in others)
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert interrupted == 400
    assert client.echo(b"in order") == b"in order"
    queued = job_server.status("nobody")[0]
    assert submitted <= queued <= submitted + interrupted  # at most one each of unknown fate; none twice


def test_a_caller_that_gives_up_hands_the_reading_on(job_server: JobServerProcess, client: Client) -> None:
    with ThreadPoolExecutor(3) as pool, Peer.connect(job_server.address) as worker:
        leader = pool.submit(client.run, "slow", "leader", timeout=0.3)
        eventually(lambda: job_server.status("slow")[0] == 1)
        followers = [pool.submit(client.run, "slow", f"follower {n}") for n in range(2)]
        with pytest.raises(JobTimeout):
            leader.result(timeout=30)
        worker.send(Command.CAN_DO, b"slow")
        for _ in range(3):
            worker.send(Command.GRAB_JOB_UNIQ)
            job = worker.expect(Command.JOB_ASSIGN_UNIQ)
            worker.send(Command.WORK_COMPLETE, job.handle, job.workload.upper())
        assert [follower.result(timeout=30) for follower in followers] == ["FOLLOWER 0", "FOLLOWER 1"]


def test_a_packet_half_sent_when_its_caller_was_interrupted_is_finished() -> None:
    """The job server stops reading in the middle of a large submission; its caller gives up; the next call goes on."""
    go_on = threading.Event()
    seen: list[Packet] = []
    main = threading.get_ident()

    def script(peer: Peer, number: int) -> None:
        peer.send(Command.OPTION_RES, peer.expect(Command.OPTION_REQ).option)
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)
        peer.socket.recv(1, socket.MSG_PEEK)  # it has begun to arrive, and cannot be sent to its end
        signal.pthread_kill(main, signal.SIGUSR1)
        go_on.wait()
        submitted = peer.expect(Command.SUBMIT_JOB_BG)
        seen.append(submitted)
        peer.send(Command.JOB_CREATED, b"H:1")
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)

    large = bytes(30_000_000)

    def strike(signum: int, frame: FrameType | None) -> None:
        raise Interrupt

    previous = signal.signal(signal.SIGUSR1, strike)
    try:
        with ScriptedServer(script) as server, Client(server.address) as impatient:
            with pytest.raises(Interrupt):
                impatient.submit_background("f", large)
            go_on.set()
            assert impatient.echo(b"next") == b"next"
            assert [packet.workload == large for packet in seen] == [True]
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_a_child_that_was_forked_makes_uniques_of_its_own() -> None:
    program = (
        "import os\nfrom geard.client.requests import unique_id\nunique_id(None, 'f', b'')\npid = os.fork()\n"
        "os.write(1, (unique_id(None, 'f', b'') + chr(10)).encode())\npid and os.waitpid(pid, 0)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert len(set(out.stdout.split())) == 2


def test_importing_geard_loads_neither_socket_nor_gevent_and_the_client_never_loads_gevent() -> None:
    program = (
        "import sys, geard\nassert not {'socket', '_socket', 'gevent'} & set(sys.modules)\n"
        "import geard.client, geard.client.admin\nassert 'gevent' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
