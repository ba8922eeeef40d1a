"""What clients and workers see of a job server, by raw sockets, on every job server there is.

These are the facts that the worker and the client rely on. Where gearmand is known to do worse, the test says so.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from geard.protocol import Command, Packet, request
from tests.conftest import SERVERS
from tests.support.raw import Peer
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

Connect = Callable[[], Peer]

SILENCE = b"is anybody there"


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name that no other test uses."""
    return request.node.name.encode()  # type: ignore[no-any-return]


@pytest.fixture
def connect(shared_job_server: JobServerProcess) -> Iterator[Connect]:
    """New connections to the job server, closed after the test."""
    peers: list[Peer] = []

    def connect() -> Peer:
        peers.append(Peer.connect(shared_job_server.address))
        return peers[-1]

    yield connect
    for peer in peers:
        peer.close()


def worker_of(connect: Connect, *functions: bytes) -> Peer:
    worker = connect()
    for function in functions:
        worker.send(Command.CAN_DO, function)
    assert_silent(worker)
    return worker


def assert_silent(peer: Peer) -> None:
    """Nothing was sent to this peer: the next it gets is its echo. And all that it sent before was dealt with."""
    peer.send(Command.ECHO_REQ, SILENCE)
    assert peer.expect(Command.ECHO_RES).data == SILENCE


def submit(
    client: Peer,
    function: bytes,
    unique: bytes = b"",
    workload: bytes = b"w",
    command: Command = Command.SUBMIT_JOB_BG,
) -> bytes:
    """The handle."""
    client.send(command, function, unique, workload)
    return client.expect(Command.JOB_CREATED).handle


def grab(worker: Peer) -> Packet:
    worker.send(Command.GRAB_JOB_UNIQ)
    return worker.expect(Command.JOB_ASSIGN_UNIQ)


def grab_when_there_is_one(worker: Peer) -> Packet:
    """For a job that becomes ready without anybody telling this worker."""
    found: list[Packet] = []

    def grabbed() -> bool:
        worker.send(Command.GRAB_JOB_UNIQ)
        found.append(worker.receive())
        return found[-1].command == Command.JOB_ASSIGN_UNIQ

    eventually(grabbed, what="a job")
    return found[-1]


def no_job(worker: Peer) -> None:
    worker.send(Command.GRAB_JOB_UNIQ)
    worker.expect(Command.NO_JOB)


def error(peer: Peer) -> bytes:
    return peer.expect(Command.ERROR).code


# --- a job from submission to its end -----------------------------------------------------------------------------


def test_a_foreground_job_reaches_a_sleeping_worker_and_all_it_says_reaches_the_client(
    connect: Connect, function: bytes
) -> None:
    worker, client = worker_of(connect, function), connect()
    worker.send(Command.PRE_SLEEP)
    handle = submit(client, function, b"u", b"a\0b", Command.SUBMIT_JOB)
    worker.expect(Command.NOOP)
    assert grab(worker).fields == [handle, function, b"u", b"a\0b"]
    worker.send(Command.WORK_STATUS, handle, b"1", b"3")
    worker.send(Command.WORK_DATA, handle, b"d\0d")
    worker.send(Command.WORK_WARNING, handle, b"w\0w")
    worker.send(Command.WORK_COMPLETE, handle, b"r\0r")
    assert client.expect(Command.WORK_STATUS).fields == [handle, b"1", b"3"]
    assert client.expect(Command.WORK_DATA).fields == [handle, b"d\0d"]
    assert client.expect(Command.WORK_WARNING).fields == [handle, b"w\0w"]
    assert client.expect(Command.WORK_COMPLETE).fields == [handle, b"r\0r"]
    assert_silent(worker)


