"""The service under a real systemd: run inside a private one by tests/test_systemd.py, as root, and by nothing else.

It installs geard into /opt/geard with the system's Python, takes systemd/geard.service as it is, hardening and all, and
operates it as an operator would. Where that Python is of another version than the tests', it skips.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from geard.protocol import Command
from tests.support.raw import Peer
from tests.support.servers import Gearmand, JobServerProcess
from tests.support.waiting import eventually

REPOSITORY = Path(__file__).parents[1]
PYTHON = "/usr/bin/python3"
GEARD = "/opt/geard/bin/geard"
CONFIG = Path("/etc/geard/geard.yaml")
UNIT = Path("/etc/systemd/system/geard.service")
CAPABILITIES = """
import os, subprocess, tempfile, time

def whoami(workload):
    return f"{os.getuid()} {os.environ.get('NOTIFY_SOCKET')}"

def sleep(workload):
    time.sleep(float(workload))
    return "slept"

def hold(workload):
    with open("/var/lib/geard/held", "a") as held:
        held.write("one\\n")
    while not os.path.exists("/srv/caps/release"):
        time.sleep(0.05)
    return "held"

def touch(workload):
    open(workload, "w").close()
    return workload

def spin(workload):
    if os.path.exists("/var/lib/geard/spun"):
        return "not again"
    open("/var/lib/geard/spun", "w").close()
    while True:
        pass

def boom(workload):
    print("about to fail:", workload)
    raise ValueError("no such image" + "!" * 300_000)

def die(workload):
    print("last words of", workload)
    os.kill(os.getpid(), 9)

def program(workload):
    return subprocess.run(["echo", workload], capture_output=True, text=True).stdout
"""
FUNCTIONS = {name: f"caps.{name}" for name in ("whoami", "sleep", "hold", "spin", "touch", "program", "boom", "die")}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def systemctl(*arguments: str) -> int:
    return run("systemctl", *arguments).returncode


def show(name: str) -> str:
    return run("systemctl", "show", "geard", "-P", name).stdout.strip()


def journal(*options: str) -> str:
    return run("journalctl", "-u", "geard", "-o", "cat", *options).stdout


def write_config(server: JobServerProcess, **changes: object) -> None:
    config = {"job_servers": [server.address], "processes": 2, "python_path": ["/srv/caps"], "capabilities": FUNCTIONS}
    CONFIG.write_text(yaml.safe_dump(config | changes))


@pytest.fixture(scope="module")
def server() -> Iterator[JobServerProcess]:
    with Gearmand() as gearmand:
        yield gearmand


LEFT_OUT = ("mypy*", "pip", "kubernetes_validate*", "playwright*", "material*")
"""Large, and not for the service."""


@pytest.fixture(scope="module", autouse=True)
def installation() -> None:
    """geard in /opt/geard, where the service's user can read it."""
    asked = run(PYTHON, "-c", "import sys; print(*sys.version_info[:2])")
    if asked.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        pytest.skip(f"{PYTHON} is not Python {sys.version_info[0]}.{sys.version_info[1]}")
    library = Path("/opt/geard/lib")
    site_packages = Path(pytest.__file__).parents[1]
    shutil.copytree(site_packages, library, ignore=shutil.ignore_patterns("__pycache__", *LEFT_OUT))
    shutil.copytree(REPOSITORY / "geard", library / "geard", dirs_exist_ok=True)  # an editable install has a part of it
    Path(GEARD).parent.mkdir()
    Path(GEARD).write_text(f'#!/bin/sh\nPYTHONPATH={library} exec {PYTHON} -m geard "$@"\n')
    Path(GEARD).chmod(0o755)


