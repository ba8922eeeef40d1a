"""What the monitor says: what is wrong in words, health with reasons, numbers as people read them. Pure parts."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from geard.errors import GeardError
from geard.monitor import format as formats
from geard.monitor import health, problems
from geard.monitor.daemons import Daemon
from geard.monitor.jobservers import JobServerView, Queue
from geard.stats.snapshot import FunctionStats, Recent, Snapshot
from tests.support.fake_supervisor import FakeSupervisor, process


class Told:
    """A source that says what a test wants; an error where that is text."""

    def __init__(self, state: Snapshot | str) -> None:
        self._state = state

    def state(self) -> Snapshot:
        if isinstance(self._state, str):
            raise GeardError(self._state)
        return self._state


def daemon(told: Snapshot | str | None = None, **changes: Any) -> Daemon:
    """A daemon that was asked once."""
    known = FakeSupervisor("").snapshot() if told is None else told
    if isinstance(known, Snapshot):
        known = msgspec.structs.replace(known, **changes)
    found = Daemon("here", Told(known))  # type: ignore[arg-type]
    found.poll()
    return found


UP = JobServerView("a:4730", up=True)
DOWN = JobServerView("b:4730", up=False, error="refused\x1b[2J")
NO_WORKER, SERVED = Queue(0, 3, 0, 0, 0), Queue(0, 30, 0, 2, 2)
FAILING = FunctionStats(recent=Recent(ended=100, failed=60))
FEW = FunctionStats(recent=Recent(ended=4, failed=4))


def said(
    of: Daemon | None = None,
    servers: tuple[JobServerView, ...] = (UP,),
    queues: dict[str, Queue] | None = None,
    functions: dict[str, FunctionStats] | None = None,
    growing: str = "",
) -> list[str]:
    found = problems.findings([of or daemon()], servers, queues or {}, functions or {}, lambda name: name == growing)
    return [f"{finding.level} {finding.kind}: {finding.text}" for finding in found]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (lambda: said(), []),
        (lambda: said(daemon("no supervisor answers")), ["bad daemon: the daemon does not answer"]),
        (lambda: said(daemon(state="stopping")), ["warn state: the daemon is stopping"]),
        (lambda: said(daemon(last_refusal="reload refused: no\x07")), [r"bad reload: reload refused: no\x07"]),
        (
            lambda: said(daemon(recent_worker_deaths=2)),
            ["bad deaths: 2 worker processes have died in the last 5 minutes"],
        ),
        (lambda: said(servers=(UP, DOWN)), ["bad server: job server b:4730 does not answer"]),
        (
            lambda: said(queues={"mail": NO_WORKER}),
            ["bad unserved: 3 jobs wait for mail, which no worker anywhere serves"],
        ),
        (lambda: said(queues={"mail": SERVED}), []),
        (
            lambda: said(
                servers=(JobServerView("a:4730", up=True, queues={"mail": NO_WORKER}), UP), queues={"mail": SERVED}
            ),
            ["bad unserved: 3 jobs wait for mail on a:4730, where no worker serves it"],
        ),
        (
            lambda: said(queues={"mail": SERVED}, growing="mail"),
            ["warn growing: the queue of mail has been growing for five minutes: 30 jobs wait"],
        ),
        (
            lambda: said(functions={"bad": FAILING, "few": FEW}),
            ["bad failing: bad fails: 60 of 100 jobs in the last minute (60 %)"],
        ),
        (
            lambda: said(servers=(DOWN,), queues={"mail": SERVED}, growing="mail")[:1],
            ["bad server: job server b:4730 does not answer"],
        ),
    ],
)
def test_what_is_wrong_is_said_worst_first(found: Any, expected: list[str]) -> None:
    assert found() == expected


def test_a_stuck_process_and_a_flood_of_trouble_are_said() -> None:
    supervisor = FakeSupervisor("")
    supervisor.processes = (process(11, heard_seconds=12.0, held_by="resize H:host:7"),)
    assert said(daemon(supervisor.snapshot())) == [
        "bad silent: worker 1 (pid 11) has been silent for 12 s: resize H:host:7 holds its loop"
    ]
    many = said(queues={f"f{number}": NO_WORKER for number in range(100)})
    assert len(many) == problems.SHOWN + 1
    assert many[-1] == "warn more: and 80 more things like these"


def test_health_says_which_part_is_not_well() -> None:
    assert health.ready(daemon(), [UP]).ok
    nobody = health.ready(daemon("gone"), [UP])
    assert (nobody.ok, nobody.parts["supervisor"].reason) == (False, "gone")
    assert not health.live(daemon("gone")).ok
    down = health.ready(daemon(), [DOWN])
    assert not down.ok
    assert down.parts["job servers"].reason.startswith("0 of 1 answer; b:4730: refused")
    assert health.ready(daemon(), [UP, DOWN]).ok
    supervisor = FakeSupervisor("")
    supervisor.processes = (process(11, connected=(), disconnected=("a:4730",)),)
    lonely = health.ready(daemon(supervisor.snapshot()), [UP])
    assert (lonely.ok, lonely.parts["connections"].reason) == (False, "connected to no job server")
    assert health.live(daemon(supervisor.snapshot())).ok


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (formats.seconds(0), formats.DASH),
        (formats.seconds(0.0004), "0.4 ms"),
        (formats.seconds(0.213), "213 ms"),
        (formats.seconds(1.24), "1.2 s"),
        (formats.seconds(90), "90 s"),
        (formats.seconds(7200), "2 h"),
        (formats.seconds(400_000), "5 d"),
        (formats.count(1234567), "1,234,567"),
        (formats.count(0.25), "0.2"),
        (formats.count(120.4), "120"),
        (formats.size(61 << 20), "61 MiB"),
        (formats.percent(1, 8), "12.5 %"),
        (formats.percent(0, 0), formats.DASH),
        (formats.show_lines("a\n\tb\x1b"), "a\n    b\\x1b"),
        (formats.spark([0, 0]), ""),
        (formats.spark([0, 4]), "0,22.5 120,1.5"),
    ],
)
def test_numbers_and_text_are_written_for_people(written: str, expected: str) -> None:
    assert written == expected
