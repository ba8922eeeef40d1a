"""`geard status`, `workers`, `jobs`, `cancel`, `echo` and `admin`, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from geard.protocol import Command
from tests.support.commands import Running, geard
from tests.support.raw import Peer, ScriptedServer
from tests.support.servers import Embedded, Gearmand, JobServerProcess, free_port
from tests.support.waiting import eventually


@pytest.fixture
def server(shared_job_server: JobServerProcess) -> JobServerProcess:
    """One of each job server for all tests here; each uses function names of its own."""
    return shared_job_server


@contextmanager
def peer_of(server: JobServerProcess, *functions: str, client_id: str = "") -> Iterator[Peer]:
    """A client, or a worker of these functions that does nothing by itself."""
    with Peer.connect(server.address) as peer:
        if client_id:
            peer.send(Command.SET_CLIENT_ID, client_id.encode())
        for function in functions:
            peer.send(Command.CAN_DO, function.encode())
        peer.send(Command.ECHO_REQ, b"")
        peer.expect(Command.ECHO_RES)
        yield peer


def queue(peer: Peer, function: str, command: Command = Command.SUBMIT_JOB_BG) -> str:
    """Submit a job: its handle."""
    peer.send(command, function.encode(), b"", b"workload")
    return peer.expect(Command.JOB_CREATED).handle.decode()


def run(server: JobServerProcess, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return geard(*arguments, "-s", server.address)


def down_address() -> str:
    return f"127.0.0.1:{free_port()}"


def rows(done: subprocess.CompletedProcess[bytes]) -> dict[str, list[str]]:
    """The table's lines by their first word."""
    assert done.returncode == 0, done.stderr
    return {line.split()[0]: line.split()[1:] for line in done.stdout.decode().splitlines() if line}


# --- status ----------------------------------------------------------------------------------------------------------


def test_status_counts_by_function_and_priority(server: JobServerProcess) -> None:
    with peer_of(server, "count") as worker, peer_of(server) as client:
        for command in (
            Command.SUBMIT_JOB_HIGH_BG,
            Command.SUBMIT_JOB_BG,
            Command.SUBMIT_JOB_BG,
            Command.SUBMIT_JOB_LOW_BG,
        ):
            queue(client, "count", command)
        worker.send(Command.GRAB_JOB)
        job = worker.skip_to(Command.JOB_ASSIGN)
        table = rows(run(server, "status"))
        assert table["FUNCTION"] == ["QUEUED", "HIGH", "NORMAL", "LOW", "DELAYED", "RUNNING", "WORKERS"]
        delayed = 0 if isinstance(server, Embedded) else None  # gearmand does not tell
        assert table["count"] == ["3", "0", "2", "1", "-" if delayed is None else "0", "1", "1"]
        (told,) = json.loads(run(server, "status", "--json").stdout)
        assert told["server"] == server.address
        assert told["version"]
        count = next(row for row in told["functions"] if row["function"] == "count")
        numbers = {"queued": 3, "high": 0, "normal": 2, "low": 1, "delayed": delayed, "running": 1, "workers": 1}
        assert count == {"function": "count", **numbers}
        worker.send(Command.WORK_COMPLETE, job.handle, b"")


def test_status_tells_delayed_jobs_from_due_ones_where_the_job_server_does() -> None:
    with Embedded() as server:
        for options in ([], ["--at", "1h"], ["--at", "2h"]):
            assert geard("submit", "-b", *options, "report", "-s", server.address).returncode == 0
        assert rows(run(server, "status"))["report"] == ["3", "0", "3", "0", "2", "0", "0"]


def test_a_job_server_that_is_down_is_shown_as_such(server: JobServerProcess) -> None:
    down = down_address()
    done = run(server, "status", "-s", down)
    assert f"{down}  down: 127.0.0.1: connection refused" in done.stdout.decode()
    assert f"{server.address}  version" in done.stdout.decode()
    assert (done.stderr, done.returncode) == (b"", 0)
    told = {row["server"]: row for row in json.loads(run(server, "status", "-s", down, "--json").stdout)}
    assert "refused" in told[down]["error"]
    assert "functions" in told[server.address]


@pytest.mark.parametrize("command", ["status", "workers", "jobs", "echo", "admin version", "cancel H:x:1"])
def test_exit_69_and_no_traceback_when_no_job_server_answers(command: str) -> None:
    done = geard(*command.split(), "-s", down_address())
    assert done.returncode == 69
    assert b"connection refused" in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


def test_a_function_that_would_steer_the_terminal_is_shown_escaped(server: JobServerProcess) -> None:
    with peer_of(server, "red\x1b[31m"):
        assert b"red\\x1b[31m" in run(server, "status").stdout


def test_watch_draws_again_on_a_terminal_until_ctrl_c(server: JobServerProcess) -> None:
    arguments = ["status", "--watch", "--interval", "100ms", "-s", server.address]
    with peer_of(server) as client, Running(*arguments, terminal=True) as command:
        command.sees(r"every 0.1 s, Ctrl-C ends")
        queue(client, "watched")
        command.sees(r"watched +1 +0 +1 +0 +[-0] +0 +0")
        command.interrupt()
        assert command.ends() == 130
        assert "Traceback" not in command.text
        assert command.screen.rfind("\x1b[?1049l") > command.screen.rfind("\x1b[?1049h")  # the old screen is back


