"""What a pool counts, for the heartbeats of its process (see geard.stats).

The hot path adds to each capability's FunctionCounter and to attributes of each channel; here are the failures, and
what was added since the last time.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from geard.errors import JobTimeout
from geard.stats.counters import NewFailures
from geard.stats.diff import Diff, ProcessDiff, ServerDiff
from geard.stats.failures import MAX_WORKLOAD_BYTES, Failure
from geard.worker.capability import BoundCapability
from geard.worker.job import Job
from geard.worker.words import is_a, message_of, name_of, traceback_of

if TYPE_CHECKING:  # a channel counts in its pool's tally
    from geard.worker.channel import Channel


class Tally:
    """See the module. `process` is what the log calls this process."""

    def __init__(self, *, keep_workloads: bool = False) -> None:
        self.process = ""
        self._keep_workloads = keep_workloads
        self._failures = NewFailures()
        self._told: dict[str, tuple[int, int, int]] = {}  # of each job server: its totals as of the last time

    def failed(self, job: Job) -> None:
        """A job has ended, and not with a result."""
        error = job.error
        job.error = ""  # its traceback holds the job
        counter = job.capability.counter
        counter.bytes_in += len(job.workload)
        late = isinstance(error, BaseException) and is_a(error, JobTimeout)
        if late:
            counter.timed_out += 1
        else:
            counter.failed += 1
        if not self._failures.has_room:
            return
        self._failures.add(
            Failure(
                function=job.function,
                handle=job.handle,
                unique=job.unique,
                server=job.server,
                time=time.time(),
                type="timeout" if late else name_of(error) if isinstance(error, BaseException) else "",
                text=_clean(message_of(error) if isinstance(error, BaseException) else error),
                traceback=_clean(traceback_of(error)) if isinstance(error, BaseException) and not late else "",
                workload=job.workload[:MAX_WORKLOAD_BYTES] if self._keep_workloads else None,
                workload_bytes=len(job.workload),
                process=self.process,
            )
        )

    def refused(self, capability: BoundCapability, server: str, handle: bytes, unique: bytes, text: str) -> None:
        """A job was failed before it could begin."""
        counter = capability.counter
        counter.durations.append(0.0)
        counter.waits.append(0.0)
        counter.failed += 1
        self._failures.add(
            Failure(
                function=capability.name,
                handle=handle.decode(errors="replace"),
                unique=unique.decode(errors="replace"),
                server=server,
                time=time.time(),
                type="",
                text=text,
                process=self.process,
            )
        )

    def take(self, channels: Sequence[Channel], capabilities: Iterable[BoundCapability], process: ProcessDiff) -> Diff:
        """What was added since the last time, and how things are now."""
        running = Counter(job.capability.name for channel in channels for job in channel.jobs if job.started)
        taken = {capability.name: capability.counter.take(running[capability.name]) for capability in capabilities}
        return Diff(
            functions={name: diff for name, diff in taken.items() if diff},
            servers=self._servers(channels),
            process=process,
            failures=self._failures.take(),
        )

    def _servers(self, channels: Sequence[Channel]) -> dict[str, ServerDiff]:
        found = {}
        for name in dict.fromkeys(str(channel.server) for channel in channels):
            own = [channel for channel in channels if str(channel.server) == name]
            total = (
                sum(channel.reconnects for channel in own),
                sum(channel.grabs for channel in own),
                sum(channel.no_jobs for channel in own),
            )
            told = self._told.get(name, (0, 0, 0))
            self._told[name] = total
            connected = all(channel.registered.is_set() for channel in own)
            found[name] = ServerDiff(connected, *(now - before for now, before in zip(total, told, strict=True)))
        return found


def _clean(text: str | bytes) -> str:
    """Text that JSON can carry: no half of a surrogate pair."""
    data = text if isinstance(text, bytes) else text.encode(errors="backslashreplace")
    return data.decode(errors="replace")
