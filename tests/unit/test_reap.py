"""What `geard reap` may touch: only the control group of a systemd service, and only where systemd started it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from geard.errors import InvalidRequest
from geard.supervisor.reap import control_group, ended_by_choice, others_in
from tests.support.commands import geard


def test_it_refuses_where_systemd_did_not_start_it(tmp_path: Path) -> None:
    (tmp_path / "geard.yaml").touch()
    done = geard("reap", cwd=tmp_path)
    assert done.returncode == 2
    assert b"systemd has not started this" in done.stderr


@pytest.mark.parametrize(
    ("own", "directory"),
    [
        ("0::/system.slice/geard.service\n", "system.slice/geard.service"),
        ("12:pids:/a\n1:name=systemd:/system.slice/geard.service\n0::/\n", "systemd/system.slice/geard.service"),
        ("1:name=systemd:/\n0::/system.slice/geard.service\n", "unified/system.slice/geard.service"),
    ],
)
def test_the_control_group_of_the_service_is_found(own: str, directory: str, tmp_path: Path) -> None:
    (tmp_path / directory).mkdir(parents=True)
    (tmp_path / directory / "cgroup.procs").write_text(f"{os.getpid()}\n12\n")
    found = control_group(own, tmp_path)
    assert found == tmp_path / directory
    assert others_in(found) == [12]


@pytest.mark.parametrize("own", ["0::/\n", "0::/user.slice/session-1.scope\n", "0::/gone.service\n", ""])
def test_any_other_control_group_is_left_alone(own: str, tmp_path: Path) -> None:
    (tmp_path / "user.slice" / "session-1.scope").mkdir(parents=True)
    for group in (tmp_path, tmp_path / "user.slice" / "session-1.scope"):
        (group / "cgroup.procs").write_text("12\n")
    with pytest.raises(InvalidRequest, match="not the control group of a systemd service"):
        control_group(own, tmp_path)


@pytest.mark.parametrize(
    ("code", "status", "by_choice"),
    [("exited", "0", True), ("exited", "79", True), ("exited", "70", False), ("killed", "KILL", False)],
)
def test_worker_processes_are_waited_for_after_an_end_that_the_supervisor_did_not_choose(
    code: str, status: str, by_choice: bool
) -> None:
    environ = {"SERVICE_RESULT": "x", "EXIT_CODE": code, "EXIT_STATUS": status}
    assert ended_by_choice(environ) is by_choice
