"""What a worker has sent for a foreground job, read in the encoding that its client asked for.

Rule: a result that cannot be decoded is an error that still has its bytes. A worker's words, in a warning or an
exception, never are: whatever can be read of them is.
"""

from __future__ import annotations

import codecs
from typing import Any, Final

from geard.client.reply import Submission
from geard.codec import ENCODING_ERRORS, JSON, Codec
from geard.errors import GeardError, InvalidResult, JobException, JobFailed, ResultTooLarge
from geard.protocol import Command, Oversized, Packet

MAX_DIGITS: Final = 100  # of a number on the wire; Python reads none over 4,300


def outcome_of(submission: Submission, function: str, codec: Codec) -> Any:
    """The result of a job that has ended, or what it raises."""
    try:
        return result_of(submission, function, codec)
    except GeardError as error:
        return error


def result_of(submission: Submission, function: str, codec: Codec) -> Any:
    """The result of a job that has ended: its pieces joined. Raises what ended it otherwise."""
    data = submission.result
    if data is None:
        raise what_ended(submission, function, codec)
    if submission.news:
        pieces = [piece(packet, function) for packet in submission.news if packet.command is Command.WORK_DATA]
        data = b"".join([*pieces, data])
    return decoded(data, codec)


def what_ended(submission: Submission, function: str, codec: Codec) -> GeardError:
    """What ended a job that has no result: JobFailed, JobException, ResultTooLarge, ServerError."""
    if submission.error is not None:
        return submission.error
    end = submission.end
    if end is None:
        raise RuntimeError(f"{submission!r} has not ended")
    if type(end) is Oversized:
        return too_large(end, function)
    if end.command is Command.WORK_FAIL:
        return JobFailed(f"{function}: the job failed")
    text = words(end.fields[1], codec)
    return JobException(f"{function}: {text}", text)


def piece(packet: Packet, function: str) -> bytes:
    """The data of a WORK_… packet. Raises ResultTooLarge if it was thrown away."""
    if type(packet) is Oversized:
        raise too_large(packet, function)
    return packet.fields[1]


def too_large(packet: Oversized, function: str) -> ResultTooLarge:
    """What is said of a packet that was thrown away."""
    return ResultTooLarge(f"{function}: too large for this client: {packet.text} (max_packet_bytes)")


def decoded(data: bytes, codec: Codec) -> Any:
    """A whole result, or a piece that stands for itself. Raises InvalidResult. In JSON, no data at all is None."""
    if not data and codec.name == JSON:
        return None
    try:
        return codec.decode(data)
    except ENCODING_ERRORS as error:
        raise InvalidResult(f"the result is not {codec.name}: {error}", data) from error


class Pieces:
    """Decodes one job's pieces (WORK_DATA, then WORK_COMPLETE), in order.

    A worker may cut a text within a character: the rest of one waits for the next piece."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._text = codecs.getincrementaldecoder(codec.charset)() if codec.charset else None

    def decode(self, data: bytes, *, last: bool) -> Any:
        """The value of the next piece. Raises InvalidResult."""
        if self._text is None:
            return decoded(data, self._codec)
        try:
            return self._text.decode(data, last)
        except UnicodeError as error:
            raise InvalidResult(f"the data is not {self._codec.name}: {error}", data) from error


def words(data: bytes, codec: Codec) -> str:
    """A worker's words: whatever can be read of them."""
    return data.decode(codec.charset or "utf-8", errors="replace")


def number(digits: bytes) -> int:
    """A number that a worker or job server sent as text; 0 for what is none."""
    return int(digits) if digits.isdigit() and len(digits) <= MAX_DIGITS else 0


def text_of(data: bytes) -> str:
    """A handle or unique from the wire."""
    return data.decode(errors="backslashreplace")
