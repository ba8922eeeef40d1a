"""The kinds of value that a config key can have: each a parser from plain data to the model's type.

A parser takes the value and its place. It returns the typed value, or raises Refused with what was expected instead.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from geard.codec import ENCODING_EXPECTED, codec_for
from geard.config.kinds import kind, kind_of
from geard.config.problems import At, Refused
from geard.config.units import (
    DURATION_EXPECTED,
    DURATION_PATTERN,
    SIZE_EXPECTED,
    SIZE_PATTERN,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from geard.errors import InvalidRequest

T = TypeVar("T")
Parser = Callable[[Any, At], T]

DOTTED_PATH_EXPECTED: Final = "a dotted path: module.attr or module:attr"
AUTO_EXPECTED: Final = "auto (one per core)"
MAX_SOCKET_PATH_BYTES: Final = 107  # of a Unix socket's address, on Linux
PATH: Final = {"type": "string", "minLength": 1}


def refuse(value: object, expected: str, at: At, hint: str = "") -> Refused:
    """The refusal of a value of the wrong kind."""
    return Refused(f"cannot be {at.describe(value)}", expected=expected, hint=hint)


def text(expected: str) -> Parser[str]:
    """Text, not empty and without a NUL."""

    @kind(expected, schema={"type": "string", "minLength": 1})
    def parse(value: Any, at: At) -> str:
        if not isinstance(value, str):
            quotable = isinstance(value, int | float)
            raise refuse(value, expected, at, "put it in quotes to make it text" if quotable else "")
        if not value or "\0" in value:
            raise refuse(value, expected, at)
        return value

    return parse


@kind("text without spaces", schema={"type": "string", "pattern": r"^\S+$"})
def client_id(value: Any, at: At) -> str:
    """How the job server names us."""
    expected = "text without spaces"
    name = text(expected)(value, at)
    if re.search(r"\s", name):
        raise refuse(value, expected, at, "spaces separate the columns of the job server's list of workers")
    return name


@kind("true or false", schema={"type": "boolean"})
def boolean(value: Any, at: At) -> bool:
    """true or false."""
    if not isinstance(value, bool):
        raise refuse(value, "true or false", at)
    return value


def choice(*options: str) -> Parser[str]:
    """One of a few words."""
    expected = f"one of {', '.join(options)}"

    @kind(expected, schema={"enum": list(options)})
    def parse(value: Any, at: At) -> str:
        if value not in options:
            raise refuse(value, expected, at)
        return str(value)

    return parse


def whole_number(least: int, most: int | None = None, *, words: Sequence[str] = ()) -> Parser[int]:
    """An integer from `least` to `most`. `words` are what may stand for one, for the message only."""
    bounds = f"of {least:,} or more" if most is None else f"from {least:,} to {most:,}"
    expected = ", or ".join([f"a whole number {bounds}", *words])

    @kind(expected, schema={"type": "integer", "minimum": least} | ({} if most is None else {"maximum": most}))
    def parse(value: Any, at: At) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            numeric = isinstance(value, str) and value.isdecimal()
            hint = "write it in plain digits: no quotes, no zero in front" if numeric else ""
            raise refuse(value, expected, at, hint)
        if value < least or (most is not None and value > most):
            raise refuse(value, expected, at)
        return value

    return parse


@kind(AUTO_EXPECTED, schema={"const": "auto"})
def _auto(value: Any, at: At) -> int:
    return len(os.sched_getaffinity(0))


_processes = whole_number(1, 1000, words=[AUTO_EXPECTED])


@kind(kind_of(_processes).words, either=(_auto, _processes))
def processes(value: Any, at: At) -> int:
    """A number of worker processes; `auto` is one per core that this process may use."""
    return _auto(value, at) if value == "auto" else _processes(value, at)


def duration(*, least_seconds: float = 0.0) -> Parser[float]:
    """Seconds, at least so many."""
    expected = DURATION_EXPECTED
    if least_seconds:
        expected += f", at least {format_duration(least_seconds)}"

    @kind(expected, schema=_measured(DURATION_PATTERN, least_seconds))
    def parse(value: Any, at: At) -> float:
        seconds = _measure(value, parse_duration, expected, at)
        if not least_seconds <= seconds < float("inf"):
            raise refuse(value, expected, at)
        return float(seconds)

    return parse


def size(least_bytes: int, most_bytes: int | None = None) -> Parser[int]:
    """Bytes, at least so many."""
    expected = f"{SIZE_EXPECTED}, at least {format_size(least_bytes)}"
    if most_bytes is not None:
        expected += f" and at most {format_size(most_bytes)}"

    @kind(expected, schema=_measured(SIZE_PATTERN, least_bytes))
    def parse(value: Any, at: At) -> int:
        found = _measure(value, parse_size, expected, at)
        whole = isinstance(found, int) or found.is_integer()
        if not whole or not least_bytes <= found <= (found if most_bytes is None else most_bytes):
            raise refuse(value, expected, at)
        return int(found)

    return parse


def _measured(pattern: str, least: float) -> dict[str, Any]:
    return {"anyOf": [{"type": "number", "minimum": least}, {"type": "string", "pattern": f"^{pattern}$"}]}


def _measure(value: Any, parse: Callable[[str], float], expected: str, at: At) -> float:
    if isinstance(value, str):
        try:
            return parse(value)
        except InvalidRequest:
            raise refuse(value, expected, at) from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise refuse(value, expected, at)
    return value


@kind(ENCODING_EXPECTED, schema={"type": "string", "minLength": 1})
def encoding(value: Any, at: At) -> str:
    """`bytes`, `json` or a text codec that Python knows."""
    if not isinstance(value, str):
        raise refuse(value, ENCODING_EXPECTED, at)
    try:
        return codec_for(value).name
    except InvalidRequest:
        raise Refused(f"{at.shown(repr(value))} is not a text codec", expected=ENCODING_EXPECTED) from None


@kind(DOTTED_PATH_EXPECTED, schema={"type": "string", "pattern": r"^[^\s.:]+(\.[^\s.:]+)*[.:][^\s.:]+(\.[^\s.:]+)*$"})
def dotted_path(value: Any, at: At) -> str:
    """The name of something to import."""
    if not isinstance(value, str):
        raise refuse(value, DOTTED_PATH_EXPECTED, at)
    module, colon, attribute = value.partition(":") if ":" in value else value.rpartition(".")
    if not (colon and all(part.isidentifier() for part in [*module.split("."), *attribute.split(".")])):
        raise refuse(value, DOTTED_PATH_EXPECTED, at)
    return value


@kind("a path", schema=PATH)
def path(value: Any, at: At) -> str:
    """An absolute path; a relative one starts from the working directory."""
    return os.path.normpath(os.path.join(at.directory, text("a path")(value, at)))


@kind("a directory", schema=PATH)
def working_directory(value: Any, at: At) -> str:
    """A directory that exists. Other relative paths start in it; a relative one itself in the current directory."""
    found = os.path.abspath(text("a path")(value, at))
    if not stat.S_ISDIR(_mode(found, at)):
        raise Refused(f"{at.shown(found)} is not a directory")
    return found


@kind("a directory or an archive", schema=PATH)
def import_location(value: Any, at: At) -> str:
    """Where modules are imported from: a directory or an archive that exists."""
    found = path(value, at)
    _mode(found, at)
    return found


@kind("a file that exists", schema=PATH)
def readable_file(value: Any, at: At) -> str:
    """A file that exists and that we may read."""
    found = path(value, at)
    if stat.S_ISDIR(_mode(found, at)):
        raise Refused(f"{at.shown(found)} is a directory", expected="a file")
    if not os.access(found, os.R_OK):
        raise Refused(
            f"{at.shown(found)} cannot be read: permission denied", hint="check it as the user that runs geard"
        )
    return found


@kind("a file", schema=PATH)
def log_file(value: Any, at: At) -> str:
    """A file that can be made where it is not yet."""
    found = path(value, at)
    if os.path.isdir(found):
        raise Refused(f"{at.shown(found)} is a directory", expected="a file")
    if not os.path.isdir(os.path.dirname(found)):
        missing = at.shown(os.path.dirname(found))
        raise Refused(f"{at.shown(found)} cannot be written: there is no directory {missing}")
    return found


@kind(f"a path of at most {MAX_SOCKET_PATH_BYTES} bytes", schema=PATH)
def socket_path(value: Any, at: At) -> str:
    """The path of a Unix socket."""
    found = path(value, at)
    length_bytes = len(os.fsencode(found))
    if length_bytes > MAX_SOCKET_PATH_BYTES:
        raise Refused(
            f"{at.shown(found)} is too long for a Unix socket: {length_bytes} bytes",
            expected=f"an absolute path of at most {MAX_SOCKET_PATH_BYTES} bytes",
        )
    return found


def _mode(found: str, at: At) -> int:
    try:
        return os.stat(found).st_mode
    except OSError as error:
        raise Refused(f"{at.shown(found)} cannot be used: {(error.strerror or str(error)).lower()}") from error
    except ValueError:  # not a text that the system can take for a path
        raise refuse(found, "a path", at) from None
