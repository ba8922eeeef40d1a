"""Cron expressions and intervals: what is due when, over the shifts of the clock too."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geard.errors import InvalidRequest
from geard.times import NICKNAMES, Cron, Every, Times

VIENNA = ZoneInfo("Europe/Vienna")
CRONS = ["30 2 * * *", "*/7 * * * *", "0 12 * * mon-fri", "15 */3 1,15 * *", "0 0 29 2 *", "@weekly", "59 1,2,3 * * *"]


def at(text: str) -> float:
    """A time in Vienna, or one with an offset of its own."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=VIENNA)).timestamp()


def shown(moment: int | None) -> str:
    assert moment is not None
    return datetime.fromtimestamp(moment, VIENNA).isoformat()


def dues(times: Times, start: str, count: int) -> list[str]:
    found, moment = [], at(start)
    for _ in range(count):
        due = times.after(moment)
        assert due is not None
        found.append(shown(due))
        moment = float(due)
    return found


def test_an_interval_counts_from_the_epoch() -> None:
    assert Every(15).after(1_000_000_000.5) == 1_000_000_005
    assert Every(15).after(1_000_000_005.0) == 1_000_000_020
    assert Every(15).last(1_000_000_005.0) == 1_000_000_005


def test_a_time_that_a_shift_leaves_out_is_due_at_the_next_that_there_is() -> None:
    assert dues(Cron("30 2 * * *", "Europe/Vienna"), "2026-03-28T00:00", 3) == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]


def test_a_time_that_comes_twice_is_due_once() -> None:
    nightly = Cron("30 2 * * *", "Europe/Vienna")
    assert dues(nightly, "2026-10-25T00:00", 2) == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]
    assert shown(nightly.after(at("2026-10-25T02:10:00+01:00"))) == "2026-10-26T02:30:00+01:00"


def test_what_is_due_each_half_hour_is_so_in_the_hour_that_comes_twice() -> None:
    assert dues(Cron("*/30 * * * *", "Europe/Vienna"), "2026-10-25T01:40", 5) == [
        "2026-10-25T02:00:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


@pytest.mark.parametrize("nickname", NICKNAMES)
def test_nicknames(nickname: str) -> None:
    moment = at("2026-05-05T12:34:56")
    assert Cron(nickname, "Europe/Vienna").after(moment) == Cron(NICKNAMES[nickname], "Europe/Vienna").after(moment)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("* * * *", "is not five fields"),
        ("* * * * * *", "is not five fields"),
        ("", "is not five fields"),
        ("@reboot", "is not five fields"),
        ("61 * * * *", "bad minute"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 * * funday", "bad day-of-week"),
    ],
)
def test_what_is_no_cron_expression_is_refused(bad: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        Cron(bad)


moments = st.floats(min_value=at("2025-01-01T00:00"), max_value=at("2029-12-31T00:00"))
all_times = st.one_of(
    st.builds(Every, st.integers(1, 100_000)),
    st.builds(Cron, st.sampled_from(CRONS), st.sampled_from(["UTC", "Europe/Vienna", "America/St_Johns"])),
)


@given(all_times, moments)
def test_the_next_time_is_after_and_the_last_is_not(times: Times, moment: float) -> None:
    due, last = times.after(moment), times.last(moment)
    assert due is not None
    assert last is not None
    assert last <= moment < due
    assert times.after(last) == due
    assert times.last(due) == due


@given(st.sampled_from(CRONS), st.lists(moments, min_size=2, max_size=5))
def test_what_was_asked_before_changes_nothing(expression: str, asked: list[float]) -> None:
    often = Cron(expression, "Europe/Vienna")
    assert [often.after(moment) for moment in asked] == [
        Cron(expression, "Europe/Vienna").after(moment) for moment in asked
    ]
