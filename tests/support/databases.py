"""Servers that capabilities talk to, on free loopback ports: Debian's redis-server and postgresql, and a web server."""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from glob import glob
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from types import TracebackType

from tests.support.servers import HOST, free_port, need, stop_process
from tests.support.waiting import eventually


class Server:
    """A program with a directory of its own. A context manager."""

    user: str | None = None  # to run as, where we are root

    def __init__(self) -> None:
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="geard-test-"))
        if self.user:
            shutil.chown(self.directory, self.user, self.user)
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def answers(self) -> bool:
        """Whether it can be asked yet."""
        raise NotImplementedError

    def run(self, *command: str) -> subprocess.CompletedProcess[bytes]:
        """Run a program as the server's user."""
        return subprocess.run(
            command, capture_output=True, check=True, cwd=self.directory, user=self.user, group=self.user
        )

    def __enter__(self) -> Server:
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, user=self.user, group=self.user
            )
        eventually(self.answers, what=f"an answer of {self.command()[0]}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._process
        stop_process(self._process)
        shutil.rmtree(self.directory, ignore_errors=True)


class Redis(Server):
    def __init__(self) -> None:
        need("redis-server")
        super().__init__()
        self.url = f"redis://{HOST}:{self.port}"

    def command(self) -> list[str]:
        return ["redis-server", "--bind", HOST, "--port", str(self.port), "--save", "", "--appendonly", "no"]

    def answers(self) -> bool:
        return b"PONG" in self.ask("PING")

    def ask(self, *words: str) -> bytes:
        """What redis-cli prints."""
        done = subprocess.run(["redis-cli", "-h", HOST, "-p", str(self.port), *words], capture_output=True, check=False)
        return done.stdout


class Postgres(Server):
    def __init__(self) -> None:
        programs = sorted(glob("/usr/lib/postgresql/*/bin/postgres"))
        need(programs[-1] if programs else "postgres")
        self._programs = Path(programs[-1]).parent
        self.user = "postgres" if os.geteuid() == 0 else None
        super().__init__()
        initdb = str(self._programs / "initdb")
        self.run(initdb, "--pgdata=data", "--auth=trust", "--username=geard", "--no-sync", "--encoding=UTF8")
        self.url = f"postgresql://geard@{HOST}:{self.port}/postgres"

    def command(self) -> list[str]:
        settings = {"listen_addresses": HOST, "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return [str(self._programs / "postgres"), "-D", "data", *options]

    def answers(self) -> bool:
        command = [str(self._programs / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


class _Later(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Web)
        self.server.released.wait()
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"page")

    def log_message(self, *arguments: object) -> None:
        """Not into the output of the tests."""


class Web(socketserver.ThreadingTCPServer):
    """A web server that answers once it is `released`. A context manager."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), _Later)
        self.released = threading.Event()
        self.url = f"http://{HOST}:{self.server_address[1]}/"
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()


def need_modules(*names: str) -> Sequence[str]:
    """As `need`, for Python packages."""
    from importlib.util import find_spec

    missing = [name for name in names if not find_spec(name)]
    need(*missing)  # a package that is missing is no program either
    return names
