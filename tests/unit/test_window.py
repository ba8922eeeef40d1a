"""How many jobs a channel asks for, as pure decisions."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from geard.worker.window import GROWTH_PAUSE_SECONDS, HOARD_SECONDS, MAX_PATIENCE, GrabWindow, grabs_due

counts = st.integers(0, 200)


def busy(window: GrabWindow, jobs: int, now: float = 0.0) -> None:
    """A backlog: jobs come as fast as they are asked for."""
    while jobs > 0:
        batch = min(window.size, jobs)
        window.assigned(batch, now)
        jobs -= batch


@given(counts, counts, counts, counts)
def test_never_more_grabs_than_greenlets_free_to_run_what_they_bring(
    window: int, owed: int, queued: int, idle: int
) -> None:
    due = grabs_due(window=window, owed=owed, queued=queued, idle=idle)
    assert due >= 0
    if due:
        assert owed + due <= idle, "each grab that is owed has a greenlet"
        assert owed + queued + due <= window


def test_grabs_fill_the_window_or_take_the_idle_greenlets() -> None:
    assert grabs_due(window=8, owed=0, queued=0, idle=50) == 8
    assert grabs_due(window=8, owed=3, queued=2, idle=50) == 3
    assert grabs_due(window=64, owed=1, queued=0, idle=5) == 4
    assert grabs_due(window=64, owed=0, queued=0, idle=0) == 0


def test_a_backlog_opens_the_window_to_its_limit_and_no_further() -> None:
    window = GrabWindow(48)
    sizes = []
    for _ in range(10):
        busy(window, window.size)
        sizes.append(window.size)
    assert sizes == [2, 4, 8, 16, 32, 48, 48, 48, 48, 48]


def test_jobs_that_come_one_at_a_time_leave_the_window_at_one_most_of_the_time() -> None:
    window = GrabWindow(64)
    sizes = []
    for _ in range(200):
        window.assigned(1, 0.0)
        sizes.append(window.size)
        window.came_short()
    assert set(sizes) <= {1, 2}
    assert sizes.count(2) <= 200 / MAX_PATIENCE + 5, "each growth that came too early makes the next one wait longer"


def test_a_real_backlog_after_lonely_jobs_opens_the_window_all_the_same() -> None:
    window = GrabWindow(64)
    for _ in range(100):
        window.assigned(1, 0.0)
        window.came_short()
    busy(window, 200)
    assert window.size == 64


def test_no_job_halves_the_window_down_to_one() -> None:
    window = GrabWindow(64)
    busy(window, 200)
    sizes = []
    for _ in range(8):
        window.came_short()
        sizes.append(window.size)
    assert sizes == [32, 16, 8, 4, 2, 1, 1, 1]


def test_a_batch_that_waited_for_greenlets_halves_the_window_once_and_keeps_it_small_for_a_while() -> None:
    window = GrabWindow(64)
    busy(window, 200, now=0.0)
    for number in range(64):  # all came at 1.0, and each waits longer than the one before
        window.hoarded(received=1.0, now=1.0 + HOARD_SECONDS * (number + 1))
    assert window.size == 32
    window.hoarded(received=1.5, now=1.6)
    assert window.size == 16, "the next batch has its own say"
    busy(window, 500, now=1.6 + GROWTH_PAUSE_SECONDS * 0.9)
    assert window.size == 16
    busy(window, 500, now=1.6 + GROWTH_PAUSE_SECONDS * 1.1)
    assert window.size == 64


def test_a_new_connection_begins_at_one() -> None:
    window = GrabWindow(64)
    busy(window, 200)
    window.quiet()
    assert window.size == 1
    assert repr(window) == "<GrabWindow 1/64 patience=1>"


class AnyHistory(RuleBasedStateMachine):
    """Whatever the job server answers: the window stays within its bounds and moves one step at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.window = GrabWindow(37)
        self.now = 0.0

    def step(self, act: Callable[[], None], sizes: Callable[[int], set[int]]) -> None:
        before = self.window.size
        act()
        assert self.window.size in sizes(before)

    @rule(count=st.integers(1, 100), seconds=st.floats(0, 2))
    def assigned(self, count: int, seconds: float) -> None:
        self.now += seconds
        self.step(lambda: self.window.assigned(count, self.now), lambda size: {size, min(size * 2, 37)})

    @rule()
    def came_short(self) -> None:
        self.step(self.window.came_short, lambda size: {max(size // 2, 1)})

    @rule(ago=st.floats(0, 2))
    def hoarded(self, ago: float) -> None:
        self.step(lambda: self.window.hoarded(self.now - ago, self.now), lambda size: {size, max(size // 2, 1)})

    @rule()
    def quiet(self) -> None:
        self.step(self.window.quiet, lambda size: {1})

    @invariant()
    def within_bounds(self) -> None:
        assert 1 <= self.window.size <= 37


TestAnyHistory = AnyHistory.TestCase
TestAnyHistory.settings = settings(max_examples=30)
