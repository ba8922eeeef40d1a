"""A TCP proxy with weather: delays, small pieces, stalls and resets between a Gearman peer and its job server."""

from __future__ import annotations

import random
import socket
import struct
import threading
import time
from dataclasses import dataclass

from tests.support.servers import HOST

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST and drops what is unsent


@dataclass
class Weather:
    """What happens to each piece that passes. May be changed while connections are open."""

    delay_seconds: float = 0.0  # each piece waits a random time up to this
    piece_bytes: int = 65536  # each read takes at most so many bytes
    stall_chance: float = 0.0  # of each piece
    stall_seconds: float = 0.0


class Proxy:
    """Forwards connections to `address`, as the weather has it. A context manager."""

    def __init__(self, address: str, weather: Weather, seed: int = 0) -> None:
        host, port = address.rsplit(":", 1)
        self._target = (host, int(port))
        self.weather = weather
        self._random = random.Random(seed)
        self._listener = socket.create_server((HOST, 0), backlog=512)
        self.address = f"{HOST}:{self._listener.getsockname()[1]}"
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.resets = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        """Break every connection, with what is on its way."""
        self.resets += self._break_all()

    def close(self) -> None:
        """Accept no more, and break what is open."""
        self._listener.close()
        self._break_all()

    def _break_all(self) -> int:
        with self._lock:
            sockets, self._sockets = self._sockets, set()
        for sock in sockets:
            _break(sock)
        return len(sockets) // 2

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, 5)
            except OSError:
                _break(near)
                continue
            far.settimeout(None)
            for sock in (near, far):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._forward, args=(source, sink), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(self.weather.piece_bytes):
                weather = self.weather
                if weather.delay_seconds:
                    time.sleep(self._random.random() * weather.delay_seconds)
                if self._random.random() < weather.stall_chance:
                    time.sleep(weather.stall_seconds)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            with self._lock:
                self._sockets -= {source, sink}
            _break(source)
            _break(sink)


def _break(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it
    except OSError:
        pass
    sock.close()
