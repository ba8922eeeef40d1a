"""What becomes of a job that failed: the decisions, and the unique that carries its attempts."""

from __future__ import annotations

import pickle
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.config import Capability
from geard.config.model import Retry as RetryConfig
from geard.config.model import Wait
from geard.errors import CapabilityError, InvalidRequest
from geard.verdicts import Fail, Reject, Retry
from geard.worker import attempts
from geard.worker.attempts import Attempt
from geard.worker.policy import Again, Over, Policy, decide, policy_of

waits = st.floats(0, 1e6).flatmap(lambda least: st.floats(least, 1e7).map(lambda most: Wait(least, most)))
retries = st.builds(RetryConfig, times=st.integers(1, 1000), wait=waits)
errors = st.sampled_from([OSError("x"), ValueError("x"), KeyError("x"), TimeoutError("x"), KeyboardInterrupt()])


def policy(retry: RetryConfig | None, *, dead_letter: bool = False) -> Policy:
    found = policy_of(Capability("app.f", retry=retry, dead_letter=dead_letter))
    assert found
    return found


@given(retries, st.integers(1, 2000), st.floats(0, 1), st.booleans(), errors)
def test_a_job_runs_again_as_often_as_it_may_after_a_wait_between_the_ends(
    retry: RetryConfig, attempt: int, random: float, dead_letter: bool, error: BaseException
) -> None:
    decision = decide(policy(retry, dead_letter=dead_letter), attempt, error, lambda: random)
    if attempt > retry.times:
        assert decision == Over(dead_letter)
    else:
        assert isinstance(decision, Again)
        least, most = retry.wait
        assert least <= decision.wait_seconds <= max(most, least)
        assert decision.wait_seconds <= max(least * 2**attempt, least)


@given(retries, st.integers(1, 2000), st.booleans())
def test_fail_and_reject_end_it_at_once(retry: RetryConfig, attempt: int, dead_letter: bool) -> None:
    both = policy(retry, dead_letter=dead_letter)
    assert decide(both, attempt, Fail("why"), lambda: 0.5) == Over(dead_letter=False)
    assert decide(both, attempt, Reject("why"), lambda: 0.5) == Over(dead_letter=True)


def test_retry_overrules_the_wait_and_what_is_excluded_but_not_the_number() -> None:
    rules = policy(RetryConfig(2, Wait(10, 10), on=("OSError",)))
    assert decide(rules, 2, Retry(after="1m30s"), lambda: 0.5) == Again(90.0)
    assert decide(rules, 2, Retry(), lambda: 0.5) == Again(10.0)
    assert decide(rules, 3, Retry(after=1), lambda: 0.5) == Over(dead_letter=False)


def test_only_what_is_named_runs_again_and_not_on_wins() -> None:
    rules = policy(RetryConfig(3, Wait(1, 1), on=("OSError", "smtplib.SMTPException"), not_on=("FileNotFoundError",)))
    assert isinstance(decide(rules, 1, ConnectionError(), lambda: 0.5), Again)
    assert decide(rules, 1, FileNotFoundError(), lambda: 0.5) == Over(dead_letter=False)
    assert decide(rules, 1, ValueError(), lambda: 0.5) == Over(dead_letter=False)


@pytest.mark.parametrize("name", ["NoSuchError", "no.such.Error", "os.path", "int", "len"])
def test_an_exception_that_cannot_be_found_is_told(name: str) -> None:
    with pytest.raises(CapabilityError, match=name.replace(".", r"\.")):
        policy_of(Capability("app.f", retry=RetryConfig(1, on=(name,))))


def test_without_retry_and_dead_letter_there_is_no_policy() -> None:
    assert policy_of(Capability("app.f")) is None
    assert decide(policy(None, dead_letter=True), 1, ValueError(), lambda: 0.5) == Over(dead_letter=True)


def test_what_a_capability_says_comes_out_of_a_process_as_it_was() -> None:
    for verdict in (Retry("busy", after="2s"), Retry(), Fail("why"), Reject("why")):
        copy = pickle.loads(pickle.dumps(verdict))
        assert (type(copy), str(copy), vars(copy)) == (type(verdict), str(verdict), vars(verdict))


@pytest.mark.parametrize(
    "after",
    [
        float("inf"),
        float("-inf"),
        float("nan"),
        pytest.param(10**400, id="too large"),
        timedelta(seconds=1),
        [1],
        "soon",
    ],
)
def test_a_wait_that_is_no_number_of_seconds_is_refused_where_it_is_said(after: Any) -> None:
    with pytest.raises(InvalidRequest):
        Retry(after=after)


uniques = st.binary(max_size=64).map(lambda data: data.replace(b"\0", b"0"))


@given(st.integers(2, 1001), st.integers(0, 2**33), uniques)
def test_an_attempt_is_read_from_the_unique_that_says_it(number: int, first: int, unique: bytes) -> None:
    written = attempts.write(Attempt(number, first, unique))
    assert len(written) <= 64
    read = attempts.read(written)
    assert (read.number, read.first_failed_at) == (number, first)
    assert read.unique == unique or read.unique.startswith(b"#")
    following = attempts.write(Attempt(number + 1, first, read.unique))
    assert attempts.read(following).unique == read.unique  # hashed once
    assert following != written


@given(uniques)
def test_any_other_unique_is_a_first_attempt(unique: bytes) -> None:
    if not unique.startswith(attempts.PREFIX):
        assert attempts.read(unique) == Attempt(1, None, unique)


NOT_OURS = [b"geard:retry:", b"geard:retry:x:1:a", b"geard:retry:1:1:a", b"geard:retry:3:1"]
TOO_LONG = [b"geard:retry:%d:1:a" % 2**63, b"geard:retry:" + b"9" * 5000 + b":1:a", b"geard:retry:2:%d:a" % 10**12]


@pytest.mark.parametrize("unique", NOT_OURS + TOO_LONG, ids=lambda unique: unique[:30])
def test_a_unique_that_only_begins_so_is_a_first_attempt(unique: bytes) -> None:
    assert attempts.read(unique) == Attempt(1, None, unique)


@pytest.mark.parametrize("unique", [b"", b"u-1", b"x" * 100, b"geard:retry:2:5:u"])
def test_an_isolated_process_is_told_the_attempt_whatever_the_unique(unique: bytes) -> None:
    for attempt in (Attempt(3, 1_700_000_000, unique), attempts.read(unique)):
        assert attempts.read(attempts.whole(attempt)) == attempt
