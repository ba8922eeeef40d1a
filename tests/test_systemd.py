"""systemd: the units, the notify protocol as systemd hears it, and the service under a real one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import exits
from geard.cli.unit import closed_directory, render
from geard.config import Config
from tests.support.daemon import Daemon, submit
from tests.support.servers import JobServerProcess, need
from tests.support.waiting import DEADLINE_SECONDS, eventually

REPOSITORY = Path(__file__).parents[1]
PRIVATE_SYSTEMD = REPOSITORY.parent / "shared" / "systemd" / "run-under-systemd.sh"
"""Boots a systemd in namespaces of its own; not part of geard."""
UNITS = {
    "geard.service": render(Config(), "/etc/geard/geard.yaml", "/opt/geard/bin/geard"),
    "geard@.service": render(
        Config(), "/etc/geard/%i.yaml", "/opt/geard/bin/geard", name="geard-%i", about=" (%i)"
    ),
}  # fmt: skip

# --- the units ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNITS)
def test_the_units_in_the_repository_are_what_geard_unit_makes(name: str) -> None:
    assert (REPOSITORY / "systemd" / name).read_text() == UNITS[name]


@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line_and_finds_little_exposed(name: str, tmp_path: Path) -> None:
    need("systemd-analyze")
    unit = tmp_path / name.replace("@", "@instance")
    unit.write_text(UNITS[name].replace("/opt/geard/bin/geard", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    exposed = subprocess.run(command, capture_output=True, text=True)
    assert exposed.returncode == 0, exposed.stdout[-300:]


def test_geard_unit_names_this_installation_and_the_configs_own_settings(tmp_path: Path) -> None:
    config = tmp_path / "geard.yaml"
    config.write_text(
        "capabilities: {reverse: geard.examples.reverse}\nshutdown_timeout: 2m\ncontrol_socket: /srv/mine/geard.sock\n"
    )
    command = [sys.executable, "-m", "geard", "unit", "-c", str(config), "--user", "images"]
    unit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{Path(sys.executable).parent}" in unit
    assert f"run -c {config}" in unit
    assert "reload --socket /srv/mine/geard.sock" in unit
    assert "TimeoutStopSec=125" in unit
    assert "ReadWritePaths=/srv/mine\n" in unit
    assert "User=images" in unit
    assert "DynamicUser" not in unit


def test_a_directory_that_the_services_user_cannot_enter_is_found(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    (closed / "bin").mkdir(parents=True)
    closed.chmod(0o700)
    (tmp_path / "link").symlink_to(closed / "bin" / "geard")
    assert closed_directory(str(tmp_path / "link")) == str(closed)
    assert closed_directory("/usr/bin/env") == ""


# --- the notify protocol ------------------------------------------------------------------------------------------


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self.path)
        self._socket.setblocking(False)
        self._heard: list[str] = []

    @property
    def heard(self) -> list[str]:
        """All assignments so far."""
        while True:
            try:
                self._heard.extend(self._socket.recv(65536).decode().split("\n"))
            except BlockingIOError:
                return self._heard

    def hears(self, assignment: str, times: int = 1) -> None:
        eventually(lambda: sum(each.startswith(assignment) for each in self.heard) >= times, what=assignment)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def manager() -> Iterator[Manager]:
    directory = Path(tempfile.mkdtemp(prefix="geard-test-"))
    manager = Manager(directory)
    yield manager
    manager.close()
    shutil.rmtree(directory)


def environment(manager: Manager, **variables: str) -> dict[str, str]:
    return os.environ | {"NOTIFY_SOCKET": manager.path} | variables


def test_systemd_hears_of_start_reload_refusal_and_stop(gearmand: JobServerProcess, manager: Manager) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start(env=environment(manager))
        manager.hears("READY=1")
        submit(gearmand, "count", "job")
        manager.hears(
            "STATUS=running: generation 1, 1 process, 1/1 job servers connected, 0 jobs running, 1 done, 0 failed"
        )
        assert daemon.reload().returncode == 0
        marks = [each.partition("=")[0] for each in manager.heard if not each.startswith("STATUS=")]
        assert [mark for mark in marks if mark != "EXTEND_TIMEOUT_USEC"] == [
            "READY",
            "RELOADING",
            "MONOTONIC_USEC",
            "READY",
        ]
        daemon.write_config(procesess=1)
        assert daemon.reload().returncode == exits.CONFIG
        manager.hears("READY=1", 3)
        assert any("reload refused" in each and "procesess" in each for each in manager.heard)
        submit(gearmand, "hold", "job 0")
        daemon.wait_running(1)
        daemon.signal(signal.SIGTERM)
        manager.hears("STOPPING=1")
        before = len(manager.heard)
        eventually(lambda: any(each.startswith("EXTEND_TIMEOUT_USEC=") for each in manager.heard[before:]))
        daemon.release()
        assert daemon.wait() == exits.DONE


def test_systemd_hears_why_a_start_failed(manager: Manager) -> None:
    with Daemon(None, capabilities={"a": "no_such_module.f"}) as daemon:
        daemon.start(env=environment(manager), wait=False)
        assert daemon.wait() == exits.CONFIG
        assert "READY=1" not in manager.heard
        assert any("no_such_module" in each for each in manager.heard)


def test_the_watchdog_is_fed(gearmand: JobServerProcess, manager: Manager) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start(env=environment(manager, WATCHDOG_USEC="400000"))
        manager.hears("WATCHDOG=1", 5)


def test_worker_processes_have_nothing_to_do_with_the_service_manager(
    gearmand: JobServerProcess, manager: Manager
) -> None:
    with Daemon(gearmand) as daemon:
        daemon.start(env=environment(manager, WATCHDOG_USEC="30000000"))
        variables = Path(f"/proc/{daemon.children[0]}/environ").read_bytes()
        assert b"NOTIFY_SOCKET" not in variables
        assert b"WATCHDOG" not in variables


def test_a_service_manager_that_is_gone_stops_nothing(gearmand: JobServerProcess, manager: Manager) -> None:
    with Daemon(gearmand) as daemon:
        os.unlink(manager.path)
        daemon.start(env=environment(manager))
        assert daemon.reload().returncode == 0
        assert daemon.stop() == exits.DONE


def test_log_lines_for_the_journal_carry_their_priority(gearmand: JobServerProcess) -> None:
    with Daemon(gearmand) as daemon:
        status = os.fstat(daemon.log_pipe.fileno())
        daemon.start(env=os.environ | {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        daemon.write_config(procesess=1)
        daemon.reload()
        daemon.wait_for("reload refused")
        lines = daemon.log.splitlines()
        assert all(line.startswith("<") for line in lines), lines
        assert any(line.startswith("<6>worker 1[") for line in lines)
        refusal = next(index for index, line in enumerate(lines) if "reload refused" in line)
        assert lines[refusal].startswith("<3>supervisor[")
        assert lines[refusal + 1].startswith("<3>"), "each line of a message has it"


# --- a real one ---------------------------------------------------------------------------------------------------


def test_the_service_under_a_real_systemd() -> None:
    if not PRIVATE_SYSTEMD.exists() or os.geteuid() != 0:
        pytest.skip("there is nothing here to boot a private systemd with")
    inside = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/inside_systemd.py"]
    command = [str(PRIVATE_SYSTEMD), "-t", "240", "/bin/sh", "-c", 'exec "$@"', "sh", *inside]
    done = subprocess.run(
        command, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_SECONDS * 10
    )
    if done.returncode == 125:
        pytest.skip(f"a private systemd cannot be booted here: {done.stderr}")
    assert done.returncode == 0, done.stdout + done.stderr
