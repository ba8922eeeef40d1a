"""A client on both sides of a fork: the parent's connection is the parent's, and a child dials for itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from geard import Client, GeardError, InvalidRequest
from geard.client.turn import Turn
from geard.protocol import Command
from tests.support.lines import line_of
from tests.support.raw import Peer, ScriptedServer
from tests.support.raw_worker import RawWorker, reverse
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.tls import Certificates, Stunnel
from tests.test_client_faults import welcome

WAYS = {"threads": "", "greenlets": "from gevent import monkey; monkey.patch_all()"}
COMMON = """
import json, os, sys, threading, time
from geard import Admin, Client, ConnectionLost, JobServer
from geard.config.model import Tls

def child_says(what):
    '''What a forked child returns.'''
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = what()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(said).encode() + b'\\n')
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.readline()  # not to its end: gevent's os.close, of our write end, takes a turn of the loop
    return json.loads(said or '"nothing"')
"""


def program(way: str, body: str, *arguments: str) -> Any:
    code = f"{WAYS[way]}\n{COMMON}\n{textwrap.dedent(body)}"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr.decode()
    print(done.stderr.decode())
    return json.loads(done.stdout)


@pytest.mark.parametrize("way", WAYS)
def test_a_child_dials_for_itself_and_the_tasks_of_its_parent_are_not_its_own(
    way: str, job_server: JobServerProcess
) -> None:
    body = """
        with Client(sys.argv[1]) as client, Admin(sys.argv[1]) as admin:
            done, task = client.submit("reverse", "done"), client.submit("nobody", "x")
            done.result(30)
            many = client.submit_many_background("nobody", map(str, range(1000)))
            next(many)
            admin.version()

            def in_child():
                said = [client.run("reverse", "child", timeout=30), client.echo(b"child").decode(), done.result()]
                said.append(bool(admin.version()))
                for call in (lambda: task.result(30), lambda: list(many)):
                    try:
                        said.append(call())
                    except ConnectionLost as error:
                        said.append(str(error).replace(str(os.getppid()), "PARENT"))
                return [*said, task.done()]

            said = child_says(in_child)
            print(json.dumps([said, client.run("reverse", "parent"), len(list(many)), task.done()]))
    """
    with RawWorker(job_server.address, {"reverse": reverse}):
        lost = (
            f"the connection to {job_server.address} and its jobs are those of the parent process PARENT, "
            "not of this child"
        )
        assert program(way, body, job_server.address) == [
            ["dlihc", "child", "enod", True, lost, lost, True],
            "tnerap",
            999,
            False,
        ]


def test_a_map_of_the_parent_is_not_gone_on_with_in_the_child(job_server: JobServerProcess) -> None:
    body = """
        with Client(sys.argv[1]) as client:
            mapping = client.map("reverse", (str(n) for n in range(100)), concurrency=1, pairs=True)
            first = next(mapping)
            print(json.dumps([child_says(lambda: [str(result) for _, result in mapping]), len(list(mapping))]))
    """
    with RawWorker(job_server.address, {"reverse": reverse}) as worker:
        said, rest = program("threads", body, job_server.address)
        assert "not of this child" in said
        assert rest == 99
        assert len(worker.jobs) == 100


@pytest.mark.parametrize("way", WAYS)
def test_a_fork_amid_the_calls_of_many_mixes_nothing_up_and_no_lock_stays_held(
    way: str, job_server: JobServerProcess
) -> None:
    body = """
        client = Client(sys.argv[1])
        over = False

        def caller(n):
            count = 0
            while not over:
                text = f"{n}.{count}"
                assert client.run("reverse", text) == text[::-1]
                assert client.echo(text.encode()) == text.encode()
                count += 1
            counts.append(count)

        counts = []
        callers = [threading.Thread(target=caller, args=(n,)) for n in range(6)]
        for each in callers:
            each.start()

        def in_child():
            texts = [f"{os.getpid()}.{n}" for n in range(5)]
            return [client.run("reverse", text, timeout=30) == text[::-1] for text in texts]

        said = []
        for n in range(12):
            said += [answer] if isinstance(answer := child_says(in_child), str) else answer
            time.sleep(0.001 * n)
        over = True
        for each in callers:
            each.join()
        print(json.dumps([said.count(True), [text for text in said if text is not True], len(counts)]))
    """
    with RawWorker(job_server.address, {"reverse": reverse}):
        assert program(way, body, job_server.address) == [60, [], 6]


@pytest.mark.parametrize("way", WAYS)
def test_a_child_says_nothing_on_the_parents_connection_not_even_that_tls_ends(way: str, tmp_path: Path) -> None:
    certificates = Certificates(tmp_path)
    body = """
        tls = Tls(ca=sys.argv[2], certificate=sys.argv[3], key=sys.argv[4])
        client = Client(JobServer("127.0.0.1", int(sys.argv[1]), tls))
        client.echo(b"x")
        exchange = client._conversation._exchange

        def use_and_close():
            said = client.echo(b"child").decode()
            client.close()
            return said

        def only_close():
            client.close()
            exchange._connection.close()
            return True

        said = [child_says(use_and_close), child_says(only_close)]
        time.sleep(1.1)  # idle: it is looked at
        said.append(client.echo(b"parent").decode())
        print(json.dumps([*said, client._conversation._exchange is exchange]))
    """
    with Gearmand() as server, Stunnel(certificates, server.address) as stunnel:
        tls = certificates.tls()
        arguments = (str(stunnel.server(tls).port), str(tls.ca), str(tls.certificate), str(tls.key))
        assert program(way, body, *arguments) == ["child", True, "parent", True]


def test_the_peer_sees_the_end_when_the_parent_hangs_up_though_a_child_lives_on() -> None:
    ended = threading.Event()

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        try:
            peer.receive()
        except (EOFError, OSError):
            ended.set()

    with ScriptedServer(script) as server:
        client = Client(server.address)
        line_of(client).exchange()
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(write)
            os.read(read, 1)  # until the parent says so
            os._exit(0)
        try:
            client.close()
            assert ended.wait(30)
        finally:
            os.close(write)
            os.close(read)
            os.waitpid(pid, 0)


# --- re-entrance -----------------------------------------------------------------------------------------------------


@pytest.fixture
def on_alarm() -> Iterator[Callable[..., None]]:
    """Have something called by a signal handler, soon or whenever somebody sends SIGALRM."""
    previous = signal.getsignal(signal.SIGALRM)

    def arrange(call: Callable[[], object], *, soon: bool = True) -> None:
        def handle(signum: int, frame: FrameType | None) -> None:
            call()

        signal.signal(signal.SIGALRM, handle)
        if soon:
            signal.setitimer(signal.ITIMER_REAL, 0.2)

    yield arrange
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def answer_second(peer: Peer, number: int) -> None:
    welcome(peer)
    peer.expect(Command.ECHO_REQ)
    threading.Event().wait(1)
    peer.send(Command.ECHO_RES, b"interrupted")
    while True:
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)


def refused(call: Callable[[], object], said: list[str]) -> Callable[[], None]:
    def handler() -> None:
        begun = time.monotonic()
        try:
            call()
        except InvalidRequest as error:
            said.append(str(error))
        said.append("at once" if time.monotonic() - begun < 0.5 else "late")

    return handler


CALLS: list[Callable[[Client], object]] = [
    lambda c: c.echo(b"x"),
    lambda c: c.echo(b"x", timeout=5),
    lambda c: c.submit_background("f", "x"),
    lambda c: list(c.map("f", "x")),
    lambda c: list(c.submit_many_background("f", "x")),
]


@pytest.mark.parametrize("call", CALLS, ids=["echo", "echo in time", "background", "map", "many"])
def test_a_call_from_a_signal_handler_that_would_wait_for_the_call_below_it_is_an_error(
    on_alarm: Callable[[Callable[[], object]], None], call: Callable[[Client], object]
) -> None:
    said: list[str] = []
    with ScriptedServer(answer_second) as server, Client(server.address) as client:
        on_alarm(refused(lambda: call(client), said))
        assert client.echo(b"interrupted", timeout=30) == b"interrupted"
        assert len(said) == 2
        assert "interrupts another call of the same thread" in said[0]
        assert said[1] == "at once"
        assert client.echo(b"in order") == b"in order"  # and nothing of the handler's was sent


def test_a_call_that_interrupts_sending_or_connecting_is_an_error_too(on_alarm: Callable[..., None]) -> None:
    def interrupt_at_the_first_byte(peer: Peer) -> None:
        assert peer.socket.recv(1)
        os.kill(os.getpid(), signal.SIGALRM)
        threading.Event().wait(30)

    def mute(peer: Peer, number: int) -> None:
        interrupt_at_the_first_byte(peer)

    def deaf(peer: Peer, number: int) -> None:
        welcome(peer)
        interrupt_at_the_first_byte(peer)

    said: list[str] = []
    with ScriptedServer(mute) as server, Client(server.address, connect_timeout_seconds=2) as connecting:
        on_alarm(refused(lambda: connecting.echo(b"y"), said), soon=False)
        with pytest.raises(GeardError):
            connecting.echo(b"x")
    with ScriptedServer(deaf) as server, Client(server.address) as sending:
        line_of(sending).exchange()
        data = bytes(30_000_000)
        on_alarm(refused(lambda: sending.echo(b"y"), said), soon=False)
        with pytest.raises(GeardError):
            sending.echo(data, timeout=2)
    assert len(said) == 4
    assert said[1::2] == ["at once"] * 2


def test_a_signal_handler_may_call_while_its_thread_only_waits_for_another_that_reads(
    on_alarm: Callable[[Callable[[], object]], None],
) -> None:
    leading = threading.Event()

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        first = peer.expect(Command.ECHO_REQ)
        leading.set()
        second, third = peer.expect(Command.ECHO_REQ), peer.expect(Command.ECHO_REQ)
        for packet in (first, second, third):
            peer.send(Command.ECHO_RES, packet.data)

    heard: list[bytes] = []
    with ScriptedServer(script) as server, Client(server.address) as client, ThreadPoolExecutor(1) as pool:
        other = pool.submit(client.echo, b"1")
        leading.wait(30)
        on_alarm(lambda: heard.append(client.echo(b"3", timeout=30)))
        assert client.echo(b"2", timeout=30) == b"2"
        assert other.result(30) == b"1"
    assert heard == [b"3"]


def test_greenlets_may_wait_for_each_other_and_one_that_calls_amid_its_own_call_may_not() -> None:
    body = """
        import gevent
        from geard import InvalidRequest
        client = Client(sys.argv[1])
        first = gevent.spawn(client.echo, b"1")
        gevent.sleep(0.1)
        second = gevent.spawn(client.echo, b"2")
        said = [first.get().decode(), second.get().decode()]
        exchange = client._conversation._exchange

        class Reentering:
            def __call__(self):  # what a finalizer would be, in the middle of a read
                try:
                    client.echo(b"mine")
                except InvalidRequest as error:
                    return str(error)

        receive = exchange._connection.receive
        def interrupted(timeout):
            said.append(Reentering()())
            return receive(timeout)
        exchange._connection.receive = interrupted
        client.echo(b"outer", timeout=30)
        print(json.dumps(said))
    """

    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        while True:
            data = peer.expect(Command.ECHO_REQ).data
            time.sleep(0.3)
            peer.send(Command.ECHO_RES, data)

    with ScriptedServer(script) as server:
        first, second, error = program("greenlets", body, server.address)
    assert (first, second) == ("1", "2")
    assert "interrupts another call" in error


def give(turn: Turn, taken: list[bool]) -> None:
    if taken and taken[0]:
        taken[0] = False
        turn.lock.release()
    turn.forget(taken)


def test_a_turn_is_given_back_whatever_happens_while_it_is_waited_for() -> None:
    turn = Turn()
    mine: list[bool] = []
    assert turn.take(mine, None)
    with pytest.raises(InvalidRequest):
        turn.take([], None)
    theirs: list[bool] = []
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(turn.take, theirs, time.monotonic() + 0.1).result(30) is False
        pool.submit(give, turn, theirs).result(30)
        give(turn, mine)
        give(turn, mine)
        assert pool.submit(turn.take, theirs, None).result(30) is True
        pool.submit(give, turn, theirs).result(30)
    assert not turn.lock.locked()
    assert not turn.takers
