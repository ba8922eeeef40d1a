"""What the supervisor and `geard monitor` tell a monitor at its start: one JSON object on a line."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Struct

from geard.config.model import Config, JobServer, Logging, Monitor, default_control_socket

ALIVE: Final = b"alive\n"
"""What the monitor says every ALIVE_SECONDS while its loop turns."""
ALIVE_SECONDS: Final = 5.0


class Start(Struct, frozen=True):
    """All that a monitor must know of a config."""

    monitor: Monitor
    job_servers: tuple[JobServer, ...]
    control_socket: str
    metrics_directory: str = ""  # where worker processes keep what they count with prometheus_client themselves
    logging: Logging = Logging()
    verbose: bool = False
    dead_letters: str = ""  # the SQLite file; "" for none


def start_of(config: Config, *, metrics_directory: str = "", verbose: bool = False) -> Start:
    """For the monitor of this config; on its usual address where the config has none."""
    socket = config.control_socket or default_control_socket()
    monitor = config.monitor or Monitor()
    letters = config.dead_letters.file if config.dead_letters else ""
    return Start(monitor, config.job_servers, socket, metrics_directory, config.logging, verbose, letters)


def dump(start: Start) -> bytes:
    """As a line."""
    return msgspec.json.encode(start) + b"\n"
