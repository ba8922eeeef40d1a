"""`geard monitor` as a process, and what is asked of it."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.support.logpipe import LogPipe
from tests.support.servers import HOST, free_port, stop_process
from tests.support.waiting import eventually


class MonitorProcess:
    """A monitor of a supervisor on `socket`. A context manager."""

    def __init__(
        self,
        socket: str,
        job_servers: list[str],
        *,
        trusted: str = "",
        dead_letters: str = "",
        **monitor: Any,
    ) -> None:
        """`trusted`: the PEM file of the authority that signs what we and it talk to. `dead_letters`: their
        file. The rest is the `monitor` of its config."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="geard-test-"))
        config = {
            "job_servers": job_servers,
            "control_socket": socket,
            "capabilities": {"resize": "tasks.resize"},
            "monitor": {"listen": f"{HOST}:{self.port}"} | monitor,
            **({"dead_letters": dead_letters} if dead_letters else {}),
        }
        self.config = self.directory / "geard.yaml"
        self.config.write_text(yaml.safe_dump(config))
        self.scheme = "https" if "certificate" in monitor else "http"
        self.url = f"{self.scheme}://{HOST}:{self.port}{monitor.get('base_path', '')}"
        self._trusted = trusted
        self._listen = str(monitor.get("listen", ""))
        self.process: subprocess.Popen[bytes] | None = None
        self._log = LogPipe()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """Status and body."""
        return self.request("GET", path, headers=headers)

    def json(self, path: str) -> Any:
        return json.loads(self.get(path)[1])

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        context = ssl.create_default_context(cafile=self._trusted) if self.scheme == "https" else None
        asked = urllib.request.Request(self.url + path, body, headers or {}, method=method)
        try:
            with urllib.request.urlopen(asked, timeout=30, context=context) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    @property
    def log(self) -> str:
        return self._log.text

    def _is_up(self) -> bool:
        assert self.process
        assert self.process.poll() is None, self.log
        if "/" in self._listen:
            return "the monitor serves" in self.log
        try:
            return self.get("/health/live")[0] in (200, 503, 421)
        except (OSError, http.client.HTTPException):
            return False

    def start(self) -> None:
        command = [sys.executable, "-m", "geard", "monitor", "-c", str(self.config)]
        environ = os.environ | ({"SSL_CERT_FILE": self._trusted} if self._trusted else {})
        null, log = subprocess.DEVNULL, self._log.fileno()
        self.process = subprocess.Popen(command, stdin=null, stdout=log, stderr=log, env=environ)
        eventually(self._is_up, what=f"the monitor on {self.url}")

    def stop(self) -> None:
        assert self.process
        stop_process(self.process)

    def __enter__(self) -> MonitorProcess:
        self.start()
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self.stop()
        if error:
            print(self.log)
        self._log.close()
        shutil.rmtree(self.directory, ignore_errors=True)
