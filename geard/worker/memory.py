"""How much memory this process uses: it looks for itself, twice a second from its first job on.

Rules:
- Near `max_memory` the supervisor is told at once how much it is, and decides. At `max_memory_hard` the process stops
  taking jobs, whatever the supervisor is doing.
- A hard limit below what a fresh process needs is not kept, or no job would ever run; the log says so.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from functools import cache
from typing import Final

from geard.config import Config
from geard.config.units import mebibytes

LOOK_SECONDS: Final = 0.5
NEAR: Final = 0.9
"""The supervisor lowers `max_memory` by up to a tenth for each process."""

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

log = logging.getLogger("geard.worker")


def resident_bytes() -> int:
    """The resident memory of this process."""
    return int(os.pread(_statm(), 200, 0).split()[1]) * _PAGE_BYTES


@cache
def _statm() -> int:
    return os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)


def watch_memory(
    config: Config,
    fresh_bytes: int,
    *,
    sleep: Callable[[float], None],
    tell: Callable[[], None],
    stop: Callable[[int], None],
    used_bytes: Callable[[], int] = resident_bytes,
) -> None:
    """Look for as long as there is a limit. `fresh_bytes` were used before the first job; `tell` sends a heartbeat,
    `stop` takes no more jobs, and ends the watch."""
    soft, hard = config.max_memory_bytes, config.max_memory_hard_bytes
    if hard is not None and fresh_bytes >= hard:
        log.error("max_memory_hard (%s) is not kept: a fresh process uses %s", mebibytes(hard), mebibytes(fresh_bytes))
        hard = None
    while soft is not None or hard is not None:
        sleep(LOOK_SECONDS)
        used = used_bytes()
        if hard is not None and used >= hard:
            log.warning("it uses %s (max_memory_hard is %s) and takes no more jobs", mebibytes(used), mebibytes(hard))
            stop(used)
            return
        if soft is not None and used >= soft * NEAR:
            tell()
