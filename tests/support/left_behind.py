"""What commands that start processes must not leave behind."""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


@contextmanager
def nothing_left() -> Iterator[dict[str, str]]:
    """Environment variables for a command. At the end no process and no file of it is left: its orphans would become
    our children."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    before = children()
    try:
        with tempfile.TemporaryDirectory(prefix="geard-test-") as directory:
            yield {"TMPDIR": directory}
            left = children() - before
            assert not left, [Path(f"/proc/{pid}/cmdline").read_text() for pid in left]
            assert os.listdir(directory) == []
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def children() -> set[int]:
    """Our own child processes."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended; its children are another's now
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found
