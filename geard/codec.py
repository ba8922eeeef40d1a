"""Encodings: how workloads and results become bytes, and bytes become values, by an encoding's name.

Rules:
- An encoding is chosen by its name, once, when a capability is bound or a client made; no type is guessed per job.
- A codec raises nothing but ENCODING_ERRORS, and its callers say whose fault that is: to a client a workload is its
  caller's, a result the worker's; to a worker both end the job.
- Its functions are called for every job: they are plain functions, with nothing around them.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec

from geard.errors import InvalidRequest

ENCODING_EXPECTED: Final = "bytes, json, or a text codec such as utf-8"
ENCODING_ERRORS: Final = (TypeError, ValueError, RecursionError, msgspec.MsgspecError)
BYTES_LIKE: Final = (bytes, bytearray, memoryview)
BYTES: Final = "bytes"
JSON: Final = "json"

Decode = Callable[[bytes], Any]
Encode = Callable[[Any], bytes]


class Codec(NamedTuple):
    """Both directions of one encoding. None is no data at all, but in JSON, where it is null."""

    name: str
    decode: Decode
    encode: Encode
    charset: str | None = None
    """The codec of Python's that decodes the pieces of a text; None where the encoding is not one of text."""


@lru_cache(maxsize=64)
def codec_for(encoding: str, noun: str = "value") -> Codec:
    """The codec of an encoding: `bytes`, `json` or a text codec. Its errors call what it encodes a `noun`.

    Raises InvalidRequest for a name that is no encoding."""
    if encoding == BYTES:
        return Codec(BYTES, _take_bytes, _bytes_giver(noun))
    if encoding == JSON:
        return Codec(JSON, msgspec.json.decode, _json_giver(noun))
    try:
        "".encode(encoding)  # refuses codecs that are not of text, such as hex
        codecs.getincrementaldecoder(encoding)
    except (LookupError, TypeError, ValueError):
        raise InvalidRequest(f"{encoding!r} is no encoding: expected {ENCODING_EXPECTED}") from None
    return Codec(encoding, _text_taker(encoding), _text_giver(encoding, noun), encoding)


def _take_bytes(data: bytes) -> bytes:
    return data


def _bytes_giver(noun: str) -> Encode:
    def give_bytes(value: Any) -> bytes:
        if type(value) is bytes:
            return value
        if value is None:
            return b""
        if isinstance(value, BYTES_LIKE):
            return bytes(value)
        raise TypeError(f"with `encoding: bytes` a {noun} is bytes, not {type(value).__name__}")

    return give_bytes


def _json_giver(noun: str) -> Encode:
    encode = msgspec.json.encode

    def give_json(value: Any) -> bytes:
        if type(value) in BYTES_LIKE:  # msgspec would make base64 of them
            raise TypeError(f"with `encoding: json` a {noun} is what JSON can say, not {type(value).__name__}")
        return encode(value)

    return give_json


def _text_taker(charset: str) -> Decode:
    def take_text(data: bytes) -> str:
        return str(data, charset)

    return take_text


def _text_giver(charset: str, noun: str) -> Encode:
    def give_text(value: Any) -> bytes:
        if isinstance(value, str):
            return value.encode(charset)
        if value is None:
            return b""
        kind = type(value).__name__
        raise TypeError(f"with `encoding: {charset}` a {noun} is str, not {kind} (`json` is for other values)")

    return give_text
