"""What a client asks for, checked and turned into packets. Pure: no socket, and the clock is handed in.

Rule: what the job server would refuse, misread or leave unanswered is refused here, before a byte is sent.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final, Literal

from geard.codec import BYTES, BYTES_LIKE, ENCODING_ERRORS, JSON, Codec
from geard.errors import InvalidRequest
from geard.protocol import REQUEST, Command, begin, encode
from geard.protocol.packets import HEADER_BYTES, MAX_UNIQUE_BYTES

Priority = Literal["low", "normal", "high"]
When = datetime | timedelta | float
"""A moment, or a delay from now (a number is seconds, of ten years at most)."""

MAX_HANDLE_BYTES: Final = 63
"""gearmand leaves a GET_STATUS with a longer one unanswered, and a GET_STATUS_UNIQUE likewise."""

YEAR_SECONDS: Final = 365.25 * 86400
MAX_DELAY_SECONDS: Final = 10 * YEAR_SECONDS
"""A number over it was meant to be a moment."""

UNIQUE_OF_WORKLOAD: Final = "workload"

FOREGROUND: Final = {
    "low": Command.SUBMIT_JOB_LOW,
    "normal": Command.SUBMIT_JOB,
    "high": Command.SUBMIT_JOB_HIGH,
}
BACKGROUND: Final = {
    "low": Command.SUBMIT_JOB_LOW_BG,
    "normal": Command.SUBMIT_JOB_BG,
    "high": Command.SUBMIT_JOB_HIGH_BG,
}


def encoded(workload: Any, codec: Codec) -> bytes:
    """A workload for the wire. Where the encoding is of text, bytes are taken as encoded already."""
    if type(workload) is not str and codec.charset and isinstance(workload, BYTES_LIKE):
        return bytes(workload)
    if workload is None and codec.name != JSON:
        raise InvalidRequest("the workload is None: submit an empty one, or use `encoding: json`")
    try:
        return codec.encode(workload)
    except ENCODING_ERRORS as error:
        raise InvalidRequest(f"the workload cannot be encoded: {error}") from error


def job(
    commands: dict[str, Command],
    function: str,
    unique: str | None,
    workload: bytes,
    priority: str = "normal",
    reducer: str | None = None,
) -> bytes:
    """The SUBMIT_JOB… packet of a job. `commands` is FOREGROUND or BACKGROUND."""
    if reducer is None:
        command = commands.get(priority)
        if command is None:
            raise InvalidRequest(f"priority is one of {', '.join(commands)}, not {priority!r}")
        if type(function) is not str:
            function = name(function).decode()
        if unique is None:
            return _begun(command, function, _unique_prefix)(b"%d" % next(_unique_number), workload)
        return _begun(command, function, "")(unique_id(unique, function, workload).encode(), workload)
    if priority != "normal":
        raise InvalidRequest("a job with a reducer has no priority: the protocol has no packet for both")
    command = Command.SUBMIT_REDUCE_JOB if commands is FOREGROUND else Command.SUBMIT_REDUCE_JOB_BACKGROUND
    unique = unique_id(unique, function, workload)
    return encode(REQUEST, command, name(function), unique.encode(), name(reducer), b"", workload)


@lru_cache(maxsize=256)
def _begun(command: Command, function: str, unique_prefix: str) -> Callable[[bytes, bytes], bytes]:
    """What is the same for each job of a function is made once."""
    return begin(REQUEST, command, name(function), unique_prefix.encode())


def job_maker(
    commands: dict[str, Command], function: str, unique: str | None, codec: Codec, priority: str = "normal"
) -> Callable[[Any], bytes]:
    """What makes the packets of many jobs of a function, from their workloads as they are: `job`, in half the time."""
    takes_bytes = codec.name == BYTES or codec.charset is not None
    finish, finishes = None, ""

    def packet_of(workload: Any) -> bytes:
        nonlocal finish, finishes
        data = workload if takes_bytes and type(workload) is bytes else encoded(workload, codec)
        if finish is None or finishes is not _unique_prefix:  # else this is no child that was forked meanwhile
            packet = job(commands, function, unique, data, priority)
            if unique is None:
                finish, finishes = _begun(commands[priority], function, _unique_prefix), _unique_prefix
            return packet
        return finish(b"%d" % next(_unique_number), data)

    return packet_of


def background_job(
    function: str,
    unique: str | None,
    workload: bytes,
    priority: Priority,
    reducer: str | None,
    at: When | None,
    clock: Callable[[], float],
) -> bytes:
    """The SUBMIT_… packet of a background job, one that starts no earlier than `at` if that is given."""
    if at is None:
        return job(BACKGROUND, function, unique, workload, priority, reducer)
    if priority != "normal" or reducer is not None:
        raise InvalidRequest("a job with `at` has no priority and no reducer: the protocol has no packet for both")
    unique = unique_id(unique, function, workload)
    epoch = b"%d" % epoch_seconds(at, clock())
    return encode(REQUEST, Command.SUBMIT_JOB_EPOCH, name(function), unique.encode(), epoch, workload)


def epoch_seconds(at: When, now: float) -> int:
    """The whole second, rounded up, at or after which a job may start."""
    if isinstance(at, datetime):
        return math.ceil(at.timestamp())
    delay = at.total_seconds() if isinstance(at, timedelta) else at
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < math.inf:
        raise InvalidRequest(f"at is a datetime or a delay in seconds from 0 up, not {at!r}")
    if not isinstance(at, timedelta) and delay > MAX_DELAY_SECONDS:
        raise InvalidRequest(
            f"at={at!r} is a delay of {delay / YEAR_SECONDS:,.0f} years: for a moment since 1970 write "
            f"at=datetime.fromtimestamp({at!r}), for a delay that long a timedelta"
        )
    return math.ceil(now + delay)


def name(function: str) -> bytes:
    """A function's name for the wire."""
    if not isinstance(function, str) or not function or "\0" in function:
        raise InvalidRequest(f"a function's name is a str, not empty and without NUL, not {function!r}")
    return _utf8(function)


