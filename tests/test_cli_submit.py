"""`geard submit`, run as a user runs it, against gearmand and a worker."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard.cli import main
from geard.protocol import Command, Packet
from tests.support.commands import GEARD, Running, ScriptedWorker, environment, geard
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Gearmand, JobServerProcess, free_port, need
from tests.support.waiting import eventually


def reverse(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_COMPLETE, job.handle, job.workload[::-1])


def unique(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_COMPLETE, job.handle, job.unique)


def raises(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_EXCEPTION, job.handle, b"ValueError: no such photo")


def fails(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_FAIL, job.handle)


def picky(peer: Peer, job: Packet) -> None:
    (raises if b"bad" in job.workload else reverse)(peer, job)


def talks(peer: Peer, job: Packet) -> None:
    peer.send(Command.WORK_DATA, job.handle, b"one\0")
    peer.send(Command.WORK_STATUS, job.handle, b"1", b"2")
    peer.send(Command.WORK_WARNING, job.handle, b"mind the gap")
    peer.send(Command.WORK_DATA, job.handle, b"\xfftwo")
    peer.send(Command.WORK_COMPLETE, job.handle, b"end")


SCRIPTS = {function.__name__: function for function in (reverse, unique, raises, fails, picky, talks)}


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    """One gearmand with one worker for all tests here; each uses functions and handles of its own."""
    with Gearmand() as gearmand, ScriptedWorker(gearmand.address, **SCRIPTS):
        yield gearmand


class Hold:
    """A worker's function that runs until it is told to go on."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, peer: Peer, job: Packet) -> None:
        peer.send(Command.WORK_STATUS, job.handle, b"3", b"4")
        peer.send(Command.WORK_DATA, job.handle, b"early")
        self.started.set()
        self.go_on.wait(30)
        peer.send(Command.WORK_COMPLETE, job.handle, b"late\n")


@pytest.fixture
def hold(server: JobServerProcess) -> Iterator[Hold]:
    """The function `hold`, which runs until told to go on, and its worker."""
    script = Hold()
    with ScriptedWorker(server.address, hold=script):
        yield script
        script.go_on.set()


def submit(server: JobServerProcess, *arguments: str | bytes, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return geard("submit", "-s", server.address, *arguments, stdin=stdin)


# --- one job ---------------------------------------------------------------------------------------------------------


def test_the_result_is_all_that_stdout_carries(server: JobServerProcess) -> None:
    done = submit(server, "reverse", "hello")
    assert (done.stdout, done.stderr, done.returncode) == (b"olleh", b"", 0)


@pytest.mark.parametrize("workload", [b"-", b"--file"])
def test_a_workload_is_read_as_bytes_from_stdin_or_a_file(
    server: JobServerProcess, tmp_path: Path, workload: bytes
) -> None:
    data = bytes(range(256)) * 300
    (tmp_path / "data").write_bytes(data)
    if workload == b"-":
        done = submit(server, "reverse", "-", stdin=data)
    else:
        done = submit(server, "reverse", "--file", str(tmp_path / "data"))
    assert done.stdout == data[::-1]


def test_an_argument_that_is_not_utf8_arrives_as_it_is(server: JobServerProcess) -> None:
    assert submit(server, "reverse", b"a\xff\xc3").stdout == b"\xc3\xffa"


def test_no_workload_is_an_empty_one(server: JobServerProcess) -> None:
    assert submit(server, "reverse", stdin=b"not read").stdout == b""


def test_data_goes_to_stdout_and_warnings_to_stderr(server: JobServerProcess) -> None:
    done = submit(server, "talks")
    assert (done.stdout, done.stderr, done.returncode) == (b"one\0\xfftwoend", b"mind the gap\n", 0)


def test_data_is_printed_before_the_job_ends(server: JobServerProcess, hold: Hold) -> None:
    with Running("submit", "-s", server.address, "hold") as command:
        assert command.process.stdout
        assert os.read(command.process.stdout.fileno(), 100) == b"early"
        assert command.process.poll() is None
        hold.go_on.set()
        assert command.process.stdout.read() == b"late\n"
        assert command.ends() == 0


def test_json_has_the_handle_the_result_and_the_warnings(server: JobServerProcess) -> None:
    text = json.loads(submit(server, "reverse", "äb", "--json").stdout)
    assert text.pop("handle").startswith("H:")
    assert json.loads(submit(server, "reverse", "ab", "--json").stdout)["result"] == "ba"
    talk = json.loads(submit(server, "talks", "--json").stdout)
    assert talk["result_base64"] == "b25lAP90d29lbmQ="
    assert talk["warnings"] == ["mind the gap"]


def test_a_workers_exception_is_told_and_is_exit_1(server: JobServerProcess) -> None:
    done = submit(server, "raises")
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"geard: raises: ValueError: no such photo\n", 1)
    told = submit(server, "raises", "--json")
    assert json.loads(told.stdout)["error"] == "raises: ValueError: no such photo"
    assert told.returncode == 1


