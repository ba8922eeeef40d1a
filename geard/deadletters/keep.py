"""What the supervisor says to the process that keeps the dead letters, one JSON object a line."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from geard.config.model import DeadLetterFile, Logging


class Keep(Struct, frozen=True):
    """Where to keep letters, and the Unix socket (of an abstract name) to take them from."""

    letters: DeadLetterFile
    address: str
    logging: Logging
    verbose: bool = False


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Keep)


def dump(keep: Keep) -> bytes:
    """It as a line."""
    return _encoder.encode(keep) + b"\n"


def load_keep(line: bytes) -> Keep:
    """A line that the supervisor sent."""
    return _decoder.decode(line)
