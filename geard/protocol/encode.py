"""Packets to bytes.

Rule: whatever leaves here, a peer can read back: the number of fields is the table's, and only the last may hold a
NUL byte. Everything else is the caller's mistake, and nothing has been sent.
"""

from __future__ import annotations

import struct

from geard.errors import InvalidRequest
from geard.protocol.packets import FIELDS, REQUEST, RESPONSE, Command

_PREFIX = {
    magic: [magic + struct.pack(">I", code) for code in range(len(Command) + 1)] for magic in (REQUEST, RESPONSE)
}
_COUNT = [0, *(len(FIELDS[command]) for command in Command)]
_WORK_COMPLETE = _PREFIX[REQUEST][Command.WORK_COMPLETE]
_size = struct.Struct(">I").pack
_WORK_COMPLETE_HEADERS = [_WORK_COMPLETE + _size(size) for size in range(1024)]


def encode(magic: bytes, command: Command, *fields: bytes) -> bytes:
    """The packet as bytes. Raises InvalidRequest for a wrong number of fields or a NUL byte before the last."""
    body = b"\0".join(fields)
    if len(fields) != _COUNT[command] or (fields and body.count(b"\0", 0, len(body) - len(fields[-1])) >= len(fields)):
        raise InvalidRequest(_complaint(command, fields))
    return b"".join((_PREFIX[magic][command], _size(len(body)), body))


def begin(magic: bytes, command: Command, first: bytes) -> tuple[bytes, bytes]:
    """What is the same in all packets of three fields that have this command and first field; for `finish`."""
    encode(magic, command, first, b"", b"")  # or what is wrong with it
    return _PREFIX[magic][command], first + b"\0"


def finish(begun: tuple[bytes, bytes], second: bytes, last: bytes) -> bytes:
    """The packet that was begun. Its second field holds no NUL byte: the caller sees to it."""
    prefix, first = begun
    return b"".join((prefix, _size(len(first) + len(second) + 1 + len(last)), first, second, b"\0", last))


def request(command: Command, *fields: bytes) -> bytes:
    """A packet for the job server: see encode."""
    return encode(REQUEST, command, *fields)


def work_complete(handle: bytes, data: bytes) -> bytes:
    """`request(Command.WORK_COMPLETE, handle, data)` for a handle as the decoder gave it, which cannot hold a NUL byte.

    A fifth of the work: there is one for every job."""
    size = len(handle) + 1 + len(data)
    header = _WORK_COMPLETE_HEADERS[size] if size < 1024 else _WORK_COMPLETE + _size(size)
    return b"".join((header, handle, b"\0", data))


def response(command: Command, *fields: bytes) -> bytes:
    """A packet from the job server: see encode."""
    return encode(RESPONSE, command, *fields)


def _complaint(command: Command, fields: tuple[bytes, ...]) -> str:
    names = FIELDS[command]
    if len(fields) != len(names):
        return f"{command.name} takes {len(names)} fields ({', '.join(names) or 'none'}), not {len(fields)}"
    name = next(name for name, value in zip(names, fields, strict=True) if b"\0" in value)
    return f"{command.name}: the {name} must not hold a NUL byte, which ends it on the wire"
