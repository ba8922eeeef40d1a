"""The admin commands: a line of text in, lines of text out, in the words of gearmand.

Rules:
- A command and its fixed arguments are matched without regard to case; names are taken as they are.
- An answer comes in pieces, made as they are asked for, each with little to do. A list is over what there was when it
  began: what has ended meanwhile is left out, and what is new is not in it, so no line is there twice or half.
- Names in an answer are escaped, so that each stays what it is for who reads it: one cell of one line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

from geard import __version__
from geard.jobserver.queues import MAX_NAME_BYTES
from geard.jobserver.rules import Rules
from geard.jobserver.state import Function, Peer, Priority
from geard.printable import printable
from geard.protocol.admin import LIST_END

OK: Final = b"OK\r\n"
MAX_QUEUE: Final = 2**31 - 1
"""The highest limit of a queue; gearmand's is a number of 32 bits, too."""
ROWS: Final = 64
"""Lines in a piece."""

_PLAIN = re.compile(rb"[ -~]*").fullmatch
_NUMBER = re.compile(rb"-?[0-9]{1,10}").fullmatch

T = TypeVar("T")


class RemotePeer(Peer):
    """A peer that has an address, for `workers`."""

    __slots__ = ("fileno", "host")

    def __init__(self, fileno: int, host: str) -> None:
        super().__init__()
        self.fileno = fileno
        self.host = host


def answer(rules: Rules, peers: Iterable[RemotePeer], line: bytes) -> Iterator[bytes]:
    """The answer to an admin command, which is carried out before this returns."""
    words = line.rstrip(b"\r").split(b" ")
    words = [words[0], *filter(None, words[1:])]
    command = words[0].lower()
    if command == b"workers":
        return _workers(list(peers))
    if command in LISTS:
        return LISTS[command](rules)
    if command in ACTIONS:
        return ACTIONS[command](rules, words[1:])
    return _line(_unknown(words[0]))


def escaped(name: bytes) -> bytes:
    """A name as one cell of one line: see `geard.printable`. Bytes that are no UTF-8 are shown as `\\xNN`."""
    if _PLAIN(name):
        return name
    return printable(name.decode(errors="backslashreplace")).encode()


def _word(name: bytes) -> bytes:
    return escaped(name).replace(b" ", b"\\x20")


def _line(text: bytes) -> Iterator[bytes]:
    return iter((text,))


def _list(things: list[T], row: Callable[[T], bytes]) -> Iterator[bytes]:
    """A line for each, in pieces; none where the row is empty. The list is emptied from the end as it is shown."""
    things.reverse()
    while things:
        piece = things[: -ROWS - 1 : -1]
        del things[-ROWS:]
        yield b"".join([row(thing) for thing in piece])
    yield LIST_END


def _unknown(command: bytes) -> bytes:
    return b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % _word(command[:200])


def _incomplete(command: bytes) -> bytes:
    return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n" % command


def _workers(peers: list[RemotePeer]) -> Iterator[bytes]:
    for peer in peers:
        if not peer.gone:
            client_id = escaped(peer.client_id).replace(b" :", b"\\x20:")
            yield b"%d %b %b :" % (peer.fileno, peer.host.encode(), client_id)
            names = (function.name for function in reversed(list(peer.abilities)))
            while some := [b" " + _word(name) for name in islice(names, ROWS)]:
                yield b"".join(some)
            yield b"\n"
    yield LIST_END


def _status(rules: Rules) -> Iterator[bytes]:
    def row(function: Function) -> bytes:
        return b"%b\t%d\t%d\t%d\n" % (escaped(function.name), function.total, function.running, function.workers)

    return _functions(rules, row)


def _priority_status(rules: Rules) -> Iterator[bytes]:
    def row(function: Function) -> bytes:
        high, normal, low = (function.queued(priority) + function.held[priority] for priority in Priority)
        return b"%b\t%d\t%d\t%d\t%d\n" % (escaped(function.name), high, normal, low, function.workers)

    return _functions(rules, row)


