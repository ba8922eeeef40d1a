"""Commits: what a turn of the loop has brought and ended is stored when it ends, all at once.

Rules:
- No worker sees a background job before it is on the disk. One that the queue file does not take is refused.
- While the file cannot be written, which is said once, jobs that ended stay in it; they are removed when it can be.
"""

from __future__ import annotations

import logging
from typing import Final

import gevent

from geard.jobserver.rules import Rules
from geard.jobserver.store import CannotStore, Store

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = 1.0


class Commits:
    """See the module. Closes the store in the end."""

    def __init__(self, store: Store, rules: Rules, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self._store = store
        self._rules = rules
        self._retry_seconds = retry_seconds
        self._fails = False  # and that has been said
        self._waits = False  # before it tries again, unless there is more to store

    def __repr__(self) -> str:
        return f"<Commits {self._store}{' fails' if self._fails else ''}>"

    def end_turn(self) -> None:
        """Store what is to be stored, if anything is."""
        rules = self._rules
        if not rules.staged and (self._waits or not rules.ended):
            return
        added, ended = rules.to_store(), rules.ended
        try:
            self._store.commit(added, ended, rules.next_number)
        except CannotStore as error:
            if not self._fails:
                self._fails = True
                log.error("%s; background jobs are refused until it can be written", error)
            if not self._waits:
                self._waits = True
                gevent.spawn_later(self._retry_seconds, self._retry)
            rules.refuse("Job server cannot store the job")
            return
        if self._fails:
            log.info("the queue file can be written again")
            self._fails = False
        rules.ended = []
        rules.admit()

    def close(self) -> None:
        """Close the queue file. Idempotent."""
        self._store.close()

    def _retry(self) -> None:
        self._waits = False  # the end of this turn tries again
