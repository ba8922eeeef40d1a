"""What goes wrong, and what a client's caller is told then. The job server here is scripted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from geard import Client, ConnectionLost, JobServer
from geard.errors import CannotConnect, InvalidRequest, PacketTooLarge, ProtocolError, ServerError, ServerTimeout
from geard.protocol import RESPONSE, Command, encode
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, free_port
from tests.support.waiting import eventually

Script = Callable[[Peer], None]


def welcome(peer: Peer) -> None:
    """What a client asks first of every job server."""
    peer.send(Command.OPTION_RES, peer.expect(Command.OPTION_REQ).option)
    peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)


def welcoming(script: Script) -> ScriptedServer:
    """A job server that behaves until the client has connected."""

    def play(peer: Peer, number: int) -> None:
        welcome(peer)
        script(peer)

    return ScriptedServer(play)


def drop_unanswered(peer: Peer) -> None:
    peer.receive()


def drop_created(peer: Peer) -> None:
    peer.receive()
    peer.send(Command.JOB_CREATED, b"H:1")


@pytest.mark.parametrize(("script", "created"), [(drop_unanswered, None), (drop_created, True)])
def test_a_lost_connection_tells_what_is_known_of_the_job(script: Script, created: bool | None) -> None:
    with welcoming(script) as server, Client(server.address) as client:
        with pytest.raises(ConnectionLost, match=f"{server.address} closed the connection") as caught:
            client.run("f", "x")
        assert caught.value.job_created is created
        assert server.connections == 1  # nothing was submitted again


def test_a_lost_background_submission_is_of_unknown_fate_and_the_next_call_connects_again() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        if number == 0:
            peer.receive()
        else:
            peer.expect(Command.ECHO_REQ)
            peer.send(Command.ECHO_RES, b"hello")

    with ScriptedServer(script) as server, Client(server.address) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.submit_background("f", "x")
        assert caught.value.job_created is None
        assert client.echo(b"hello") == b"hello"


def send(*packets: tuple[Any, ...]) -> Script:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send_bytes(b"".join(encode(RESPONSE, command, *fields) for command, *fields in packets))
        peer.receive()

    return script


def send_bytes(data: bytes) -> Script:
    def script(peer: Peer) -> None:
        peer.receive()
        peer.send_bytes(data)
        peer.receive()

    return script


HUGE = RESPONSE + b"\0\0\0\x08\x7f\xff\xff\xff"


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (send_bytes(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ProtocolError, "expected a Gearman packet, got b'HTTP"),
        (send_bytes(HUGE), PacketTooLarge, "JOB_CREATED of 2147483659 bytes, over the limit"),
        (send((Command.WORK_COMPLETE, b"H:9", b"x")), ProtocolError, "WORK_COMPLETE came for b'H:9', which is no job"),
        (send((Command.WORK_FAIL, b"")), ProtocolError, "WORK_FAIL came for b'', which is no job"),
        (send((Command.ECHO_RES, b"x")), ProtocolError, "ECHO_RES came, but JOB_CREATED is next"),
        (send((Command.STATUS_RES, b"H:1", *[b"0"] * 4)), ProtocolError, "STATUS_RES came, but JOB_CREATED is next"),
        (send((Command.NOOP,)), ProtocolError, "NOOP came for b'', which is no job"),
        (send(*[(Command.JOB_CREATED, b"H:1")] * 4), ProtocolError, "JOB_CREATED came, but nothing is next"),
        (
            send((Command.JOB_CREATED, b"H:1"), (Command.WORK_FAIL, b"H:2")),
            ProtocolError,
            "WORK_FAIL came for b'H:2', which is no job",
        ),
    ],
    ids=["http", "oversized", "unknown handle", "no handle", "echo", "status", "noop", "unasked", "wrong handle"],
)
def test_a_job_server_that_breaks_the_protocol_is_hung_up_on_and_every_caller_told_at_once(
    script: Script, kind: type[Exception], message: str
) -> None:
    def when_all_have_asked(peer: Peer) -> None:
        peer.expect(Command.SUBMIT_JOB)
        peer.expect(Command.SUBMIT_JOB)
        script(peer)

    with welcoming(when_all_have_asked) as server, Client(server.address) as client, ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(client.run, "f", "x") for _ in range(3)]
        for call in calls:
            with pytest.raises(kind, match=message) as caught:
                call.result(timeout=30)
            assert server.address in str(caught.value)


def test_what_came_whole_before_the_rubbish_still_counts() -> None:
    good = encode(RESPONSE, Command.JOB_CREATED, b"H:1") + encode(RESPONSE, Command.WORK_COMPLETE, b"H:1", b"done")
    with welcoming(send_bytes(good + b"rubbish at the end")) as server, Client(server.address) as client:
        assert client.run("f", "x") == "done"


def test_a_result_in_the_same_segment_as_its_handle_is_not_missed() -> None:
    def script(peer: Peer) -> None:
        for number in range(3):
            peer.expect(Command.SUBMIT_JOB)
            handle = b"H:%d" % number
            created = encode(RESPONSE, Command.JOB_CREATED, handle)
            data = encode(RESPONSE, Command.WORK_DATA, handle, b"a")
            peer.send_bytes(created + data + encode(RESPONSE, Command.WORK_COMPLETE, handle, b"b"))

    with welcoming(script) as server, Client(server.address) as client:
        assert [client.run("f", "x") for _ in range(3)] == ["ab"] * 3


def test_an_answer_that_comes_byte_by_byte_is_an_answer() -> None:
    def script(peer: Peer) -> None:
        peer.expect(Command.SUBMIT_JOB_BG)
        for byte in encode(RESPONSE, Command.JOB_CREATED, b"H:host:1"):
            peer.send_bytes(bytes([byte]))

    with welcoming(script) as server, Client(server.address) as client:
        assert client.submit_background("f", "x") == "H:host:1"


def test_an_answer_for_a_caller_that_gave_up_is_not_taken_by_the_next() -> None:
    def script(peer: Peer) -> None:
        peer.expect(Command.SUBMIT_JOB)
        peer.expect(Command.SUBMIT_JOB)
        for handle in (b"H:late", b"H:1"):
            peer.send(Command.JOB_CREATED, handle)
        peer.send(Command.WORK_COMPLETE, b"H:late", b"too late")
        peer.send(Command.WORK_COMPLETE, b"H:1", b"in time")

    with welcoming(script) as server, Client(server.address) as client:
        with pytest.raises(TimeoutError):
            client.run("f", "x", timeout=0.05)
        assert client.run("f", "y") == "in time"


def test_an_error_answers_only_the_request_it_is_for() -> None:
    def script(peer: Peer) -> None:
        peer.expect(Command.SUBMIT_JOB_BG)
        peer.send(Command.ERROR, b"SOME_CODE", b"not today")
        peer.expect(Command.SUBMIT_JOB_BG)
        peer.send(Command.JOB_CREATED, b"H:1")

    with welcoming(script) as server, Client(server.address) as client:
        with pytest.raises(ServerError, match="SOME_CODE: not today"):
            client.submit_background("f", "x")
        assert client.submit_background("f", "x") == "H:1"


def test_a_job_server_that_falls_silent_fails_every_caller_and_the_next_call_connects_again() -> None:
    def script(peer: Peer, number: int) -> None:
        welcome(peer)
        if number:
            peer.expect(Command.ECHO_REQ)
            peer.send(Command.ECHO_RES, b"back")
        peer.receive()
        peer.receive()
        peer.receive()

    with ScriptedServer(script) as server, Client(server.address, answer_timeout_seconds=0.3) as client:
        with ThreadPoolExecutor(2) as pool:
            calls = [pool.submit(client.submit_background, "f", "x"), pool.submit(client.run, "f", "x")]
            for call in calls:
                with pytest.raises(ServerTimeout, match=r"has not answered within 0\.3 s") as caught:
                    call.result(timeout=30)
                assert caught.value.job_created is None
        assert client.echo(b"back") == b"back"


def test_a_closed_client_ends_the_waits_of_its_callers() -> None:
    waiting = threading.Event()

    def script(peer: Peer) -> None:
        peer.receive()
        peer.send(Command.JOB_CREATED, b"H:1")
        waiting.set()
        peer.receive()

    with welcoming(script) as server, ThreadPoolExecutor(1) as pool:
        client = Client(server.address)
        call = pool.submit(client.run, "f", "x")
        waiting.wait(30)
        eventually(lambda: "1 running" in repr(client))
        client.close()
        client.close()
        with pytest.raises(ConnectionLost, match="the client has closed its connection"):
            call.result(timeout=30)
        with pytest.raises(InvalidRequest, match="the client is closed"):
            client.echo(b"x")


def test_a_client_that_is_closed_while_it_connects_sends_nothing() -> None:
    asked, closed, over = threading.Event(), threading.Event(), threading.Event()

    def script(peer: Peer, number: int) -> None:
        peer.expect(Command.OPTION_REQ)
        asked.set()
        assert closed.wait(30)
        peer.send(Command.OPTION_RES, b"exceptions")
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)
        with pytest.raises(EOFError):
            peer.receive()
        over.set()

    with ScriptedServer(script) as server, ThreadPoolExecutor(1) as pool:
        client = Client(server.address)
        call = pool.submit(client.submit_background, "f", "x")
        assert asked.wait(30)
        client.close()
        closed.set()
        with pytest.raises(InvalidRequest, match="the client is closed"):
            call.result(timeout=30)
        assert over.wait(30)


def test_no_job_server_is_one_error_with_each_address_and_its_reason() -> None:
    def silent(peer: Peer, number: int) -> None:
        peer.receive()
        peer.receive()
        peer.receive()

    refusing = f"127.0.0.1:{free_port()}"
    with ScriptedServer(silent) as server:
        client = Client([refusing, server.address], connect_timeout_seconds=0.2)
        begun = time.monotonic()
        with pytest.raises(CannotConnect) as caught:
            client.run("f", "x")
        assert time.monotonic() - begun < 20
        assert caught.value.job_created is False
        assert str(caught.value).splitlines() == [
            "no job server can be reached:",
            f"  cannot connect to {refusing}: 127.0.0.1: connection refused",
            f"  cannot connect to {server.address}: it accepts, but does not answer within 0.2 s",
        ]


def test_the_job_server_that_failed_last_is_tried_last() -> None:
    def brief(peer: Peer, number: int) -> None:
        welcome(peer)
        peer.send(Command.ECHO_RES, peer.expect(Command.ECHO_REQ).data)

    with ScriptedServer(brief) as first, ScriptedServer(brief) as second:
        client = Client([JobServer("127.0.0.1", first.port), second.address])
        for expected in ((1, 0), (1, 1), (2, 1), (2, 2)):
            assert client.echo(b"x") == b"x"
            assert (first.connections, second.connections) == expected
            with pytest.raises(ConnectionLost):  # each ends its connection after one answer
                client.echo(b"x")


def test_a_client_finds_out_that_its_idle_connection_has_ended_before_it_uses_it() -> None:
    with Gearmand() as server, Client(server.address) as client:
        assert client.echo(b"x") == b"x"
        server.restart()
        time.sleep(1.1)  # what the client calls idle
        assert client.submit_background("f", "x")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.run("f", 5), "not int"),
        (lambda c: c.run("f", None), "the workload is None: submit an empty one"),
        (lambda c: c.run("f", "x", encoding="bytes"), "with `encoding: bytes` a workload is bytes, not str"),
        (lambda c: c.run("f", b"x", encoding="json"), "a workload is what JSON can say, not bytes"),
        (
            lambda c: c.run("f", object(), encoding="json"),
            "the workload cannot be encoded: Encoding objects of type object",
        ),
        (lambda c: c.run("f", "ü", encoding="ascii"), "the workload cannot be encoded: 'ascii' codec can't encode"),
        (lambda c: c.run("f", "\ud800"), "the workload cannot be encoded: 'utf-8' codec can't encode"),
        (lambda c: c.run("f", "x", encoding="klingon"), "'klingon' is no encoding"),
        (lambda c: c.run("f", "x", encoding="base64"), "'base64' is no encoding"),
        (lambda c: c.run("f\0g", "x"), "without NUL"),
        (lambda c: c.run("", "x"), "not empty"),
        (lambda c: c.run(b"f", "x"), "a function's name is a str"),
        (lambda c: c.run(["f"], "x"), "a function's name is a str"),
        (lambda c: c.run("\ud800", "x"), "cannot be encoded"),
        (lambda c: c.submit("f", "x", unique="u" * 65), "has over 64 bytes"),
        (lambda c: c.submit("f", "x", unique="ü" * 33), "has over 64 bytes"),
        (lambda c: c.submit("f", "x", unique="a\0b"), "without NUL"),
        (lambda c: c.submit("f", "x", unique=""), "not empty"),
        (lambda c: c.submit("f", "x", unique=7), "a unique is a str"),
        (lambda c: c.submit("f", "x", priority="urgent"), "priority is one of low, normal, high, not 'urgent'"),
        (lambda c: c.submit("f", "x", priority="high", reducer="r"), "no priority"),
        (lambda c: c.submit("f", "x", reducer="a\0b"), "without NUL"),
        (lambda c: c.submit_background("f", "x", at=-1), "a delay in seconds from 0 up, not -1"),
        (lambda c: c.submit_background("f", "x", at=timedelta(-1)), "from 0 up"),
        (lambda c: c.submit_background("f", "x", at=float("nan")), "not nan"),
        (lambda c: c.submit_background("f", "x", at=float("inf")), "not inf"),
        (lambda c: c.submit_background("f", "x", at=True), "not True"),
        (lambda c: c.submit_background("f", "x", at="tomorrow"), "not 'tomorrow'"),
        (lambda c: c.submit_background("f", "x", at=1, priority="low"), "`at` has no priority"),
        (lambda c: c.submit_background("f", "x", at=1, reducer="r"), "no reducer"),
        (lambda c: next(c.submit_many_background("f", [1])), "not int"),
        (lambda c: next(c.map("f", [1], encoding="bytes")), "not int"),
        (lambda c: c.map("f", ["x"], concurrency=0), "concurrency is at least 1"),
        (lambda c: c.status("h" * 64), "at most 63 bytes"),
        (lambda c: c.status(""), "a handle is a str"),
        (lambda c: c.status(b"H:1"), "a handle is a str"),
        (lambda c: c.status_unique("u" * 64), "at most 63 bytes"),
        (lambda c: c.echo("text"), "echo takes bytes, not str"),
        (lambda c: c.option("a\0b"), "without NUL"),
        (lambda c: Client([]), "at least one job server"),
        (lambda c: Client("host:99999"), "port 99999"),
        (lambda c: Client("x", encoding="?"), "no encoding"),
    ],
)
def test_what_the_protocol_cannot_carry_is_refused_before_a_byte_is_sent(
    call: Callable[[Any], object], message: str
) -> None:
    seen = []

    def script(peer: Peer) -> None:
        seen.append(peer.receive().command)

    with welcoming(script) as server, Client(server.address) as client:
        with pytest.raises(InvalidRequest, match=message):
            call(client)
        assert not seen
