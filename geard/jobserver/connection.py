"""One connection to the job server: bytes in from its socket, its outbox out.

Rules:
- Nothing blocks: the socket is non-blocking, and the loop's watchers say when to go on.
- What the peer does not read is kept up to a limit, and while it does not read we do not read from it: a peer that only
  asks cannot make us hold its answers.
- A peer that stops in the middle of a packet, or does not read, is dropped after `stall_timeout_seconds`; an idle one
  may stay for ever.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from geard.errors import ConnectionLost, ProtocolError
from geard.jobserver.admin import RemotePeer
from geard.protocol import REQUEST, Decoder

READ_BYTES: Final = 128 * 1024
READABLE: Final = 1
WRITABLE: Final = 2


class Connection(RemotePeer):
    """A peer with its socket."""

    __slots__ = ("_backlog", "_backlog_bytes", "_max_backlog_bytes", "_reader", "_writer", "decoder", "quiet", "sock")

    def __init__(
        self, sock: socket.socket, host: str, *, max_packet_bytes: int, loop: Any, on_readable: Callable[..., None]
    ) -> None:
        super().__init__(sock.fileno(), host)
        self.sock = sock
        self.decoder = Decoder(REQUEST, max_packet_bytes=max_packet_bytes, text=True)
        self.quiet = 0  # sweeps since it last read or wrote a byte
        self._backlog: deque[memoryview] | None = None  # what the socket did not take yet
        self._backlog_bytes = 0
        self._max_backlog_bytes = 2 * max_packet_bytes
        self._writer: Any = None
        self._reader = loop.io(sock.fileno(), READABLE)
        self._reader.start(on_readable, self)

    def __repr__(self) -> str:
        return f"<Connection {self.fileno} from {self.host} {self.client_id.decode(errors='replace')}>"

    def receive(self) -> bytes | None:
        """What has arrived; None if nothing has. Raises ConnectionLost."""
        try:
            data = self.sock.recv(READ_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise ConnectionLost(f"{self}: {error}") from error
        if not data:
            raise ConnectionLost(f"{self} closed")
        self.quiet = 0
        return data

    @property
    def has_more(self) -> bool:
        """Whether OpenSSL holds bytes that the loop does not know of."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    @property
    def is_stalled(self) -> bool:
        """Whether the peer owes us something: the rest of a packet or of a handshake, or to read."""
        if self._backlog or self.decoder.in_packet:
            return True
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.version() is None

    def flush(self, loop: Any, on_writable: Callable[..., None]) -> None:
        """Send the outbox as far as the peer reads; `on_writable` is called when it reads again.

        Raises ConnectionLost, also when it leaves too much unread."""
        outbox = self.outbox
        data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        if not self._backlog:
            sent = self._send(data)
            if sent == len(data):
                return
            self._backlog = deque([memoryview(data)[sent:]])
            self._backlog_bytes = len(data) - sent
            if self._writer is None:
                self._writer = loop.io(self.fileno, WRITABLE)
            self._writer.start(on_writable, self)
            self._reader.stop()
            return
        self._backlog.append(memoryview(data))
        self._backlog_bytes += len(data)
        if self._backlog_bytes > self._max_backlog_bytes:
            raise ProtocolError(f"{self} leaves {self._backlog_bytes} bytes unread")

    def resume(self, on_readable: Callable[..., None]) -> None:
        """The peer reads again: send on, and read from it again once all is sent. Raises ConnectionLost."""
        backlog = self._backlog
        while backlog:
            sent = self._send(backlog[0])
            self._backlog_bytes -= sent
            if sent < len(backlog[0]):
                backlog[0] = backlog[0][sent:]
                return
            backlog.popleft()
        self._backlog = None
        self._writer.stop()
        self._reader.start(on_readable, self)

    def close(self) -> None:
        """Close the socket and forget what was to be sent."""
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._backlog = None
        self.sock.close()

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise ConnectionLost(f"{self}: {error}") from error
        self.quiet = 0
        return sent
