"""What a supervisor that died left behind, under systemd: its worker processes drain, and in the end nothing is left.

A worker process that loses its supervisor finishes its jobs within shutdown_timeout and goes. The unit lets it
(KillMode=process) and has `geard reap` as its ExecStopPost, which systemd runs once the supervisor is gone, in whatever
way, and waits for before it starts another or calls the service stopped.

Rules:
- After an end that the supervisor chose there is no worker process left; what its jobs may have left is killed at once.
- After any other, worker processes get shutdown_timeout; then all that is left is killed.
- Only in the control group of a systemd service, and only where systemd says that this is its ExecStopPost: anywhere
  else it would kill what has nothing to do with us.

Worker processes are known by leading a session of their own. /proc may hide them: the service's sandbox (PrivateUsers)
is another one for each of its commands.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from geard import exits
from geard.errors import InvalidRequest

GRACE_SECONDS: Final = 2.0
"""What worker processes get beyond shutdown_timeout: to hand back what is left, and to say so."""
LOOK_SECONDS: Final = 0.1
KILL_SECONDS: Final = 5.0

Look = Callable[[], list[int]]


def control_group(own: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> Path:
    """The directory of our control group, which is a systemd service's. `own` is the text of /proc/self/cgroup.

    Raises InvalidRequest where it is not."""
    text = Path("/proc/self/cgroup").read_text() if own is None else own
    hierarchies = {"": ("", "unified"), "name=systemd": ("systemd",)}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for hierarchy in hierarchies.get(controllers, ()):
            directory = root / hierarchy / path.lstrip("/")
            if path.endswith(".service") and (directory / "cgroup.procs").is_file():
                return directory
    raise InvalidRequest("not the control group of a systemd service: reap is for the ExecStopPost of the unit")


def others_in(group: Path) -> list[int]:
    """The processes in a control group and those below it, but for ourselves."""
    found: list[int] = []
    for procs in group.rglob("cgroup.procs"):
        with suppress(OSError):  # a group that has just gone
            found += map(int, procs.read_text().split())
    return [pid for pid in found if pid not in (0, os.getpid())]


def ended_by_choice(environ: Mapping[str, str]) -> bool:
    """Whether the supervisor ended itself, once no worker process was left. Raises InvalidRequest where systemd does
    not say, for then it has not started us."""
    if "SERVICE_RESULT" not in environ:
        raise InvalidRequest("systemd has not started this: reap is for the ExecStopPost of the unit")
    exited = environ.get("EXIT_CODE") == "exited"
    return exited and environ.get("EXIT_STATUS") != str(exits.SOFTWARE)


def leads_a_session(pid: int) -> bool:
    """Whether a process is one that we started, rather than one that its jobs did."""
    try:
        return os.getsid(pid) == pid
    except ProcessLookupError:
        return False


def wait_for_workers(look: Look, seconds: float, going_on: Callable[[], None]) -> bool:
    """Wait until no worker process is left; False if some still are after so long. `going_on` is called meanwhile."""
    deadline = time.monotonic() + seconds
    while any(map(leads_a_session, look())):
        if time.monotonic() >= deadline:
            return False
        going_on()
        time.sleep(LOOK_SECONDS)
    return True


def kill_all(look: Look) -> int:
    """SIGKILL to all that is left, until nothing is; how many it took."""
    killed: set[int] = set()
    deadline = time.monotonic() + KILL_SECONDS
    while (left := look()) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        killed.update(left)
        time.sleep(LOOK_SECONDS)
    return len(killed)
