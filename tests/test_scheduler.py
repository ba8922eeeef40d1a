"""Schedules on real job servers: as many schedulers as there are, each time is one job."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from geard import exits
from geard.client import Client
from geard.config import config_from
from geard.protocol import Command, Packet
from geard.scheduler.states import Plan, States, dump, load_states
from tests.support.commands import ScriptedWorker, geard
from tests.support.daemon import Daemon
from tests.support.raw import Peer
from tests.support.servers import Embedded, JobServerProcess, free_port
from tests.support.waiting import eventually

BEHIND = "import time; real = time.time; time.time = lambda: real() - {behind}\n"
Schedules = dict[str, dict[str, Any]]
RUN = "import sys; from geard.scheduler.process import main; sys.exit(main(int(sys.argv[1])))"


class SchedulerProcess:
    """A scheduler as a supervisor runs it, with a wall clock that may be behind. A context manager."""

    def __init__(
        self, servers: str | list[str], schedules: Schedules, *, behind_seconds: float = 0.0, state: Path | None = None
    ) -> None:
        self._servers = [servers] if isinstance(servers, str) else servers
        self._schedules = schedules
        self._behind_seconds = behind_seconds
        self._state = str(state) if state else None

    def __enter__(self) -> SchedulerProcess:
        ours, theirs = socket.socketpair()
        with theirs:
            code = BEHIND.format(behind=self._behind_seconds) + RUN
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
            )
        self._link = ours
        self._lines = ours.makefile("rb")
        self.plan(self._schedules)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.shutdown(socket.SHUT_RDWR)
        self._link.close()
        try:
            assert self.process.wait(30) in (exits.DONE, -signal.SIGKILL)
        finally:
            self.process.kill()

    def plan(self, schedules: Schedules) -> None:
        """Tell it its schedules."""
        config = config_from(
            {
                "job_servers": self._servers,
                "capabilities": {"none": "not.here"},
                "schedules": schedules,
                "state_directory": self._state,
            }
        )
        self._link.sendall(dump(Plan(config)))

    def hear(self) -> States:
        """What it says next."""
        self._link.settimeout(30)
        return load_states(self._lines.readline())


class Runs:
    """A worker that keeps a record of the uniques that it ran."""

    def __init__(self, *servers: JobServerProcess) -> None:
        self.count: Counter[str] = Counter()
        self.order: list[tuple[str, bytes]] = []
        self._workers = [ScriptedWorker(server.address, tick=self._run) for server in servers]

    @property
    def workloads(self) -> set[bytes]:
        return {workload for _, workload in self.order}

    def _run(self, peer: Peer, packet: Packet) -> None:
        self.count[packet.unique.decode()] += 1
        self.order.append((packet.unique.decode(), packet.workload))
        peer.send(Command.WORK_COMPLETE, packet.handle, b"")


def tick(every: str = "1s", workload: str = "tock") -> dict[str, Any]:
    return {"function": "tick", "workload": workload, "every": every}


def times(runs: Runs, name: str) -> list[int]:
    """The times of a schedule that ran, in order."""
    return sorted(int(unique.split(":")[2]) for unique in runs.count if unique.startswith(f"geard:{name}:"))


def test_three_schedulers_run_each_time_once_though_one_is_killed_and_one_is_three_seconds_behind(
    job_server: JobServerProcess,
) -> None:
    runs = Runs(job_server)
    schedules = {f"s{number}": tick("1s" if number < 3 else "2s") for number in range(5)}
    address = job_server.address
    with (
        SchedulerProcess(address, schedules) as killed,
        SchedulerProcess(address, schedules, behind_seconds=3.0),
        SchedulerProcess(address, schedules) as reloaded,
    ):
        eventually(lambda: len(times(runs, "s0")) >= 2, what="the first times")
        killed.process.kill()
        reloaded.plan(schedules)
        begin = int(time.time())
        eventually(lambda: times(runs, "s0")[-1] >= begin + 6, what="times submitted after the kill")
        end = int(time.time()) - 1
    assert set(runs.count.values()) == {1}, runs.count
    for number in range(5):
        ran = times(runs, f"s{number}")
        every = 1 if number < 3 else 2
        assert [time for time in ran if time <= end] == list(range(ran[0], end + 1, every)), ran
    assert runs.workloads == {b"tock"}


def test_what_waits_for_a_schedule_that_changed_is_cancelled(job_server: JobServerProcess) -> None:
    schedules = {"s": tick("2s", "old"), "gone": tick("3s", "old")}
    with SchedulerProcess(job_server.address, schedules) as scheduler:
        eventually(lambda: job_server.status("tick")[0] >= 20, what="jobs that wait")
        runs = Runs(job_server)
        scheduler.plan({"s": tick("4s", "new")})
        begin = time.time()
        eventually(lambda: times(runs, "s") and times(runs, "s")[-1] > begin + 8, what="runs that were submitted since")
    assert runs.workloads - {b"old"} == {b"new"}
    late = [(unique, workload) for unique, workload in runs.order if int(unique.split(":")[2]) > begin + 1]
    assert {workload for _, workload in late} == {b"new"}
    assert len({unique.split(":")[2] for unique, _ in late}) == len(late)


def test_schedules_go_to_the_job_servers_that_answer() -> None:
    with Embedded() as one, Embedded() as two, socket.create_server(("127.0.0.1", 0)) as mute:
        addresses = [one.address, f"127.0.0.1:{free_port()}", two.address, f"127.0.0.1:{mute.getsockname()[1]}"]
        schedules = {f"s{number}": tick("20s") for number in range(12)}
        with SchedulerProcess(addresses, schedules) as scheduler:
            while (states := scheduler.hear()).answering != (one.address, two.address):
                pass
            counts = [0, 0]
            while sum(counts) < 12 * 2:
                counts = [server.status("tick")[0] for server in (one, two)]
            assert min(counts) >= 2, counts
    assert len(states.schedules) == 12


def test_a_time_that_everybody_missed_is_made_up_for_once(job_server: JobServerProcess, tmp_path: Path) -> None:
    (tmp_path / "schedules.json").write_text(json.dumps({"seen_at": time.time() - 3 * 86400}))
    daily = {"daily": {"function": "tick", "workload": "late", "cron": "0 0 * * *", "catch_up": "last"}}
    with SchedulerProcess(job_server.address, daily, state=tmp_path):
        eventually(lambda: job_server.status("tick")[0] == 1, what="the job that makes up for it")
        (second := tmp_path / "second").mkdir()
        (second / "schedules.json").write_text(json.dumps({"seen_at": time.time() - 3 * 86400}))
        with SchedulerProcess(job_server.address, daily, state=second) as other:
            other.hear()
            other.hear()
        assert job_server.status("tick")[0] == 1
        written = json.loads((second / "schedules.json").read_bytes())
        assert abs(written["seen_at"] - time.time()) < 60


def test_the_daemon_runs_its_schedules_and_shows_them() -> None:
    schedules = {"often": {"function": "count", "workload": "often", "every": "1s"}}
    with Embedded() as job_server, Daemon(job_server, schedules=schedules) as daemon:
        daemon.start()
        eventually(lambda: daemon.runs["often"] >= 2, what="two runs")
        said = daemon.geard("schedules")
        assert said.returncode == exits.DONE, said.stderr
        assert said.stdout.splitlines()[1].split()[:4] == ["often", "count", "every", "1s"]
        state = json.loads(daemon.geard("schedules", "--json").stdout)[0]
        assert state["waiting"] >= 3
        assert abs(state["next_at"] - time.time()) < 10
        (scheduler,) = [pid for pid in daemon.children if "scheduler" in Path(f"/proc/{pid}/cmdline").read_text()]
        os.kill(scheduler, signal.SIGKILL)
        daemon.wait_for("the scheduler runs", times=2)
        daemon.write_config(schedules={})
        assert daemon.reload().returncode == exits.DONE
        assert daemon.geard("schedules").stderr == "no schedules\n"
        assert daemon.stop() == exits.DONE


def test_what_waits_is_cancelled_when_a_reload_leaves_no_schedule() -> None:
    with Embedded() as job_server, Daemon(job_server, schedules={"s": tick()}) as daemon:  # whose jobs nobody runs
        daemon.start()
        eventually(lambda: job_server.status("tick")[0] >= 10, what="jobs that wait")
        daemon.write_config(schedules={})
        assert daemon.reload().returncode == exits.DONE
        eventually(lambda: job_server.status("tick")[0] == 0, what="the end of all that waited")
        assert daemon.stop() == exits.DONE


def test_a_schedule_can_be_run_now(tmp_path: Path) -> None:
    with Embedded() as server:
        (config := tmp_path / "geard.yaml").write_text(
            f"job_servers: ['{server.address}']\ncapabilities: {{tick: a.b}}\n"
            "schedules: {nightly: {function: tick, workload: [1], encoding: json, cron: '@daily'}}\n"
        )
        done = geard("schedules", "run", "nightly", "-c", str(config))
        assert done.returncode == exits.DONE
        with Client(server.address) as client:
            assert client.status(done.stdout.decode().strip()).known
        unknown = geard("schedules", "run", "weekly", "-c", str(config))
        assert (unknown.returncode, unknown.stderr) == (
            exits.USAGE,
            b"geard: the config has no schedule weekly: it has nightly\n",
        )


@pytest.mark.parametrize("broken", ["{", "[]", '{"seen_at": "x"}'])
def test_a_state_file_that_cannot_be_read_is_begun_anew(broken: str, tmp_path: Path) -> None:
    (tmp_path / "schedules.json").write_text(broken)
    with Embedded() as server, SchedulerProcess(server.address, {"s": tick("20s")}, state=tmp_path):
        eventually(lambda: server.status("tick")[0] >= 2, what="jobs that wait")
