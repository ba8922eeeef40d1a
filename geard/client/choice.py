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


def least(
    candidates: Sequence[T], outstanding: Callable[[T], int], given: Callable[[T], int] = lambda _: 0, turn: int = 0
) -> T:
    """The candidate with the least outstanding. Of those with equally little the one that was given the fewest; of
    those again they take turns: `turn` is a number that grows with each choice. ValueError when there is none."""
    tied = fewest(fewest(candidates, outstanding), given)
    return tied[turn % len(tied)]


def fewest(candidates: Sequence[T], number: Callable[[T], int]) -> Sequence[T]:
    """Those with the smallest number."""
    if len(candidates) == 1:
        return candidates
    numbers = [number(candidate) for candidate in candidates]
    smallest = min(numbers)
    return [candidate for candidate, each in zip(candidates, numbers, strict=True) if each == smallest]
