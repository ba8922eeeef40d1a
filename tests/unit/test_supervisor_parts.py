"""The supervisor's pure parts one by one: groups, delays, limits, words, notify messages, what --watch looks at."""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from gevent.event import AsyncResult
from hypothesis import given
from hypothesis import strategies as st
from watchfiles import Change

from geard import exits
from geard.cli.control import draw
from geard.config.load import Source, examine_config
from geard.config.model import Capability, Config, Schedule
from geard.errors import ConfigError, InvalidRequest, Problem
from geard.messages import Heartbeat, how_it_ended
from geard.scheduler.states import ScheduleState, States
from geard.supervisor import answers, decisions, sd_notify
from geard.supervisor.answers import GenerationView, Overview, ProcessView
from geard.supervisor.daemon import Daemon
from geard.supervisor.events import Scheduled
from geard.supervisor.loader import Loader
from geard.supervisor.sd_notify import SdNotify
from geard.supervisor.watch import SourceFilter, source_roots
from tests.support.fake_fleet import World, job
from tests.support.waiting import DEADLINE_SECONDS


def beat(*, done: int = 0, failed: int = 0, memory: int = 0) -> Heartbeat:
    return Heartbeat(0, 50, done, failed, (), (), memory)


# --- decisions ----------------------------------------------------------------------------------------------------


@given(st.lists(st.one_of(st.none(), st.integers(1, 5)), max_size=6), st.integers(1, 8))
def test_every_capability_is_in_exactly_one_group_with_the_processes_it_asked_for(
    own: list[int | None], common: int
) -> None:
    capabilities = {f"f{n}": Capability("m.f", processes=processes) for n, processes in enumerate(own)}
    groups = decisions.process_groups(Config(capabilities=capabilities, processes=common))
    served = [name for group in groups for name in group.config.capabilities]
    assert sorted(served) == sorted(capabilities)
    for group in groups:
        asked = {capability.processes for capability in group.config.capabilities.values()}
        assert asked == ({None} if group.is_common else {group.processes})
        assert not group.is_common or group.processes == common


@given(st.floats(0, 1))
def test_delays_start_at_none_grow_and_are_capped(jitter: float) -> None:
    delays = [decisions.restart_delay_seconds(crashes, jitter) for crashes in range(1, 2000)]
    assert delays[0] == 0
    assert delays[1] > 0.4
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert decisions.LONGEST_DELAY_SECONDS * 0.9 <= delays[-1] <= decisions.LONGEST_DELAY_SECONDS


@given(st.floats(0, 1))
def test_a_limit_is_lowered_by_a_tenth_at_most_and_never_passed(jitter: float) -> None:
    config = Config(max_jobs=1000)
    assert decisions.recycle_reason(config, beat(done=600, failed=299), 1e9, jitter) == ""
    assert decisions.recycle_reason(config, beat(done=700, failed=300), 1.0, jitter)


def test_no_limit_no_recycling() -> None:
    assert decisions.recycle_reason(Config(), beat(done=10**9, memory=10**12), 1e9, 0.0) == ""
    assert decisions.recycle_reason(Config(max_jobs=1), None, 1e9, 0.0) == ""


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-99, "was killed by signal 99"),
    ],
)
def test_an_end_in_words(status: int, words: str) -> None:
    assert how_it_ended(status) == words


def test_named_jobs_are_few_and_the_rest_is_counted() -> None:
    text = decisions.name_jobs([job(n) for n in range(50)], 500)
    assert text.count("reverse") == decisions.NAMED_JOBS
    assert text.endswith("and 490 more")
    assert decisions.name_jobs([job(1)], 1) == "reverse H:host:1 (1.5 s)"


# --- systemd ------------------------------------------------------------------------------------------------------


def test_a_status_is_one_line() -> None:
    assert sd_notify.status("refused:\n  no such key\n") == "STATUS=refused: no such key"


