"""The README, run as it stands: its files are written, its commands run, and their output is what it shows.

A block ```yaml geard.yaml or ```python tasks.py is that file. A block ```console is a session: lines with `$ ` are
commands, the others what they print, where numbers may differ, and `...` stands for anything. Blocks ```sh are for a
machine of one's own (apt-get, systemd) and are not run here. Everything runs in a directory of its own, on a free port
in the place of 4730.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from geard import exits
from tests.support.servers import free_port
from tests.support.waiting import eventually

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"^```(?P<kind>\w+)(?: (?P<file>[\w.]+))?\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of the README that is run."""

    line: int
    kind: str
    file: str
    body: str


def blocks() -> Iterator[Block]:
    text = README.read_text()
    for match in BLOCK.finditer(text):
        if match["file"] or match["kind"] == "console":
            line = text.count("\n", 0, match.start()) + 1
            yield Block(line, match["kind"], match["file"] or "", match["body"])


def steps(session: str) -> Iterator[tuple[str, str]]:
    """Each command of a session with the output that it shows."""
    for part in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        while command.endswith("\\"):
            more, _, output = output.partition("\n")
            command = f"{command[:-1]}{more.strip()}"
        yield command, output


def pattern_of(output: str) -> str:
    """What is shown, as a pattern: any number for a number, any white space for white space, anything for `...`."""
    pattern = re.escape(output.strip())
    pattern = re.sub(r"\\\.\\\.\\\.", ".*", pattern)
    pattern = re.sub(r"\d+(?:\\\.\d+)*", r"[\\d.]+", pattern)
    return re.sub(r"(?:\\?\s)+", r"\\s+", pattern)


class Session:
    """A shell's worth of state: a directory, an environment and what was started in the background."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        scripts = str(Path(sys.executable).parent)
        self.environment = {
            **os.environ,
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "XDG_RUNTIME_DIR": str(directory),
            "GEARMAN_SERVERS": f"localhost:{self.port}",
            "COLUMNS": "120",
        }
        self.environment.pop("RUNTIME_DIRECTORY", None)
        self.started: list[subprocess.Popen[bytes]] = []

    def mine(self, text: str) -> str:
        return text.replace("4730", str(self.port))

    def run(self, command: str, shown: str, line: int) -> None:
        if command.endswith("&"):
            self.start(command.removesuffix("&"))
            return
        done = subprocess.run(
            ["bash", "-c", self.mine(command)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        printed = done.stdout.decode()
        assert re.fullmatch(pattern_of(shown), printed.strip(), re.DOTALL), (
            f"README.md:{line}: `{command}` shows\n{shown}\nbut printed (exit {done.returncode})\n{printed}"
        )

    def start(self, command: str) -> None:
        log_file = self.directory / f"background{len(self.started)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {self.mine(command)}"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.started.append(process)
        ready = "serves:" if "geard run" in command else "job server on"
        eventually(lambda: ready in log_file.read_text(), what=f"`{command}` writing {ready!r}")

    def close(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.started:
            process.wait(30)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    session = Session(tmp_path)
    yield session
    session.close()


def test_the_readme_runs_as_it_stands(session: Session) -> None:
    ran = 0
    for block in blocks():
        if block.file:
            (session.directory / block.file).write_text(session.mine(block.body))
            continue
        for command, shown in steps(block.body):
            session.run(command, shown, block.line)
            ran += 1
    assert ran >= 10, "the README has lost its sessions"


def test_the_readme_names_no_command_or_file_that_there_is_not() -> None:
    text = README.read_text()
    for path in set(re.findall(r"`((?:etc|systemd|geard|tests|docs)/[\w./@-]*)`", text)):
        assert (README.parent / path).exists(), path
    from geard.cli import COMMANDS

    for command in set(re.findall(r"`geard ([a-z]+)", text)):
        assert command in COMMANDS, command


def test_the_readme_has_every_exit_code() -> None:
    table = README.read_text().partition("| code | meaning |")[2].partition("\n\n")[0]
    shown = {int(code) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in row.split(",")}
    assert shown == set(exits.MEANINGS)
