"""What a capability is given and what its client gets, on each job server, in plain threads and in a worker process."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.pool import BOTH_WAYS, Caller, PoolInProcess, PoolInThreads, capability, start_pool
from tests.support.servers import HOST, JobServerProcess, need
from tests.support.waiting import eventually

CAPABILITIES = {
    name: name
    for name in (
        "reverse", "type_of", "nothing", "a_number", "snowman", "about", "hands_on", "answers_fail",
        "answers_exception", "answers_twice", "raises_after_answering", "answers_what_cannot_be_encoded", "spoken",
        "generator_raises", "streams", "what_started", "misbehave", "open_gate", "close_gate", "part_done",
    )
} | {
    "answers_early": capability("answers_early", greenlets=1),
    "bytes": capability("type_of", "bytes"),
    "bytes nothing": capability("nothing", "bytes"),
    "bytes wrong": capability("snowman", "bytes"),
    "bytearray": capability("a_bytearray", "bytes"),
    "json": capability("type_of", "json"),
    "json echo": capability("echo", "json"),
    "json nothing": capability("nothing", "json"),
    "json wrong": capability("an_object", "json"),
    "latin-1": capability("echo", "latin-1"),
    "latin-1 snowman": capability("snowman", "latin-1"),
    "called ünusually": capability("reverse"),
}  # fmt: skip


@pytest.fixture(scope="module", params=BOTH_WAYS)
def pool(
    request: pytest.FixtureRequest, shared_job_server: JobServerProcess
) -> Iterator[PoolInThreads | PoolInProcess]:
    on_start = "tests.support.capabilities.started"
    with start_pool(request.param, shared_job_server.address, CAPABILITIES, on_start=on_start) as pool:
        yield pool


@pytest.fixture
def caller(pool: PoolInThreads | PoolInProcess, shared_job_server: JobServerProcess) -> Iterator[Caller]:
    with Caller(shared_job_server.address) as caller:
        yield caller


COMPLETE, EXCEPTION, FAIL = "WORK_COMPLETE", "WORK_EXCEPTION", "WORK_FAIL"


@pytest.mark.parametrize(
    ("function", "workload", "ending"),
    [
        ("reverse", "hellö", (COMPLETE, "ölleh".encode())),
        ("reverse", "", (COMPLETE, b"")),
        ("reverse", "with\0nul", (COMPLETE, b"lun\0htiw")),
        ("called ünusually", "abc", (COMPLETE, b"cba")),
        ("type_of", "text", (COMPLETE, b"str 'text'")),
        ("nothing", "x", (COMPLETE, b"")),
        ("bytes", b"\xff\0", (COMPLETE, rb"bytes b'\xff\x00'")),
        ("bytes nothing", b"x", (COMPLETE, b"")),
        ("bytearray", b"x", (COMPLETE, b"\x00\xff")),
        ("json", '{"a": [1, null]}', (COMPLETE, b"\"dict {'a': [1, None]}\"")),
        ("json echo", '[1.5, "\\u2603"]', (COMPLETE, '[1.5,"☃"]'.encode())),
        ("json nothing", "0", (COMPLETE, b"null")),
        ("latin-1", b"\xe4", (COMPLETE, b"\xe4")),
    ],
)
def test_a_function_gets_and_returns_what_its_encoding_says(
    caller: Caller, function: str, workload: bytes | str, ending: tuple[str, bytes]
) -> None:
    assert caller.story(function, workload) == [ending]


@pytest.mark.parametrize(
    ("function", "workload", "text"),
    [
        ("reverse", b"\xff", "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
        ("json", b"{", "DecodeError: Input data was truncated"),
        ("a_number", b"", "TypeError: with `encoding: utf-8` a result is str, not int"),
        ("bytes wrong", b"", "TypeError: with `encoding: bytes` a result is bytes, not str"),
        ("json wrong", b"0", "TypeError: Encoding objects of type object is unsupported"),
        ("latin-1 snowman", b"", "UnicodeEncodeError: 'latin-1' codec can't encode character"),
        ("misbehave", "raise", "ValueError: as it does"),
        ("misbehave", "unprintable", "UnprintableError: its __str__ raised ValueError"),
    ],
)
def test_what_goes_wrong_reaches_the_client_and_the_log(
    pool: PoolInThreads | PoolInProcess, caller: Caller, function: str, workload: bytes | str, text: str
) -> None:
    (kind, data), *more = caller.story(function, workload, unique="my-unique")
    assert (kind, more) == (EXCEPTION, [])
    assert data.decode().startswith(text)
    eventually(lambda: f"job failed: {text}" in pool.log, what=text)


def test_the_log_names_function_handle_and_unique_of_a_failed_job_with_its_traceback(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    [handle] = caller.submit("misbehave", "raise", unique="named-in-the-log")
    caller.packets()
    line = f"misbehave {handle} (unique named-in-the-log): job failed: ValueError: as it does"
    eventually(lambda: line in pool.log, what=line)
    if isinstance(pool, PoolInProcess):
        eventually(lambda: f"{line}\n    Traceback (most" in pool.log, what="the traceback below it")


def test_a_hands_on_function_knows_its_job(
    pool: PoolInThreads | PoolInProcess, caller: Caller, shared_job_server: JobServerProcess
) -> None:
    [handle] = caller.submit("about", "w", unique="u-1")
    [packet] = caller.packets()
    assert packet.data.decode() == f"about {handle} u-1 {shared_job_server.address} b'w' w"


def test_a_hands_on_function_talks_while_it_runs(caller: Caller) -> None:
    assert caller.story("hands_on") == [
        ("WORK_STATUS", b"1 2"),
        ("WORK_DATA", b"piece"),
        ("WORK_WARNING", "careful ☃".encode()),
        ("WORK_STATUS", b"2 2"),
        (COMPLETE, b"done"),
    ]


def test_progress_in_fractions_is_told_to_client_and_supervisor_in_whole_numbers(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    assert caller.run("close_gate") == (COMPLETE, b"closed")
    [handle] = caller.submit("part_done", "")
    assert caller.packet().fields[1:] == [b"0", b"2"]
    assert [(job.numerator, job.denominator) for job in pool.jobs() if job.handle == handle] == [(0, 2)]
    caller.submit("open_gate", "")
    assert {caller.packets()[-1].data, caller.packets()[-1].data} == {b"open", b"done"}


def test_a_generators_items_are_pieces_and_its_return_value_the_end(caller: Caller) -> None:
    assert caller.story("spoken", "a b") == [("WORK_DATA", b"a"), ("WORK_DATA", b"b"), (COMPLETE, b"end")]
    assert caller.story("generator_raises") == [("WORK_DATA", b"first"), (EXCEPTION, b"ValueError: in the middle")]


def test_a_stream_larger_than_what_may_wait_arrives_whole(caller: Caller) -> None:
    story = caller.story("streams", "60 65536")
    assert story[0] == ("WORK_STATUS", b"0 60")
    assert [data[:8] for _, data in story[1:-1]] == [b"%08d" % number for number in range(60)]
    assert story[-1] == (COMPLETE, b"")


def test_a_function_may_answer_for_itself(caller: Caller) -> None:
    assert caller.story("answers_fail") == [(FAIL, b"")]
    assert caller.story("answers_exception") == [(EXCEPTION, "in my own words ☃".encode())]
    assert caller.story("answers_what_cannot_be_encoded") == [(COMPLETE, b"still to be answered")]


def test_an_answer_is_sent_though_its_function_goes_on(caller: Caller) -> None:
    assert caller.run("close_gate") == (COMPLETE, b"closed")
    assert caller.story("answers_early") == [(COMPLETE, b"early")]
    assert caller.run("open_gate") == (COMPLETE, b"open")
    assert caller.run("reverse", "next") == (COMPLETE, b"txen")


@pytest.mark.parametrize("function", ["answers_twice", "raises_after_answering"])
def test_only_the_first_answer_counts_and_the_log_has_the_rest(
    pool: PoolInThreads | PoolInProcess, caller: Caller, function: str
) -> None:
    assert caller.story(function) == [(COMPLETE, b"first")]
    eventually(lambda: f"{function} raised after it had answered" in pool.log)
    assert caller.run("reverse", "abc") == (COMPLETE, b"cba")


def test_on_start_ran_in_the_worker_process_before_its_first_job(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    if isinstance(pool, PoolInProcess):
        assert pool.process
        assert caller.run("what_started") == (COMPLETE, f"started in {pool.process.pid}".encode())


def test_gearmans_own_tools_are_served_as_well(
    pool: PoolInThreads | PoolInProcess, shared_job_server: JobServerProcess
) -> None:
    need("gearman", "gearadmin")
    server = ["-h", HOST, "-p", str(shared_job_server.port)]
    for function, workload, output in (("reverse", "hello", b"olleh"), ("spoken", "a b", b"abend")):
        done = subprocess.run(["gearman", *server, "-f", function, workload], capture_output=True, timeout=60)
        assert (done.returncode, done.stdout) == (0, output)
    # Not one that raises: of its WORK_EXCEPTION gearmand 1.1.20 makes a WORK_FAIL that this tool waits past for ever.
    failed = subprocess.run(
        ["gearman", *server, "-f", "answers_fail", "x"], capture_output=True, timeout=60, check=False
    )
    assert (failed.returncode, failed.stderr) == (1, b"Job failed\n")
    status = subprocess.run(["gearadmin", *server, "--status"], capture_output=True, timeout=60, check=True)
    assert b"reverse\t0\t0\t1\n" in status.stdout


def test_a_unique_with_a_line_break_does_not_pass_for_a_line_of_the_log(
    pool: PoolInThreads | PoolInProcess, caller: Caller
) -> None:
    caller.submit("misbehave", "raise", unique="first\nsecond")
    caller.packets()
    eventually(lambda: "(unique first\\nsecond): job failed" in pool.log)
