"""What the job server can be told, with every default and unit in one place."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

DEFAULT_LISTEN: Final = "127.0.0.1:4730"


class Options(Struct, frozen=True, kw_only=True):
    """The options of a job server."""

    queue: str | None = None  # the file that holds background jobs; None: memory only
    max_queue: int = 0  # jobs per function, the running ones included; 0: no limit
    max_packet_bytes: int = 64 * 1024 * 1024
    max_connections: int = 10_000
    job_retries: int | None = None  # a job that was handed back so often is dropped, with 0 the first time; None: never
    exceptions: bool = False  # WORK_EXCEPTION goes to every client, and not only to those that asked for it
    stall_timeout_seconds: float = 30.0  # a peer that is silent in a packet, or does not read, for so long is dropped
    tls_certificate: str | None = None  # PEM; None: no TLS
    tls_key: str | None = None  # PEM; None: it is in the certificate's file
    tls_ca: str | None = None  # PEM; clients must show a certificate signed by it; None: they need none