def test_each_way_to_grab_gets_its_own_packet(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    handles = [submit(client, function, b"u%d" % n) for n in range(3)]
    worker.send(Command.GRAB_JOB)
    worker.send(Command.GRAB_JOB_UNIQ)
    worker.send(Command.GRAB_JOB_ALL)
    assert worker.expect(Command.JOB_ASSIGN).fields == [handles[0], function, b"w"]
    assert worker.expect(Command.JOB_ASSIGN_UNIQ).fields == [handles[1], function, b"u1", b"w"]
    assert worker.expect(Command.JOB_ASSIGN_UNIQ).fields == [handles[2], function, b"u2", b"w"]


@pytest.mark.parametrize("command", [Command.SUBMIT_REDUCE_JOB, Command.SUBMIT_REDUCE_JOB_BACKGROUND])
def test_a_reduce_job_names_its_reducer_to_who_asks_for_all(
    connect: Connect, function: bytes, command: Command
) -> None:
    worker, client = worker_of(connect, function), connect()
    client.send(command, function, b"u", b"reducer", b"", b"w")
    handle = client.expect(Command.JOB_CREATED).handle
    worker.send(Command.GRAB_JOB_ALL)
    assert worker.expect(Command.JOB_ASSIGN_ALL).fields == [handle, function, b"u", b"reducer", b"w"]


def test_pipelined_grabs_are_answered_in_order_and_jobs_complete_in_any(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    handles = [submit(client, function, b"", b"%d" % n, Command.SUBMIT_JOB) for n in range(3)]
    for _ in range(4):
        worker.send(Command.GRAB_JOB_UNIQ)
    worker.send(Command.PRE_SLEEP)
    assert [worker.expect(Command.JOB_ASSIGN_UNIQ).handle for _ in range(3)] == handles
    worker.expect(Command.NO_JOB)
    for handle in reversed(handles):
        worker.send(Command.WORK_COMPLETE, handle, handle)
    assert [client.expect(Command.WORK_COMPLETE).handle for _ in range(3)] == handles[::-1]


def test_a_function_is_served_by_priority_and_then_by_age(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    submit(client, function, b"low", command=Command.SUBMIT_JOB_LOW_BG)
    submit(client, function, b"normal")
    submit(client, function, b"high", command=Command.SUBMIT_JOB_HIGH)
    submit(client, function, b"normal later", command=Command.SUBMIT_JOB)
    submit(client, function, b"high later", command=Command.SUBMIT_JOB_HIGH_BG)
    uniques = [grab(worker).unique for _ in range(5)]
    assert uniques == [b"high", b"high later", b"normal", b"normal later", b"low"]


@pytest.mark.parametrize("size_bytes", [0, 1_000_000, 20_000_000])
def test_workloads_of_any_size_go_through(connect: Connect, function: bytes, size_bytes: int) -> None:
    worker, client = worker_of(connect, function), connect()
    workload = b"\0x" * (size_bytes // 2)
    handle = submit(client, function, b"", workload, Command.SUBMIT_JOB)
    assert grab(worker).workload == workload
    worker.send(Command.WORK_COMPLETE, handle, workload)
    assert client.expect(Command.WORK_COMPLETE).data == workload


@pytest.mark.parametrize("name", [b"", b"f" * 600, "größe".encode()])
def test_any_function_name_is_taken(connect: Connect, name: bytes) -> None:
    worker, client = worker_of(connect, name), connect()
    handle = submit(client, name)
    job = grab(worker)
    assert (job.handle, job.function) == (handle, name)
    worker.send(Command.WORK_COMPLETE, handle, b"")
    assert_silent(worker)


# --- uniques ------------------------------------------------------------------------------------------------------


def test_the_same_unique_is_the_same_job_and_every_client_hears_of_it(connect: Connect, function: bytes) -> None:
    worker, first, second = worker_of(connect, function), connect(), connect()
    handle = submit(first, function, b"u", b"w", Command.SUBMIT_JOB)
    assert submit(second, function, b"u", b"other", Command.SUBMIT_JOB_HIGH) == handle
    assert grab(worker).workload == b"w"
    assert submit(second, function, b"u", b"w", Command.SUBMIT_JOB) == handle
    no_job(worker)
    worker.send(Command.WORK_DATA, handle, b"d")
    worker.send(Command.WORK_COMPLETE, handle, b"r")
    first.expect(Command.WORK_DATA)
    first.expect(Command.WORK_COMPLETE)
    assert [second.receive().command for _ in range(4)] == [Command.WORK_DATA] * 2 + [Command.WORK_COMPLETE] * 2
    assert submit(first, function, b"u") != handle


def test_uniques_are_per_function_and_an_empty_one_is_no_unique(connect: Connect, function: bytes) -> None:
    client = connect()
    assert submit(client, function, b"u") != submit(client, function + b"2", b"u")
    assert submit(client, function) != submit(client, function)


def test_a_dash_as_unique_means_the_workload(connect: Connect, function: bytes) -> None:
    client = connect()
    handle = submit(client, function, b"-", b"same")
    assert submit(client, function, b"-", b"same") == handle
    assert submit(client, function, b"-", b"other") != handle
    assert submit(client, function, b"-", b"") != submit(client, function, b"-", b"")


def test_a_unique_may_have_64_bytes(connect: Connect, function: bytes) -> None:
    client = connect()
    submit(client, function, b"u" * 64)
    client.send(Command.SUBMIT_JOB_BG, function, b"u" * 65, b"w")
    assert error(client) == b"ARGUMENT_TOO_LARGE"


# --- asleep and awake ---------------------------------------------------------------------------------------------


def test_pre_sleep_hears_noop_at_once_if_a_job_waits(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    submit(client, function)
    worker.send(Command.PRE_SLEEP)
    worker.expect(Command.NOOP)


def test_every_sleeper_hears_noop_once_per_sleep(connect: Connect, function: bytes) -> None:
    workers, client = [worker_of(connect, function) for _ in range(3)], connect()
    for worker in workers:
        worker.send(Command.PRE_SLEEP)
        assert_silent(worker)
    submit(client, function)
    submit(client, function)
    for worker in workers:
        worker.expect(Command.NOOP)
        assert_silent(worker)


def test_grabbing_ends_the_sleep(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    worker.send(Command.PRE_SLEEP)
    no_job(worker)
    submit(client, function)
    assert_silent(worker)


def test_a_worker_without_abilities_gets_no_job_and_sleeps_in_silence(connect: Connect) -> None:
    worker = connect()
    no_job(worker)
    worker.send(Command.PRE_SLEEP)
    assert_silent(worker)


# --- jobs that come back ------------------------------------------------------------------------------------------


def test_the_jobs_of_a_worker_that_goes_are_queued_again_behind_the_others(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    handles = [submit(client, function) for _ in range(4)]
    assert [grab(worker).handle for _ in range(2)] == handles[:2]
    worker.close()
    other = worker_of(connect, function)
    got = [grab(other).handle for _ in range(2)]
    got += [grab_when_there_is_one(other).handle for _ in range(2)]
    assert got[:2] == handles[2:]
    assert sorted(got[2:]) == handles[:2]


def test_a_sleeper_is_woken_for_a_job_that_comes_back(connect: Connect, function: bytes) -> None:
    worker, sleeper, client = worker_of(connect, function), worker_of(connect, function), connect()
    submit(client, function)
    grab(worker)
    sleeper.send(Command.PRE_SLEEP)
    assert_silent(sleeper)
    worker.close()
    sleeper.expect(Command.NOOP)


@pytest.mark.parametrize("command", [Command.CANT_DO, Command.RESET_ABILITIES])
def test_giving_up_a_function_hands_back_its_jobs_at_once(connect: Connect, function: bytes, command: Command) -> None:
    """This is why a drain sends neither."""
    worker, other, client = worker_of(connect, function), worker_of(connect, function), connect()
    handle = submit(client, function)
    grab(worker)
    worker.send(command, *([function] if command == Command.CANT_DO else []))
    assert_silent(worker)
    assert grab(other).handle == handle
    worker.send(Command.WORK_COMPLETE, handle, b"late")
    assert error(worker) == b"JOB_NOT_FOUND"


@pytest.mark.parametrize("command", [Command.CANT_DO, Command.RESET_ABILITIES])
def test_who_sleeps_is_woken_even_for_the_job_that_he_gives_up(
    connect: Connect, function: bytes, command: Command
) -> None:
    worker, client = worker_of(connect, function), connect()
    submit(client, function)
    grab(worker)
    worker.send(Command.PRE_SLEEP)
    assert_silent(worker)
    worker.send(command, *([function] if command == Command.CANT_DO else []))
    worker.expect(Command.NOOP)


def test_only_the_connection_that_was_assigned_a_job_may_answer_it(connect: Connect, function: bytes) -> None:
    worker, other, client = worker_of(connect, function), worker_of(connect, function), connect()
    handle = submit(client, function, command=Command.SUBMIT_JOB)
    grab(worker)
    for command, rest in [
        (Command.WORK_COMPLETE, [b"x"]),
        (Command.WORK_STATUS, [b"1", b"2"]),
        (Command.WORK_FAIL, []),
    ]:
        other.send(command, handle, *rest)
        assert error(other) == b"JOB_NOT_FOUND"
    for command in (Command.WORK_DATA, Command.WORK_WARNING, Command.WORK_EXCEPTION):
        other.send(command, handle, b"x")
        assert error(other) == b"JOB_NOT_FOUND"
    worker.send(Command.WORK_COMPLETE, handle, b"r")
    assert client.receive().fields == [handle, b"r"]


def test_can_do_timeout_hands_a_job_back_when_its_time_is_up(connect: Connect, function: bytes) -> None:
    worker, client = connect(), connect()
    worker.send(Command.CAN_DO_TIMEOUT, function, b"1000")
    handle = submit(client, function)
    grab(worker)
    other = worker_of(connect, function)
    other.send(Command.PRE_SLEEP)
    other.expect(Command.NOOP)
    assert grab_when_there_is_one(other).handle == handle, "gearmand wakes sleepers just before the job is back"
    worker.send(Command.WORK_COMPLETE, handle, b"late")
    assert error(worker) == b"JOB_NOT_FOUND"


def test_pre_sleep_ends_the_deadline_of_a_job_that_runs(
    connect: Connect, shared_job_server: JobServerProcess, function: bytes
) -> None:
    worker, other, client = connect(), connect(), connect()
    worker.send(Command.CAN_DO_TIMEOUT, function, b"1000")
    handle = submit(client, function)
    grab(worker)
    worker.send(Command.PRE_SLEEP)
    assert_silent(worker)
    other.send(Command.CAN_DO_TIMEOUT, function + b"2", b"1000")
    submit(client, function + b"2")
    grab(other)  # whose time is up later than the first one's would have been
    eventually(lambda: shared_job_server.status((function + b"2").decode()) == (1, 0, 1))
    assert shared_job_server.status(function.decode()) == (1, 1, 1)
    worker.send(Command.WORK_COMPLETE, handle, b"")
    assert_silent(worker)


@pytest.mark.parametrize("name", list(SERVERS))
def test_exceptions_go_to_every_client_with_that_option(name: str) -> None:
    with (
        SERVERS[name]("--exceptions") as server,
        Peer.connect(server.address) as worker,
        Peer.connect(server.address) as client,
    ):
        worker.send(Command.CAN_DO, b"f")
        handle = submit(client, b"f", command=Command.SUBMIT_JOB)
        grab_when_there_is_one(worker)
        worker.send(Command.WORK_EXCEPTION, handle, b"what")
        assert client.expect(Command.WORK_EXCEPTION).fields == [handle, b"what"]


@pytest.mark.parametrize("name", list(SERVERS))
def test_check_args_only_looks_at_the_options(name: str) -> None:
    server = SERVERS[name]("--check-args")
    assert subprocess.run(server.command(), capture_output=True, timeout=60).returncode == 0
    assert subprocess.run([*server.command(), "--telepathy"], capture_output=True, timeout=60).returncode != 0


@pytest.mark.parametrize("name", list(SERVERS))
def test_job_retries_drop_a_job_that_loses_its_worker_so_often(name: str) -> None:
    with SERVERS[name]("--job-retries=2") as server, Peer.connect(server.address) as client:
        handle = submit(client, b"f", command=Command.SUBMIT_JOB)
        for _ in range(2):
            with Peer.connect(server.address) as worker:
                worker.send(Command.CAN_DO, b"f")
                assert grab_when_there_is_one(worker).handle == handle
        assert client.expect(Command.WORK_FAIL).handle == handle
        assert server.status("f")[0] == 0


# --- clients that go, and what is known of a job ------------------------------------------------------------------


def test_a_waiting_foreground_job_is_not_run_when_its_client_has_gone(
    connect: Connect, shared_job_server: JobServerProcess, function: bytes
) -> None:
    client = connect()
    submit(client, function, command=Command.SUBMIT_JOB)
    assert shared_job_server.status(function.decode())[0] == 1
    client.close()
    worker = worker_of(connect, function)
    eventually(lambda: _is_told_there_is_none(worker), what="NO_JOB")


def _is_told_there_is_none(worker: Peer) -> bool:
    worker.send(Command.PRE_SLEEP)
    worker.send(Command.ECHO_REQ, SILENCE)
    if worker.receive().command == Command.ECHO_RES:
        no_job(worker)
        return True
    worker.expect(Command.ECHO_RES)
    return False


def test_the_result_for_a_client_that_has_gone_is_taken_in_silence(
    connect: Connect, shared_job_server: JobServerProcess, function: bytes
) -> None:
    worker, client = worker_of(connect, function), connect()
    client.send(Command.SET_CLIENT_ID, function)
    handle = submit(client, function, command=Command.SUBMIT_JOB)
    grab(worker)
    client.close()
    eventually(lambda: not any(f" {function.decode()} :" in row for row in shared_job_server.text("workers")))
    worker.send(Command.WORK_COMPLETE, handle, b"r")
    assert_silent(worker)


def test_status_of_a_job_by_handle_and_by_unique(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    unique = function[-60:]
    handle = submit(client, function, unique, command=Command.SUBMIT_JOB)

    def status() -> tuple[list[bytes], list[bytes]]:
        client.send(Command.GET_STATUS, handle)
        client.send(Command.GET_STATUS_UNIQUE, unique)
        return client.skip_to(Command.STATUS_RES).fields, client.skip_to(Command.STATUS_RES_UNIQUE).fields

    assert status() == ([handle, b"1", b"0", b"0", b"0"], [unique, b"1", b"0", b"0", b"0", b"1"])
    grab(worker)
    worker.send(Command.WORK_STATUS, handle, b"3", b"7")
    assert_silent(worker)
    assert status() == ([handle, b"1", b"1", b"3", b"7"], [unique, b"1", b"1", b"3", b"7", b"1"])
    worker.send(Command.WORK_COMPLETE, handle, b"")
    assert_silent(worker)
    assert status() == ([handle, b"0", b"0", b"0", b"0"], [unique, b"0", b"0", b"0", b"0", b"0"])


def test_a_worker_that_sends_words_for_a_status_is_passed_on_and_counted_as_zero(
    connect: Connect, function: bytes
) -> None:
    worker, client = worker_of(connect, function), connect()
    handle = submit(client, function, command=Command.SUBMIT_JOB)
    grab(worker)
    worker.send(Command.WORK_STATUS, handle, b"3", b"many")
    assert client.expect(Command.WORK_STATUS).fields == [handle, b"3", b"many"]
    client.send(Command.GET_STATUS, handle)
    assert client.expect(Command.STATUS_RES).fields == [handle, b"1", b"1", b"3", b"0"]


def test_an_exception_ends_the_job_and_goes_to_who_asked_for_it(connect: Connect, function: bytes) -> None:
    worker, curious, plain = worker_of(connect, function), connect(), connect()
    curious.send(Command.OPTION_REQ, b"exceptions")
    assert curious.expect(Command.OPTION_RES).option == b"exceptions"
    handle = submit(curious, function, b"u", command=Command.SUBMIT_JOB)
    submit(plain, function, b"u", command=Command.SUBMIT_JOB)
    grab(worker)
    worker.send(Command.WORK_EXCEPTION, handle, b"what\0ever")
    assert curious.expect(Command.WORK_EXCEPTION).fields == [handle, b"what\0ever"]
    assert plain.expect(Command.WORK_FAIL).handle.rstrip(b"\0") == handle  # gearmand leaves a NUL byte there
    worker.send(Command.WORK_FAIL, handle)
    assert error(worker) == b"JOB_NOT_FOUND"


def test_a_failure_reaches_the_client(connect: Connect, function: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    handle = submit(client, function, command=Command.SUBMIT_JOB)
    grab(worker)
    worker.send(Command.WORK_FAIL, handle)
    assert client.expect(Command.WORK_FAIL).handle == handle


# --- delayed jobs -------------------------------------------------------------------------------------------------


def test_a_delayed_job_waits_for_its_time(
    connect: Connect, shared_job_server: JobServerProcess, function: bytes
) -> None:
    worker, client = worker_of(connect, function), connect()
    due = int(time.time()) + 2
    client.send(Command.SUBMIT_JOB_EPOCH, function, b"u", b"%d" % due, b"w")
    handle = client.expect(Command.JOB_CREATED).handle
    assert shared_job_server.status(function.decode()) == (1, 0, 1)
    if time.time() < due:
        no_job(worker)
    job = grab_when_there_is_one(worker)
    assert job.fields == [handle, function, b"u", b"w"]
    assert time.time() >= due


@pytest.mark.parametrize("epoch", [b"0", b"1", b"-5", b"soon", b""])
def test_a_delay_that_is_past_or_no_number_is_none(connect: Connect, function: bytes, epoch: bytes) -> None:
    worker, client = worker_of(connect, function), connect()
    client.send(Command.SUBMIT_JOB_EPOCH, function, b"u", epoch, b"w")
    assert client.expect(Command.JOB_CREATED).handle == grab(worker).handle


# --- what is not right --------------------------------------------------------------------------------------------


def test_an_unknown_option_is_an_error(connect: Connect) -> None:
    client = connect()
    client.send(Command.OPTION_REQ, b"telepathy")
    assert error(client) == b"UNKNOWN_OPTION"
    assert_silent(client)


@pytest.mark.parametrize(
    ("command", "fields"),
    [
        (Command.NOOP, []),
        (Command.JOB_CREATED, [b"h"]),
        (Command.NO_JOB, []),
        (Command.ECHO_RES, [b""]),
        (Command.ALL_YOURS, []),
        (Command.SUBMIT_JOB_SCHED, [b"f", b"u", b"1", b"2", b"3", b"4", b"5", b"w"]),
    ],
)
def test_a_packet_that_is_no_request_is_an_error_and_the_connection_goes_on(
    connect: Connect, command: Command, fields: list[bytes]
) -> None:
    peer = connect()
    peer.send(command, *fields)
    assert error(peer) == b"INVALID_COMMAND"
    assert_silent(peer)


@pytest.mark.parametrize("rubbish", [b"\0REQ\0\0\0\x2b\0\0\0\0", b"\0XYZ\0\0\0\x06\0\0\0\0"])
def test_rubbish_ends_its_connection_and_no_other(connect: Connect, rubbish: bytes) -> None:
    peer, other = connect(), connect()
    peer.send_bytes(rubbish)
    with pytest.raises((EOFError, ConnectionError)):
        peer.receive()
    assert_silent(other)


def test_a_packet_may_come_byte_by_byte(connect: Connect, function: bytes) -> None:
    client = connect()
    for byte in request(Command.SUBMIT_JOB_BG, function, b"u", b"workload"):
        client.send_bytes(bytes([byte]))
    client.expect(Command.JOB_CREATED)
