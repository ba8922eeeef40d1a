"""The log of a running daemon: nobody reads it, everything fails, and each line knows its job."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

import geard
from geard import exits
from geard.config import Capability, Config, parse_address
from geard.protocol import Command
from tests.support.daemon import Daemon, submit
from tests.support.raw import Peer
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

CAPABILITIES = """
import logging, os, signal, subprocess, sys, time
import geard


def boom(workload):
    raise ValueError(f"no such image: {workload}")


def noisy(workload):
    for _ in range(2000):
        print("x" * 500)
    return "printed"


def whose(workload):
    time.sleep(0.01)
    job = geard.current_job()
    return f"{job.function} {job.handle}" if job else "none"


def tell(workload):
    logging.getLogger("images").info("scaled %s", workload)
    print("first half,", end=" ")
    time.sleep(0.02)
    print("second half of", workload)
    sys.stdout.buffer.write(b"binary of " + workload.encode() + b"\\n")
    print("stderr of", workload, file=sys.stderr)
    subprocess.run(["echo", "program of " + workload])
    print("no end of", workload, end="")
    return workload


def die(workload):
    print("last words of", workload)
    os.kill(os.getpid(), signal.SIGKILL)
"""
FUNCTIONS = {name: f"talk.{name}" for name in ("boom", "noisy", "whose", "tell", "die")} | {
    "whose_thread": {"function": "talk.whose", "thread": True}
}


@pytest.fixture
def daemon(gearmand: JobServerProcess) -> Iterator[Daemon]:
    with Daemon(gearmand, capabilities=FUNCTIONS) as daemon:
        (daemon.directory / "talk.py").write_text(CAPABILITIES)
        yield daemon


def call(server: JobServerProcess, function: str, workload: str = "w") -> bytes:
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, function.encode(), b"", workload.encode())
        return client.skip_to(Command.WORK_COMPLETE).fields[1]


def objects(daemon: Daemon) -> list[dict[str, str]]:
    return [json.loads(line) for line in daemon.log.splitlines() if line.startswith("{")]


def test_a_log_that_nobody_reads_stops_neither_jobs_nor_the_daemon(daemon: Daemon, gearmand: JobServerProcess) -> None:
    daemon.write_config(logging={"repeats": "0s"})
    reader, writer = os.pipe()
    command = daemon.command("run")
    daemon.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    eventually(lambda: os.path.exists(daemon.socket) and "current" in daemon.geard("ps").stdout)
    submit(gearmand, "boom", *(f"job-{number}" for number in range(1000)))
    assert call(gearmand, "noisy") == b"printed"
    eventually(lambda: gearmand.status("boom")[0] == 0, what="the end of all jobs")
    assert daemon.geard("ps").returncode == exits.DONE
    assert daemon.reload().returncode == exits.DONE
    text = bytearray()

    def read() -> None:
        while data := os.read(reader, 65536):
            text.extend(data)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    assert daemon.stop() == exits.DONE
    thread.join(30)
    os.close(reader)
    assert b"generation 2 serves" in text
    whole = [line for line in text.decode().splitlines() if line.endswith("x")]
    assert all(line.endswith(": stdout: " + "x" * 500) for line in whole), "no line is cut"


def test_a_stop_waits_a_second_for_a_log_that_nobody_reads_and_no_longer(
    daemon: Daemon, gearmand: JobServerProcess
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writer, b"full\n" * 1000)
    os.set_blocking(writer, True)
    daemon.process = subprocess.Popen(daemon.command("run"), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    eventually(lambda: os.path.exists(daemon.socket) and "current" in daemon.geard("ps").stdout)
    assert daemon.stop() == exits.DONE
    os.close(reader)


def test_a_flood_of_failures_is_one_traceback_and_counts(daemon: Daemon, gearmand: JobServerProcess) -> None:
    daemon.start()
    submit(gearmand, "boom", *(f"job-{number}" for number in range(5000)))
    eventually(lambda: gearmand.status("boom")[0] == 0, what="the end of all jobs")
    assert daemon.stop() == exits.DONE
    assert daemon.log.count("Traceback") == 1
    assert "ValueError: no such image: job-" in daemon.log
    counts = [int(line.split("; and ")[1].split()[0].replace(",", "")) + 1 for line in daemon.log.splitlines()
              if "; and " in line]  # fmt: skip
    assert 1 + sum(counts) == 5000


def test_each_line_of_user_code_carries_its_job(daemon: Daemon, gearmand: JobServerProcess) -> None:
    daemon.write_config(logging={"format": "json"})
    daemon.start()
    with Peer.connect(gearmand.address) as client:
        for name in ("one", "two"):
            client.send(Command.SUBMIT_JOB, b"tell", name.encode(), name.encode())
        handles = {client.expect(Command.JOB_CREATED).fields[0].decode() for _ in range(2)}
        for _ in range(2):
            client.skip_to(Command.WORK_COMPLETE)
    for name in ("one", "two"):
        eventually(lambda name=name: f"no end of {name}" in daemon.log)  # type: ignore[misc]
        about = {line["message"]: line for line in objects(daemon) if line["message"].endswith(name)}
        expected = {
            f"scaled {name}": "images",
            f"first half, second half of {name}": "stdout",
            f"binary of {name}": "stdout",
            f"stderr of {name}": "stderr",
            f"no end of {name}": "stdout",
        }
        assert {message: line["logger"] for message, line in about.items()} == expected
        for line in about.values():
            assert (line["function"], line["unique"], line["server"]) == ("tell", name, gearmand.address)
            assert line["handle"] in handles
        assert f"program of {name}\n" in daemon.log


def test_text_names_the_job_before_the_line(daemon: Daemon, gearmand: JobServerProcess) -> None:
    daemon.start()
    call(gearmand, "tell", "it")
    daemon.wait_for(": stdout: first half, second half of it\n")
    [line] = [line for line in daemon.log.splitlines() if line.endswith("images: scaled it")]
    assert ": tell H:" in line


def test_what_was_printed_survives_sigkill(daemon: Daemon, gearmand: JobServerProcess) -> None:
    reader, writer = os.pipe()
    daemon.process = subprocess.Popen(daemon.command("run"), stdin=subprocess.DEVNULL, stdout=writer, stderr=writer)
    os.close(writer)
    eventually(lambda: os.path.exists(daemon.socket) and "current" in daemon.geard("ps").stdout)
    text = b""
    with Peer.connect(gearmand.address) as client:  # in the foreground: it is not run again once the client is gone
        client.send(Command.SUBMIT_JOB, b"die", b"", b"me")
        while b"stdout: last words of me\n" not in text:
            text += os.read(reader, 65536)
        daemon.signal(signal.SIGQUIT)
        daemon.wait()
    os.close(reader)
    assert b": die H:" in text


def test_a_job_is_found_from_a_greenlet_and_from_a_native_thread(daemon: Daemon, gearmand: JobServerProcess) -> None:
    daemon.start()
    for function in ("whose", "whose_thread"):
        assert call(gearmand, function).startswith(f"{function} H:".encode())


def whose(workload: str) -> str:
    job = geard.current_job()
    return job.function if job else "none"


def test_a_job_is_found_in_a_pool_of_threads_and_none_outside(gearmand: JobServerProcess) -> None:
    assert geard.current_job() is None
    config = Config(job_servers=(parse_address(gearmand.address),), capabilities={"whose": Capability(whose)})
    with geard.WorkerPool(config):
        assert call(gearmand, "whose") == b"whose"