def test_watch_survives_a_job_server_that_goes_away_and_comes_back() -> None:
    with Gearmand() as server, Running("status", "-w", "-n", "0.1", "-s", server.address, terminal=True) as command:
        command.sees(r"version")
        server.stop()
        command.sees(r"down: ")
        seen = len(command.text)
        server.start()
        eventually(lambda: "version" in command.text[seen:])


def test_watch_in_a_pipe_gives_one_json_object_a_line(server: JobServerProcess) -> None:
    with Running("status", "-w", "-n", "50ms", "--json", "-s", server.address) as command:
        assert command.process.stdout
        for _ in range(2):
            assert json.loads(command.process.stdout.readline())[0]["server"] == server.address
        command.process.stdout.close()
        assert command.ends() == 141
        assert command.process.stderr
        assert command.process.stderr.read() == b""


def test_colours_are_for_terminals(server: JobServerProcess) -> None:
    with peer_of(server) as client:
        queue(client, "nobody")
        assert b"\x1b" not in run(server, "status").stdout
        with Running("status", "-s", server.address, terminal=True) as command:
            assert command.ends() == 0
            assert "\x1b[31m" in command.screen
            assert "nobody" in command.text
        with Running("status", "-s", server.address, terminal=True, variables={"NO_COLOR": "1"}) as command:
            assert command.ends() == 0
            assert "\x1b[31m" not in command.screen


# --- workers, jobs, cancel, echo -------------------------------------------------------------------------------------


def test_workers_shows_who_serves_what(server: JobServerProcess) -> None:
    with peer_of(server, "resize", "crop", client_id="photo worker"), peer_of(server, client_id="only-a-client"):
        done = run(server, "workers")
        line = next(line for line in done.stdout.decode().splitlines() if "photo worker" in line)
        assert {"resize", "crop", "127.0.0.1"} <= set(line.split())
        assert b"only-a-client" not in done.stdout
        assert b"only-a-client" in run(server, "workers", "--all").stdout
        (told,) = json.loads(run(server, "workers", "--json").stdout)
        photo = next(row for row in told["workers"] if row["client_id"] == "photo worker")
        assert sorted(photo["functions"]) == ["crop", "resize"]


def test_jobs_shows_what_runs_how_far_and_what_waits(server: JobServerProcess) -> None:
    with peer_of(server, "paint") as worker, peer_of(server) as client:
        running = queue(client, "paint")
        worker.send(Command.GRAB_JOB)
        job = worker.skip_to(Command.JOB_ASSIGN)
        worker.send(Command.WORK_STATUS, job.handle, b"2", b"5")
        waiting = queue(client, "paint")
        foreground = queue(client, "paint", Command.SUBMIT_JOB)
        eventually(lambda: "2/5" in rows(run(server, "jobs"))[running])
        table = rows(run(server, "jobs"))
        assert table[running] == ["running", "background", "0", "2/5"]
        assert table[waiting] == ["queued", "background", "0"]
        assert table[foreground] == ["queued", "foreground", "0"]
        (told,) = json.loads(run(server, "jobs", "--json").stdout)
        state = {"state": "running", "background": True, "retries": 0, "numerator": 2, "denominator": 5}
        assert {"handle": running, **state} in told["jobs"]
        worker.send(Command.WORK_COMPLETE, job.handle, b"")


def test_a_cancelled_job_is_not_run(server: JobServerProcess) -> None:
    with peer_of(server, "cancelled") as worker, peer_of(server) as client:
        handles = [queue(client, "cancelled") for _ in range(2)]
        done = geard("cancel", *handles, "-s", down_address(), "-s", server.address)
        assert done.returncode == 0
        assert done.stderr.decode().splitlines() == [f"{handle} cancelled on {server.address}" for handle in handles]
        worker.send(Command.GRAB_JOB)
        assert worker.receive().command == Command.NO_JOB


def test_cancel_of_an_unknown_job_is_exit_1_or_69_if_one_cannot_be_asked(server: JobServerProcess) -> None:
    done = run(server, "cancel", "H:nowhere:1")
    assert done.stderr == b"geard: no job server knows H:nowhere:1: it has ended, or never was\n"
    assert done.returncode == 1
    assert run(server, "cancel", "H:nowhere:1", "-s", down_address()).returncode == 69


def test_echo_tells_each_round_trip_and_fails_if_one_is_down(server: JobServerProcess) -> None:
    done = run(server, "echo", "hello")
    assert done.stdout.decode().startswith(f"{server.address}  5 bytes back in ")
    assert done.returncode == 0
    down = down_address()
    partly = run(server, "echo", "--json", "-s", down)
    told = {row["server"]: row for row in json.loads(partly.stdout)}
    assert told[server.address]["seconds"] > 0
    assert "refused" in told[down]["error"]
    assert partly.returncode == 69


