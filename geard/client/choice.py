"""Which of many job servers a submission goes to: pure decisions.

Rules: `spread` goes by what each owes this client, and shares are even where all owe the same. `unique` goes by the
function and the unique alone, so all clients with the same job servers agree without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

Choose = Literal["first", "spread", "unique"]
"""How a client chooses: see Client."""

CHOICES: tuple[Choose, ...] = ("first", "spread", "unique")

T = TypeVar("T")


def least(candidates: Sequence[T], outstanding: Callable[[T], int], turn: int) -> T:
    """The candidate with the least outstanding; of those with equally little, they take turns: `turn` is a number that
    grows by one with each choice. Raises ValueError when there is none."""
    loads = [outstanding(candidate) for candidate in candidates]
    fewest = min(loads)
    if loads.count(fewest) == 1:
        return candidates[loads.index(fewest)]
    tied = [candidate for candidate, load in zip(candidates, loads, strict=True) if load == fewest]
    return tied[turn % len(tied)]
