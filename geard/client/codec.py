"""How workloads become bytes and results become values, by the name of an encoding.

Rule: what cannot be encoded is the caller's mistake and is found before a byte is sent; a result that cannot be decoded
is an error that still has its bytes.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any

import msgspec

from geard.errors import InvalidRequest, InvalidResult


class Codec(ABC):
    """Both directions of one encoding."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @abstractmethod
    def encode(self, workload: Any) -> bytes:
        """A workload for the wire. Raises InvalidRequest for a type that the encoding does not take."""

    @abstractmethod
    def decode(self, data: bytes) -> Any:
        """A whole result. Raises InvalidResult."""

    def piece_decoder(self) -> PieceDecoder:
        """A decoder for one job's pieces (WORK_DATA, then WORK_COMPLETE), in order."""
        return PieceDecoder(self)

    def text(self, data: bytes) -> str:
        """A worker's words, for an error or warning: whatever can be read of them."""
        return data.decode(errors="replace")


class PieceDecoder:
    """Decodes each piece by itself."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec

    def decode(self, data: bytes, *, last: bool) -> Any:
        return self._codec.decode(data)


class Bytes(Codec):
    """Bytes as they are."""

    def encode(self, workload: Any) -> bytes:
        if type(workload) is bytes:
            return workload
        if isinstance(workload, bytes | bytearray | memoryview):
            return bytes(workload)
        raise InvalidRequest(f"a workload is bytes with the encoding bytes, not {type(workload).__name__}")

    def decode(self, data: bytes) -> bytes:
        return data


class Json(Codec):
    """JSON values. No data at all is None."""

    def encode(self, workload: Any) -> bytes:
        if isinstance(workload, bytes | bytearray | memoryview):  # msgspec would make base64 of them
            raise InvalidRequest("bytes are no JSON value: decode them, or use the encoding bytes")
        try:
            return msgspec.json.encode(workload)
        except (TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidRequest(f"{type(workload).__name__} cannot be encoded as JSON: {error}") from error

    def decode(self, data: bytes) -> Any:
        try:
            return msgspec.json.decode(data) if data else None
        except (ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidResult(f"the result is not JSON: {error}", data) from error


class Text(Codec):
    """str by a text codec. Bytes are taken as encoded already."""

    def encode(self, workload: Any) -> bytes:
        if isinstance(workload, str):
            try:
                return workload.encode(self.name)
            except UnicodeError as error:
                raise InvalidRequest(f"the workload cannot be encoded as {self.name}: {error}") from error
        if type(workload) is bytes:
            return workload
        if isinstance(workload, bytes | bytearray | memoryview):
            return bytes(workload)
        raise InvalidRequest(
            f"a workload is str or bytes with the encoding {self.name}, not {type(workload).__name__}; "
            "for other values there is the encoding json"
        )

    def decode(self, data: bytes) -> str:
        try:
            return data.decode(self.name)
        except UnicodeError as error:
            raise InvalidResult(f"the result is not {self.name}: {error}", data) from error

    def piece_decoder(self) -> PieceDecoder:
        return _TextPieceDecoder(self)

    def text(self, data: bytes) -> str:
        return data.decode(self.name, errors="replace")


class _TextPieceDecoder(PieceDecoder):
    """A worker may cut its data within a character: the rest of one waits for the next piece."""

    def __init__(self, codec: Text) -> None:
        super().__init__(codec)
        self._decoder = codecs.getincrementaldecoder(codec.name)()

    def decode(self, data: bytes, *, last: bool) -> str:
        try:
            return self._decoder.decode(data, last)
        except UnicodeError as error:
            raise InvalidResult(f"the data is not {self._codec.name}: {error}", data) from error


@lru_cache(maxsize=64)
def codec_for(encoding: str) -> Codec:
    """The codec that `encoding` names: `bytes`, `json` or a text codec. Raises InvalidRequest."""
    if encoding == "bytes":
        return Bytes(encoding)
    if encoding == "json":
        return Json(encoding)
    try:
        "".encode(encoding)
        codecs.getincrementaldecoder(encoding)
    except (LookupError, TypeError, UnicodeError):
        raise InvalidRequest(f"{encoding!r} is no encoding: expected bytes, json or a codec such as utf-8") from None
    return Text(encoding)
