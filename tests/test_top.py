"""`geard top` in a real terminal (tmux), and `geard top --once` and `geard failures` beside a real daemon."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from geard import Client, JobException, exits
from tests.support.commands import GEARD, Running, environment, geard
from tests.support.daemon import Daemon
from tests.support.fake_supervisor import FakeSupervisor
from tests.support.servers import Embedded, need
from tests.support.waiting import eventually

HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp"
FUNCTIONS = {"resize": (140.0, 2.0, 35.0), "thumbnail": (320.0, 0.0, 4.0), "mail.send": (60.0, 0.0, 180.0)}


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[FakeSupervisor]:
    with FakeSupervisor(str(tmp_path / "s.sock")) as supervisor:
        supervisor.past(70, FUNCTIONS)
        supervisor.keep_on(FUNCTIONS)
        supervisor.run_jobs(120, numerator=40)
        yield supervisor


class Tmux:
    """A shell in a tmux of its own. A context manager."""

    def __init__(self, directory: Path, width: int = 80, height: int = 24) -> None:
        need("/usr/bin/tmux")
        self._command = ["tmux", "-u", "-S", str(directory / "tmux"), "-f", "/dev/null"]
        size = ["-x", str(width), "-y", str(height)]
        subprocess.run(
            [*self._command, "new-session", "-d", *size, "env PS1='$ ' sh"], check=True, env=environment({}), timeout=30
        )

    def do(self, *command: str) -> str:
        done = subprocess.run([*self._command, *command], capture_output=True, text=True, check=True, timeout=30)
        return done.stdout

    def type(self, text: str) -> None:
        self.do("send-keys", "-l", text)

    def enter(self, command: str) -> None:
        self.type(command)
        self.do("send-keys", "Enter")

    @property
    def screen(self) -> str:
        return self.do("capture-pane", "-p")

    def sees(self, *wanted: str, without: str = "\0") -> list[str]:
        """Wait until all of these are on the screen: its lines."""
        eventually(
            lambda: all(text in self.screen for text in wanted) and without not in self.screen,
            what=f"{wanted} on the screen",
        )
        return self.screen.split("\n")

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_: object) -> None:
        self.do("kill-server")


def test_it_lives_in_a_terminal_and_leaves_it_as_it_was(supervisor: FakeSupervisor, tmp_path: Path) -> None:
    supervisor.count(HOSTILE, failed=9)
    command = shlex.join([*GEARD, "top", "--socket", supervisor.path])
    with Tmux(tmp_path) as tmux:
        script = f"{command}; echo code $?; stty -g | cmp - {tmp_path}/mode && echo same"
        tmux.enter(f"clear; stty -g >{tmp_path}/mode; echo before; {script}")
        lines = tmux.sees("thumbnail", "120 jobs running", "H:host:0", r"\x1b[2J")
        assert lines[0].startswith("geard 0.1.0  running")
        assert lines[23].startswith("q quit")
        assert max(map(len, lines)) <= 80
        assert "before" not in lines
        tmux.type("sss")
        tmux.sees("P50▼")
        tmux.do("resize-window", "-x", "140", "-y", "40")
        lines = tmux.sees("H:host:9")
        eventually(lambda: tmux.screen.split("\n")[39].startswith("q quit"), what="the keys at the foot")
        tmux.do("send-keys", "Tab")
        tmux.sees("Tab functions", without="H:host:0")
        tmux.type("p")
        paused = tmux.sees("PAUSED")
        supervisor.last_refusal = "reload refused: no 'shuot'"
        tmux.type("x")
        assert tmux.screen.split("\n")[:20] == paused[:20]
        tmux.type("p")
        tmux.sees("reload refused: no 'shuot'", without="PAUSED")
        tmux.do("send-keys", "C-z")
        tmux.sees("before", "same", without="thumbnail")
        tmux.enter("clear; fg")
        tmux.sees("thumbnail", "reload refused", without="fg")
        tmux.type("q")
        tmux.sees("$", without="thumbnail")
        tmux.enter(f"clear; {script}")
        tmux.sees("thumbnail")
        tmux.type("q")
        tmux.sees("code 0", "same", without="thumbnail")
        tmux.enter(f"clear; {script}")
        tmux.sees("thumbnail")
        tmux.do("send-keys", "C-c")
        tmux.sees("interrupted", f"code {exits.INTERRUPTED}", "same", without="thumbnail")
        tmux.enter(f"clear; {script}")
        tmux.sees("thumbnail")
        tmux.do("send-keys", "C-\\")
        tmux.sees(f"code {128 + signal.SIGQUIT}", "same", without="thumbnail")


def test_it_says_that_the_daemon_is_gone_and_comes_back_by_itself(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    with Running("top", "--socket", path, "-n", "100ms", terminal=True) as top:
        top.sees("waiting for the daemon.*no supervisor answers")
        with FakeSupervisor(path) as supervisor:
            supervisor.count("first", done=1)
            top.sees("All is well")
            supervisor.mute = True
            top.press("s")  # while nobody answers, keys still do
            top.sees("FAIL/S▼")
        top.sees("last heard at .*the daemon does not answer")
        with FakeSupervisor(path) as supervisor:
            supervisor.count("second", done=1)
            top.sees("second")
        top.process.terminate()
        assert top.ends() == 128 + 15
        assert top.screen.endswith("\x1b[?25h\x1b[?1049l")


def test_once_and_json_are_for_scripts(supervisor: FakeSupervisor) -> None:
    where = ("--socket", supervisor.path)
    supervisor.count(HOSTILE, done=1)
    once = geard("top", "--once", *where)
    assert (once.returncode, once.stderr) == (exits.DONE, b"")
    assert rb"\x1b]0;owned" in once.stdout
    assert b"\x1b" not in once.stdout
    told = json.loads(geard("top", "--once", "--json", *where).stdout)
    assert told["functions"]["thumbnail"]["done_per_second"] > 0
    assert told["jobs"]["total"] == 120
    with Running("top", "--json", "-n", "50ms", *where) as top:
        assert top.process.stdout
        assert [json.loads(top.process.stdout.readline())["pid"] for _ in range(3)] == [4700] * 3
    piped = geard("top", *where)
    assert piped.returncode == exits.USAGE
    assert b"--once" in piped.stderr
    gone = geard("top", "--once", "--socket", "/nowhere/s.sock")
    assert gone.returncode == exits.UNAVAILABLE


def test_the_traceback_of_a_real_daemons_failure(tmp_path: Path) -> None:
    with Embedded() as server, Daemon(server) as daemon:
        daemon.start()
        with Client(server.address) as client:
            for workload in ("not-two-words", "three more words"):
                with pytest.raises(JobException):
                    client.run("sleep", workload)
        eventually(lambda: len(json.loads(daemon.geard("failures", "--json").stdout)) == 2, what="two failures")
        shown = daemon.geard("failures", "sleep", "-n", "2").stdout
        first, second = shown.index("not enough values"), shown.index("too many values")
        assert first < second
        assert "in sleep\n        name, seconds = workload.split()" in shown
        assert daemon.geard("failures", "count").stderr == "no failures of count\n"
        told = json.loads(daemon.geard("top", "--once", "--json").stdout)
        assert (told["functions"]["sleep"]["failed"], told["job_servers"][server.address]["connected"]) == (2, 1)
        daemon.stop()
