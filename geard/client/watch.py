"""Watch: to wait for news on many exchanges at once.

Rule: whoever watches reads what comes, for everybody, as any caller of an exchange does.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Collection, Iterable
from queue import SimpleQueue
from typing import cast

from geard.client.exchange import LOOK_SECONDS, RECHECK_SECONDS, Exchange
from geard.client.reply import Bell, Reply
from geard.errors import ConnectionLost
from geard.protocol import Command


class Watch:
    """For one caller, whose replies have the bell."""

    def __init__(self, bell: Bell) -> None:
        self._bell = bell
        self._doorbell: Doorbell | None = None

    @property
    def doorbell(self) -> SimpleQueue[None]:
        """To hang among the queues of callers that wait for something else: it ends our wait, too."""
        doorbell = self._doorbell = self._doorbell or Doorbell()
        return cast("SimpleQueue[None]", doorbell)

    def wait(self, exchanges: Collection[Exchange], happened: Callable[[], object], seconds: float) -> None:
        """Read once what arrives on any of them; or until others have read something that is ours, or for a while."""
        bell = self.doorbell
        doorbell = self._doorbell
        assert doorbell is not None
        poll, found = watching(exchanges)
        poll.register(doorbell.descriptor, select.POLLIN)
        try:
            self._bell.append(bell)
            # Look again, now that we can be woken.
            if happened():
                return
            ready = poll.poll(min(seconds, RECHECK_SECONDS) * 1000)
        finally:
            if bell in self._bell:
                self._bell.remove(bell)
        doorbell.silence()
        if not ready:  # what a caller was interrupted with, nobody delivers: each is read once, arrived or not
            ready = [(descriptor, 0) for descriptor in found]
        for descriptor, _ in ready:
            if descriptor in found:
                read_once(found[descriptor])


def watching(exchanges: Iterable[Exchange]) -> tuple[select.poll, dict[int, Exchange]]:
    """What tells which of them something has arrived on, by their descriptors."""
    poll, found = select.poll(), {}
    for exchange in exchanges:
        if (descriptor := exchange.descriptor) >= 0:
            found[descriptor] = exchange
            poll.register(descriptor, select.POLLIN)
    return poll, found


def read_arrived(exchanges: Iterable[Exchange]) -> None:
    """Read what has arrived on any of them, without waiting for more."""
    poll, found = watching(exchanges)
    for descriptor, _ in poll.poll(0) if found else ():
        read_once(found[descriptor])


def read_once(exchange: Exchange) -> None:
    """Read what has arrived, and give it to whom it belongs. Does nothing where another caller is at it."""
    asked: list[None] = []

    def happened() -> bool:
        asked.append(None)
        return len(asked) > 1

    with contextlib.suppress(ConnectionLost):
        exchange.wait(Reply(Command.NOOP), happened, time.monotonic() + LOOK_SECONDS)


class Doorbell:
    """Hangs in a Bell among the queues of other callers, and makes a descriptor readable.

    It is closed when nobody knows it any more: whoever rings it must not write to another's descriptor."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def __del__(self) -> None:
        if "descriptor" in self.__dict__:
            os.close(self.descriptor)

    def put(self, _: None) -> None:
        """Ring."""
        os.eventfd_write(self.descriptor, 1)

    def silence(self) -> None:
        """Not readable until it is rung again."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.descriptor)
