"""What the supervisor decides, as pure functions: no clock, process, socket or log.

Rules:
- A worker process that dies is replaced at once; only one that keeps dying is made to wait, ever longer up to a cap.
- A limit (`max_jobs`, `max_memory`, `max_age`) is lowered by up to a tenth for each process, so that processes
  started together are not replaced together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from geard.config.model import Capability, Config
from geard.config.units import mebibytes
from geard.messages import Heartbeat, RunningJob
from geard.printable import printable

FIRST_DELAY_SECONDS: Final = 0.5
LONGEST_DELAY_SECONDS: Final = 10.0
STABLE_SECONDS: Final = 5.0
"""A process that was ready for so long has not "kept dying"."""
LEAST_AGE_SECONDS: Final = 2.0
"""`max_memory` replaces no process younger than this, or memory that fills at once would keep us starting processes."""
LEAST_AGE_WHEN_FRESH_SECONDS: Final = 10.0
"""The same for one that was over the limit before its first job: to replace it can hardly help."""
JITTER: Final = 0.1
NAMED_JOBS: Final = 10
"""A log line names so many jobs at most."""


class ProcessGroup(Struct, frozen=True):
    """Worker processes that run the same capabilities: the common ones, or those of one capability alone."""

    name: str  # the capability's, or "" for the common ones
    processes: int
    config: Config  # with the capabilities of this group only

    @property
    def is_common(self) -> bool:
        """Whether TTIN and TTOU mean this group."""
        return not self.name


def process_groups(config: Config, paused: Collection[str] = ()) -> tuple[ProcessGroup, ...]:
    """The groups that `config` asks for: the common one first, then each capability with `processes` of its own.
    None of them has a function that is `paused`; there may be no group at all, then."""
    common: dict[str, Capability] = {}
    own: list[ProcessGroup] = []
    for name, capability in config.capabilities.items():
        if name in paused:
            continue
        if capability.processes is None:
            common[name] = capability
        else:
            only = msgspec.structs.replace(config, capabilities={name: capability})
            own.append(ProcessGroup(name, capability.processes, only))
    if not common:
        return tuple(own)
    return (ProcessGroup("", config.processes, msgspec.structs.replace(config, capabilities=common)), *own)


def restart_delay_seconds(crashes: int, jitter: float) -> float:
    """How long to wait before the process that died for the `crashes`-th time in a row starts again.

    `jitter`, from 0 to 1, spreads processes that die together."""
    if crashes <= 1:
        return 0.0
    longest = min(FIRST_DELAY_SECONDS * 2.0 ** min(crashes - 2, 16), LONGEST_DELAY_SECONDS)
    return longest * (1 - JITTER * jitter)


def crashes_in_a_row(before: int, ready_seconds: float | None) -> int:
    """The count after one more death. `ready_seconds`: how long it was ready; None if it never was."""
    return 1 if ready_seconds is not None and ready_seconds >= STABLE_SECONDS else before + 1


def recycle_reason(
    config: Config, heartbeat: Heartbeat | None, age_seconds: float, jitter: float, fresh_bytes: int = 0
) -> str:
    """Why a worker process is due to be replaced, or "". `jitter`, from 0 to 1, is the process's own; `fresh_bytes` is
    what it used before its first job."""
    share = 1 - JITTER * jitter
    if config.max_age_seconds is not None and age_seconds >= config.max_age_seconds * share:
        return f"it is {age_seconds:.0f} s old (max_age)"
    if heartbeat is None:
        return ""
    jobs = heartbeat.done + heartbeat.failed
    if config.max_jobs is not None and jobs >= config.max_jobs * share:
        return f"it has run {jobs} jobs (max_jobs)"
    if config.max_memory_bytes is None:
        return ""
    limit = config.max_memory_bytes * share
    least_age = LEAST_AGE_WHEN_FRESH_SECONDS if fresh_bytes >= limit else LEAST_AGE_SECONDS
    if heartbeat.memory_bytes >= limit and age_seconds >= least_age:
        return f"it uses {mebibytes(heartbeat.memory_bytes)} (max_memory)"
    return ""


def count_jobs(count: int) -> str:
    """`1 job`, `2 jobs`."""
    return f"{count} job{'' if count == 1 else 's'}"


def name_jobs(jobs: Sequence[RunningJob], total: int) -> str:
    """The jobs for a log line: `reverse H:host:7 (0.4 s), …`; `total` may be more than are listed."""
    named = [f"{printable(f'{job.function} {job.handle}')} ({job.seconds:.1f} s)" for job in jobs[:NAMED_JOBS]]
    more = max(total, len(jobs)) - len(named)
    return ", ".join([*named, f"and {more} more"] if more > 0 and named else named)
