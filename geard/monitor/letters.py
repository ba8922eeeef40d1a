"""The dead letters of this machine's daemon, as the monitor knows them and what it can do with them.

Rule: SQLite waits for the disk and for other processes, so it is used in native threads only: no request waits for it
but those that retry or drop, and these hold up no other.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec
from gevent.threadpool import ThreadPool

from geard.client import Client
from geard.config.model import JobServer
from geard.deadletters.again import submit_again
from geard.deadletters.letter import DeadLetter, DeadLettersUnusable
from geard.deadletters.store import DeadLetters, Filter, Group
from geard.errors import GeardError

POLL_SECONDS: Final = 2.0
LOOKED_AT_SECONDS: Final = 10.0
NEWEST: Final = 20
MOST_AT_ONCE: Final = 1000
"""So many letters are submitted again by one press of a button."""
CONNECT_SECONDS: Final = 3.0
THREADS: Final = 2

T = TypeVar("T")


def key_of(function: str, error: str | None = None) -> str:
    """What a form calls the letters of a function, or those of one error of it: a browser changes line breaks in what
    it sends, and these may have any."""
    named = msgspec.json.encode([function, error])
    return hashlib.sha256(named).hexdigest()


class LettersWatch:
    """The file at `path`, "" for none. `counts` by function is always known; the rest for a while after a `look`."""

    def __init__(
        self, path: str, job_servers: tuple[JobServer, ...], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path = path
        self.error = ""  # why nothing of it is new
        self.counts: dict[str, int] = {}
        self.groups: list[Group] | None = None  # None: nobody looked
        self.newest: dict[str, list[DeadLetter]] = {}  # of the functions that were looked at, without workloads
        self._job_servers = job_servers
        self._clock = clock
        self._looked_at = -LOOKED_AT_SECONDS
        self._functions: dict[str, float] = {}  # looked at -> when
        self._pool: ThreadPool | None = None
        self._is_retrying = threading.Lock()

    def look(self, function: str = "") -> None:
        """Somebody wants the groups too, and the newest letters of a function: ask for them for a while."""
        self._looked_at = self._clock()
        if function in self.counts:
            self._functions[function] = self._looked_at

    def meant(self, key: str) -> Filter | None:
        """The letters that a `key_of` stands for; None for one of none that are known."""
        found = {key_of(name): Filter(function=name) for name in self.counts}
        for group in self.groups or ():
            found[key_of(group.function, group.error)] = Filter(function=group.function, whole_error=group.error)
        return found.get(key)

    def poll(self) -> float:
        """Ask the file. How long to wait before the next time."""
        begin = self._clock()
        self._functions = {name: at for name, at in self._functions.items() if begin - at < LOOKED_AT_SECONDS}
        if not self.path:
            return 3600.0
        try:
            if os.path.exists(self.path):
                self._ask(is_looked_at=begin - self._looked_at < LOOKED_AT_SECONDS)
            else:
                self.counts, self.groups, self.newest = {}, [], {}
        except DeadLettersUnusable as error:
            self.error = str(error)
        else:
            self.error = ""
        return max(POLL_SECONDS, 10 * (self._clock() - begin))  # one that takes long is read less

    def drop(self, which: Filter) -> int:
        """Forget these; how many they were. Raises DeadLettersUnusable."""
        return self._apart(lambda letters: letters.drop(which))

    def find(self, which: Filter, *, most: int | None = None, workloads: bool = True) -> list[DeadLetter]:
        """The letters that are meant, the latest first. Raises DeadLettersUnusable."""
        return self._apart(lambda letters: letters.find(which, most=most, workloads=workloads))

    def retry(self, which: Filter) -> int:
        """Submit these again, at most MOST_AT_ONCE; how many they were. Raises GeardError, which says how many were."""
        if not self._is_retrying.acquire(blocking=False):
            raise GeardError("dead letters are being submitted just now: wait for that")
        done = 0
        try:
            with Client(
                self._job_servers,
                encoding="bytes",
                connect_timeout_seconds=CONNECT_SECONDS,
                answer_timeout_seconds=CONNECT_SECONDS,
            ) as client:
                for _ in submit_again(client, self, which, most=MOST_AT_ONCE):
                    done += 1
        except GeardError as error:
            raise GeardError(f"submitted {done:,} again, then: {error}") from error
        finally:
            self._is_retrying.release()
        return done

    def _ask(self, *, is_looked_at: bool) -> None:
        functions = list(self._functions)

        def read(letters: DeadLetters) -> tuple[dict[str, int], list[Group] | None, dict[str, list[DeadLetter]]]:
            newest = {name: letters.find(Filter(function=name), most=NEWEST, workloads=False) for name in functions}
            return letters.counts(), letters.groups() if is_looked_at else None, newest

        self.counts, self.groups, self.newest = self._apart(read)

    def _apart(self, use: Callable[[DeadLetters], T]) -> T:
        """Use the file in a native thread."""

        def work() -> T | DeadLettersUnusable:
            try:
                with DeadLetters(self.path, create=False) as letters:
                    return use(letters)
            except DeadLettersUnusable as error:
                return error  # raised there, it would be taken for a bug

        self._pool = self._pool or ThreadPool(THREADS)
        result: T | DeadLettersUnusable = self._pool.apply(work)
        if isinstance(result, DeadLettersUnusable):
            raise result
        return result