def test_a_failed_job_is_exit_1(server: JobServerProcess) -> None:
    done = submit(server, "fails")
    assert done.stdout == b""
    assert done.stderr.startswith(b"geard: fails: the job failed")
    assert done.returncode == 1


def test_a_job_that_takes_too_long_is_exit_75(server: JobServerProcess) -> None:
    done = submit(server, "nobody-serves-this", "--timeout", "200ms")
    assert done.stdout == b""
    assert b"not done within 200ms; what was submitted may still run" in done.stderr
    assert done.returncode == 75


def test_the_timeout_bounds_a_job_server_that_is_silent() -> None:
    def never_answers(peer: Peer, number: int) -> None:
        while True:
            peer.receive()

    with ScriptedServer(never_answers) as silent:
        done = geard("submit", "-s", silent.address, "reverse", "--timeout", "300ms")
        assert done.returncode == 75


def test_the_unique_is_the_given_one_or_made_of_the_workload(server: JobServerProcess) -> None:
    assert submit(server, "unique", "--unique", "job-7").stdout == b"job-7"
    first, again, other = (submit(server, "unique", "-u", "workload", text).stdout for text in ("x", "x", "y"))
    assert first == again != other


# --- in the background -----------------------------------------------------------------------------------------------


def test_a_background_job_prints_its_handle_and_is_queued_by_priority(server: JobServerProcess) -> None:
    for options in ([], ["--high"], ["--low"], ["--low"]):
        done = submit(server, "later", "--background", *options)
        assert done.stdout.startswith(b"H:")
        assert (done.stdout.count(b"\n"), done.returncode) == (1, 0)
    assert "later\t1\t1\t2\t0" in server.text("prioritystatus")
    assert json.loads(submit(server, "later", "-b", "--json").stdout).keys() == {"handle"}


def test_foreground_jobs_have_a_priority_too(server: JobServerProcess) -> None:
    with Running("submit", "-s", server.address, "urgent", "--high") as command:
        eventually(lambda: "urgent\t1\t0\t0\t0" in server.text("prioritystatus"))
        command.interrupt()
        assert command.ends() == 130


def test_a_job_with_at_does_not_start_before_its_time(server: JobServerProcess) -> None:
    assert submit(server, "reverse", "x", "--at", "1h").stdout.startswith(b"H:")
    waiting = next(line for line in server.text("prioritystatus") if line.startswith("reverse\t"))
    assert waiting == "reverse\t0\t1\t0\t1"


def test_wait_shows_that_a_background_job_has_ended(server: JobServerProcess, hold: Hold) -> None:
    handle = submit(server, "hold", "-b").stdout.decode().strip()
    assert hold.started.wait(30)
    short = submit(server, "--wait", handle, "--timeout", "100ms")
    assert (short.returncode, short.stdout) == (75, b"")
    down = f"localhost:{free_port()}"
    with Running("submit", "-s", down, "-s", server.address, "--wait", handle, terminal=True) as command:
        command.sees(rf"{handle}  ━+  +75%  3/4")
        hold.go_on.set()
        assert command.ends() == 0
    gone = submit(server, "--wait", handle, "--json")
    assert (json.loads(gone.stdout), gone.returncode) == ({"handle": handle, "was_known": False}, 0)
    assert b"has ended, or never was" in gone.stderr


# --- a file of jobs --------------------------------------------------------------------------------------------------


def test_line_n_of_the_output_answers_line_n_of_the_file(server: JobServerProcess, tmp_path: Path) -> None:
    lines = [b"%d" % number for number in range(500)] + [b"", b"no end"]
    (tmp_path / "lines").write_bytes(b"\n".join(lines))
    for concurrency in ("1", "200"):
        done = submit(server, "reverse", "-f", str(tmp_path / "lines"), "--lines", "--concurrency", concurrency)
        assert done.stdout == b"".join(line[::-1] + b"\n" for line in lines)
        assert (done.stderr, done.returncode) == (b"", 0)