# --- admin -----------------------------------------------------------------------------------------------------------


def test_admin_tells_version_process_id_and_log_level(server: JobServerProcess) -> None:
    assert server.process
    assert run(server, "admin", "getpid").stdout == b"%d\n" % server.process.pid
    assert json.loads(run(server, "admin", "getpid", "--json").stdout) == [
        {"server": server.address, "answer": server.process.pid}
    ]
    assert run(server, "admin", "version").stdout.strip()
    assert run(server, "admin", "verbose").stdout.strip()


def test_admin_shows_unique_ids(server: JobServerProcess) -> None:
    with peer_of(server) as client:
        client.send(Command.SUBMIT_JOB_BG, b"uniques", b"order-17", b"")
        client.expect(Command.JOB_CREATED)
        assert "order-17" in run(server, "admin", "show-unique-jobs").stdout.decode().splitlines()


def test_admin_creates_limits_and_drops_functions(server: JobServerProcess) -> None:
    assert run(server, "admin", "create-function", "made").returncode == 0
    assert "made" in rows(run(server, "status"))
    assert run(server, "admin", "max-queue", "made", "1").returncode == 0
    with peer_of(server) as client:
        queue(client, "made")
        client.send(Command.SUBMIT_JOB_BG, b"made", b"", b"")
        assert b"QUEUE" in client.expect(Command.ERROR).code
    assert run(server, "admin", "max-queue", "made", "0", "1000", "10").returncode == 0
    assert run(server, "admin", "max-queue", "made", "1", "2").returncode == 2
    assert run(server, "admin", "create-function", "unmade").returncode == 0
    assert run(server, "admin", "drop-function", "unmade").returncode == 0
    assert "unmade" not in rows(run(server, "status"))


def test_a_refusal_of_the_job_server_is_exit_1(server: JobServerProcess) -> None:
    with peer_of(server, "busy"):
        done = run(server, "admin", "drop-function", "busy")
        assert done.returncode == 1
        assert b"geard: job server answered" in done.stderr


def test_admin_names_the_job_server_where_there_are_several(server: JobServerProcess) -> None:
    with Gearmand() as other:
        lines = run(server, "admin", "getpid", "-s", other.address).stdout.decode().splitlines()
        assert [line.split("\t")[0] for line in lines] == [other.address, server.address]
    done = run(server, "admin", "getpid", "-s", down_address())
    assert len(done.stdout.splitlines()) == 1
    assert done.returncode == 69


# --- which job servers -----------------------------------------------------------------------------------------------


def servers_asked(*arguments: str, cwd: Path, variables: Mapping[str, str]) -> list[str]:
    done = geard("echo", "--json", *arguments, cwd=cwd, variables=variables)
    return [row["server"] for row in json.loads(done.stdout)]


def test_the_more_explicit_naming_of_job_servers_wins(tmp_path: Path) -> None:
    named, default = tmp_path / "named.yaml", tmp_path / "geard.yaml"
    named.write_text("job_servers: ['127.0.0.1:2', '127.0.0.1:3']\n")
    default.write_text("job_servers: ['127.0.0.1:4']\ncapabilities: {x: '${ONLY_THE_DAEMON_HAS_THIS}'}\n")
    environment = {"GEARMAN_SERVERS": "127.0.0.1:5, 127.0.0.1:6"}
    option = ["-s", "127.0.0.1:1"]
    assert servers_asked(*option, "-c", str(named), cwd=tmp_path, variables=environment) == ["127.0.0.1:1"]
    assert servers_asked("-c", str(named), cwd=tmp_path, variables=environment) == ["127.0.0.1:2", "127.0.0.1:3"]
    assert servers_asked(cwd=tmp_path, variables=environment) == ["127.0.0.1:5", "127.0.0.1:6"]
    assert servers_asked(cwd=tmp_path, variables={}) == ["127.0.0.1:4"]
    assert servers_asked(cwd=tmp_path, variables={"GEARD_CONFIG": str(named)}) == ["127.0.0.1:2", "127.0.0.1:3"]


def test_a_config_file_that_cannot_be_used_is_exit_78_and_says_where(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("job_servers:\n  - a:b:c\n")
    for arguments, message in ((["-c", str(broken)], f"{broken}:2:5: "), (["-c", "missing.yaml"], "missing.yaml")):
        done = geard("status", *arguments, cwd=tmp_path)
        assert done.returncode == 78
        assert message in done.stderr.decode()
        assert b"Traceback" not in done.stderr


def test_a_job_server_of_the_config_file_is_spoken_to_with_its_tls(tmp_path: Path) -> None:
    first_bytes = []

    def hangs_up(peer: Peer, number: int) -> None:
        first_bytes.append(peer.socket.recv(1))

    with ScriptedServer(hangs_up) as server:
        config = tmp_path / "tls.yaml"
        config.write_text(f"job_servers: [{{host: 127.0.0.1, port: {server.port}, tls: {{server_name: gear}}}}]\n")
        done = geard("echo", "-c", str(config))
        assert done.returncode == 69
        assert first_bytes == [b"\x16"]  # a TLS handshake