def test_a_status_of_any_length_leaves_a_message_that_systemd_takes() -> None:
    for text in ("wrong " * 3000, "é" * 3000, "x" + "é" * 3000):
        said = sd_notify.status(text)
        assert said.startswith(f"STATUS={text[:500]}")
        assert said.endswith("…")
        assert len(said.encode()) < 4096 - len("READY=1\n")


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "3000000"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000"}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getpid())}, 3.0),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "1"}, None),
        ({"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_ours_only_when_systemd_says_so(environ: dict[str, str], seconds: float | None) -> None:
    assert SdNotify(environ).watchdog_seconds == seconds


def test_an_abstract_notify_socket_is_reached() -> None:
    name = f"geard-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name)
        manager.settimeout(10)
        SdNotify({"NOTIFY_SOCKET": "@" + name}).send("READY=1", "STATUS=up")
        assert manager.recv(1000) == b"READY=1\nSTATUS=up"


def test_the_service_manager_is_told_also_when_no_descriptor_is_left(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager, ExitStack() as everything:
        manager.bind(path)
        manager.settimeout(10)
        notify = SdNotify({"NOTIFY_SOCKET": path})
        notify.send("READY=1")
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        everything.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        notify.send("WATCHDOG=1")
        SdNotify({"NOTIFY_SOCKET": path}).send("READY=1")  # cannot be said, and that is all
        assert [manager.recv(1000), manager.recv(1000)] == [b"READY=1", b"WATCHDOG=1"]


def test_schedules_that_the_scheduler_has_not_told_of_are_not_said_to_be_none() -> None:
    world = World(schedules={"often": Schedule(function="reverse", every_seconds=60)})
    world.ready(1, 2)
    world.asks(answers.SCHEDULES)
    assert world.answers[-1].schedules is None
    assert world.answers[-1].exit_code == exits.TIMED_OUT
    told = (ScheduleState("often", "reverse", "every 1m", 60.0, None, None, 0),)
    world.happens(Scheduled(States(told, ())))
    world.asks(answers.SCHEDULES)
    assert world.answers[-1].schedules == told


# --- reading the config -------------------------------------------------------------------------------------------


def test_a_reading_of_the_config_that_fails_in_any_way_has_an_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("geard.supervisor.loader.with_import_problems", fail)
    wrong = Source("geard.yaml", Config(), (Problem("odd"),), {})
    heard: AsyncResult[object] = AsyncResult()
    Loader("geard.yaml", lambda file: wrong, heard.set).begin()
    outcome = heard.get(timeout=DEADLINE_SECONDS)
    assert isinstance(outcome, ConfigError)
    assert "can't start new thread" in str(outcome)


def test_a_config_that_cannot_be_read_to_its_end_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("geard.supervisor.loader.READ_SECONDS", 0.05)
    config = tmp_path / "geard.yaml"
    os.mkfifo(config)
    heard: AsyncResult[object] = AsyncResult()
    Loader(str(config), examine_config, heard.set).begin()
    outcome = heard.get(timeout=DEADLINE_SECONDS)
    assert isinstance(outcome, ConfigError)
    assert str(outcome) == f"{config}: could not be read within 0.05 s"
    os.close(os.open(config, os.O_WRONLY))  # for the thread


# --- --watch ------------------------------------------------------------------------------------------------------


def test_watched_is_where_the_capabilities_come_from_and_nothing_is_imported(tmp_path: Path) -> None:
    (tmp_path / "single.py").write_text("raise SystemExit\n")
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit\n")
    capabilities = {
        "a": Capability("single.f"),
        "b": Capability("package.module:f"),
        "c": Capability("no_such_module.f"),
    }
    roots = source_roots(Config(python_path=(str(tmp_path),), capabilities=capabilities))
    assert roots == {str(tmp_path), str(package)}


def test_only_sources_and_the_config_count(tmp_path: Path) -> None:
    wanted = SourceFilter(str(tmp_path / "geard.yaml"))
    assert wanted(Change.modified, str(tmp_path / "caps.py"))
    assert wanted(Change.modified, str(tmp_path / "geard.yaml"))
    assert not wanted(Change.modified, str(tmp_path / "other.yaml"))
    assert not wanted(Change.added, str(tmp_path / "__pycache__" / "caps.py"))


# --- geard ps -----------------------------------------------------------------------------------------------------


def test_ps_shows_the_longest_jobs_first_and_counts_the_rest() -> None:
    jobs = tuple(job(n, seconds=float(n)) for n in range(30))
    process = ProcessView(71, 2, "ready", "", 5.0, 0.1, "", 2**25, 30, 50, 9, 1, ("a:1",), ("b:2",), jobs)
    view = Overview(
        70, "1.0", "/etc/geard.yaml", "running", 90.0, 2**24, 9, 1, "", (GenerationView(3, "current", (process,)),)
    )
    lines = [line.text for line in draw(view, 20)]
    assert lines[0] == "geard 1.0, pid 70, running, up 1m30s, /etc/geard.yaml"
    row = next(line for line in lines if line.startswith("3 current"))
    assert " ".join(row.split()) == "3 current 2 71 ready 5s 32 MiB 30/50 9 1 1/2 not b:2"
    shown = [line for line in lines if "H:host:" in line]
    assert len(shown) == 20
    assert "H:host:29" in shown[0]
    assert lines[-1] == "and 10 more jobs (--all shows them)"


# --- arrows -------------------------------------------------------------------------------------------------------


def test_the_supervisor_never_imports_the_worker() -> None:
    code = "import geard.supervisor.daemon, sys; print([name for name in sys.modules if 'geard.worker' in name])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_asking_the_supervisor_needs_no_gevent() -> None:
    code = "import geard.cli.control, sys; print('gevent' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_the_first_log_of_a_child_names_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    world = World(1, capabilities={"sum": Capability("m.sum", processes=1)})
    world.ready(1)
    assert "worker 1 for sum (generation 1, pid 101) is ready" in caplog.text
    assert repr(world.children[0]) == "<Child 1 pid=101 generation=1 ready>"
    world.beats(1, running=12)
    assert repr(world.children[0]) == "<Child 1 pid=101 generation=1 ready 12/50 running>"


def test_the_status_line_says_which_job_server_is_down() -> None:
    world = World(2)
    world.ready(1, 2)
    world.says(1, Heartbeat(3, 50, 7, 1, ("a:1", "b:2"), (), 0))
    world.says(2, Heartbeat(0, 50, 2, 0, ("a:1",), ("b:2",), 0))
    world.passes(1)
    assert world.notify.status == (
        "STATUS=running: generation 1, 2 processes, 1/2 job servers connected (not b:2), "
        "3 jobs running, 9 done, 1 failed"
    )


def test_watch_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    monkeypatch.delitem(sys.modules, "geard.supervisor.watch", raising=False)
    with pytest.raises(InvalidRequest, match=r"pip install 'geard\[watch\]'"):
        Daemon(World(1).source(), watch=True)