def test_failures_are_listed_at_the_end_and_leave_their_line_empty(server: JobServerProcess) -> None:
    done = submit(server, "picky", "-", "--lines", stdin=b"ab\nbad one\ncd\nbad two\n")
    assert done.stdout == b"ba\n\ndc\n\n"
    assert done.returncode == 1
    *failures, summary = done.stderr.decode().splitlines()
    assert failures == [f"line {line}: picky: ValueError: no such photo" for line in (2, 4)]
    assert summary.startswith("4 jobs, 2 failed, ")


def test_lines_as_json_name_their_line(server: JobServerProcess) -> None:
    done = submit(server, "picky", "-", "--lines", "--json", stdin=b"ab\nbad one\n\xff\n")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"line": 1, "result": "ba"},
        {"line": 2, "error": "picky: ValueError: no such photo"},
        {"line": 3, "result_base64": "/w=="},
    ]


def test_lines_in_the_background_print_their_handles_in_order(server: JobServerProcess) -> None:
    done = submit(server, "bulk", "-", "--lines", "--background", "--low", stdin=b"x\n" * 700)
    numbers = [int(handle.rpartition(b":")[2]) for handle in done.stdout.splitlines()]
    assert len(numbers) == 700
    assert numbers == sorted(numbers)
    assert "bulk\t0\t0\t700\t0" in server.text("prioritystatus")
    told = submit(server, "bulk", "-", "--lines", "--at", "1h", "--json", stdin=b"x\n")
    assert json.loads(told.stdout).keys() == {"line", "handle"}


def test_lines_of_one_text_are_one_job_with_unique_workload(server: JobServerProcess) -> None:
    done = submit(server, "once", "-", "--lines", "-b", "--unique", "workload", stdin=b"same\nsame\nother\n")
    assert len(set(done.stdout.splitlines())) == 2


def test_lines_that_take_too_long_tell_what_became_of_them(server: JobServerProcess) -> None:
    done = submit(server, "nobody-at-all", "-", "--lines", "--timeout", "300ms", stdin=b"x\n" * 60)
    assert done.returncode == 75
    assert b"lines 1 to 50 may have been submitted" in done.stderr


def test_a_lost_job_server_ends_the_file_and_tells_where() -> None:
    def two_then_gone(peer: Peer, number: int) -> None:
        if number:
            return
        created = 0
        while created < 4:
            packet = peer.receive()
            if packet.command == Command.ECHO_REQ:
                peer.send(Command.ECHO_RES, packet.data)
            elif packet.command == Command.OPTION_REQ:
                peer.send(Command.OPTION_RES, packet.option)
            else:
                created += 1
                peer.send(Command.JOB_CREATED, b"H:%d" % created)
        for end in (b"H:1", b"H:2"):
            peer.send(Command.WORK_COMPLETE, end, b"ok")

    with ScriptedServer(two_then_gone) as server:
        done = geard("submit", "-s", server.address, "f", "-", "--lines", "--concurrency", "4", stdin=b"x\n" * 100)
    assert done.stdout.startswith(b"ok\nok\n")
    assert b"Traceback" not in done.stderr
    assert b"line 3: " in done.stderr
    assert b"may have been submitted" not in done.stderr  # each that was has a line of its own
    assert done.returncode == 69


