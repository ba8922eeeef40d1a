"""When a daemon is fit for work, and the reasons that are told."""

from __future__ import annotations

import msgspec
import pytest

from geard.supervisor.answers import GenerationView, Overview, ProcessView
from geard.supervisor.health import health_of, unreachable

PROCESS = ProcessView(
    pid=71,
    number=1,
    state="ready",
    capability="",
    age_seconds=9.0,
    heard_seconds=0.5,
    held_by="",
    memory_bytes=0,
    running=0,
    greenlets=50,
    done=0,
    failed=0,
    connected=("a:1", "b:1"),
    disconnected=(),
    jobs=(),
)
DOWN = msgspec.structs.replace(PROCESS, connected=(), disconnected=("a:1", "b:1"))
STARTING = msgspec.structs.replace(PROCESS, state="starting", connected=(), capability="resize")
SILENT = msgspec.structs.replace(PROCESS, heard_seconds=40.0)


def overview(
    *processes: ProcessView, state: str = "running", refusal: str = "", generation: str = "current"
) -> Overview:
    return Overview(
        pid=7,
        version="1.0",
        config="geard.yaml",
        state=state,
        age_seconds=10.0,
        memory_bytes=0,
        done=0,
        failed=0,
        last_refusal=refusal,
        generations=(GenerationView(1, generation, processes),),
    )


@pytest.mark.parametrize(
    ("seen", "healthy", "reason"),
    [
        (overview(PROCESS), True, "2 of 2 connected"),
        (overview(PROCESS, STARTING), True, "1 of 2 ready, none for resize"),
        (overview(PROCESS, msgspec.structs.replace(PROCESS, disconnected=("b:1",))), True, "1 of 2 connected, not b:1"),
        (overview(PROCESS, refusal="reload refused at 12:00:00: x"), True, "reload refused at 12:00:00: x"),
        (overview(PROCESS, SILENT), True, "2 of 2 ready, silent: pid 71 for 40 s"),
        (overview(DOWN), False, "0 of 2 connected, not a:1, b:1"),
        (overview(STARTING, state="starting", generation="starting"), False, "starting, pid 7"),
        (overview(STARTING), False, "0 of 1 ready"),
        (overview(SILENT), False, "silent: pid 71 for 40 s"),
        (overview(), False, "0 of 0 ready"),
        (overview(PROCESS, state="stopping"), False, "stopping, pid 7"),
        (overview(PROCESS, generation="draining"), False, "0 of 0 ready"),
    ],
)
def test_a_daemon_is_fit_while_a_process_is_ready_and_a_job_server_connected(
    seen: Overview, healthy: bool, reason: str
) -> None:
    found = health_of(seen)
    assert found.healthy is healthy
    assert reason in found.text
    assert ("FAILED" in found.text) is not healthy


def test_a_daemon_that_does_not_answer_is_not() -> None:
    assert not unreachable("no daemon answers").healthy
