"""Documents that are run as they stand: their files are written, their commands run, their output is what they show.

A block ```yaml title="geard.yaml" or ```python title="tasks.py" is that file. A block ```console is a session: lines
with `$ ` are commands, the others what they print, where numbers may differ, and `...` stands for anything. A block
```sh is for a machine of one's own (apt-get, systemd) and is not run, a block ```py is code of another library.
Everything runs in a directory of its own, on a free port in the place of 4730.
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

from tests.support.servers import free_port
from tests.support.waiting import eventually

ROOT = Path(__file__).parent.parent.parent
DOCUMENTS = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
BLOCK = re.compile(
    r'^(?P<indent> *)```(?P<kind>\w+)(?: title="(?P<file>[\w./@-]+)")?\n(?P<body>.*?)^ *```$', re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """A fenced block of a document."""

    line: int
    kind: str
    file: str
    body: str


def blocks(document: Path) -> Iterator[Block]:
    text = document.read_text()
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        body = re.sub(f"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        yield Block(line, match["kind"], match["file"] or "", body)


def those(kind: str) -> Iterator[tuple[str, Block]]:
    """The blocks of a kind in all documents, each with its place."""
    for document in DOCUMENTS:
        for block in blocks(document):
            if block.kind == kind:
                yield f"{document.name}:{block.line}", block


def configs() -> Iterator[tuple[str, str]]:
    """Every config of the documents with its place, but for the tutorial's example of a broken one; what is only a part
    of one has a capability added."""
    for place, block in those("yaml"):
        if block.file in ("", "geard.yaml") and "shuot" not in block.body:
            whole = "capabilities:" in block.body
            yield place, block.body if whole else f"{block.body}\ncapabilities: {{reverse: geard.examples.reverse}}\n"


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

    def __init__(self, document: Path, directory: Path) -> None:
        self.document = document
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

    def follow(self) -> None:
        """Do what the document says, from its top to its end."""
        for block in blocks(self.document):
            if block.file:
                file = self.directory / block.file
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(self.mine(block.body))
            elif block.kind == "console":
                for command, shown in steps(block.body):
                    self.run(command, shown, block.line)

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
            f"{self.document.name}:{line}: `{command}` shows\n{shown}\nbut printed (exit {done.returncode})\n{printed}"
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
