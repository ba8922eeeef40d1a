"""The supervisor's decisions: histories of events against fake worker processes and a fake clock."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from geard import __version__, exits, messages
from geard.config.model import Capability
from geard.messages import (
    STACKS_SIGNAL,
    Blocked,
    CannotStart,
    DumpStacks,
    Heartbeat,
    Jobs,
    OverMemory,
    ReopenLog,
    Sharers,
    Stack,
    Suspect,
    Suspects,
)
from geard.stats.diff import Diff, FunctionDiff
from geard.stats.failures import Failure
from geard.supervisor.supervisor import CALM_TURN_SECONDS, TURN_SECONDS
from geard.supervisor.suspects import KEPT_SECONDS, MOST_SUSPECTS, SuspectList
from tests.support.fake_fleet import SERVER, World, job

History = tuple[str, Callable[[World], None], str]


def up(world: World) -> None:
    """Both processes of the first generation are ready."""
    world.ready(1, 2)


def reload_begins(world: World) -> None:
    up(world)
    world.signal(signal.SIGHUP)
    world.loaded()


def reload_done(world: World) -> None:
    reload_begins(world)
    world.ready(3, 4)


def then(*steps: Callable[[World], object]) -> Callable[[World], None]:
    def history(world: World) -> None:
        for step in steps:
            step(world)

    return history


HUP = lambda world: world.signal(signal.SIGHUP)  # noqa: E731 - steps of the table below
TERM = lambda world: world.signal(signal.SIGTERM)  # noqa: E731
QUIT = lambda world: world.signal(signal.SIGQUIT)  # noqa: E731

# name, what happens, what the worker processes then do (numbered in the order of their start)
HISTORIES: list[History] = [
    ("start", then(), "1:starting 2:starting"),
    ("start, one ready", then(lambda w: w.ready(1)), "1:ready 2:starting"),
    ("start, all ready", up, "1:ready 2:ready"),
    ("start fails: the ready one drains", then(lambda w: w.ready(1), lambda w: w.cannot_start(2)), "1:draining"),
    ("start: a segfault fails it too", then(lambda w: w.ready(1), lambda w: w.dies(2)), "1:draining"),
    (
        "start: one that was ready and crashes is replaced",
        then(lambda w: w.ready(1), lambda w: w.dies(1)),
        "2:starting 3:starting",
    ),
    ("start: nothing heard for five minutes", then(lambda w: w.ready(1), lambda w: w.passes(301)), "1:draining"),
    ("a crash is replaced at once", then(up, lambda w: w.dies(1)), "2:ready 3:starting"),
    (
        "a second crash waits",
        then(up, lambda w: w.dies(1), lambda w: w.ready(3), lambda w: w.dies(3)),
        "2:ready",
    ),
    (
        "... and is then replaced",
        then(up, lambda w: w.dies(1), lambda w: w.ready(3), lambda w: w.dies(3), lambda w: w.passes(0.6)),
        "2:ready 4:starting",
    ),
    (
        "a crash after a long good life is a first one",
        then(up, lambda w: w.dies(1), lambda w: w.ready(3), lambda w: w.passes(60), lambda w: w.dies(3)),
        "2:ready 4:starting",
    ),
    ("an exit that nobody asked for is replaced", then(up, lambda w: w.drains(1)), "2:ready 3:starting"),
    ("reload: the old serve while the new start", reload_begins, "1:ready 2:ready 3:starting 4:starting"),
    (
        "reload: half ready is not ready",
        then(reload_begins, lambda w: w.ready(3)),
        "1:ready 2:ready 3:ready 4:starting",
    ),
    ("reload: the old drain", reload_done, "1:draining 2:draining 3:ready 4:ready"),
    (
        "reload: over",
        then(reload_done, lambda w: w.drains(1), lambda w: w.drains(2)),
        "3:ready 4:ready",
    ),
    ("reload: the config is broken", then(up, HUP, lambda w: w.loaded("no such key")), "1:ready 2:ready"),
    (
        "reload: a capability cannot be imported",
        then(reload_begins, lambda w: w.ready(3), lambda w: w.cannot_start(4)),
        "1:ready 2:ready 3:draining",
    ),
    (
        "reload: both report, none is killed before it has",
        then(reload_begins, lambda w: w.cannot_start(3)),
        "1:ready 2:ready 4:starting",
    ),
    (
        "reload: one fails and the other never answers",
        then(reload_begins, lambda w: w.cannot_start(3), lambda w: w.passes(6)),
        "1:ready 2:ready",
    ),
    (
        "reload: an old one dies meanwhile and is replaced, for the new may yet fail",
        then(reload_begins, lambda w: w.dies(1)),
        "2:ready 3:starting 4:starting 5:starting",
    ),
    (
        "reload: a starting replacement is not drained but ended",
        then(reload_begins, lambda w: w.dies(1), lambda w: w.ready(3, 4)),
        "2:draining 3:ready 4:ready",
    ),
    (
        "reload: a new one dies before it is ready",
        then(reload_begins, lambda w: w.ready(3), lambda w: w.dies(4)),
        "1:ready 2:ready 3:draining",
    ),
    (
        "reload: a new one that was ready crashes: that is a crash",
        then(reload_begins, lambda w: w.ready(3), lambda w: w.dies(3)),
        "1:ready 2:ready 4:starting 5:starting",
    ),
    (
        "reload: a draining one crashes and is not replaced",
        then(reload_done, lambda w: w.dies(1)),
        "2:draining 3:ready 4:ready",
    ),
    (
        "reload twice: two generations drain at once",
        then(reload_done, HUP, lambda w: w.loaded(), lambda w: w.ready(5, 6)),
        "1:draining 2:draining 3:draining 4:draining 5:ready 6:ready",
    ),
    (
        "HUP while starting: reload after it",
        then(HUP, lambda w: w.ready(1, 2), lambda w: w.loaded()),
        "1:ready 2:ready 3:starting 4:starting",
    ),
    ("TERM drains", then(up, TERM), "1:draining 2:draining"),
    ("TERM while starting: those without jobs end", then(lambda w: w.ready(1), TERM), "1:draining"),
    ("TERM while the config is read", then(up, HUP, TERM, lambda w: w.loaded()), "1:draining 2:draining"),
    (
        "TERM in the middle of a reload",
        then(reload_begins, lambda w: w.ready(3), TERM),
        "1:draining 2:draining 3:draining",
    ),
    ("HUP while stopping changes nothing", then(up, TERM, HUP, lambda w: w.passes(1)), "1:draining 2:draining"),
    ("a crash while stopping is not replaced", then(up, TERM, lambda w: w.dies(1)), "2:draining"),
    ("shutdown_timeout and the grace are over", then(up, TERM, lambda w: w.passes(28)), ""),
    ("TERM twice: they get two seconds", then(up, TERM, TERM, lambda w: w.passes(1)), "1:draining 2:draining"),
    ("TERM twice: then they are killed", then(up, TERM, TERM, lambda w: w.passes(3)), ""),
    ("QUIT", then(up, QUIT, lambda w: w.passes(3)), ""),
    ("TTIN", then(up, lambda w: w.signal(signal.SIGTTIN)), "1:ready 2:ready 3:starting"),
    ("TTOU", then(up, lambda w: w.signal(signal.SIGTTOU)), "1:ready 2:draining"),
    (
        "TTOU never takes the last",
        then(up, *[lambda w: w.signal(signal.SIGTTOU)] * 3),
        "1:ready 2:draining",
    ),
]


def test_the_processes_are_told_how_many_share_a_rate() -> None:
    world = World()
    world.ready(1, 2)
    assert [child.sharers for child in world.children] == [2, 2]
    world.signal(signal.SIGTTIN)
    assert [child.sharers for child in world.children] == [2, 2, 3]
    world.ready(3)
    world.signal(signal.SIGTTOU)
    told = [[each.count for each in world.process(n).told if isinstance(each, Sharers)] for n in (1, 2, 3)]
    assert told == [[3, 2], [3, 2], []]


@pytest.mark.parametrize(("history", "picture"), [each[1:] for each in HISTORIES], ids=[each[0] for each in HISTORIES])
def test_history(history: Callable[[World], None], picture: str) -> None:
    world = World()
    history(world)
    assert world.picture == picture


# --- start --------------------------------------------------------------------------------------------------------


def test_ready_is_told_once_all_processes_are() -> None:
    world = World()
    world.ready(1)
    assert not world.notify.count("READY=1")
    world.ready(2)
    assert world.notify.count("READY=1") == 1
    assert "generation 1, 2 processes, 1/1 job servers connected" in world.notify.status
    assert world.titles[-1] == "geard: supervisor generation 1, 2 processes"


def test_a_start_that_fails_reports_every_problem_and_exits_with_the_code_of_the_child() -> None:
    world = World()
    world.cannot_start(1, "no module named 'sums'")
    assert world.exit_code is None, "the other process may have more to say"
    world.cannot_start(2, "resize is not callable")
    assert world.exit_code == exits.CONFIG
    assert (
        world.notify.status == "STATUS=cannot start: geard.yaml: capabilities.add: no module named 'sums' (and 1 more)"
    )
    assert [problem.message for problem in world.supervisor.start_problems] == [
        "no module named 'sums'",
        "resize is not callable",
    ]


def test_a_problem_that_each_process_reports_is_shown_once() -> None:
    world = World()
    world.cannot_start(1)
    world.cannot_start(2)
    assert len(world.supervisor.start_problems) == 1


def test_a_start_without_processes_to_be_had_fails_and_may_be_tried_again() -> None:
    world = World()
    world.ready(1, 2)
    world.no_more_processes = True
    world.signal(signal.SIGHUP)
    world.loaded()
    assert world.picture == "1:ready 2:ready"
    assert "Resource temporarily unavailable" in world.notify.status
    world.no_more_processes = False
    world.signal(signal.SIGHUP)
    world.loaded()
    world.ready(3, 4)
    assert world.picture == "1:draining 2:draining 3:ready 4:ready"


# --- crashes ------------------------------------------------------------------------------------------------------


def test_a_process_that_keeps_dying_is_no_fork_storm_and_is_never_given_up() -> None:
    world = World(1)
    world.ready(1)
    world.dies(1)
    starts = []
    for _ in range(600):  # five minutes in which each replacement dies half a second after it is ready
        number = len(world.children)
        if world.living:
            starts.append(world.now)
            world.ready(number)
            world.passes(0.25)
            world.dies(number)
        world.passes(0.25)
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps[0] < 2
    assert 8 < max(gaps) < 12
    assert max(starts) > world.now - 15


def test_the_log_of_a_crash_names_the_signal_and_the_jobs(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    up(world)
    world.beats(1, running=3, jobs=[job(7), job(8)])
    world.dies(1, -signal.SIGKILL)
    assert "worker 1 (generation 1, pid 101) was killed by SIGKILL" in caplog.text
    assert "left 3 jobs to other workers" in caplog.text
    assert "reverse H:host:7 (1.5 s), reverse H:host:8 (1.5 s), and 1 more" in caplog.text


def test_the_log_of_a_crash_does_not_hide_that_the_last_jobs_are_not_known(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    up(world)
    world.beats(1)
    world.passes(0.75)
    world.dies(1, -signal.SIGKILL)
    assert "had no job, as known 0.8 s before; what it took since goes to other workers" in caplog.text


def test_a_replacement_that_cannot_start_any_more_is_tried_again_later_and_the_others_serve() -> None:
    world = World()
    up(world)
    world.dies(1)
    world.cannot_start(3)
    assert world.exit_code is None
    assert world.picture == "2:ready"
    world.passes(1)
    assert world.picture == "2:ready 4:starting"


# --- reload -------------------------------------------------------------------------------------------------------


def test_a_hundred_hups_become_one_more_reload() -> None:
    world = World()
    up(world)
    for _ in range(100):
        world.signal(signal.SIGHUP)
    assert world.loads == 1
    world.loaded()
    world.ready(3, 4)
    assert world.loads == 2
    world.loaded()
    world.ready(5, 6)
    assert world.loads == 2


def test_who_asks_during_a_reload_hears_of_the_one_that_began_after_it_asked() -> None:
    world = World()
    up(world)
    world.asks("reload")
    world.asks("reload")
    world.loaded()
    world.ready(3, 4)
    assert [answer.message for answer in world.answers] == ["generation 2 serves"]
    world.loaded("no such key")
    assert [answer.exit_code for answer in world.answers] == [exits.DONE, exits.CONFIG]


def test_a_refused_reload_says_why_everywhere_until_one_succeeds(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    up(world)
    world.asks("reload")
    world.loaded("no such key", "no such server")
    assert world.answers[0].exit_code == exits.CONFIG
    assert "no such key" in world.answers[0].message
    assert "no such server" in world.answers[0].message
    assert "no such server" in caplog.text
    assert "reload refused" in world.notify.status
    assert "no such key (and 1 more)" in world.notify.status
    world.passes(2)
    assert "no such key" in world.notify.status
    world.asks("reload")
    world.loaded()
    world.ready(3, 4)
    assert "refused" not in world.notify.status


def test_systemd_hears_reloading_and_ready_in_turn_whatever_the_outcome() -> None:
    world = World()
    up(world)
    world.notify.heard.clear()
    world.signal(signal.SIGHUP)
    world.loaded("no such key")
    world.signal(signal.SIGHUP)
    world.loaded()
    world.ready(3, 4)
    marks = [heard for heard in world.notify.heard if heard in ("RELOADING=1", "READY=1")]
    assert marks == ["RELOADING=1", "READY=1", "RELOADING=1", "READY=1"]
    assert world.notify.count("MONOTONIC_USEC=") == 2


def test_the_new_config_rules_after_a_reload_and_the_drain_timeout_ends_an_old_generation() -> None:
    world = World()
    up(world)
    world.config = World(1, drain_timeout_seconds=60.0, shutdown_timeout_seconds=3.0).config
    world.signal(signal.SIGHUP)
    world.loaded()
    assert len(world.configured) == 1
    world.ready(3)
    assert world.configured[1:] == [world.config]
    assert world.process(1).drains == [60.0]
    world.passes(61)
    assert world.picture == "1:draining 2:draining 3:ready"
    world.passes(2)
    assert world.picture == "3:ready"
    world.signal(signal.SIGTERM)
    assert world.process(3).drains == [3.0]


def test_an_old_generation_may_drain_for_hours_unless_told_otherwise() -> None:
    world = World()
    reload_done(world)
    assert world.process(1).drains == [None]
    world.passes(3600, step=1)
    assert world.picture == "1:draining 2:draining 3:ready 4:ready"
    world.signal(signal.SIGTERM)
    assert world.process(1).drains == [None, 25.0], "a stop does not wait for hours"


# --- stop ---------------------------------------------------------------------------------------------------------


def test_a_stop_ends_with_the_last_process_and_counts_the_jobs(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    world = World()
    up(world)
    world.beats(1, running=2)
    world.asks("stop")
    assert "2 jobs running" in caplog.text
    world.drains(1, finished=2)
    assert world.exit_code is None
    assert not world.answers
    world.drains(2, finished=1)
    assert world.exit_code == exits.DONE
    assert "3 of 3 jobs in flight finished" in world.answers[0].message
    assert "3 of 3 jobs in flight finished" in world.notify.status, "which systemctl status goes on showing"


def test_the_job_servers_of_a_daemon_that_stops_are_those_of_the_processes_that_drain() -> None:
    world = World()
    up(world)
    world.beats(1, running=1)
    world.signal(signal.SIGTERM)
    assert "1/1 job servers connected, 1 job running" in world.notify.status


def test_a_stop_that_abandons_jobs_says_which_and_exits_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    up(world)
    world.signal(signal.SIGTERM)
    world.drains(1, finished=2, abandoned=[job(9)])
    world.drains(2)
    assert world.exit_code == exits.LEFT_JOBS
    assert "reverse H:host:9" in caplog.text
    assert "2 of 3 jobs in flight finished, 1 left to other workers" in caplog.text


def test_systemd_is_asked_for_more_time_as_long_as_it_drains() -> None:
    world = World(shutdown_timeout_seconds=600.0)
    up(world)
    world.signal(signal.SIGTERM)
    assert world.notify.count("STOPPING=1") == 1
    world.notify.heard.clear()
    world.passes(100)
    assert world.notify.count("EXTEND_TIMEOUT_USEC=15000000") >= 50


def test_a_second_term_does_not_wait_for_jobs() -> None:
    world = World()
    up(world)
    world.signal(signal.SIGTERM)
    world.signal(signal.SIGINT)
    assert world.process(1).drains == [25.0, 0.0]


def test_a_reload_that_waits_is_answered_when_the_daemon_stops() -> None:
    world = World()
    up(world)
    world.asks("reload")
    world.asks("reload")
    world.signal(signal.SIGTERM)
    world.asks("reload")
    assert [answer.exit_code for answer in world.answers] == [exits.FAILED] * 3


# --- stuck, recycled ----------------------------------------------------------------------------------------------


def test_a_stuck_process_shows_its_stacks_is_killed_and_replaced() -> None:
    world = World(hang_timeout_seconds=20.0)
    up(world)
    world.passes(10)
    for _ in range(24):  # the second process goes on, the first is silent
        world.passes(1, beating=False, step=1)
        world.beats(2)
        if world.process(1).signals:
            break
    assert world.process(1).signals == [STACKS_SIGNAL]
    assert not world.process(1).killed
    world.passes(1.5, beating=False)
    assert world.process(1).killed
    assert not world.process(2).killed
    assert world.picture == "2:ready 3:starting"


def test_a_process_that_is_stuck_in_a_long_drain_is_found_too() -> None:
    world = World(hang_timeout_seconds=20.0, shutdown_timeout_seconds=3600.0)
    up(world)
    world.signal(signal.SIGTERM)
    world.passes(22, beating=False)
    assert world.process(1).signals == [STACKS_SIGNAL]
    assert world.process(1).killed
    assert world.exit_code == exits.DONE


# name, what happens, whether the supervisor is calm after it
CALM: list[tuple[str, Callable[[World], None], bool]] = [
    ("start", lambda w: w.ready(1), False),
    ("all ready", up, True),
    ("a day later", then(up, lambda w: w.passes(100)), True),
    ("a heartbeat is late", then(up, lambda w: w.passes(1.75, beating=False)), False),
    ("a heartbeat after that", then(up, lambda w: w.passes(1.75, beating=False), lambda w: w.passes(0.25)), True),
    ("reload: the config is read", then(up, HUP), False),
    ("reload: refused", then(up, HUP, lambda w: w.loaded("no such key")), True),
    ("reload: the new start", reload_begins, False),
    ("reload: the old drain", reload_done, False),
    ("reload: over", then(reload_done, lambda w: w.drains(1), lambda w: w.drains(2)), True),
    ("a crash", then(up, lambda w: w.dies(1)), False),
    ("a second crash waits", then(up, lambda w: w.dies(1), lambda w: w.ready(3), lambda w: w.dies(3)), False),
    ("one process more", then(up, lambda w: w.signal(signal.SIGTTIN)), False),
    ("one process fewer", then(up, lambda w: w.signal(signal.SIGTTOU)), False),
    ("jobs are asked for", then(up, lambda w: w.asks("ps")), False),
    ("jobs are listed", then(up, lambda w: w.asks("ps"), lambda w: w.lists(1), lambda w: w.lists(2)), True),
    ("a stack is asked for", then(up, lambda w: w.asks("stack", pid=101, handle="H:1")), False),
    ("it is shown", then(up, lambda w: w.asks("stack", pid=101, handle="H:1"),
                         lambda w: w.says(1, Stack("H:1", "in f"))), True),
    ("stop", then(up, TERM), False),
]  # fmt: skip


@pytest.mark.parametrize(("name", "history", "calm"), CALM, ids=[name for name, *_ in CALM])
def test_turns_are_short_as_soon_as_something_is_under_way(
    name: str, history: Callable[[World], None], calm: bool
) -> None:
    world = World()
    history(world)
    assert world.supervisor.turn_seconds == (CALM_TURN_SECONDS if calm else TURN_SECONDS)


def test_turns_are_short_for_a_service_manager_that_watches_closely() -> None:
    world = World()
    up(world)
    world.notify.watchdog_seconds = 2.0
    assert world.supervisor.turn_seconds == TURN_SECONDS


def test_silence_while_the_supervisor_itself_was_stopped_is_not_the_childrens() -> None:
    world = World()
    up(world)
    world.now += 3600
    world.supervisor.tick()
    world.passes(2, beating=False)
    assert world.picture == "1:ready 2:ready"
    assert not world.process(1).signals


def test_the_watchdog_is_fed_while_the_children_make_progress_and_not_when_one_cannot_even_be_killed() -> None:
    world = World(hang_timeout_seconds=20.0)
    up(world)
    world.notify.heard.clear()
    world.passes(10)
    assert world.notify.count("WATCHDOG=1") >= 3
    world.obeys_kill = False
    world.passes(31, beating=False)
    world.notify.heard.clear()
    world.passes(30, beating=False)
    assert not world.notify.count("WATCHDOG=1")


def test_a_process_whose_jobs_hold_the_loop_one_after_another_is_not_stuck_and_one_job_that_goes_on_is() -> None:
    world = World(1, hang_timeout_seconds=20.0)
    world.ready(1)
    for number in range(10):
        for seconds in (1.0, 6.0):
            world.passes(5, beating=False)
            world.says(1, Blocked(seconds, "burn", f"H:host:{number}", ""))
    assert not world.process(1).signals
    world.passes(9, beating=False)
    world.says(1, Blocked(15.0, "burn", "H:host:9", ""))
    world.passes(5.5, beating=False)
    assert world.process(1).signals == [STACKS_SIGNAL]
    world.passes(1.5, beating=False)
    assert world.process(1).killed


def test_ps_names_the_job_that_holds_the_loop_of_a_process_until_it_yields() -> None:
    world = World(1)
    world.ready(1)
    world.says(1, Blocked(1.0, "burn", "H:host:7", "unique-7"))
    world.asks("ps")
    world.passes(1.25)
    world.beats(1)
    world.asks("ps")
    world.lists(1)
    views = [answer.overview.generations[0].processes[0] for answer in world.answers if answer.overview]
    assert [view.held_by for view in views] == ["burn H:host:7", ""]


@pytest.mark.parametrize(
    ("limits", "beat"),
    [
        ({"max_jobs": 1000}, {"done": 1000}),
        ({"max_memory_bytes": 2**20}, {"memory": 2**20}),
        ({"max_age_seconds": 15.0}, {}),
    ],
    ids=["max_jobs", "max_memory", "max_age"],
)
def test_a_process_is_recycled_only_once_its_replacement_is_ready(limits: dict[str, Any], beat: dict[str, Any]) -> None:
    world = World(1, **limits)
    world.ready(1)
    world.passes(16)
    world.beats(1, **beat)
    assert world.picture == "1:ready 2:starting"
    world.ready(2)
    assert world.picture == "1:draining 2:ready"
    world.drains(1)
    assert world.picture == "2:ready"


def test_processes_of_a_group_are_recycled_one_at_a_time() -> None:
    world = World(max_jobs=10)
    up(world)
    world.beats(1, done=10)
    world.beats(2, done=10)
    assert world.picture == "1:ready 2:ready 3:starting"
    world.ready(3)
    world.passes(0.5)
    assert world.picture == "1:draining 2:ready 3:ready 4:starting"


def test_a_process_whose_replacement_cannot_start_goes_on() -> None:
    world = World(1, max_jobs=10)
    world.ready(1)
    world.beats(1, done=10)
    world.cannot_start(2)
    assert world.picture.startswith("1:ready")
    world.passes(30)
    assert len(world.children) < 8
    assert world.picture.startswith("1:ready")


def test_a_limit_below_what_a_fresh_process_needs_is_no_loop() -> None:
    world = World(1, max_memory_bytes=1000)
    world.ready(1, memory=1500)
    world.beats(1, memory=2000)
    world.passes(5)
    assert world.picture == "1:ready"


def test_a_process_that_came_to_use_too_much_is_replaced_long_before_it_is_ten_seconds_old() -> None:
    world = World(1, max_memory_bytes=1000)
    world.ready(1, memory=500)
    world.beats(1, memory=2000)
    assert world.picture == "1:ready", "not at once, or memory that fills at once would start process after process"
    world.passes(2.5)
    assert world.picture == "1:ready 2:starting"


def test_a_process_over_the_hard_limit_is_replaced_at_once_and_finishes_what_it_has() -> None:
    world = World(1, max_memory_hard_bytes=1000, drain_timeout_seconds=60.0)
    world.ready(1, memory=500)
    world.says(1, OverMemory(2000))
    assert world.picture == "1:draining 2:starting"
    world.ready(2, memory=500)
    world.passes(30)
    assert world.picture == "1:draining 2:ready"
    world.drains(1)
    assert world.picture == "2:ready"


def test_a_replacement_that_was_starting_serves_when_the_hard_limit_comes_between() -> None:
    world = World(1, max_memory_bytes=1000, max_memory_hard_bytes=2000)
    world.ready(1, memory=500)
    world.passes(3)
    world.beats(1, memory=1500)
    assert world.picture == "1:ready 2:starting"
    world.says(1, OverMemory(2500))
    world.ready(2, memory=500)
    world.drains(1)
    assert world.picture == "2:ready"
    assert len(world.children) == 2


def test_processes_that_reach_the_hard_limit_at_once_are_no_fork_storm() -> None:
    world = World(1, max_memory_hard_bytes=1000)
    for _ in range(120):
        number = len(world.children)
        if world.children[-1].phase.value == "starting":
            world.ready(number, memory=500)
            world.says(number, OverMemory(2000))
            world.drains(number)
        world.passes(0.5)
    assert 5 < len(world.children) < 15, "in a minute"


def test_a_process_that_reaches_the_hard_limit_while_it_drains_is_not_replaced() -> None:
    world = World(1, max_memory_hard_bytes=1000)
    world.ready(1, memory=500)
    world.signal(signal.SIGTERM)
    world.says(1, OverMemory(2000))
    assert world.picture == "1:draining"


# --- the rest -----------------------------------------------------------------------------------------------------


def test_a_capability_with_processes_of_its_own_gets_them() -> None:
    capabilities = {
        "reverse": Capability("m.reverse"),
        "sum": Capability("m.sum", processes=2),
        "map": Capability("m.map"),
    }
    world = World(1, capabilities=capabilities)
    assert [sorted(child.group.config.capabilities) for child in world.children] == [
        ["map", "reverse"],
        ["sum"],
        ["sum"],
    ]
    assert [child.number for child in world.children] == [1, 2, 3]


def test_signals_for_logs_and_stacks_reach_each_process() -> None:
    world = World()
    up(world)
    world.signal(signal.SIGUSR1)
    world.signal(signal.SIGUSR2)
    assert world.process(1).told == world.process(2).told == [ReopenLog(), DumpStacks()]


def test_ps_lists_the_jobs_as_they_are_and_does_not_wait_for_a_stuck_process() -> None:
    world = World()
    up(world)
    world.beats(1, running=1, done=5)
    world.asks("ps")
    world.lists(1, job(3))
    assert not world.answers
    world.passes(1.25)
    overview = world.answers[0].overview
    assert overview
    assert overview.done == 5
    assert [process.jobs for process in overview.generations[0].processes] == [(job(3),), ()]


def test_counters_outlive_the_processes_that_counted() -> None:
    world = World()
    up(world)
    world.beats(1, done=5)
    world.dies(1)
    world.ready(3)
    world.beats(3, done=2)
    world.passes(1)
    assert "7 done" in world.notify.status


def test_the_title_says_which_generation_and_how_many() -> None:
    world = World()
    up(world)
    world.passes(1)
    assert world.titles[-1] == "geard: supervisor generation 1, 2 processes"
    world.signal(signal.SIGTERM)
    world.passes(1)
    assert world.titles[-1] == "geard: supervisor generation 1, 2 processes, stopping"


def test_an_unknown_request_is_answered() -> None:
    world = World()
    world.asks("dance")
    assert world.answers[0].exit_code == exits.USAGE


# --- what those who look in may ask -------------------------------------------------------------------------------


def test_what_was_counted_reload_and_ends_are_in_the_snapshot_and_outlive_processes() -> None:
    world = World()
    reload_done(world)
    world.says(3, Heartbeat(1, 50, 5, 0, (SERVER,), (), 0, (), Diff({"reverse": FunctionDiff(done=5, running=1)})))
    world.dies(3)
    world.asks("stats")
    snapshot = world.answers[-1].snapshot
    assert snapshot
    assert (snapshot.generation, snapshot.reloads["done"], snapshot.state) == (2, 1, "running")
    assert snapshot.functions["reverse"].done == 5
    assert snapshot.functions["reverse"].running == 0
    assert snapshot.worker_ends["crashed"] == snapshot.recent_worker_deaths == 1
    assert {process.state for process in snapshot.processes} >= {"ready", "starting"}


def test_failures_and_history_are_told() -> None:
    world = World()
    up(world)
    failure = Failure("reverse", "H:1", "u", SERVER, 1.0, "ValueError", "no")
    diff = Diff({"reverse": FunctionDiff(failed=1)}, failures=(failure,))
    world.says(1, Heartbeat(0, 50, 0, 1, (SERVER,), (), 0, (), diff))
    world.passes(2)
    world.asks("failures", function="reverse")
    assert [each.text for each in world.answers[-1].failures or ()] == ["no"]
    world.asks("failures", after=1)
    assert world.answers[-1].failures == ()
    world.asks("history", limit=10)
    history = world.answers[-1].history
    assert history
    assert sum(history.failed) == 1
    assert len(history.done) == 10
    world.asks("history", function="unheard")
    assert world.answers[-1].history is None


def test_running_jobs_are_told_in_pages_longest_first() -> None:
    world = World()
    up(world)
    world.asks("jobs", limit=2, offset=1)
    world.asks("jobs", limit=0)
    assert not world.answers
    world.says(1, Jobs((job(1, seconds=1.0), job(2, seconds=9))))
    world.says(2, Jobs((job(3, seconds=5),)))
    page = world.answers[0].jobs
    assert page
    assert page.total == 3
    assert len(world.answers) == 2
    assert [view.job.seconds for view in page.jobs] == [5, 1]
    told = len(world.process(1).told)
    world.asks("jobs")
    assert len(world.answers) == 3  # from what is known
    assert len(world.process(1).told) == told
    world.passes(1)
    world.asks("jobs")
    assert len(world.process(1).told) == told + 1


def test_a_stack_is_asked_from_the_process_and_a_stuck_one_is_not_waited_for() -> None:
    world = World()
    up(world)
    pid = world.process(1).pid
    world.asks("stack", pid=pid, handle="H:1")
    world.says(1, Stack("H:1", "File tasks.py"))
    assert world.answers[-1].stack == "File tasks.py"
    world.asks("stack", pid=pid, handle="H:2")
    assert "a moment ago" in world.answers[-1].message
    world.passes(1)
    world.asks("stack", pid=pid, handle="H:2")
    world.says(1, Stack("H:2", ""))
    assert world.answers[-1].exit_code == exits.FAILED
    world.passes(1)
    world.asks("stack", pid=pid, handle="H:3")
    world.passes(2)
    assert world.answers[-1].exit_code == exits.TIMED_OUT
    world.asks("stack", pid=1, handle="H:3")
    assert "no worker process 1" in world.answers[-1].message


def test_one_process_is_replaced_without_a_gap() -> None:
    world = World()
    up(world)
    world.asks("replace", pid=world.process(1).pid)
    assert world.answers[-1].exit_code == exits.DONE
    assert world.picture == "1:ready 2:ready 3:starting"
    world.asks("replace", pid=world.process(1).pid)
    assert world.answers[-1].exit_code == exits.FAILED
    world.ready(3)
    assert world.picture == "1:draining 2:ready 3:ready"
    world.asks("replace", pid=12345)
    assert world.answers[-1].exit_code == exits.FAILED


def suspects_told(world: World, number: int) -> list[tuple[str, int]]:
    told = [message for message in world.process(number).told if isinstance(message, Suspects)]
    return [(suspect.handle, suspect.deaths) for message in told for suspect in message.suspects]


def test_the_jobs_of_a_process_that_dies_are_suspects_to_all_others_until_they_end_well() -> None:
    world = World()
    up(world)
    world.beats(1, running=2, jobs=[job(7), job(8)])
    world.dies(1, -signal.SIGKILL)
    assert sorted(suspects_told(world, 2)) == [("H:host:7", 1), ("H:host:8", 1)]
    assert {suspect.handle for suspect in world.supervisor.suspects} == {"H:host:7", "H:host:8"}
    world.says(2, Suspects((Suspect(SERVER, "H:host:7", 0), Suspect(SERVER, "H:host:8", 2))))
    assert [(suspect.handle, suspect.deaths) for suspect in world.supervisor.suspects] == [("H:host:8", 2)]
    world.ready(3)
    world.beats(3, running=1, jobs=[job(8)])
    world.dies(3, 0)  # os._exit(0): nobody asked for it either
    assert [(suspect.handle, suspect.deaths) for suspect in world.supervisor.suspects] == [("H:host:8", 2)]


def test_a_death_that_was_asked_for_makes_no_suspects_but_that_of_a_stuck_process_does() -> None:
    world = World(shutdown_timeout_seconds=1.0, drain_timeout_seconds=1.0, hang_timeout_seconds=5.0)
    reload_begins(world)
    world.beats(1, running=1, jobs=[job(1)])
    world.ready(3, 4)
    world.drains(2)
    world.passes(5.0)  # the first is killed at the end of its drain
    assert not world.supervisor.suspects
    world.beats(3, running=1, jobs=[job(2)])
    world.passes(8.0, beating=False)
    assert [suspect.handle for suspect in world.supervisor.suspects] == ["H:host:2"]


def test_suspects_are_bounded_in_number_and_age() -> None:
    told: list[Suspects] = []
    known = SuspectList(told.append)
    known.learn([Suspect(SERVER, f"H:{number}", 1) for number in range(MOST_SUSPECTS + 5)], 0.0)
    assert len(known) == MOST_SUSPECTS
    assert next(iter(known)).handle == "H:5"
    known.learn([Suspect(SERVER, "\xff", 1)], 10.0)
    known.tick(KEPT_SECONDS)
    assert {suspect.deaths for message in told for suspect in message.suspects} == {0}
    assert [suspect.handle for suspect in known] == ["\xff"]


INCOMPATIBLE = messages.load_start(b'{"type":"Start","protocol":99,"version":"9.9"}')


def test_a_reload_whose_new_workers_do_not_know_our_words_is_refused_in_words(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    reload_begins(world)
    assert isinstance(INCOMPATIBLE, CannotStart)
    world.says(3, INCOMPATIBLE)
    world.dies(3, exits.FAILED)
    world.ready(4)
    assert "reload refused" in caplog.text
    assert f"geard {__version__} and cannot work under a supervisor of geard 9.9" in caplog.text
    assert "restart the daemon" in caplog.text
    assert world.picture.startswith("1:ready 2:ready")


def test_a_daemon_that_no_worker_can_work_for_any_more_ends_so_that_it_is_started_again() -> None:
    world = World()
    up(world)
    assert isinstance(INCOMPATIBLE, CannotStart)
    world.dies(1)
    world.says(3, INCOMPATIBLE)
    world.dies(3, exits.FAILED)
    assert world.supervisor.exit_code is None  # the second one serves
    world.dies(2)
    world.passes(30.0)
    for _ in range(3):
        starting = [number for number, child in enumerate(world.children, 1) if child.phase.value == "starting"]
        for number in starting:
            world.says(number, INCOMPATIBLE)
            world.dies(number, exits.FAILED)
    assert world.supervisor.exit_code == exits.FAILED
    assert "cannot work under a supervisor of geard 9.9" in str(world.supervisor.start_problems[0])
