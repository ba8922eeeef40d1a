"""The admin commands: a line of text in, lines of text out, in the words of gearmand.

Rule: a command and its fixed arguments are matched without regard to case; names are taken as they are.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from geard import __version__
from geard.jobserver.rules import Rules
from geard.jobserver.state import Peer, Priority, State
from geard.protocol.admin import (
    LIST_END,
    DelayedStatus,
    FunctionStatus,
    JobStatus,
    PriorityStatus,
    WorkerStatus,
    format_list,
)

OK: Final = b"OK\r\n"


class RemotePeer(Peer):
    """A peer that has an address, for `workers`."""

    __slots__ = ("fileno", "host")

    def __init__(self, fileno: int, host: str) -> None:
        super().__init__()
        self.fileno = fileno
        self.host = host


def answer(rules: Rules, peers: Iterable[RemotePeer], line: bytes) -> bytes:
    """The answer to an admin command."""
    words = line.rstrip(b"\r").split(b" ")
    words = [words[0], *filter(None, words[1:])]
    command = words[0].lower()
    if command == b"workers":
        return _workers(peers)
    if command in LISTS:
        return LISTS[command](rules)
    if command in ACTIONS:
        return ACTIONS[command](rules, [word for word in words[1:] if word])
    return _unknown(words[0])


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _unknown(command: bytes) -> bytes:
    return b"ERR UNKNOWN_COMMAND Unknown+server+command%b\r\n" % command[:200]


def _incomplete(command: bytes) -> bytes:
    return b"ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments+was+sent+to+this+command+%b\r\n" % command


def _workers(peers: Iterable[RemotePeer]) -> bytes:
    return format_list(
        WorkerStatus(peer.fileno, peer.host, _text(peer.client_id), tuple(_text(f.name) for f in peer.abilities))
        for peer in peers
    )


def _status(rules: Rules) -> bytes:
    return format_list(FunctionStatus(_text(f.name), f.total, f.running, f.workers) for f in rules.functions.values())


def _priority_status(rules: Rules) -> bytes:
    waiting = Counter((j.function.name, j.priority) for j in rules.jobs.values() if j.state is not State.RUNNING)
    return format_list(
        PriorityStatus(
            _text(name),
            waiting[name, Priority.HIGH],
            waiting[name, Priority.NORMAL],
            waiting[name, Priority.LOW],
            function.workers,
        )
        for name, function in rules.functions.items()
    )


def _show(rules: Rules, arguments: list[bytes]) -> bytes:
    what = [word.lower() for word in arguments]
    if not what:
        return _unknown(b"show")
    if what == [b"jobs"]:
        return format_list(JobStatus(_text(j.handle), j.retries, False, j.background) for j in rules.jobs.values())
    if what == [b"unique", b"jobs"]:
        return b"".join([*(job.unique + b"\n" for job in rules.jobs.values()), LIST_END])
    return b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"


def _create(rules: Rules, arguments: list[bytes]) -> bytes:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        return _incomplete(b"create")
    rules.function(arguments[1])
    return OK


def _drop(rules: Rules, arguments: list[bytes]) -> bytes:
    if len(arguments) != 2 or arguments[0].lower() != b"function":
        return _incomplete(b"drop")
    function = rules.functions.get(arguments[1])
    if function is None:
        return b"ERR function not found\r\n"
    if function.workers or function.total:  # gearmand drops the queued jobs with it; we do not lose jobs
        return b"ERR there are still connected workers or executing clients\r\n"
    del rules.functions[function.name]
    return OK


def _cancel(rules: Rules, arguments: list[bytes]) -> bytes:
    if len(arguments) != 2:
        return _unknown(b"cancel")
    if arguments[0].lower() != b"job":
        return b"ERR UNKNOWN_ERROR\r\n"
    return OK if rules.cancel(arguments[1]) else b"ERR UNKNOWN_JOB\r\n"


def _max_queue(rules: Rules, arguments: list[bytes]) -> bytes:
    if not arguments:
        return _incomplete(b"maxqueue")
    numbers = [max(0, int(word)) if word.lstrip(b"-").isdigit() else 0 for word in arguments[1:4]]
    if len(numbers) < 2:
        numbers = (numbers or [0]) * 3
    high, normal, low = [*numbers, 0][:3]
    rules.limit(arguments[0], (high, normal, low))
    return OK


def _delayed_status(rules: Rules) -> bytes:
    """Not in gearmand: how many of a function's waiting jobs have a time that has not come."""
    delayed = Counter(job.function.name for job in rules.jobs.values() if job.state is State.DELAYED)
    return format_list(DelayedStatus(_text(name), delayed[name]) for name in rules.functions)


LISTS: Final[dict[bytes, Callable[[Rules], bytes]]] = {
    b"status": _status,
    b"prioritystatus": _priority_status,
    b"delayedstatus": _delayed_status,
    b"version": lambda rules: b"OK %b\n" % __version__.encode(),
    b"getpid": lambda rules: b"OK %d\n" % os.getpid(),
    b"verbose": lambda rules: b"OK NOTICE\n",
}
ACTIONS: Final[dict[bytes, Callable[[Rules, list[bytes]], bytes]]] = {
    b"show": _show,
    b"create": _create,
    b"drop": _drop,
    b"cancel": _cancel,
    b"maxqueue": _max_queue,
}
