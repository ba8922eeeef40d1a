"""How long a channel waits before it connects again, and what of it is news."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.errors import CannotConnect, ConnectionLost, ProtocolError
from geard.reconnect import CAP_SECONDS, COSTLY_CAP_SECONDS, FIRST_SECONDS, Backoff

LOST = ConnectionLost("lost it")
REFUSED = CannotConnect("refused", refused=True)
UNREACHABLE = CannotConnect("no answer within 5 s")
RUBBISH = ProtocolError("expected a Gearman packet")


def longest() -> float:
    return 1.0


def shortest() -> float:
    return 0.0


def after(failures: int, error: ConnectionLost = LOST) -> Backoff:
    backoff = Backoff()
    for _ in range(failures):
        backoff.failed(error)
    return backoff


def test_the_first_attempt_is_made_at_once() -> None:
    assert Backoff().wait_seconds(longest) == 0.0


@pytest.mark.parametrize("error", [RUBBISH, UNREACHABLE])
def test_the_wait_for_a_server_that_is_not_right_doubles_from_a_tenth_of_a_second_to_ten(error: ConnectionLost) -> None:
    waits = [round(after(failures, error).wait_seconds(longest), 3) for failures in range(1, 11)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


@pytest.mark.parametrize("error", [LOST, REFUSED])
def test_a_server_that_is_merely_away_is_asked_again_within_a_second(error: ConnectionLost) -> None:
    assert after(1000, error).wait_seconds(longest) == CAP_SECONDS
    backoff = after(1000, RUBBISH)
    backoff.failed(error)
    assert backoff.wait_seconds(longest) == CAP_SECONDS, "it is the last failure that counts"


def test_a_server_that_restarts_again_and_again_is_asked_within_a_second_of_each_return() -> None:
    """Ten seconds: up for 1 s, away for 2. Each restart cuts a connection, refuses, and resets one that was early."""
    backoff, now = Backoff(), 0.0
    for restart in range(3):
        away_at, back_at = 3.0 * restart + 1, 3.0 * restart + 3
        now = away_at
        backoff.failed(LOST)
        while (now := now + backoff.wait_seconds(longest)) < back_at:
            backoff.failed(REFUSED)
        assert now - back_at <= CAP_SECONDS
        backoff.failed(LOST)  # it listened already, and was not ready yet
        assert backoff.wait_seconds(longest) <= CAP_SECONDS
        backoff.connected()


def test_rubbish_is_asked_for_ever_less_though_the_server_answers_or_goes_away_between() -> None:
    for between in ((RUBBISH,), (RUBBISH, LOST), (RUBBISH, REFUSED)):
        backoff, now, rubbish = Backoff(), 0.0, 0
        while now < 60:
            for error in between:
                backoff.connected()
                backoff.failed(error)
                rubbish += error is RUBBISH
                now += backoff.wait_seconds(shortest)
        assert rubbish < 20, between


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.sampled_from([LOST, RUBBISH]))
def test_jitter_takes_off_half_at_most(failures: int, random: float, error: ConnectionLost) -> None:
    backoff = after(failures, error)
    step = backoff.wait_seconds(longest)
    assert FIRST_SECONDS <= step <= COSTLY_CAP_SECONDS
    assert step / 2 <= backoff.wait_seconds(lambda: random) <= step


def test_a_thousand_workers_do_not_come_back_in_step() -> None:
    assert after(4).wait_seconds(shortest) == after(4).wait_seconds(longest) / 2


def test_the_same_failure_again_is_no_news() -> None:
    backoff = Backoff()
    assert backoff.failed(REFUSED)
    assert not backoff.failed(REFUSED)
    assert backoff.failed(LOST), "another reason is"
    assert not backoff.failed(LOST)
    backoff.connected()
    assert backoff.failed(LOST), "it had worked between"


def test_a_server_that_answers_and_then_sends_rubbish_is_asked_less_and_less() -> None:
    backoff = Backoff()
    for _ in range(7):
        backoff.failed(RUBBISH)
        backoff.connected()
    assert backoff.wait_seconds(longest) == 6.4
    assert repr(backoff) == "<Backoff 7 failures, 7 costly>"


def test_a_connection_that_has_proved_itself_forgives_all() -> None:
    backoff = after(9)
    backoff.succeeded()
    assert backoff.wait_seconds(longest) == 0.0
    backoff.failed(LOST)
    assert backoff.wait_seconds(longest) == FIRST_SECONDS