def _delayed_status(rules: Rules) -> Iterator[bytes]:
    """Not in gearmand: how many of a function's waiting jobs have a time that has not come."""
    return _functions(rules, lambda function: b"%b\t%d\n" % (escaped(function.name), sum(function.held)))


def _functions(rules: Rules, row: Callable[[Function], bytes]) -> Iterator[bytes]:
    known = rules.functions
    return _list(list(known.values()), lambda function: row(function) if known.get(function.name) is function else b"")


def _show(rules: Rules, arguments: list[bytes]) -> Iterator[bytes]:
    what = [word.lower() for word in arguments]
    if not what:
        return _line(_unknown(b"show"))
    if what == [b"jobs"]:
        return _list(list(rules.jobs), lambda handle: _job(rules, handle))
    if what == [b"unique", b"jobs"]:
        return _list(list(rules.jobs), lambda handle: _unique(rules, handle))
    return _line(b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n")


def _job(rules: Rules, handle: bytes) -> bytes:
    job = rules.jobs.get(handle)
    return b"%b\t%d\t0\t%d\n" % (handle, job.retries, job.background) if job else b""


def _unique(rules: Rules, handle: bytes) -> bytes:
    job = rules.jobs.get(handle)
    if job is None:
        return b""
    return escaped(job.unique) + b"\n" if job.unique != b"." else b"\\x2e\n"  # a line with a dot ends the list


def _create(rules: Rules, arguments: list[bytes]) -> Iterator[bytes]:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        return _line(_incomplete(b"create"))
    if len(arguments[1]) > MAX_NAME_BYTES:
        return _line(_invalid(b"create", b"a name of up to %d bytes" % MAX_NAME_BYTES))
    rules.create(arguments[1])
    return _line(OK)


def _drop(rules: Rules, arguments: list[bytes]) -> Iterator[bytes]:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        return _line(_incomplete(b"drop"))
    if arguments[1] not in rules.functions:
        return _line(b"ERR function not found\r\n")
    if not rules.drop(arguments[1]):
        return _line(b"ERR there are still connected workers or executing clients\r\n")
    return _line(OK)


def _cancel(rules: Rules, arguments: list[bytes]) -> Iterator[bytes]:
    if len(arguments) != 2:
        return _line(_unknown(b"cancel"))
    if arguments[0].lower() != b"job":
        return _line(b"ERR UNKNOWN_ERROR\r\n")
    return _line(OK if rules.cancel(arguments[1]) else b"ERR UNKNOWN_JOB\r\n")


def _max_queue(rules: Rules, arguments: list[bytes]) -> Iterator[bytes]:
    if not arguments:
        return _line(_incomplete(b"maxqueue"))
    name, words = arguments[0], arguments[1:4]
    numbers = [int(word) for word in words if _NUMBER(word)]
    if len(name) > MAX_NAME_BYTES or len(numbers) < len(words) or any(number > MAX_QUEUE for number in numbers):
        return _line(_invalid(b"maxqueue", b"numbers of jobs from 0 to %d" % MAX_QUEUE))
    if len(numbers) < 2:
        numbers = (numbers or [0]) * 3
    high, normal, low = [max(0, number) for number in (*numbers, 0)][:3]  # as in gearmand, less than none is no limit
    rules.limit(name, (high, normal, low))
    return _line(OK)


def _invalid(command: bytes, expected: bytes) -> bytes:
    return b"ERR INVALID_ARGUMENTS %b+takes+%b\r\n" % (command, expected.replace(b" ", b"+"))


LISTS: Final[dict[bytes, Callable[[Rules], Iterator[bytes]]]] = {
    b"status": _status,
    b"prioritystatus": _priority_status,
    b"delayedstatus": _delayed_status,
    b"version": lambda rules: _line(b"OK %b\n" % __version__.encode()),
    b"getpid": lambda rules: _line(b"OK %d\n" % os.getpid()),
    b"verbose": lambda rules: _line(b"OK NOTICE\n"),
}
ACTIONS: Final[dict[bytes, Callable[[Rules, list[bytes]], Iterator[bytes]]]] = {
    b"show": _show,
    b"create": _create,
    b"drop": _drop,
    b"cancel": _cancel,
    b"maxqueue": _max_queue,
}
