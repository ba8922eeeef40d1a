"""Bytes to packets, however the network cut them.

    decoder.feed(connection.receive())
    for packet in decoder:
        handle(packet)

Rules: a packet is yielded as soon as its last byte is in, and only once. The size is checked from the header, before
a byte of the body is waited for. After an error the decoder stays where it is and raises the same error again: what
follows rubbish cannot be trusted. Packets that came whole before the rubbish are yielded first.

A packet over the limit is such an error, unless the decoder was told to skip: then it comes as Oversized as soon as the
fields before its last are in, and its body is thrown away as it arrives. No more than MAX_HEAD_BYTES of it are held.

With `text`, as a job server has it, a line of an admin command may stand between packets. It is no packet: iteration
ends there, and `take_line` gives it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import lru_cache
from struct import Struct
from typing import Final, NamedTuple

from geard.errors import PacketTooLarge, ProtocolError
from geard.protocol.packets import FIELDS, HEADER, HEADER_BYTES, RESPONSE, Command

DEFAULT_MAX_PACKET_BYTES: Final = 64 * 1024 * 1024

MAX_LINE_BYTES: Final = 8 * 1024
"""An admin command may be this long."""

MAX_HEAD_BYTES: Final = 16 * 1024
"""The fields before the last of a packet that is skipped may be this long together."""

_packet = tuple.__new__  # a third faster than the generated Packet.__new__, which takes the fields by name
_KIND_AND_SIZE = Struct(">QI").unpack_from  # magic and command are compared as one number
_KIND = Struct(">Q").unpack
_KNOWN = {int(command): (command, len(fields)) for command, fields in FIELDS.items() if command != Command.UNUSED}


@lru_cache(maxsize=256)
def _header(header: bytes) -> tuple[bytes, int, Command | None, int]:
    """Magic, size of the body, command and number of fields; no fields for what is no header, or not known.

    Answers of one kind and size have it in common, so it is read once."""
    if len(header) < HEADER_BYTES:
        return b"", 0, None, 0
    magic, code, size = HEADER.unpack(header)
    return magic, size, *_KNOWN.get(code, (None, 0))


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


class Oversized(Packet):
    """A packet over the limit: its type and its fields, but for the last, which is skipped.

    `text` says how large it is and what the limit is."""

    text: str

    @classmethod
    def of(cls, command: Command, fields: list[bytes], text: str) -> Oversized:
        """Make one."""
        packet = cls(command, fields)
        packet.text = text
        return packet


class Decoder:
    """An incremental decoder for one direction of one connection.

    `skip`: a packet over the limit is no error; see the module."""

    __slots__ = ("_chunks", "_held", "_magic", "_max_body_bytes", "_needed", "_skip", "_text", "_to_skip")

    def __init__(
        self,
        magic: bytes = RESPONSE,
        *,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
        text: bool = False,
        skip: bool = False,
    ) -> None:
        self._magic = magic
        self._text = text
        self._skip = skip
        self._max_body_bytes = max_packet_bytes - HEADER_BYTES
        self._to_skip = 0  # bytes of an oversized packet that have not arrived
        self._chunks: list[bytes] = []
        self._held = 0
        self._needed = 1

    def __repr__(self) -> str:
        return f"<Decoder {self._magic[1:].decode()} holds {self._held} bytes, needs {self._needed}>"

    @property
    def in_packet(self) -> bool:
        """Whether a packet has begun that has not ended."""
        return self._held > 0 or self._to_skip > 0

    def feed(self, data: bytes) -> None:
        """Take what was received; iterate to get the packets that it completes."""
        size = len(data)
        if size:
            self._chunks += (data,)  # and no call between the two, where a signal could strike
            self._held += size

    def whole(self, data: bytes) -> tuple[Command, list[bytes]] | None:
        """Type and fields of the packet that `data` is, whole and without more, if nothing is held. None otherwise:
        then it is to be fed.

        The short way for who waits for one small answer. It changes nothing."""
        if self._held or self._to_skip:
            return None
        magic, size, command, count = _header(data[:HEADER_BYTES])
        if size != len(data) - HEADER_BYTES or magic != self._magic or not count or size > self._max_body_bytes:
            return None
        fields = data[HEADER_BYTES:].split(b"\0", count - 1)
        return (command, fields) if command is not None and len(fields) == count else None

    @property
    def at_line(self) -> bool:
        """Whether an admin command stands at the front, or the beginning of one."""
        return self._text and self._held > 0 and self._chunks[0][0] != self._magic[0]

    def take_line(self) -> bytes | None:
        """The admin command that stands at the front, without its newline; None if none does, or not all of it.

        Raises ProtocolError for one that is too long."""
        if not self.at_line:
            return None
        data = b"".join(self._chunks)
        line, newline, rest = data.partition(b"\n")
        if len(line) > MAX_LINE_BYTES:
            raise ProtocolError(f"expected an admin command, got {len(line)} bytes without a newline")
        if not newline:
            return None
        self._chunks = [rest] if rest else []
        self._held, self._needed = len(rest), 1
        return line

    def take_only(self, packet: bytes) -> bool:
        """Whether what is held is this packet, which has no fields, and nothing else; it is taken then."""
        if self._held != len(packet) or self._chunks != [packet] or self._to_skip:
            return False
        self._chunks = []
        self._held, self._needed = 0, 1
        return True

    def take(self, command: Command, into: list[list[bytes]] | deque[list[bytes]]) -> None:
        """Add the fields of the packets of this type at the front to `into`: the short way for a type with fields that
        comes many times in a row. It ends at whatever else there is: iterate for that, be it wrong or not complete."""
        if self._held < self._needed or self._to_skip:
            return
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        wanted, splits = _KIND(self._magic + command.to_bytes(4))[0], len(FIELDS[command]) - 1
        limit, unpack, append, end = self._max_body_bytes, _KIND_AND_SIZE, into.append, len(data)
        position, last = 0, end - HEADER_BYTES
        try:
            while position <= last:
                kind, size = unpack(data, position)
                body = position + HEADER_BYTES
                stop = body + size
                if kind != wanted or stop > end or size > limit:
                    return
                fields = data[body:stop].split(b"\0", splits)
                if len(fields) <= splits:
                    return
                position = stop  # no call between this and the next: a signal would lose the packet
                append(fields)
        finally:
            if position:
                rest = data[position:]
                self._chunks = [rest] if rest else []
                self._needed = 1
                self._held = len(rest)

    def __iter__(self) -> Iterator[Packet]:
        """The packets that are complete. Raises ProtocolError, or PacketTooLarge, once these are through."""
        if self._held < self._needed:
            return
        data = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        magic, limit, unpack = self._magic, self._max_body_bytes, HEADER.unpack_from
        position, end, needed = self._to_skip, len(data), 1
        try:
            while end - position >= HEADER_BYTES:
                got_magic, code, size = unpack(data, position)
                known = _KNOWN.get(code)
                if got_magic != magic or known is None:
                    if self._text and data[position] != magic[0]:
                        needed = 1
                        break
                    raise ProtocolError(f"expected a Gearman packet, got {data[position : position + HEADER_BYTES]!r}")
                body = position + HEADER_BYTES
                stop = body + size
                if size > limit:
                    oversized = self._oversized(known, data[body : min(stop, body + MAX_HEAD_BYTES)], size)
                    if oversized is None:
                        needed = end - position + 1
                        break
                    position = stop
                    yield oversized
                    continue
                if stop > end:
                    needed = HEADER_BYTES + size
                    break
                command, count = known
                fields = data[body:stop].split(b"\0", count - 1) if count else []
                if len(fields) != count or (size and not count):
                    raise ProtocolError(f"{command.name} takes {count} fields, got {data[body:stop][:100]!r}")
                packet = _packet(Packet, (command, fields))
                position = stop  # no call between this and the yield: a signal would lose the packet
                yield packet
            else:
                needed = HEADER_BYTES if position < end else 1
                if not magic.startswith(data[position : position + 4]):
                    if not self._text or data[position] == magic[0]:
                        raise ProtocolError(f"expected a Gearman packet, got {data[position:end]!r}")
                    needed = 1
        finally:
            rest = data[position:]
            self._to_skip = position - end if position > end else 0
            self._chunks = [rest] if rest else []
            self._needed = needed
            self._held = len(rest)  # last: a signal may strike here, and too much is harmless

    def _oversized(self, known: tuple[Command, int], head: bytes, size: int) -> Oversized | None:
        """The packet over the limit that `head` begins; None while its fields are not all in."""
        command, count = known
        limit = self._max_body_bytes + HEADER_BYTES
        text = f"{command.name} of {size + HEADER_BYTES} bytes, over the limit of {limit}"
        if not self._skip:
            raise PacketTooLarge(text)
        fields = head.split(b"\0", count - 1)[:-1] if count else []
        if len(fields) == count - 1:
            return Oversized.of(command, fields, text)
        if not count or len(head) >= min(size, MAX_HEAD_BYTES):
            raise ProtocolError(f"{command.name} takes {count} fields, got {head[:100]!r}")
        return None
