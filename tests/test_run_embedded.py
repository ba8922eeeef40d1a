"""`geard run --embedded`: the daemon and a job server of its own, started and stopped as one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from geard import Client, Config, ConfigError, JobServer, exits
from geard.config import Tls, parse_address
from geard.config.load import Source
from geard.jobserver.listeners import CannotListen, listen
from geard.supervisor.embedded import place, with_server
from tests.support.commands import geard
from tests.support.daemon import Daemon
from tests.support.servers import HOST, free_port
from tests.support.waiting import DEADLINE_SECONDS, eventually


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    """A daemon whose config names a free port of this machine; not started yet."""
    with Daemon(None, job_servers=[f"{HOST}:{free_port()}"]) as daemon:
        yield daemon


def address(daemon: Daemon) -> str:
    """Where its job server is to listen."""
    return str(daemon.config["job_servers"][0])


def job_server_pid(daemon: Daemon) -> int:
    """The process of its job server, which names itself so."""
    title = f"geard: job server on {address(daemon)}"
    found = [pid for pid in daemon.children if Path(f"/proc/{pid}/cmdline").read_text().startswith(title)]
    assert len(found) == 1, found
    return found[0]


def open_files(pid: int) -> set[str]:
    """What a process has open at about this time."""
    names = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            names.add(os.readlink(link))
    return names


def run(daemon: Daemon, workload: str) -> None:
    """A job, to its end."""
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        assert client.run("count", workload, timeout=DEADLINE_SECONDS) == workload


def test_jobs_run_without_any_other_job_server_and_nothing_is_left_after(daemon: Daemon) -> None:
    daemon.start("--embedded")
    run(daemon, "one")
    pid = job_server_pid(daemon)
    assert daemon.stop() == exits.DONE
    assert not Path(f"/proc/{pid}").exists()
    assert not daemon.left_behind()
    (drained,) = [line for line in daemon.log.splitlines() if "drained in" in line]
    (stopped,) = [line for line in daemon.log.splitlines() if "stopped; jobs left in its queues: 0" in line]
    assert drained[:23] <= stopped[:23]  # by their times: two processes write them


def test_modules_in_the_current_directory_do_not_stand_in_for_those_of_python(tmp_path: Path) -> None:
    for name in ("queue.py", "logging.py"):
        (tmp_path / name).write_text("raise RuntimeError('not this one')")
    code = "from geard.jobserver.embedded import EmbeddedJobServer\nwith EmbeddedJobServer(): print('served')"
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "served\n", done.stderr


def test_a_job_in_flight_ends_at_its_client_when_the_daemon_is_told_to_stop(daemon: Daemon) -> None:
    daemon.start("--embedded")
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        task = client.submit("sleep", "long 1")
        eventually(lambda: client.status(task.handle).running)
        daemon.signal(signal.SIGTERM)
        assert task.result(DEADLINE_SECONDS) == "long"
    assert daemon.wait() == exits.DONE


def test_jobs_flow_again_after_the_job_server_was_killed(daemon: Daemon) -> None:
    daemon.start("--embedded")
    for round_number in range(3):
        pid = job_server_pid(daemon)
        os.kill(pid, signal.SIGKILL)
        daemon.wait_for(f"the job server (pid {pid}) was killed by SIGKILL")
        daemon.wait_for("the job server serves again", times=round_number + 1)
        run(daemon, f"after-{pid}")
    assert daemon.stop() == exits.DONE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_it_stops_while_it_starts_and_leaves_nothing(daemon: Daemon, number: signal.Signals) -> None:
    daemon.start("--embedded", wait=False)
    eventually(lambda: daemon.children, what="the job server's process")
    daemon.signal(number)
    assert daemon.wait() == exits.DONE
    assert not daemon.left_behind()
    assert "Traceback" not in daemon.log


def test_no_process_outlives_a_supervisor_that_was_killed(daemon: Daemon) -> None:
    daemon.start("--embedded")
    pids = daemon.children
    assert len(pids) == 2
    daemon.signal(signal.SIGKILL)
    eventually(lambda: not daemon.left_behind(), what="the end of job server and worker")


def test_a_job_in_flight_ends_at_its_client_when_the_supervisor_is_killed_and_the_next_one_can_start(
    daemon: Daemon,
) -> None:
    daemon.start("--embedded")
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        task = client.submit("hold", "job 0")
        daemon.wait_running(1)
        daemon.signal(signal.SIGKILL)
        daemon.wait()
        daemon.wait_for("the supervisor is gone: draining")
        daemon.start("--embedded", wait=False)
        daemon.wait_for("generation 1 serves", times=2)
        daemon.release()
        assert task.result(DEADLINE_SECONDS) == "job"
    run(daemon, "next")
    daemon.wait_for("stopped; jobs left in its queues: 0")


def test_jobs_that_nobody_has_run_are_named_as_lost(daemon: Daemon) -> None:
    daemon.start("--embedded")
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        client.submit_background("nobody", "x")
    assert daemon.stop() == exits.DONE
    assert "jobs left in its queues: 1, which are lost" in daemon.log


def test_background_jobs_outlive_the_daemon_in_the_queue_file(daemon: Daemon) -> None:
    options = ("--embedded", "--queue", str(daemon.directory / "queue"))
    daemon.start(*options)
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        handle = client.submit_background("elsewhere", "late")
    assert daemon.stop() == exits.DONE
    assert "stopped; jobs left in its queues: 1\n" in daemon.log
    daemon.write_config(capabilities={"count": "caps.count", "elsewhere": "caps.count"})
    daemon.start(*options, wait=False)
    daemon.wait_for("generation 1 serves", times=2)
    with Client(address(daemon), connect_timeout_seconds=DEADLINE_SECONDS) as client:
        client.wait(handle, timeout=DEADLINE_SECONDS)
    assert daemon.runs["late"] == 1
    assert daemon.stop() == exits.DONE


# --- it cannot start ----------------------------------------------------------------------------------------------


def refused(daemon: Daemon, *options: str) -> str:
    """What it says, as a start that fails."""
    daemon.start("--embedded", *options, wait=False)
    code = daemon.wait()
    assert not daemon.left_behind()
    assert "Traceback" not in daemon.log
    return f"{code}: {daemon.log}"


def test_a_port_that_is_taken_is_one_line_that_says_what_to_do(daemon: Daemon) -> None:
    with socket.create_server((HOST, parse_address(address(daemon)).port)):
        assert refused(daemon) == (
            f"69: geard: cannot listen on {address(daemon)}: address already in use; use the job server that runs "
            "there, without --embedded, or put a free port first in job_servers\n"
        )


def test_a_queue_file_that_is_none_is_refused_and_kept(daemon: Daemon) -> None:
    path = daemon.directory / "queue"
    path.write_text("my notes")
    said = refused(daemon, "--queue", str(path))
    assert said.startswith("78: ")
    assert f"\ngeard: {path}: cannot use the queue file" in said
    assert "move the file away" in said
    assert path.read_text() == "my notes"


def test_a_log_file_that_cannot_be_opened_is_a_config_error(daemon: Daemon) -> None:
    daemon.write_config(logging={"file": "/dev/null/log"})
    assert refused(daemon).startswith("78: ")


def test_capabilities_that_cannot_run_end_the_job_server_too(daemon: Daemon) -> None:
    daemon.write_config(capabilities={"count": "caps.no_such_function"})
    assert refused(daemon).startswith("78: ")


def test_a_queue_file_without_a_job_server_to_keep_it_is_a_usage_error(daemon: Daemon) -> None:
    ended = geard("run", "-c", str(daemon.config_path), "--queue", "jobs")
    assert ended.returncode == exits.USAGE
    assert b"--queue is for --embedded" in ended.stderr


# --- it goes on ---------------------------------------------------------------------------------------------------


def test_a_reload_leaves_the_job_server_alone(daemon: Daemon) -> None:
    daemon.start("--embedded")
    pid = job_server_pid(daemon)
    assert daemon.reload().returncode == exits.DONE
    run(daemon, "reloaded")
    first, elsewhere = address(daemon), f"{HOST}:{free_port()}"
    daemon.write_config(job_servers=[elsewhere])
    assert daemon.reload().returncode == exits.DONE
    assert f"the embedded job server stays on {first} until the daemon is started again" in daemon.log
    daemon.config["job_servers"] = [first]
    run(daemon, "stayed")
    assert job_server_pid(daemon) == pid
    assert daemon.stop() == exits.DONE


def test_the_job_server_logs_where_the_config_says_and_follows_a_rotation(daemon: Daemon) -> None:
    file = daemon.directory / "geard.log"
    daemon.write_config(logging={"file": str(file), "format": "json"})
    daemon.start("--embedded", wait=False)
    eventually(lambda: file.exists() and "generation 1 serves" in file.read_text())
    assert '"logger":"geard.jobserver.server"' in file.read_text()
    assert daemon.log == ""
    pid = job_server_pid(daemon)
    file.rename(daemon.directory / "old.log")
    daemon.signal(signal.SIGUSR1)
    eventually(lambda: str(file) in open_files(pid), what="the new log file in the job server's hands")
    assert daemon.stop() == exits.DONE


# --- where it listens ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("servers", "listens_on", "served"),
    [
        (["127.0.0.1:5000", "far:4730"], "127.0.0.1:5000", ["127.0.0.1:5000", "far:4730"]),
        (["localhost:4730"], "localhost:4730", ["localhost:4730"]),
        (["[::1]:5000"], "[::1]:5000", ["[::1]:5000"]),
        (["127.8.9.10:5000"], "127.8.9.10:5000", ["127.8.9.10:5000"]),
        (["far:4730", "10.1.2.3:4730"], "127.0.0.1:4730", ["127.0.0.1:4730", "far:4730", "10.1.2.3:4730"]),
        (["0.0.0.0:4730"], "127.0.0.1:4730", ["127.0.0.1:4730", "0.0.0.0:4730"]),
        (["far:4730", "LocalHost:4730"], "127.0.0.1:4730", ["far:4730", "LocalHost:4730"]),
    ],
)
def test_it_listens_on_loopback_and_its_jobs_are_taken(servers: list[str], listens_on: str, served: list[str]) -> None:
    config = Config(job_servers=tuple(map(parse_address, servers)))
    where = place(Source("geard.yaml", config, (), {}))
    assert str(where) == listens_on
    assert [str(server) for server in with_server(config, where).job_servers] == served


def test_tls_with_the_embedded_job_server_is_refused_at_its_place_in_the_config() -> None:
    config = Config(job_servers=(JobServer("127.0.0.1", 4730, Tls()),))
    with pytest.raises(ConfigError, match=r"geard.yaml:2:5: .*does not speak TLS"):
        place(Source("geard.yaml", config, (), {"job_servers[0].tls": (2, 5)}))


def test_a_localhost_with_an_address_that_the_machine_lacks_is_listened_on_at_the_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def resolve(*_: object, **__: object) -> list[tuple[object, ...]]:
        not_ours = "192.0.2.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in (not_ours, HOST)]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    [listener] = listen(JobServer("localhost"))
    with listener:
        assert listener.getsockname()[0] == HOST


def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(CannotListen, match=r"cannot listen on 192.0.2.1:4730: cannot assign requested address"):
        listen(JobServer("192.0.2.1"))