def test_memory_stays_flat_over_a_long_file(server: JobServerProcess, tmp_path: Path) -> None:
    code = (
        "import resource, sys; from geard.cli import cli\n"
        "try: cli(prog_name='geard')\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peaks = []
    for count in (1_000, 30_000):
        path = tmp_path / str(count)
        path.write_bytes(b"a line of some length, so that keeping them would show\n" * count)
        done = subprocess.run(
            [GEARD[0], "-c", code, "submit", "-s", server.address, "drain", "-f", str(path), "--lines", "-b"],
            capture_output=True, env=environment({}), timeout=60, check=True,
        )  # fmt: skip
        assert done.stdout.count(b"\n") == count
        peaks.append(int(done.stderr.split()[-1]))
    assert peaks[1] - peaks[0] < 2_000  # KiB; the second file alone has 1,600, its objects many times that


# --- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'FUNCTION'"),
        (["f", "x", "--file", "/dev/null"], "give WORKLOAD or --file, not both"),
        (["f", "--lines"], "--lines reads from --file, or from stdin"),
        (["f", "x", "--lines"], "--lines reads from --file, or from stdin"),
        (["f", "--concurrency", "5"], "--concurrency is for --lines"),
        (["f", "-", "--lines", "--concurrency", "0"], "0 is not in the range"),
        (["f", "-", "--lines", "--unique", "one"], "only --unique workload"),
        (["f", "-b", "--timeout", "5"], "--timeout bounds the wait for a result"),
        (["f", "--at", "5", "--high"], "--at goes without --high and --low"),
        (["f", "--at", "tomorrow"], "'tomorrow' is not a delay"),
        (["f", "--at", "2001-01-01"], "is past"),
        (["f", "--timeout", "soon"], "'soon' is not a duration"),
        (["f", "--timeout", "0"], "is no time at all"),
        (["--wait", "H:x:1", "f"], "--wait goes with --timeout and --json only"),
        (["--wait", "H:x:1", "--high"], "--wait goes with --timeout and --json only"),
        (["f", "--file", "/does/not/exist"], "No such file"),
        (["f", "--unique", "x" * 65], "has over 64 bytes"),
        (["", "x"], "a function's name is a str, not empty"),
        (["f", "-s", "one:two:three"], "an IPv6 address goes in brackets"),
    ],
)
def test_a_wrong_command_line_is_exit_2_and_submits_nothing(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["geard", "submit", *arguments])
    monkeypatch.setenv("GEARMAN_SERVERS", f"127.0.0.1:{free_port()}")
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_no_job_server_is_exit_69_and_names_each_and_its_reason() -> None:
    ports = free_port(), free_port()
    both = ",".join(f"127.0.0.1:{port}" for port in ports)
    done = geard("submit", "reverse", "x", variables={"GEARMAN_SERVERS": both})
    assert done.returncode == 69
    assert done.stdout == b""
    for port in ports:
        assert f"127.0.0.1:{port}" in done.stderr.decode()
    assert b"refused" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_job_server_that_is_just_starting_is_waited_for() -> None:
    with Gearmand() as server:
        server.stop()
        host, port = server.address.split(":")
        with Running("submit", "-b", "--wait-server", "30s", "-s", server.address, "later") as command:
            with socket.socket() as starting:  # it listens, and hangs up: it does not serve yet
                starting.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                starting.bind((host, int(port)))
                starting.listen()
                starting.accept()[0].close()
            server.start()
            assert command.ends() == 0
            assert server.status("later")[0] == 1


def test_a_job_server_that_does_not_come_is_waited_for_no_longer_than_asked() -> None:
    done = geard("status", "--wait-server", "300ms", "-s", "127.0.0.1:1")
    assert done.returncode == 69
    assert b"connection refused" in done.stdout


def test_a_job_server_that_dies_under_a_job_is_exit_69_and_the_job_is_not_submitted_again() -> None:
    with Gearmand() as server, Running("submit", "-s", server.address, "waits", "x") as command:
        eventually(lambda: server.status("waits")[0] == 1)
        server.restart()
        assert command.ends() == 69
        assert command.process.stderr
        assert command.process.stderr.read().startswith(b"geard: ")
        assert server.status("waits")[0] == 0


def test_a_full_queue_is_told_as_such(server: JobServerProcess) -> None:
    assert submit(server, "full", "-b").returncode == 0
    server.text("maxqueue full 1")
    done = submit(server, "full", "-b")
    assert done.returncode == 1
    assert b"QUEUE" in done.stderr


# --- interrupts, pipes, terminals ------------------------------------------------------------------------------------


def test_ctrl_c_names_the_job_and_is_exit_130(server: JobServerProcess, hold: Hold) -> None:
    with Running("submit", "-s", server.address, "hold") as command:
        assert hold.started.wait(30)
        assert command.process.stdout
        os.read(command.process.stdout.fileno(), 5)  # the job is past its submission
        command.interrupt()
        assert command.ends() == 130
        assert command.process.stderr
        assert re.fullmatch(rb"\ngeard: interrupted: H:\S+ may still run\n", command.process.stderr.read())


