"""Peers that mean harm: to the job server, to the worker, to the client. None of them may hold up anybody else."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable

from geard.client import Client
from geard.errors import GeardError
from geard.protocol import FIELDS, REQUEST, RESPONSE, Command, encode
from tests.support.servers import HOST

CLIENT_SECONDS = 0.5
"""The time limit of each call to a job server that sends rubbish."""


def rubbish(rng: random.Random, magic: bytes) -> bytes:
    """Bytes at random, headers that lie, or packets that are well-formed and make no sense."""
    kind = rng.randrange(4)
    if kind == 0:
        return rng.randbytes(rng.randrange(1, 200))
    if kind == 1:
        return magic + rng.randrange(60).to_bytes(4, "big") + rng.randrange(2**32).to_bytes(4, "big")
    command = rng.choice([command for command in FIELDS if command is not Command.UNUSED])
    fields = [rng.randbytes(rng.randrange(12)).replace(b"\0", b"0") for _ in FIELDS[command]]
    packet = encode(magic, command, *fields)
    return packet if kind == 2 else packet[: rng.randrange(len(packet) + 1)]


class RubbishServer:
    """A job server that answers everybody with rubbish. A context manager."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._listener = socket.create_server((HOST, 0), backlog=64)
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> RubbishServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(5)
            try:
                while connection.recv(65536):
                    connection.sendall(rubbish(self._random, RESPONSE))
            except OSError:
                return


class Vandals:
    """Threads that go on until the end of the context, each with one kind of bad manners."""

    def __init__(self, address: str, rubbish_server: str, seed: int) -> None:
        host, port = address.rsplit(":", 1)
        self._target = (host, int(port))
        self._rubbish_server = rubbish_server
        self._seed = seed
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []
        self.attacks = 0
        self.late_calls: list[float] = []  # seconds of calls that took far longer than they were allowed

    def __enter__(self) -> Vandals:
        kinds = (self._stall_reading, self._send_rubbish, self._send_byte_by_byte, self._leave_in_the_middle)
        for number, kind in enumerate((*kinds, self._call_a_bad_server)):
            rng = random.Random(self._seed + number)
            thread = threading.Thread(target=self._go_on, args=(kind, rng), daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _go_on(self, attack: Callable[[random.Random], None], rng: random.Random) -> None:
        while not self._over.wait(0.05):
            self.attacks += 1
            try:
                attack(rng)
            except OSError:
                continue

    def _connect(self) -> socket.socket:
        return socket.create_connection(self._target, 5)

    def _stall_reading(self, rng: random.Random) -> None:
        """Asks for much and reads nothing of it."""
        with self._connect() as peer:
            peer.settimeout(0.2)
            for question in (b"status\n", b"workers\n", encode(REQUEST, Command.ECHO_REQ, rng.randbytes(1000))):
                peer.sendall(question * 200)
            self._over.wait(1.0)

    def _send_rubbish(self, rng: random.Random) -> None:
        with self._connect() as peer:
            peer.settimeout(0.2)
            for _ in range(20):
                peer.sendall(rubbish(rng, REQUEST))

    def _send_byte_by_byte(self, rng: random.Random) -> None:
        with self._connect() as peer:
            peer.settimeout(1.0)
            for byte in encode(REQUEST, Command.ECHO_REQ, b"slowly"):
                peer.sendall(bytes([byte]))
                time.sleep(0.005)
            peer.recv(100)

    def _leave_in_the_middle(self, rng: random.Random) -> None:
        packet = encode(REQUEST, Command.SUBMIT_JOB, b"nobody-serves-this", b"", bytes(5000))
        with self._connect() as peer:
            peer.sendall(packet + packet[: rng.randrange(len(packet))])

    def _call_a_bad_server(self, rng: random.Random) -> None:
        begin = time.monotonic()
        try:
            with Client(self._rubbish_server, connect_timeout_seconds=CLIENT_SECONDS) as client:
                client.run("count", "from a vandal", timeout=CLIENT_SECONDS)
        except GeardError:
            pass
        took = time.monotonic() - begin
        if took > 10 * CLIENT_SECONDS:  # far beyond what a loaded machine explains
            self.late_calls.append(took)
