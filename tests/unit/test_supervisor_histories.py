"""Any history whatever: what the supervisor promises holds after every step of it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from geard.messages import Drained
from geard.supervisor.child import Child, Phase
from geard.supervisor.events import Received
from geard.supervisor.generation import Stage
from tests.support.fake_fleet import World, job

Step = tuple[str, int]
STEPS = (
    "ready", "ready", "ready", "dies", "cannot start", "drains", "beats", "hup", "ask reload", "loaded", "loaded badly",
    "ttin", "ttou", "usr2", "ps", "a second", "five minutes", "silence", "no more processes", "processes again",
)  # fmt: skip


def pick(world: World, number: int, *phases: Phase) -> Child | None:
    """One of the living processes in these phases, if there is one."""
    found = [child for child in world.living if child.phase in phases]
    return found[number % len(found)] if found else None


def on_child(world: World, number: int, phases: tuple[Phase, ...], act: Callable[[int], None]) -> None:
    child = pick(world, number, *phases)
    if child:
        act(world.children.index(child) + 1)


def take(world: World, step: Step, expected_loads: list[int]) -> None:
    """Let one thing happen, if it can."""
    name, number = step
    match name:
        case "ready":
            on_child(world, number, (Phase.STARTING,), world.ready)
        case "dies":
            on_child(world, number, (Phase.STARTING, Phase.READY, Phase.DRAINING), world.dies)
        case "cannot start":
            on_child(world, number, (Phase.STARTING,), world.cannot_start)
        case "drains":
            on_child(world, number, (Phase.DRAINING, Phase.READY), lambda n: world.drains(n, finished=1))
        case "beats":
            on_child(world, number, (Phase.READY, Phase.DRAINING), lambda n: world.beats(n, running=1, jobs=[job(n)]))
        case "loaded" | "loaded badly":
            if expected_loads[0] < world.loads:  # the config is read once for each time that it was asked for
                expected_loads[0] += 1
                world.loaded(*(["no such key"] if name == "loaded badly" else []))
        case "a second":
            world.passes(1)
        case "five minutes":
            world.passes(301, step=5)
        case "silence":
            world.passes(70, beating=False, step=1)
        case "no more processes":
            world.no_more_processes = True
        case "processes again":
            world.no_more_processes = False
        case "ask reload":
            world.asks("reload")
        case "ps":
            world.asks("ps")
        case _:
            world.signal(getattr(signal, f"SIG{name.upper()}"))


def check(world: World, served_before: bool) -> None:
    """What must hold after every step."""
    fleet = world.supervisor._fleet
    generations = fleet.generations
    assert [each.number for each in generations] == sorted({each.number for each in generations})
    if world.exit_code is not None:
        assert not world.living
        return
    assert not served_before or fleet.current is not None, "what once served is replaced, never taken away"
    for generation in fleet.draining:
        assert generation.stage is Stage.DRAINING
        assert all(child.phase is Phase.DRAINING for child in generation.children), generation
    for child in world.living:
        assert any(child in generation.children for generation in generations), "every process is known"
    if fleet.current and world.supervisor._state != "stopping":
        assert fleet.current.stage is Stage.CURRENT
        for slot in fleet.current.slots:
            assert slot.serving or slot.start_at > world.now, "a place is served or about to be"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3),
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=40),
    st.sampled_from([(signal.SIGTERM,), (signal.SIGTERM, signal.SIGINT), (signal.SIGQUIT,)]),
)
def test_any_history_keeps_the_promises_and_ends_without_a_process(
    processes: int, steps: list[Step], ending: tuple[int, ...]
) -> None:
    world = World(processes, max_jobs=50)
    loads = [0]
    asked = 0
    for step in steps:
        if world.exit_code is not None:
            break
        served = world.supervisor._fleet.current is not None
        asked += step[0] in ("ask reload", "ps")
        take(world, step, loads)
        check(world, served)
    for number in ending:
        if world.exit_code is None:
            world.signal(number)
    for child in world.living:
        if child.phase is Phase.DRAINING and child.number % 2:  # the others must be killed
            world.happens(Received(child, Drained(0.1, 0)))
            world.dies(world.children.index(child) + 1, 0)
    world.passes(30)
    assert world.exit_code is not None
    assert not world.living
    assert len(world.answers) == asked, "whoever asks is answered once"
    marks = [each for each in world.notify.heard if each in ("READY=1", "RELOADING=1", "STOPPING=1")]
    assert all(later != "RELOADING=1" for earlier, later in pairwise(marks) if earlier == "RELOADING=1")
    assert marks.count("STOPPING=1") == 1
