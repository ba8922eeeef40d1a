"""Dead letters submitted again, for `geard dead retry` and the dashboard."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from geard.client import Client
from geard.deadletters.letter import DeadLetter
from geard.deadletters.store import Filter
from geard.protocol.packets import MAX_UNIQUE_BYTES


class Letters(Protocol):
    """Where they are. Both raise DeadLettersUnusable."""

    def find(self, which: Filter, *, most: int | None = None, workloads: bool = True) -> list[DeadLetter]:
        """The letters that are meant, the latest first; their workloads only where they are asked for."""

    def drop(self, which: Filter) -> int:
        """Forget these; how many they were."""


def submit_again(client: Client, letters: Letters, which: Filter, *, most: int | None = None) -> Iterator[DeadLetter]:
    """Submit each as a background job, the latest first; one is forgotten once a job server has it, and then told.

    Raises ConnectionLost, and what `letters` raises: what was not submitted by then stays."""
    for listed in letters.find(which, most=most, workloads=False):
        this = Filter((listed.id,))
        for letter in letters.find(this):  # one at a time, since workloads may be large; none, if it went meanwhile
            client.submit_background(letter.function, letter.workload, unique=_unique(letter))
            letters.drop(this)
            yield letter


def _unique(letter: DeadLetter) -> str | None:
    """Its unique; None, for a new one, where it had none, or one that was no text and is too long as what was shown."""
    return letter.unique if 0 < len(letter.unique.encode()) <= MAX_UNIQUE_BYTES else None
