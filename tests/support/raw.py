"""The protocol by hand: a raw peer for either end of a connection, and a scripted job server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from types import TracebackType

from geard.protocol import REQUEST, RESPONSE, Command, Decoder, Packet, encode

TIMEOUT_SECONDS = 30.0


class Peer:
    """One end of a connection, packet by packet."""

    def __init__(self, sock: socket.socket, reads: bytes) -> None:
        sock.settimeout(TIMEOUT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = sock
        self._decoder = Decoder(reads)
        self._writes = REQUEST if reads == RESPONSE else RESPONSE
        self._packets: list[Packet] = []

    @classmethod
    def connect(cls, address: str) -> Peer:
        """A client or worker of the job server at `address`."""
        host, port = address.rsplit(":", 1)
        return cls(socket.create_connection((host, int(port)), TIMEOUT_SECONDS), RESPONSE)

    def send(self, command: Command, *fields: bytes) -> None:
        self.socket.sendall(encode(self._writes, command, *fields))

    def send_bytes(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self) -> Packet:
        """The next packet. Raises EOFError at the end of the connection."""
        while not self._packets:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError
            self._decoder.feed(data)
            self._packets.extend(self._decoder)
        return self._packets.pop(0)

    def expect(self, command: Command) -> Packet:
        """The next packet, which must be of this type."""
        packet = self.receive()
        assert packet.command == command, f"expected {command.name}, got {packet}"
        return packet

    def skip_to(self, command: Command) -> Packet:
        """The next packet of this type; others before it are passed over."""
        while True:
            packet = self.receive()
            if packet.command == command:
                return packet

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ScriptedServer:
    """A fake job server: `script(peer, n)` plays the n-th connection (from 0), each in a thread of its own.

    What a script raises is kept in `errors`, but for the connection's end."""

    def __init__(self, script: Callable[[Peer, int], None]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.connections = 0
        self.errors: list[BaseException] = []
        self._peers: list[Peer] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            peer = Peer(sock, REQUEST)
            self._peers.append(peer)
            number, self.connections = self.connections, self.connections + 1
            threading.Thread(target=self._play, args=(peer, number), daemon=True).start()

    def _play(self, peer: Peer, number: int) -> None:
        try:
            self._script(peer, number)
        except (EOFError, OSError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            peer.close()

    def close(self) -> None:
        self._listener.close()
        for peer in self._peers:
            peer.close()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        assert not self.errors, self.errors
