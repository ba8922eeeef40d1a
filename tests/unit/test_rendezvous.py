"""Rendezvous hashing: equal choices, even shares, and only the share of who comes or goes moves."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.rendezvous import choose

SERVERS = [f"10.0.0.{number}:4730" for number in range(5)]
KEYS = [b"key %d" % number for number in range(5000)]


def test_the_order_of_the_candidates_does_not_matter() -> None:
    assert all(choose(key, SERVERS) == choose(key, SERVERS[::-1]) for key in KEYS[:200])


def test_shares_are_even() -> None:
    shares = Counter(choose(key, SERVERS) for key in KEYS)
    assert all(0.9 < shares[server] / (len(KEYS) / len(SERVERS)) < 1.1 for server in SERVERS)


@given(st.binary(), st.sets(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=8))
def test_who_goes_moves_nobody_elses_keys(key: bytes, candidates: set[str]) -> None:
    chosen = choose(key, candidates)
    for gone in candidates - {chosen}:
        assert choose(key, candidates - {gone}) == chosen


def test_nobody_is_chosen_from_nobody() -> None:
    with pytest.raises(ValueError, match="empty"):
        choose(b"key", [])
