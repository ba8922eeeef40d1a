"""From a worker process to the process that keeps the dead letters: one short conversation for each letter.

A connection for each, so that letters of many greenlets are committed together, and a fork has nothing to share.
"""

from __future__ import annotations

import socket
import struct
import time
from typing import Final

import msgspec

from geard.deadletters.letter import DeadLetter, DeadLettersUnusable

KEPT: Final = b"kept"
TIMEOUT_SECONDS: Final = 10.0
PAUSE_SECONDS: Final = 0.1
MAX_LETTER_BYTES: Final = 2**31

_size = struct.Struct(">I")


def keep(address: str, letter: DeadLetter) -> None:
    """Have it kept, and return when it is on the disk. Raises DeadLettersUnusable when it is not.

    A process that is just being started again is waited for; where it died in the middle, the letter may come twice."""
    data = msgspec.msgpack.encode(letter)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        try:
            answer = _send(address, _size.pack(len(data)) + data, deadline - time.monotonic())
        except OSError as error:
            reason = str(error)
        else:
            if answer == KEPT:
                return
            if answer:
                raise DeadLettersUnusable(answer.decode(errors="replace"))
            reason = "it hung up"
        if time.monotonic() + PAUSE_SECONDS >= deadline:
            raise DeadLettersUnusable(f"the process that keeps dead letters cannot be asked: {reason}")
        time.sleep(PAUSE_SECONDS)


def _send(address: str, data: bytes, timeout_seconds: float) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_seconds)
        connection.connect(address)
        connection.sendall(data)
        return connection.makefile("rb").read()


def receive(connection: socket.socket) -> DeadLetter | None:
    """The letter that a worker sends; None when it hangs up. Raises msgspec.DecodeError."""
    with connection.makefile("rb") as stream:
        head = stream.read(_size.size)
        if len(head) < _size.size:
            return None
        (size,) = _size.unpack(head)
        data = stream.read(size) if size <= MAX_LETTER_BYTES else b""
    return msgspec.msgpack.decode(data, type=DeadLetter) if len(data) == size else None