@pytest.fixture(autouse=True)
def service(server: JobServerProcess) -> Iterator[None]:
    """The service, installed and started."""
    Path("/srv/caps").mkdir(parents=True, exist_ok=True)
    Path("/srv/caps/caps.py").write_text(CAPABILITIES)
    Path("/srv/caps/release").unlink(missing_ok=True)
    shutil.rmtree("/var/lib/private/geard", ignore_errors=True)
    CONFIG.parent.mkdir(exist_ok=True)
    write_config(server)
    shutil.copy(REPOSITORY / "systemd" / "geard.service", UNIT)
    wants = Path("/etc/systemd/system/rus.target.wants")  # so that systemd does not forget a unit that stopped
    wants.mkdir(exist_ok=True)
    link = wants / "geard.service"
    if not link.is_symlink():
        link.symlink_to(UNIT)
    dropin = Path("/etc/systemd/system/geard.service.d")
    dropin.mkdir(exist_ok=True)
    (dropin / "test.conf").write_text("[Service]\nWatchdogSec=3\nRestartSec=100ms\n")
    systemctl("daemon-reload")
    systemctl("reset-failed", "geard")
    assert systemctl("start", "geard") == 0, journal()
    yield
    systemctl("stop", "geard")


def processes() -> set[str]:
    """The ids of all that the service runs."""
    procs = Path("/sys/fs/cgroup") / show("ControlGroup").lstrip("/") / "cgroup.procs"
    try:
        return set(procs.read_text().split()) if show("ControlGroup") else set()
    except OSError:
        return set()


def call(server: JobServerProcess, function: str, workload: str = "") -> str:
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, function.encode(), b"", workload.encode())
        packet = client.skip_to(Command.WORK_COMPLETE)
        return packet.fields[1].decode()


def test_start_is_over_when_the_service_serves_and_status_says_what(server: JobServerProcess) -> None:
    assert show("ActiveState") == "active"
    assert "generation 1, 2 processes, " in show("StatusText")
    assert server.status("sleep")[2] == 2
    user, notify_socket = call(server, "whoami").split()
    assert int(user) > 1000, "not root"
    assert notify_socket == "None", "capabilities cannot speak for the service"
    eventually(lambda: "1/1 job servers connected" in show("StatusText"))
    eventually(lambda: "1 done" in show("StatusText"))


def test_hardening_leaves_what_capabilities_need_and_takes_the_rest(server: JobServerProcess) -> None:
    assert call(server, "program", "hello") == "hello\n"
    assert call(server, "touch", "/var/lib/geard/state") == "/var/lib/geard/state"
    assert call(server, "touch", "/tmp/temporary") == "/tmp/temporary"
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"touch", b"", b"/srv/caps/forbidden")
        client.skip_to(Command.WORK_FAIL)
    assert not Path("/tmp/temporary").exists()


def test_reload_brings_a_new_capability_and_keeps_the_pid(server: JobServerProcess) -> None:
    pid = show("MainPID")
    Path("/srv/caps/caps.py").write_text(CAPABILITIES + "\ndef hello(workload):\n    return 'hello'\n")
    write_config(server, capabilities=FUNCTIONS | {"hello": "caps.hello"})
    assert systemctl("reload", "geard") == 0
    assert server.status("hello")[2] == 2
    assert call(server, "hello") == "hello"
    assert show("MainPID") == pid
    assert "generation 2, " in show("StatusText")
    assert show("ActiveState") == "active"


def test_an_upgrade_is_no_restart_to_systemd(server: JobServerProcess) -> None:
    pid, workers = show("MainPID"), processes()
    done = run(GEARD, "upgrade")
    assert done.returncode == 0, done.stderr + journal()
    assert "upgraded from geard" in journal()
    assert (show("MainPID"), show("ActiveState"), show("NRestarts")) == (pid, "active", "0")
    assert workers <= processes()
    assert call(server, "program", "on") == "on\n"
    eventually(lambda: "generation 1, 2 processes, " in show("StatusText"))
    assert systemctl("reload", "geard") == 0
    eventually(lambda: "generation 2, " in show("StatusText"))
    assert show("MainPID") == pid


def test_a_bad_reload_fails_says_why_and_changes_nothing(server: JobServerProcess) -> None:
    write_config(server, capabilities=FUNCTIONS | {"broken": "caps.broken"})
    assert systemctl("reload", "geard") != 0
    assert "reload refused" in show("StatusText")
    assert "'caps' has no 'broken'" in show("StatusText")
    assert show("ActiveState") == "active"
    assert "'caps' has no 'broken'" in journal("-p", "err"), "with its priority"
    assert "connected to" not in journal("-p", "err")
    assert call(server, "program", "on") == "on\n"


