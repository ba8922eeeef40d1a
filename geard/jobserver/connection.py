"""One connection to the job server: bytes in from its socket, its outbox and the answers to its admin commands out.

Rules:
- Nothing blocks: the socket is non-blocking, and the loop's watchers say when to go on.
- While a peer has something to read, is being answered in pieces, or has asked for more than a turn's worth, nothing is
  read from it, nor done of what it asked: its answers are made as they can be sent.
- What others send to it is kept up to a limit of bytes of memory; then it is dropped. A packet that it gets many times
  is held once.
- A peer that stops in the middle of a packet, or does not read, is dropped after `stall_timeout_seconds`; an idle one
  may stay for ever.
"""

from __future__ import annotations

import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from geard.errors import ConnectionLost, ProtocolError
from geard.jobserver.admin import RemotePeer
from geard.printable import printable
from geard.protocol import REQUEST, Decoder

READ_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 256 * 1024
"""Given to the socket at a time, in as many packets as it takes."""
TURN_BYTES: Final = 4 * 1024 * 1024
"""Sent to a peer before others have their turn."""
PIECES_BYTES: Final = 32 * 1024
"""Of an answer in pieces, made before it is sent."""
ENTRY_BYTES: Final = 64
"""What a packet that waits costs beside its bytes."""
READABLE: Final = 1
WRITABLE: Final = 2


