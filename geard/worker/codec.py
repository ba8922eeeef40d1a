"""How workloads become what a function takes, and what it returns becomes a result.

Rule: an encoding is chosen by its name, once, when a capability is bound; no type is guessed per job. A result of the
wrong type is the function's error and says which type the encoding takes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from geard.errors import CapabilityError

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


class Codec(NamedTuple):
    """Both directions of one encoding. `decode` and `encode` raise what the caller reports as the job's exception."""

    name: str
    decode: Decode
    encode: Encode


def _take_bytes(workload: bytes) -> bytes:
    return workload


def _give_bytes(result: Any) -> bytes:
    if type(result) is bytes:
        return result
    if result is None:
        return b""
    if isinstance(result, bytes | bytearray | memoryview):
        return bytes(result)
    raise TypeError(f"returned {type(result).__name__}, but with `encoding: bytes` a result is bytes")


def _text(codec: str) -> Codec:
    def take_text(workload: bytes) -> str:
        return str(workload, codec)

    def give_text(result: Any) -> bytes:
        if isinstance(result, str):
            return result.encode(codec)
        if result is None:
            return b""
        raise TypeError(f"returned {type(result).__name__}, but with `encoding: {codec}` a result is str")

    return Codec(codec, take_text, give_text)


BYTES: Final = Codec("bytes", _take_bytes, _give_bytes)
JSON: Final = Codec("json", msgspec.json.decode, msgspec.json.encode)


def codec_for(encoding: str) -> Codec:
    """The codec of an encoding: `bytes`, `json` or a text codec. Raises CapabilityError for a name nobody knows."""
    known = {codec.name: codec for codec in (BYTES, JSON)}
    if encoding in known:
        return known[encoding]
    try:
        if not codecs.lookup(encoding)._is_text_encoding:
            raise LookupError
    except LookupError:
        raise CapabilityError(
            f"encoding {encoding!r} is not known: expected `bytes`, `json` or a text codec such as `utf-8`"
        ) from None
    return _text(encoding)
