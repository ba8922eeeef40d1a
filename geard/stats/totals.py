"""Totals: what all worker processes have counted, added up in the supervisor.

`add` each Diff as it comes, `gone` for each process that ended, `tick` with the time at least once a second; the rest
is read. A process is known by its pid, or by anything else that is its own while it lives.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable
from copy import copy
from typing import Any, Final

from geard.stats.diff import Diff, FunctionDiff, ProcessDiff
from geard.stats.failures import Failures
from geard.stats.histogram import MICROSECONDS as US
from geard.stats.histogram import add_counts, quantile_us
from geard.stats.history import ALL, Counted, Recorder
from geard.stats.snapshot import FunctionStats, Recent, ServerStats

RATE_SECONDS: Final = 5
RECENT_SECONDS: Final = 60
SLICE_SECONDS: Final = 10
"""The last minute is kept in slices of this length, so it is 50 to 60 s long."""
DEATHS_SECONDS: Final = 300.0
DRAINED: Final = "drained"
OVERTIME: Final = "overtime"
CRASHED: Final = "crashed"
STUCK: Final = "stuck"
NOT_STARTED: Final = "not started"
ENDS: Final = {
    DRAINED: "it finished its jobs, as it was asked to",
    OVERTIME: "its drain was cut short: the rest of its jobs went to others",
    CRASHED: "it died, or ended by itself",
    STUCK: "it was killed: it said nothing for hang_timeout",
    NOT_STARTED: "it ended before it was ready",
}
"""How a worker process can end."""
UNWANTED_ENDS: Final = frozenset({CRASHED, STUCK})
"""Those that nobody asked for."""


class _Slice:
    """What a function did in a stretch of time."""

    __slots__ = ("durations", "ended", "failed", "waits")

    def __init__(self) -> None:
        self.ended = self.failed = 0
        self.durations: dict[int, int] = {}
        self.waits: dict[int, int] = {}

    def add(self, diff: FunctionDiff) -> None:
        self.ended += diff.ended
        self.failed += diff.failed + diff.timed_out
        add_counts(self.durations, diff.durations)
        add_counts(self.waits, diff.waits)


class _Function:
    """Everything about one function."""

    __slots__ = ("_rates", "_second", "_slices", "stats")

    def __init__(self) -> None:
        self.stats = FunctionStats()
        self._second = _Slice()
        self._slices: deque[_Slice] = deque([_Slice()], maxlen=RECENT_SECONDS // SLICE_SECONDS)
        self._rates: deque[tuple[int, int]] = deque(maxlen=RATE_SECONDS)

    def add(self, diff: FunctionDiff) -> None:
        stats = self.stats
        stats.done += diff.done
        stats.failed += diff.failed
        stats.timed_out += diff.timed_out
        stats.bytes_in += diff.bytes_in
        stats.bytes_out += diff.bytes_out
        stats.durations.add(diff.durations, diff.duration_us)
        stats.waits.add(diff.waits, diff.wait_us)
        self._second.add(diff)
        self._slices[-1].add(diff)

    def end_second(self, *, new_slice: bool) -> Counted:
        """What it did in the second that is over, as Recorder.put takes it."""
        second, self._second = self._second, _Slice()
        self._rates.append((second.ended, second.failed))
        if new_slice:
            self._slices.append(_Slice())
        return second.ended - second.failed, second.failed, self.stats.running, second.durations

    def recent(self) -> Recent:
        ended = sum(part.ended for part in self._slices)
        if not ended:
            return _NO_RECENT
        durations: dict[int, int] = {}
        waits: dict[int, int] = {}
        for part in self._slices:
            add_counts(durations, part.durations)
            add_counts(waits, part.waits)
        seconds = max(len(self._rates), 1)
        return Recent(
            per_second=sum(ended for ended, _ in self._rates) / seconds,
            failed_per_second=sum(failed for _, failed in self._rates) / seconds,
            ended=ended,
            failed=sum(part.failed for part in self._slices),
            p50_seconds=quantile_us(durations, 0.5) / US,
            p95_seconds=quantile_us(durations, 0.95) / US,
            wait_p95_seconds=quantile_us(waits, 0.95) / US,
        )


class Totals:
    """See the module."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.history = Recorder()
        self.reloads: dict[str, int] = {"done": 0, "refused": 0}
        self.last_reload_time = 0.0
        self.worker_ends: dict[str, int] = dict.fromkeys(ENDS, 0)
        self._functions: dict[str, _Function] = {ALL: _Function()}
        self._servers: dict[str, ServerStats] = {}
        self._running: dict[Hashable, dict[str, int]] = {}
        self._connected: dict[Hashable, dict[str, bool]] = {}
        self._processes: dict[Hashable, ProcessDiff] = {}
        self._cpu_seconds: dict[Hashable, float] = {}
        self._deaths: deque[float] = deque(maxlen=1000)
        self._second = 0

    def __repr__(self) -> str:
        return f"<Totals {self._functions[ALL].stats.ended} jobs, {len(self._running)} processes>"

    def with_processes(self, other: Callable[[Any], Hashable]) -> Totals:
        """The same totals, which know each process by another name."""
        totals = copy(self)
        totals._running = {other(process): known for process, known in self._running.items()}
        totals._connected = {other(process): known for process, known in self._connected.items()}
        totals._processes = {other(process): known for process, known in self._processes.items()}
        totals._cpu_seconds = {other(process): known for process, known in self._cpu_seconds.items()}
        return totals

    def go_on_from(self, before: Totals) -> None:
        """Have what another Totals has counted, and none of what this one has."""
        vars(self).update(vars(before))

    # --- what happens ---------------------------------------------------------------------------------------------

    def add(self, process: Hashable, diff: Diff) -> None:
        """A heartbeat's counts."""
        running = {name: each.running for name, each in diff.functions.items() if each.running}
        self._set_running(process, running)
        for name, each in diff.functions.items():
            self._function(name).add(each)
            self._functions[ALL].add(each)
        for name, server in diff.servers.items():
            stats = self._servers.setdefault(name, ServerStats())
            stats.reconnects += server.reconnects
            stats.grabs += server.grabs
            stats.no_jobs += server.no_jobs
        self._connected[process] = {name: server.connected for name, server in diff.servers.items()}
        self._processes[process] = diff.process
        self._cpu_seconds[process] = self._cpu_seconds.get(process, 0.0) + diff.process.cpu_seconds
        for failure in diff.failures:
            self.failures.add(failure)

    def gone(self, process: Hashable, reason: str, time: float) -> None:
        """The process ended: nothing of it runs or is connected any more. `reason` is one of ENDS."""
        self._set_running(process, {})
        for known in (self._running, self._connected, self._processes, self._cpu_seconds):
            known.pop(process, None)
        self.worker_ends[reason] = self.worker_ends.get(reason, 0) + 1
        if reason in UNWANTED_ENDS:
            self._deaths.append(time)

    def reloaded(self, outcome: str, time: float) -> None:
        """A reload ended: `done` or `refused`. For the start of the first generation set last_reload_time alone."""
        self.reloads[outcome] = self.reloads.get(outcome, 0) + 1
        if outcome == "done":
            self.last_reload_time = time

    def tick(self, time: float) -> None:
        """It is so late (Unix time). Ends the seconds that have passed; does nothing within one."""
        second = int(time)
        if second == self._second:
            return
        new_slice = second // SLICE_SECONDS != self._second // SLICE_SECONDS
        counted = {name: each.end_second(new_slice=new_slice) for name, each in self._functions.items()}
        self._second = second
        self.history.put(second - 1, counted)

    # --- what is asked --------------------------------------------------------------------------------------------

    def functions(self, served: Collection[str] = ()) -> dict[str, FunctionStats]:
        """Every function that is `served` or ever ran."""
        for name in served:
            self._function(name)
        found = {}
        for name, each in self._functions.items():
            if name != ALL:
                each.stats.recent, each.stats.served = each.recent(), name in served
                found[name] = each.stats
        return found

    def recent(self) -> Recent:
        """All functions together, in the last minute."""
        return self._functions[ALL].recent()

    def servers(self, configured: Collection[str] = ()) -> dict[str, ServerStats]:
        """Every job server that is `configured`, or that a living process speaks with."""
        found = {name: ServerStats() for name in configured}
        for states in self._connected.values():
            for name in states:
                found.setdefault(name, ServerStats())
        for name, stats in found.items():
            known = self._servers.get(name, stats)
            stats.reconnects, stats.grabs, stats.no_jobs = known.reconnects, known.grabs, known.no_jobs
            states_of = [states[name] for states in self._connected.values() if name in states]
            stats.connected, stats.disconnected = sum(states_of), len(states_of) - sum(states_of)
        return found

    def process(self, process: Hashable) -> ProcessDiff:
        """The last that a process said of itself, with the CPU seconds of its whole life."""
        said = self._processes.get(process, ProcessDiff())
        return ProcessDiff(
            memory_bytes=said.memory_bytes,
            cpu_seconds=self._cpu_seconds.get(process, 0.0),
            greenlets=said.greenlets,
            loop_lag_seconds=said.loop_lag_seconds,
            longest_hold_seconds=said.longest_hold_seconds,
        )

    def deaths(self, time: float) -> int:
        """Ends that nobody wanted, within the last DEATHS_SECONDS."""
        return sum(death > time - DEATHS_SECONDS for death in self._deaths)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _function(self, name: str) -> _Function:
        return self._functions.get(name) or self._functions.setdefault(name, _Function())

    def _set_running(self, process: Hashable, running: dict[str, int]) -> None:
        before = self._running.get(process, {})
        for name in before.keys() | running.keys():
            change = running.get(name, 0) - before.get(name, 0)
            self._function(name).stats.running += change
            self._functions[ALL].stats.running += change
        self._running[process] = running


_NO_RECENT: Final = Recent()
