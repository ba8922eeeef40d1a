"""Rendezvous hashing: who of several is responsible for a key, with no word between those who ask.

All who know the same candidates choose the same one. A candidate more or less moves only its own share of the keys.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from hashlib import blake2b


def choose(key: bytes, candidates: Iterable[str]) -> str:
    """The candidate with the highest hash together with the key. Raises ValueError when there is none."""
    return max(candidates, key=lambda candidate: (_score(key, candidate), candidate))


def ranked(key: bytes, candidates: Iterable[str]) -> list[str]:
    """All of them: the one that `choose` chooses, the one that it would choose without that, and so on."""
    return sorted(candidates, key=lambda candidate: (_score(key, candidate), candidate), reverse=True)


def _score(key: bytes, candidate: str) -> bytes:
    return blake2b(key, digest_size=8, key=_hashed(candidate)).digest()


@lru_cache(maxsize=4096)
def _hashed(candidate: str) -> bytes:
    return blake2b(candidate.encode(), digest_size=32).digest()
