"""Packets to bytes.

Rule: whatever leaves here, a peer can read back: the number of fields is the table's, and only the last may hold a
NUL byte. Everything else is the caller's mistake, and nothing has been sent.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

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


def begin(magic: bytes, command: Command, first: bytes, start: bytes = b"") -> Callable[[bytes, bytes], bytes]:
    """What makes packets of three fields that have the command, the first field and the start of the second in common:
    it takes the rest of the second, which holds no NUL byte (the caller sees to it), and the last."""
    encode(magic, command, first, start, b"")  # or what is wrong with it
    prefix, same = _PREFIX[magic][command], first + b"\0" + start
    same_size = len(same) + 1

    def finish(rest: bytes, last: bytes) -> bytes:
        return b"".join((prefix, _size(same_size + len(rest) + len(last)), same, rest, b"\0", last))

    return finish


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
