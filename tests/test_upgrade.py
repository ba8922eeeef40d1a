"""New code of geard under a supervisor of the old, and the old under new."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from geard import __version__, exits, messages
from geard.cli.control import other_version
from geard.config.model import Capability, Config
from geard.messages import CannotStart, Start
from tests.support.daemon import Daemon


def start_line(**changes: object) -> bytes:
    config = Config(capabilities={"reverse": Capability("geard.examples.reverse")})
    return messages.dump(Start(config, 1, 1, **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "line",
    [start_line(protocol=99, version="9.9"), b'{"type":"Begin","version":"9.9"}\n', b'{"number":1}\n', b"hello\n"],
)
def test_a_worker_process_that_does_not_understand_its_supervisor_says_so(line: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        command = [
            sys.executable,
            "-P",
            "-m",
            "gevent.monkey",
            "--module",
            "geard.worker.process",
            str(theirs.fileno()),
        ]
        with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
            ours.sendall(line)
            answer = messages.load_from_child(ours.makefile("rb").readline())
            assert process.wait(30) == exits.FAILED
    assert isinstance(answer, CannotStart)
    assert answer.incompatible
    assert f"this process is geard {__version__} and cannot work under a supervisor of" in answer.problems[0].message
    assert "restart" in answer.problems[0].hint


def test_a_start_of_a_version_that_only_says_more_is_understood() -> None:
    more = start_line().replace(b'"number":1', b'"number":1,"colour":"blue"')
    assert isinstance(messages.load_start(more), Start)


def test_the_commands_tell_a_supervisor_of_another_version() -> None:
    assert other_version(__version__) == other_version("") == ""
    assert other_version("0.0.1") == (
        f"the supervisor is geard 0.0.1 and this is geard {__version__}: restart it to upgrade"
    )
    with Daemon(None) as daemon:
        old = daemon.directory / "old"
        old.mkdir()
        code = "import geard; geard.__version__ = '0.0.1'; from geard.cli import main; main()"
        (old / "run").write_text(code)
        log = daemon.log_path.open("ab")
        with log:
            daemon.process = subprocess.Popen(
                [sys.executable, str(old / "run"), "run", "-c", str(daemon.config_path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": os.getcwd()},
            )
        daemon.wait_for("generation 1 serves")
        for command in ("ps", "reload"):
            said = daemon.geard(command)
            assert said.returncode == exits.DONE
            assert other_version("0.0.1") in said.stderr
        assert daemon.stop() == 0
