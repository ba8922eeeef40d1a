"""`geard run` as the first process of a container: in a PID namespace, where it is PID 1.

There the kernel gives it every orphan, and drops each signal that it has no handler for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from geard import exits
from tests.support.daemon import Daemon, submit
from tests.support.servers import JobServerProcess
from tests.support.waiting import eventually

UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc")
ORPHANS = '''
import os, subprocess

def orphan(workload):
    """Leaves behind so many processes, which end a little later, and says nothing of them."""
    subprocess.run(["sh", "-c", "for _ in $(seq %d); do sleep 0.5 & done" % int(workload)])
    return "left"

def die(workload):
    os._exit(7)
'''


@cache
def may_unshare() -> bool:
    """Whether a PID namespace can be made here."""
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    if not may_unshare():
        report = pytest.fail if os.environ.get("CI") and os.geteuid() == 0 else pytest.skip
        report("no PID namespace can be made here")


class Contained(Daemon):
    """A daemon that is PID 1 of a namespace; `process` is the unshare around it, which ends with its exit code."""

    def __enter__(self) -> Contained:
        return self

    def begin(self, *, wait: bool = True) -> None:
        (self.directory / "caps.py").write_text((self.directory / "caps.py").read_text() + ORPHANS)
        command = [*UNSHARE, "--kill-child", sys.executable, "-m", "geard", "run", "-c", str(self.config_path)]
        log = self.log_pipe.fileno()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        eventually(lambda: self.first, what="the process in the namespace")
        if wait:
            self.wait_for("generation 1 serves")

    @property
    def first(self) -> int:
        """The process id, out here, of what is PID 1 in there; 0 when it has ended."""
        return next(iter(super().children), 0)

    @property
    def children(self) -> list[int]:
        """What PID 1 is the parent of, its own and adopted, the dead among them."""
        try:
            text = Path(f"/proc/{self.first}/task/{self.first}/children").read_text()
        except FileNotFoundError:
            return []
        return [int(pid) for pid in text.split()]

    def tell(self, number: int) -> None:
        """A signal to PID 1, from outside, as a container's runtime sends it."""
        os.kill(self.first, number)


@pytest.fixture
def contained(gearmand: JobServerProcess) -> Iterator[Contained]:
    capabilities = {name: f"caps.{name}" for name in ("hold", "orphan", "die")}
    with Contained(gearmand, capabilities=capabilities, poison_deaths=2) as daemon:
        yield daemon


def test_pid_1_reaps_orphans_hears_how_its_own_children_end_reloads_and_drains(
    contained: Contained, gearmand: JobServerProcess
) -> None:
    contained.begin()
    assert "pid 1," in contained.log
    mine = contained.children
    submit(gearmand, "orphan", "20", "21")
    eventually(lambda: len(contained.children) > len(mine) + 20, what="orphans with PID 1")
    eventually(lambda: contained.children == mine, what="the end of the orphans, with no zombie left")
    submit(gearmand, "die", "now")
    contained.wait_for("exited with code 7 after")
    contained.wait_for("die was given up after 2 dead processes")
    contained.tell(signal.SIGHUP)
    contained.wait_for("generation 2 serves")
    submit(gearmand, "hold", "one 0")
    eventually(lambda: gearmand.status("hold")[1] == 1, what="a running job")
    contained.tell(signal.SIGTERM)
    contained.wait_for("TERM")
    contained.release()
    assert contained.wait() == exits.DONE
    assert contained.runs == {"one": 1}


def test_a_signal_during_the_start_of_pid_1_is_not_lost(contained: Contained) -> None:
    text = contained.config_path.read_text()
    contained.config_path.unlink()
    os.mkfifo(contained.config_path)  # the start goes on when somebody writes the config
    contained.begin(wait=False)
    with contained.config_path.open("w") as config:  # opens when the daemon does
        contained.tell(signal.SIGINT)
        config.write(text)
    assert contained.wait() == exits.DONE


def test_a_config_that_cannot_run_ends_pid_1_as_it_ends_any(contained: Contained) -> None:
    contained.write_config(processes=0)
    contained.begin(wait=False)
    assert contained.wait() == exits.CONFIG