def test_the_journal_knows_the_job_of_each_line(server: JobServerProcess) -> None:
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"boom", b"u-1", b"it")
        handle = client.expect(Command.JOB_CREATED).fields[0].decode()
        client.skip_to(Command.WORK_FAIL)
    fields = ("GEARD_FUNCTION=boom", f"GEARD_HANDLE={handle}", "GEARD_UNIQUE=u-1", f"GEARD_SERVER={server.address}")
    eventually(lambda: "job failed: ValueError: no such image" in journal("-p", "err", *fields))
    assert "stdout: about to fail: it" in journal(*fields)
    assert "characters left out" in journal("-a", *fields), "a record too long for a datagram"
    assert "connected to" not in journal(*fields)


def test_what_was_printed_right_before_a_sigkill_is_in_the_journal(server: JobServerProcess) -> None:
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"die", b"", b"it")
        eventually(lambda: "stdout: last words of it" in journal("GEARD_FUNCTION=die"))


def test_a_killed_supervisor_is_started_again_once_its_jobs_have_ended(server: JobServerProcess) -> None:
    pid = show("MainPID")
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"hold", b"", b"")
        client.expect(Command.JOB_CREATED)
        eventually(lambda: "1 job running" in show("StatusText"))
        os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: "its worker processes may finish their jobs within 27s" in journal())
        Path("/srv/caps/release").touch()
        assert client.expect(Command.WORK_COMPLETE).fields[1] == b"held"
    eventually(lambda: show("ActiveState") == "active" and show("MainPID") not in ("0", pid), what="a new supervisor")
    assert Path("/var/lib/private/geard/held").read_text() == "one\n", "it ran once"


def test_a_stuck_process_that_a_killed_supervisor_left_is_killed_in_the_end(server: JobServerProcess) -> None:
    write_config(server, shutdown_timeout="500ms")
    assert systemctl("reload", "geard") == 0
    pid, before = show("MainPID"), processes()
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"spin", b"", b"")
        client.expect(Command.JOB_CREATED)
        eventually(Path("/var/lib/private/geard/spun").exists)
        os.kill(int(pid), signal.SIGKILL)
        assert client.expect(Command.WORK_COMPLETE).fields[1] == b"not again"
        assert not before & processes(), "nothing is left behind"
    assert "killed what was left of the service: 1 process" in journal()


def test_stopping_on_purpose_with_a_job_left_neither_fails_nor_restarts_the_service(server: JobServerProcess) -> None:
    for command in (["systemctl", "stop", "geard"], [GEARD, "stop"]):
        write_config(server, shutdown_timeout="300ms")
        assert systemctl("start", "geard") == 0
        assert systemctl("reload", "geard") == 0
        with Peer.connect(server.address) as client:
            client.send(Command.SUBMIT_JOB, b"hold", b"", b"")
            client.expect(Command.JOB_CREATED)
            eventually(lambda: "1 job running" in show("StatusText"))
            stopped = run(*command)
            assert stopped.returncode == (79 if command[0] == GEARD else 0), stopped
            eventually(lambda: show("ActiveState") == "inactive", what="the service, inactive")
            assert (show("Result"), show("ExecMainStatus"), show("NRestarts")) == ("success", "79", "0")
            assert not processes()
        assert "left 1 job to other workers: hold H:" in journal()
        assert "0 of 1 jobs in flight finished, 1 left to other workers" in journal()


def test_a_stopped_supervisor_is_found_by_the_watchdog(server: JobServerProcess) -> None:
    pid = show("MainPID")
    os.kill(int(pid), signal.SIGSTOP)
    eventually(lambda: show("ActiveState") == "active" and show("MainPID") not in ("0", pid), what="a new supervisor")
    assert "atchdog" in run("journalctl", "-o", "cat").stdout
    assert call(server, "program", "on") == "on\n"


