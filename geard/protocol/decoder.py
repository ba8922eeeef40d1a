"""Bytes to packets, however the network cut them.

    decoder.feed(connection.receive())
    for packet in decoder:
        handle(packet)

Rules: a packet is yielded as soon as its last byte is in, and only once. The size is checked from the header, before
a byte of the body is waited for. After an error the decoder stays where it is and raises the same error again: what
follows rubbish cannot be trusted. Packets that came whole before the rubbish are yielded first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from geard.errors import PacketTooLarge, ProtocolError
from geard.protocol.packets import FIELDS, HEADER, HEADER_BYTES, RESPONSE, Command

DEFAULT_MAX_PACKET_BYTES: Final = 64 * 1024 * 1024

_KNOWN = {int(command): (command, len(fields)) for command, fields in FIELDS.items() if command != Command.UNUSED}


class Packet(NamedTuple):
    """A packet as received: its type, and its fields in the order of the table."""

    command: Command
    fields: list[bytes]

    def __getattr__(self, name: str) -> bytes:
        """A field by its name in the table: `packet.handle`. Raises AttributeError for a field it does not have."""
        try:
            return self.fields[FIELDS[self.command].index(name)]
        except ValueError:
            raise AttributeError(f"{self.command.name} has no field {name!r}") from None


class Decoder:
    """An incremental decoder for one direction of one connection."""

    def __init__(self, magic: bytes = RESPONSE, *, max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES) -> None:
        self._magic = magic
        self._max_body_bytes = max_packet_bytes - HEADER_BYTES
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 1

    def __repr__(self) -> str:
        return f"<Decoder {self._magic[1:].decode()} holds {self._held} bytes, needs {self._needed}>"

    @property
    def in_packet(self) -> bool:
        """Whether a packet has begun that has not ended."""
        return self._held > 0

    def feed(self, data: bytes) -> None:
        """Take what was received; iterate to get the packets that it completes."""
        self._chunks.append(data)
        self._held += len(data)

    def __iter__(self) -> Iterator[Packet]:
        """The packets that are complete. Raises ProtocolError, or PacketTooLarge, once these are through."""
        if self._held < self._needed:
            return
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        magic, limit, unpack = self._magic, self._max_body_bytes, HEADER.unpack_from
        position, end, needed = 0, len(data), 1
        try:
            while end - position >= HEADER_BYTES:
                got_magic, code, size = unpack(data, position)
                if got_magic != magic or code not in _KNOWN:
                    raise ProtocolError(f"expected a Gearman packet, got {data[position : position + HEADER_BYTES]!r}")
                if size > limit:
                    raise PacketTooLarge(
                        f"{Command(code).name} of {size + HEADER_BYTES} bytes, over the limit of {limit + HEADER_BYTES}"
                    )
                body = position + HEADER_BYTES
                stop = body + size
                if stop > end:
                    needed = HEADER_BYTES + size
                    break
                command, count = _KNOWN[code]
                fields = data[body:stop].split(b"\0", count - 1) if count else []
                if len(fields) != count or (size and not count):
                    raise ProtocolError(f"{command.name} takes {count} fields, got {data[body:stop][:100]!r}")
                position = stop
                yield Packet(command, fields)
            else:
                needed = HEADER_BYTES if position < end else 1
                if not magic.startswith(data[position : position + 4]):
                    raise ProtocolError(f"expected a Gearman packet, got {data[position:end]!r}")
        finally:
            rest = data[position:]
            self._chunks = [rest] if rest else []
            self._held, self._needed = len(rest), needed