def test_ctrl_c_does_not_wait_for_a_silent_job_server() -> None:
    connected = threading.Event()

    def never_answers(peer: Peer, number: int) -> None:
        connected.set()
        while peer.socket.recv(100):
            pass

    with ScriptedServer(never_answers) as silent, Running("status", "-s", silent.address) as command:
        assert connected.wait(30)
        command.interrupt()
        assert command.ends() == 130
        assert command.process.stderr
        assert command.process.stderr.read() == b"\ngeard: interrupted\n"


def test_ctrl_c_in_a_file_of_jobs_tells_how_far_it_came(server: JobServerProcess) -> None:
    with Running("submit", "-s", server.address, "reverse", "-", "--lines") as command:
        assert command.process.stdin
        assert command.process.stdout
        command.process.stdin.write(b"x\n" * 100)
        command.process.stdin.flush()
        os.read(command.process.stdout.fileno(), 1)
        command.interrupt()
        assert command.ends() == 130
        assert command.process.stderr
        assert b"jobs, " in command.process.stderr.read()


def test_a_reader_that_goes_away_ends_it_in_silence(server: JobServerProcess, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"x\n" * 20_000)
    with Running("submit", "-s", server.address, "reverse", "-f", str(tmp_path / "lines"), "--lines") as command:
        assert command.process.stdout
        os.read(command.process.stdout.fileno(), 4)
        command.process.stdout.close()
        assert command.ends() == 141
        assert command.process.stderr
        assert command.process.stderr.read() == b""


def test_a_full_disk_is_told_without_a_traceback(server: JobServerProcess) -> None:
    with (
        open("/dev/full", "wb") as full,
        Running("submit", "-s", server.address, "reverse", "x", stdout=full.fileno()) as command,
    ):
        assert command.ends() == 1
        assert command.process.stderr
        assert command.process.stderr.read() == b"geard: cannot write the output: no space left on device\n"


def test_progress_is_a_bar_on_a_terminal_and_stdout_stays_clean(
    server: JobServerProcess, hold: Hold, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = ["submit", "-s", server.address, "hold"]
    with out.open("wb") as stdout, Running(*arguments, terminal=True, stdout=stdout.fileno()) as command:
        command.sees(r"hold  ━+  +75%  3/4")
        hold.go_on.set()
        assert command.ends() == 0
        assert command.screen.endswith("\r\x1b[K")  # the bar is wiped
    assert out.read_bytes() == b"earlylate\n"


def test_no_bar_where_stderr_is_no_terminal(server: JobServerProcess, hold: Hold) -> None:
    with Running("submit", "-s", server.address, "hold") as command:
        assert hold.started.wait(30)
        hold.go_on.set()
        assert command.ends() == 0
        assert command.process.stderr
        assert command.process.stderr.read() == b""


def test_a_file_of_jobs_has_a_bar_with_rate_and_time_left(server: JobServerProcess, hold: Hold, tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"1\n2\n")
    arguments = ["submit", "-s", server.address, "hold", "-f", str(tmp_path / "lines"), "--lines", "--concurrency", "1"]
    with Running(*arguments, terminal=True) as command:
        command.sees(r"hold  ━+  +0%  0 jobs")
        hold.go_on.set()
        assert command.ends() == 0
    assert "earlylate" in command.text
    assert "2 jobs, " in command.text


def test_the_time_left_is_shown(server: JobServerProcess, tmp_path: Path) -> None:
    running = threading.Event()

    def first_only(peer: Peer, job: Packet) -> None:
        if job.workload != b"1":
            running.wait(30)
        reverse(peer, job)

    (tmp_path / "lines").write_bytes(b"1\n2\n3\n")
    arguments = ["submit", "-s", server.address, "slow", "-f", str(tmp_path / "lines"), "--lines"]
    with ScriptedWorker(server.address, slow=first_only), Running(*arguments, terminal=True) as command:
        command.sees(r"33%  1 jobs, [\d.]+/s, \w+ left")
        running.set()
        assert command.ends() == 0


# --- with other workers ----------------------------------------------------------------------------------------------


def test_the_gearman_tool_works_for_it(server: JobServerProcess) -> None:
    need("gearman", "rev")
    worker = subprocess.Popen(
        ["gearman", "-h", "127.0.0.1", "-p", str(server.port), "-w", "-f", "gearman-rev", "--", "rev"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        done = submit(server, "gearman-rev", "hello\n", "--timeout", "30")
        assert (done.stdout, done.returncode) == (b"olleh\n", 0)
    finally:
        worker.kill()
        worker.wait()
