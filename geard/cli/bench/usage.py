"""What processes have used, as Linux's /proc tells it. A process that is gone has used nothing."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from geard.client.admin import Admin
from geard.config import JobServer
from geard.config.address import is_loopback
from geard.errors import GeardError

_TICKS_PER_SECOND: Final = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


def tree(pid: int) -> list[int]:
    """The process and all that descend from it."""
    found = [pid]
    for parent in found:
        for task in _tasks(parent):
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """CPU time of the process with its ended children. The kernel counts ended threads and children in ticks of a
    hundredth of a second, the rest to the nanosecond."""
    fine = sum(cpu_seconds_of_threads(pid).values())
    try:
        times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]
    except OSError:
        return fine
    user, system, children_user, children_system = (int(ticks) / _TICKS_PER_SECOND for ticks in times)
    return max(fine, user + system) + children_user + children_system


def cpu_seconds_of_threads(pid: int) -> dict[int, float]:
    """CPU time of each thread that the process has now."""
    found = {}
    for task in _tasks(pid):
        with suppress(OSError):
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def cpu_seconds_of_tree(pid: int) -> float:
    """The same of the process and all that descend from it."""
    return sum(map(cpu_seconds, tree(pid)))


def resident_bytes(pid: int) -> int:
    """Its resident memory."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
    except OSError:
        return 0


def local_pid(server: JobServer) -> int | None:
    """The process of a job server on this machine; None where it is elsewhere, or cannot be seen from here."""
    if not is_loopback(server.host):
        return None
    try:
        with Admin(server) as admin:
            pid = admin.getpid()
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (GeardError, OSError):
        return None
    # Behind a forwarded port, or in a container, the number is another process's here.
    return pid if b"gearmand" in command or b"geard" in command else None


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
