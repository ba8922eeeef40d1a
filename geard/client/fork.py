"""Fork: a child process must not use what its parent has open.

Rules: each connection has one process, the one that made it. A child lets go of its copies without a byte on the wire,
has fresh locks, for others may have been held when it was made, and dials for itself. None of this costs a call
anything: Python says when there was a fork.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

from geard.errors import ConnectionLost


class Forkable(Protocol):
    """What has connections or locks."""

    def forked(self, parent: int) -> None:
        """This is a child of the process `parent`, with one thread. Take no lock."""


class ForkedConnection(ConnectionLost):
    """The connection is the parent process's, and so are its jobs: only the parent can wait for them."""


_watched: WeakSet[Forkable] = WeakSet()


def watch(thing: Forkable) -> None:
    """Tell it of forks, for as long as it lives."""
    _watched.add(thing)


def _in_child() -> None:
    parent = os.getppid()
    for thing in list(_watched):
        thing.forked(parent)


os.register_at_fork(after_in_child=_in_child)
