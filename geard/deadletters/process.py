"""The process that keeps the dead letters: `python -m geard.deadletters.process FD`.

FD is one end of a socket pair with the supervisor. A Keep comes over it, first and after each reload; its end means
that there is nothing more to keep. Letters come over the Unix socket that Keep names.

Rules:
- Who connects must be of our own user: the socket has an abstract name, which anybody may try.
- All letters that are there are committed together.
- A letter that cannot be kept is answered with the reason, and costs nothing else.
"""

from __future__ import annotations

import logging
import os
import signal
import socket as plain_socket
import struct
import sys
import time
from contextlib import suppress
from typing import Final

import gevent
import msgspec
from gevent import socket
from gevent.event import AsyncResult
from gevent.pool import Pool
from gevent.queue import Queue
from gevent.server import StreamServer
from setproctitle import setproctitle

from geard import exits, logs
from geard.deadletters import link
from geard.deadletters.keep import Keep, load_keep
from geard.deadletters.letter import DeadLetter, DeadLettersUnusable
from geard.deadletters.store import DeadLetters

MAX_CONNECTIONS: Final = 2000
PRUNE_SECONDS: Final = 60.0
RECEIVE_SECONDS: Final = 30.0

log = logging.getLogger("geard.deadletters")  # this module is __main__

Waiting = tuple[DeadLetter, "AsyncResult[bytes]"]


class Keeper:
    """Takes letters and commits them."""

    def __init__(self, keep: Keep) -> None:
        self._keep = keep
        self._store = DeadLetters(keep.letters.file)
        self._queue: Queue[Waiting] = Queue()
        self._pruned_at = 0.0

    def replace(self, keep: Keep) -> None:
        """A new config."""
        self._keep = keep
        if keep.letters.file != self._store.path:
            self._store.close()
            self._store = DeadLetters(keep.letters.file)

    def serve(self, connection: socket.socket, _address: object) -> None:
        """One letter of one worker."""
        with connection, suppress(OSError, msgspec.DecodeError):
            if _user_of(connection) not in (0, os.geteuid()):
                return
            connection.settimeout(RECEIVE_SECONDS)
            letter = link.receive(connection)
            if letter is not None:
                answer: AsyncResult[bytes] = AsyncResult()
                self._queue.put((letter, answer))
                connection.sendall(answer.get() or b"")

    def commit(self) -> None:
        """Wait for letters and commit them, for ever."""
        while True:
            batch = [self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get())
            answer = self._add([letter for letter, _ in batch])
            for _, waiting in batch:
                waiting.set(answer)

    def _add(self, letters: list[DeadLetter]) -> bytes:
        try:
            self._store.add(letters)
            if time.monotonic() - self._pruned_at >= PRUNE_SECONDS:
                self._pruned_at = time.monotonic()
                keep = self._keep.letters
                self._store.prune(keep_seconds=keep.keep_seconds, most=keep.most)
        except DeadLettersUnusable as error:
            log.error("%s", error)
            return str(error).encode()
        return link.KEPT


def main(descriptor: int) -> int:
    """Serve until the supervisor's end of the socket closes; the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # workers that drain still need us: the supervisor says when it is over
    setproctitle("geard: dead letters")
    gevent.signal_handler(signal.SIGUSR1, logs.reopen)
    lines = socket.socket(fileno=descriptor).makefile("rb")
    line = lines.readline()
    if not line:
        return exits.DONE
    keep = load_keep(line)
    _configure_log(keep)
    keeper = Keeper(keep)
    gevent.spawn(keeper.commit)
    StreamServer(_listen(keep.address), keeper.serve, spawn=Pool(MAX_CONNECTIONS)).start()
    for line in lines:
        keep = load_keep(line)
        _configure_log(keep)
        keeper.replace(keep)
    return exits.DONE


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(address)
    listener.listen(512)
    return listener


def _user_of(connection: socket.socket) -> int:
    credentials = connection.getsockopt(plain_socket.SOL_SOCKET, plain_socket.SO_PEERCRED, 12)
    _pid, uid, _gid = struct.unpack("3i", credentials)
    return int(uid)


def _configure_log(keep: Keep) -> None:
    logs.configure(keep.logging, verbose=keep.verbose, process="dead letters", can_do_without=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