class Connection(RemotePeer):
    """A peer with its socket."""

    __slots__ = (
        "_after",
        "_after_bytes",
        "_backlog",
        "_held_bytes",
        "_last_in",
        "_last_out",
        "_max_held_bytes",
        "_on_writable",
        "_reader",
        "_reading",
        "_sent",
        "_writer",
        "answer",
        "blocked",
        "decoder",
        "has_requests",
        "in_line",
        "quiet",
        "sock",
    )

    def __init__(
        self,
        sock: socket.socket,
        host: str,
        *,
        max_packet_bytes: int,
        loop: Any,
        on_readable: Callable[[Connection], None],
        on_writable: Callable[[Connection], None],
    ) -> None:
        super().__init__(sock.fileno(), host)
        self.sock = sock
        self.decoder = Decoder(REQUEST, max_packet_bytes=max_packet_bytes, text=True)
        self.quiet = 0  # sweeps since it last read or wrote a byte
        self.answer: Iterator[bytes] | None = None  # to an admin command, as far as it was not made yet
        self.has_requests = False  # in the decoder, which wait for a turn
        self.blocked = False  # the socket takes nothing more, until it says so
        self.in_line = False  # for a turn: the job server's own mark
        self._after: list[bytes] = []  # packets that came while an answer is being made
        self._after_bytes = 0
        self._backlog = _NOTHING  # what was taken from the outbox or made, and is not sent
        self._sent = 0  # bytes of the first in there that are sent
        self._held_bytes = 0  # what the backlog takes
        self._max_held_bytes = 2 * max_packet_bytes
        self._last_in: bytes | None = None  # the newest of the backlog
        self._last_out: bytes | None = None  # what was sent before the oldest of the backlog
        self._on_writable = on_writable
        self._writer: Any = None
        self._reading = True
        self._reader = loop.io(sock.fileno(), READABLE)
        self._reader.start(on_readable, self)

    def __repr__(self) -> str:
        return f"<Connection {self.fileno} from {self.host} {printable(self.client_id.decode(errors='replace'))}>"

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
        if self.blocked or (self.decoder.in_packet and not self.has_requests):
            return True
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.version() is None

    @property
    def has_answers(self) -> bool:
        """Whether there is something to send, or to make and send."""
        return bool(self._backlog or self.outbox) or self.answer is not None

    def read_on(self, on_readable: Callable[[Connection], None]) -> None:
        """Read from the peer, if and only if all that it asked for is done and sent."""
        wanted = not (self.has_requests or self._backlog) and self.answer is None
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._reader.start(on_readable, self)
            else:
                self._reader.stop()

    def write(self, loop: Any) -> bool:
        """Send what there is, up to a turn's worth or as much as the peer reads: then it is `blocked`. True if that was
        all. Raises ConnectionLost, also when it leaves too much unread."""
        outbox = self.outbox
        if not self._backlog and self.answer is None:
            if len(outbox) == 1:
                data = outbox[0]
                small = len(data) <= SEND_BYTES
            else:
                small = sum(map(len, outbox)) <= SEND_BYTES
                data = b"".join(outbox) if small else b""
            if small:
                outbox.clear()
                sent = self._send(data)
                if sent == len(data):
                    return True
                self._keep(data)
                self._sent = sent
                self._wait_until_writable(loop)
                return False
        self._take_outbox()
        budget = TURN_BYTES
        self._make_pieces()
        while budget > 0 and not self.blocked and self._backlog:
            piece = self._piece()
            sent = self._send(piece)
            self._let_go(sent)
            if sent < len(piece):
                self._wait_until_writable(loop)
            budget -= len(piece)
        held = self._held_bytes + self._after_bytes
        if held > self._max_held_bytes:
            raise ProtocolError(f"{self} leaves {held} bytes unread")
        return not self._backlog and self.answer is None

    def close(self) -> None:
        """Close the socket and forget what was to be sent."""
        for watcher in (self._reader, self._writer):
            if watcher is not None:
                watcher.stop()
                watcher.close()
        self._backlog.clear()
        self.answer = None
        self.has_requests = False
        self.sock.close()

    def _make_pieces(self) -> None:
        """Make some more of the answer if all that was made is sent; take what came meanwhile when it is whole."""
        if self.answer is None or self._backlog:
            return
        made = 0
        for piece in self.answer:
            if piece:
                self._keep(piece)
            made += len(piece) + ENTRY_BYTES  # a piece may be empty: it took its time all the same
            if made > PIECES_BYTES:
                return
        self.answer = None
        for packet in self._after:
            self._keep(packet)
        self._after, self._after_bytes = [], 0

    def _take_outbox(self) -> None:
        if self.answer is None:
            for packet in self.outbox:
                self._keep(packet)
        else:  # it stays in one piece
            self._after += self.outbox
            self._after_bytes += sum(map(len, self.outbox)) + len(self.outbox) * ENTRY_BYTES
        self.outbox.clear()

    def _keep(self, data: bytes) -> None:
        self._held_bytes += ENTRY_BYTES if data is self._last_in else len(data) + ENTRY_BYTES
        self._last_in = data
        if not self._backlog:
            self._backlog = deque()  # of its own: see _NOTHING
        self._backlog.append(data)

    def _piece(self) -> bytes | memoryview:
        """What to give the socket next."""
        backlog = self._backlog
        if self._sent or len(backlog) == 1 or len(backlog[0]) > SEND_BYTES:
            return memoryview(backlog[0])[self._sent : self._sent + SEND_BYTES]
        parts, size = [], 0
        for part in backlog:
            size += len(part)
            if size > SEND_BYTES:
                break
            parts.append(part)
        return b"".join(parts)

    def _let_go(self, sent: int) -> None:
        """So much of the backlog was sent."""
        backlog = self._backlog
        sent += self._sent
        while backlog and sent >= len(backlog[0]):
            data = backlog.popleft()
            sent -= len(data)
            self._held_bytes -= ENTRY_BYTES if data is self._last_out else len(data) + ENTRY_BYTES
            self._last_out = data
        self._sent = sent
        if not backlog:
            self._last_in = self._last_out = None

    def _wait_until_writable(self, loop: Any) -> None:
        self.blocked = True
        if self._writer is None:
            self._writer = loop.io(self.fileno, WRITABLE)
        self._writer.start(self._writable)

    def _writable(self) -> None:
        self.blocked = False
        self._writer.stop()
        self._on_writable(self)

    def _send(self, data: bytes | memoryview) -> int:
        try:
            sent = self.sock.send(data)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            raise ConnectionLost(f"{self}: {error}") from error
        self.quiet = 0
        return sent


_NOTHING: Final[deque[bytes]] = deque(maxlen=0)
"""The backlog of every connection that has never had one: most of thousands. Nothing can be put in."""
