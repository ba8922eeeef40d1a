"""What a benchmark that was interrupted has left in a job server: it is taken out again.

Rule: jobs are grabbed and answered, as a worker would. To drop the function would leave them in a queue on disk, and
the embedded job server does not drop one that has jobs.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from typing import Final

from geard.client.admin import Admin
from geard.config import JobServer
from geard.config.keys import MAX_PACKET_BYTES
from geard.connection import Connection
from geard.errors import ConnectionLost, GeardError, ServerError, ServerTimeout
from geard.protocol import RESPONSE, Command, Decoder, Packet, request

LOT: Final = 100
PATIENCE_SECONDS: Final = 60.0
LOOK_SECONDS: Final = 0.05


def remove(server: JobServer, function: str, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Take all jobs of `function` out of the job server, and the function too. Raises GeardError with what is left
    when that has not come to an end within the time, or the job server is gone."""
    deadline = time.monotonic() + patience_seconds
    try:
        with Admin(server) as admin:
            while True:
                if not any(row.function == function for row in admin.status()):
                    return
                with suppress(ServerTimeout):
                    _discard(server, function, deadline)
                with suppress(ServerError):  # a worker that has just ended is still known, or a job has come back
                    if not _left(admin, function):
                        admin.drop_function(function)
                        continue
                if time.monotonic() > deadline:
                    raise GeardError(f"{_left(admin, function):,} jobs of {function} are left in {server}")
                time.sleep(LOOK_SECONDS)
    except ConnectionLost as error:
        raise ConnectionLost(f"jobs of {function} may be left in {server}: {error}") from error


def _left(admin: Admin, function: str) -> int:
    return sum(row.total for row in admin.status() if row.function == function)


def _discard(server: JobServer, function: str, deadline: float) -> None:
    """Complete the jobs that wait, until there are none. Raises ServerTimeout when the time is over."""
    with Connection.dial(server) as connection:
        packets = _packets(connection, deadline)
        connection.send(request(Command.CAN_DO, function.encode()))
        answers = [b""]
        while answers:
            connection.send(request(Command.GRAB_JOB) * LOT)
            grabbed = [packet for packet in islice(packets, LOT) if packet.command is Command.JOB_ASSIGN]
            answers = [request(Command.WORK_COMPLETE, job.handle, b"") for job in grabbed]
            connection.send(b"".join(answers))
        connection.send(request(Command.ECHO_REQ, b""))
        next(packets)  # its echo, after which all results have been read


def _packets(connection: Connection, deadline: float) -> Iterator[Packet]:
    decoder = Decoder(RESPONSE, max_packet_bytes=MAX_PACKET_BYTES)
    while True:
        data = connection.receive(max(deadline - time.monotonic(), 0.001))
        if data is None:
            raise ServerTimeout(f"{connection.server} does not answer")
        decoder.feed(data)
        yield from decoder
