"""How long a channel waits before it connects again, and what of it is news."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from geard.errors import CannotConnect, ConnectionLost
from geard.worker.reconnect import CAP_SECONDS, FIRST_SECONDS, REFUSED_CAP_SECONDS, Backoff

LOST = ConnectionLost("lost it")
REFUSED = CannotConnect("refused", refused=True)


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


def test_the_wait_doubles_from_a_tenth_of_a_second_to_ten() -> None:
    waits = [round(after(failures).wait_seconds(longest), 3) for failures in range(1, 11)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0]


def test_a_server_that_merely_refuses_is_asked_again_within_a_second() -> None:
    assert after(1000, REFUSED).wait_seconds(longest) == REFUSED_CAP_SECONDS
    backoff = after(1000, REFUSED)
    backoff.failed(LOST)
    assert backoff.wait_seconds(longest) == CAP_SECONDS, "it is the last failure that counts"


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True))
def test_jitter_takes_off_half_at_most(failures: int, random: float) -> None:
    backoff = after(failures)
    step = backoff.wait_seconds(longest)
    assert FIRST_SECONDS <= step <= CAP_SECONDS
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


def test_a_server_that_answers_and_breaks_at_once_is_asked_less_and_less() -> None:
    backoff = Backoff()
    for _ in range(7):
        backoff.failed(LOST)
        backoff.connected()
    assert backoff.wait_seconds(longest) == 6.4
    assert repr(backoff) == "<Backoff 7 failures>"


def test_a_connection_that_has_proved_itself_forgives_all() -> None:
    backoff = after(9)
    backoff.succeeded()
    assert backoff.wait_seconds(longest) == 0.0
    backoff.failed(LOST)
    assert backoff.wait_seconds(longest) == FIRST_SECONDS
