"""Which job runs where: stacks of busy greenlets, and what holds the loop.

The job that a stack belongs to is read off the stack itself, see geard/worker/current.py.
"""

from __future__ import annotations

import gc
import traceback
from types import FrameType

import greenlet

from geard.worker.current import job_of
from geard.worker.job import Job


def root_of(frame: FrameType | None) -> FrameType | None:
    """The first frame of this stack: what tells its greenlet from others."""
    while frame is not None and frame.f_back is not None:
        frame = frame.f_back
    return frame


def text_of(frame: FrameType | None) -> str:
    """The stack below `run`, as a traceback shows it. A greenlet of C code has none (and None would mean ours)."""
    if frame is None:
        return "  in C code, which nothing in Python has called"
    lines = traceback.format_list(
        [entry for entry in traceback.extract_stack(frame) if not entry.filename.startswith("<frozen")]
    )
    return "".join(lines).rstrip()


def busy_greenlets() -> list[tuple[Job, str]]:
    """Every job in flight in this process with its stack. Looks at all objects there are: not for a hot path."""
    found = []
    for candidate in gc.get_objects():
        if isinstance(candidate, greenlet.greenlet) and candidate.gr_frame is not None:
            job = job_of(candidate.gr_frame)
            if job is not None:
                found.append((job, text_of(candidate.gr_frame)))
    return found
