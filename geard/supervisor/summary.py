"""What the supervisor says about itself: its title, the status line for systemd, and the overview for `geard ps`."""

from __future__ import annotations

import os
from collections.abc import Sequence

from msgspec import Struct

from geard import __version__
from geard.config.load import Source
from geard.config.model import Config
from geard.errors import Problem
from geard.supervisor.answers import Overview
from geard.supervisor.child import Child, Phase
from geard.supervisor.decisions import count_jobs
from geard.supervisor.fleet import Fleet
from geard.supervisor.pauses import NOTHING, Pauses, in_config, listed

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class About(Struct, frozen=True):
    """What the supervisor knows of itself, beside its worker processes."""

    source: Source
    state: str
    age_seconds: float
    last_refusal: str
    time: float  # Unix time


def title(fleet: Fleet, state: str) -> str:
    """The process title: `geard: supervisor generation 3, 4 processes`."""
    doing = "" if state == "running" else f", {state}"
    return f"geard: supervisor generation {fleet.number}, {processes(len(fleet.children))}{doing}"


def status_line(fleet: Fleet, state: str, refusal: str) -> str:
    """One line with what an operator asks first. `refusal` is why the last reload was refused, if it was."""
    children = fleet.children
    serving = [child for child in children if child.phase is Phase.READY]
    draining = sum(child.phase is Phase.DRAINING for child in children)
    done, failed = fleet.counters
    parts = [
        f"{state}: generation {fleet.number}",
        processes(len(serving)) + (f" and {draining} draining" if draining else ""),
        _servers(serving or children),
        f"{count_jobs(sum(child.running for child in children))} running",
        f"{done} done",
        f"{failed} failed",
    ]
    paused = paused_functions(fleet)
    pauses = f"; paused: {listed(paused)}" if paused else ""
    return ", ".join(parts) + pauses + (f"; {refusal}" if refusal else "")


def paused_functions(fleet: Fleet) -> tuple[str, ...]:
    """The functions of the config in effect that this daemon takes no jobs of."""
    return in_config(fleet.current.paused, fleet.current.config) if fleet.current else ()


def overview(fleet: Fleet, about: About, now: float) -> Overview:
    """The whole daemon for `geard ps`; `now` is of the supervisor's clock."""
    done, failed = fleet.counters
    return Overview(
        pid=os.getpid(),
        version=__version__,
        config=about.source.file,
        state=about.state,
        age_seconds=about.age_seconds,
        memory_bytes=resident_bytes(),
        done=done,
        failed=failed,
        last_refusal=about.last_refusal,
        generations=tuple(generation.view(now) for generation in fleet.generations),
        paused=paused_functions(fleet),
        all_paused=fleet.current is not None and not fleet.current.slots,
    )


def offer(config: Config, paused: Pauses = NOTHING) -> str:
    """What a config serves, for the log."""
    servers = ", ".join(map(str, config.job_servers))
    served = ", ".join(name for name in config.capabilities if name not in paused) or "nothing"
    left_out = f"; paused: {listed(in_config(paused, config))}" if in_config(paused, config) else ""
    return f"{served} from {servers}, {config.greenlets_per_server} greenlets for each{left_out}"


def processes(count: int) -> str:
    """`1 process`, `2 processes`."""
    return f"{count} process{'' if count == 1 else 'es'}"


def first(problems: Sequence[Problem]) -> str:
    """The first problem, and how many more there are, for where there is room for one."""
    text = "; ".join(line.strip() for line in str(problems[0]).splitlines())
    others = sum(problem.count for problem in problems[1:])
    return text + (f" (and {others:,} more)" if others else "")


def _servers(children: Sequence[Child]) -> str:
    """How many job servers there is a connection to. One is down as soon as one process says so."""
    down = {name for child in children for name in child.disconnected}
    known = {name for child in children for name in child.connected} | down
    text = f"{len(known) - len(down)}/{len(known)} job servers connected"
    return f"{text} (not {', '.join(sorted(down))})" if down else text


def resident_bytes() -> int:
    """Of this process; 0 where that cannot be found out."""
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0  # no such /proc: `geard ps` shows 0