def unique_id(unique: str | None, function: str, workload: bytes) -> str:
    """The unique to send: a random one for None, a hash of function and workload for "workload"."""
    if unique is None:
        return f"{_unique_prefix}{next(_unique_number)}"
    if unique == UNIQUE_OF_WORKLOAD:
        return hashlib.blake2b(name(function) + b"\0" + workload, digest_size=16).hexdigest()
    if not isinstance(unique, str) or not unique or "\0" in unique:
        raise InvalidRequest(f"a unique is a str, not empty and without NUL, not {unique!r}")
    if len(_utf8(unique)) > MAX_UNIQUE_BYTES:
        raise InvalidRequest(f"the unique {unique!r} has over {MAX_UNIQUE_BYTES} bytes")
    return unique


def unique_of(packet: bytes) -> str:
    """The unique in a SUBMIT_… packet of ours."""
    start = packet.index(b"\0", HEADER_BYTES) + 1
    return packet[start : packet.index(b"\0", start)].decode()


def placed_by(packet: bytes) -> bytes | None:
    """What a SUBMIT_… packet of ours is placed by, its function and unique; None where the unique is a random one."""
    end = packet.index(b"\0", HEADER_BYTES)
    unique, _, _ = packet[end + 1 : end + 2 + MAX_UNIQUE_BYTES].partition(b"\0")
    return None if unique.startswith(_unique_prefix.encode()) else packet[HEADER_BYTES : end + 1] + unique


def key(kind: str, value: str) -> bytes:
    """A handle or unique to ask about."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise InvalidRequest(f"a {kind} is a str, not empty and without NUL, not {value!r}")
    data = _utf8(value)
    if len(data) > MAX_HANDLE_BYTES:
        raise InvalidRequest(f"a {kind} to ask about has at most {MAX_HANDLE_BYTES} bytes, not {len(data)}")
    return data


_unique_number = itertools.count()
_unique_prefix = ""


def _new_unique_prefix() -> None:
    """Random for each process: a child that was forked must not go on with its parent's."""
    global _unique_prefix
    _unique_prefix = os.urandom(12).hex() + "-"


_new_unique_prefix()
os.register_at_fork(after_in_child=_new_unique_prefix)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeError as error:
        raise InvalidRequest(f"{text!r} cannot be encoded as UTF-8: {error}") from error
