"""What the supervisor tells about itself: its title, the status line for systemd, and the overview for `geard ps`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from geard import __version__
from geard.supervisor.answers import Overview
from geard.supervisor.child import Child, Phase
from geard.supervisor.generation import Generation

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Totals:
    """Jobs done and failed since the start, past processes included."""

    def __init__(self) -> None:
        self._done = 0
        self._failed = 0

    def gone(self, child: Child) -> None:
        """Keep the counters of a process that ended."""
        if child.heartbeat:
            self._done += child.heartbeat.done
            self._failed += child.heartbeat.failed

    def with_living(self, children: Sequence[Child]) -> tuple[int, int]:
        """(done, failed), those of the living processes included."""
        beats = [child.heartbeat for child in children if child.heartbeat]
        return self._done + sum(beat.done for beat in beats), self._failed + sum(beat.failed for beat in beats)


def title(number: int, state: str, processes: int) -> str:
    """The process title: `geard: supervisor generation 3, 4 processes`."""
    doing = "" if state == "running" else f", {state}"
    return f"geard: supervisor generation {number}, {plural(processes, 'process', 'processes')}{doing}"


def status_line(state: str, generation: Generation | None, children: Sequence[Child], totals: Totals, note: str) -> str:
    """One line with what an operator asks first. `note` is why the last reload was refused, if it was."""
    done, failed = totals.with_living(children)
    running = sum(child.running for child in children)
    parts = [f"{state}: generation {generation.number if generation else 0}"]
    serving = [child for child in generation.children if child.phase is Phase.READY] if generation else []
    parts.append(plural(len(serving), "process", "processes"))
    leaving = sum(child.phase is Phase.DRAINING for child in children)
    if leaving:
        parts.append(f"{leaving} draining")
    parts += [_servers(serving), f"{running} jobs running", f"{done} done", f"{failed} failed"]
    return ", ".join(parts) + (f"; {note}" if note else "")


def overview(
    *, config_path: str, state: str, age_seconds: float, generations: Sequence[Generation], totals: Totals,
    last_refusal: str, now: float,
) -> Overview:  # fmt: skip
    """The whole daemon for `geard ps`."""
    children = [child for generation in generations for child in generation.children]
    done, failed = totals.with_living(children)
    return Overview(
        pid=os.getpid(),
        version=__version__,
        config=config_path,
        state=state,
        age_seconds=age_seconds,
        memory_bytes=resident_bytes(),
        done=done,
        failed=failed,
        last_refusal=last_refusal,
        generations=tuple(generation.view(now) for generation in generations),
    )


def resident_bytes() -> int:
    """This process's resident memory; 0 where /proc does not say."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def plural(count: int, one: str, many: str) -> str:
    """`1 process`, `2 processes`."""
    return f"{count} {one if count == 1 else many}"


def _servers(serving: Sequence[Child]) -> str:
    """How many job servers each process is connected to. A server is down as soon as one process says so."""
    beats = [child.heartbeat for child in serving if child.heartbeat]
    down = {name for beat in beats for name in beat.disconnected}
    known = {name for beat in beats for name in beat.connected} | down
    text = f"{len(known) - len(down)}/{len(known)} job servers connected"
    return f"{text} (not {', '.join(sorted(down))})" if down else text