def test_a_watched_service_that_only_works_hard_is_left_alone(server: JobServerProcess) -> None:
    pid = show("MainPID")
    assert call(server, "sleep", "4") == "slept"
    assert show("MainPID") == pid


def test_stop_waits_for_a_running_job(server: JobServerProcess) -> None:
    with Peer.connect(server.address) as client:
        client.send(Command.SUBMIT_JOB, b"hold", b"", b"")
        client.expect(Command.JOB_CREATED)
        eventually(lambda: "1 job running" in show("StatusText"))
        group = Path("/sys/fs/cgroup") / show("ControlGroup").lstrip("/") / "cgroup.procs"
        assert systemctl("stop", "--no-block", "geard") == 0
        eventually(lambda: show("ActiveState") == "deactivating" and "stopping" in show("StatusText"))
        Path("/srv/caps/release").touch()
        assert client.expect(Command.WORK_COMPLETE).fields[1] == b"held"
    eventually(lambda: show("ActiveState") == "inactive")
    assert show("Result") == "success"
    assert not group.exists() or not group.read_text(), "no process is left behind"
    assert "1 of 1 jobs in flight finished" in journal()


def test_a_config_that_cannot_run_is_not_started_again_and_again(server: JobServerProcess) -> None:
    systemctl("stop", "geard")
    write_config(server, processes="many", greenlets_per_server=-1)
    assert systemctl("start", "geard") != 0
    assert show("ActiveState") == "failed"
    assert show("ExecMainStatus") == "78"
    assert show("NRestarts") == "0"
    assert "processes" in journal()
    assert "greenlets_per_server" in journal()


def test_an_instance_runs_its_own_config_beside_the_service(server: JobServerProcess) -> None:
    shutil.copy(REPOSITORY / "systemd" / "geard@.service", UNIT.with_name("geard@.service"))
    shutil.copy(CONFIG, CONFIG.with_name("mail.yaml"))
    systemctl("daemon-reload")
    assert systemctl("start", "geard@mail") == 0
    assert server.status("sleep")[2] == 4
    assert systemctl("reload", "geard@mail") == 0
    assert systemctl("stop", "geard") == 0
    found = run(GEARD, "ps")
    assert "2 current" in found.stdout, "the only one there is"
    assert "asking the daemon of /etc/geard/mail.yaml" in found.stderr
    assert "2 current" in run(GEARD, "ps", "-c", "/etc/geard/mail.yaml").stdout
    lost = run(GEARD, "stop", "-c", str(CONFIG))
    assert lost.returncode == 69
    assert "no daemon runs /etc/geard/geard.yaml. Looked at:\n" in lost.stderr
    assert "  /run/geard/geard.sock: no such file or directory\n" in lost.stderr
    assert "  /run/geard-mail/geard.sock: pid " in lost.stderr
    assert "runs /etc/geard/mail.yaml\n" in lost.stderr
    assert run(GEARD, "stop", "-c", "/etc/geard/mail.yaml").returncode == 0
    eventually(lambda: run("systemctl", "is-active", "geard@mail").stdout == "inactive\n")


def test_geard_ps_as_root_finds_the_service_without_being_told() -> None:
    Path("/run/user/0").mkdir(parents=True, exist_ok=True)
    for command in ([GEARD, "ps"], ["env", "XDG_RUNTIME_DIR=/run/user/0", GEARD, "ps"]):
        shown = run(*command)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert "1 current" in shown.stdout


def test_a_socket_of_somebody_else_is_not_talked_to() -> None:
    assert run(GEARD, "reload", "--socket", "/run/geard/geard.sock").returncode == 0, "root made its directory"
    code = (
        "import os, socket; socket.socket(socket.AF_UNIX).bind('/tmp/theirs.sock'); os.chmod('/tmp/theirs.sock', 511)"
    )
    assert run("setpriv", "--reuid=12345", "--clear-groups", PYTHON, "-c", code).returncode == 0
    refused = run(GEARD, "ps", "--socket", "/tmp/theirs.sock")
    assert refused.returncode == 69
    assert "belongs to user 12345" in refused.stderr
