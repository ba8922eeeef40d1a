"""The daemon of the demo: `geard run --embedded` with a config made for it."""

from __future__ import annotations

import socket
from typing import Final

from geard.cli.temporary import TemporaryDaemon
from geard.client.admin import Admin
from geard.errors import ConnectionLost

CAPABILITIES: Final = """\
  reverse: geard.examples.reverse
  upper_lines: geard.examples.upper_lines
  count_slowly: geard.examples.count_slowly
  divide: {function: geard.examples.divide, encoding: json}
  fail: geard.examples.fail
"""
"""The part of the config that a user writes."""
_CONFIG: Final = """\
job_servers: ["{address}"]
capabilities:
{capabilities}
control_socket: {control_socket}
logging: {{file: {log}}}
shutdown_timeout: 0s
"""
"""At the end nobody waits for a job any more, so a stop need not."""


class DemoDaemon(TemporaryDaemon):
    """A context manager: within, `start` starts the daemon; after, it is gone."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{_free_port()}"
        super().__init__("geard-demo-")

    def __enter__(self) -> DemoDaemon:
        return self

    def start(self) -> None:
        """Start it, and wait until it takes jobs. Raises GeardError with what it said if it does not."""
        config = self.directory / "geard.yaml"
        config.write_text(
            _CONFIG.format(
                address=self.address,
                control_socket=self.control_socket,
                log=self.log,
                capabilities=CAPABILITIES.rstrip(),
            )
        )
        self.launch("-m", "geard", "run", "--embedded", "-c", str(config))
        self.wait_until(self._serves)

    def _serves(self) -> bool:
        try:
            with Admin(self.address) as admin:
                return sum(row.workers > 0 for row in admin.status()) == len(CAPABILITIES.splitlines())
        except ConnectionLost:
            return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
