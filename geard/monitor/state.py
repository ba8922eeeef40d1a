"""Everything that the monitor knows, kept fresh by greenlets of its own.

Rule: reading is instant and waits for nobody. Who needs what is not kept always (the running jobs, the list of waiting
jobs) says `look`, and reads what is there by then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final, TypeVar

import msgspec

from geard.errors import GeardError
from geard.monitor.daemons import NOT_ASKED, POLL_SECONDS, ControlSocket, Daemon, DaemonState, Source
from geard.monitor.jobservers import JobServerView, JobServerWatch, Queue
from geard.monitor.letters import LettersWatch
from geard.monitor.peers import daemons_of
from geard.monitor.schedules import SchedulesWatch
from geard.stats.histogram import merged
from geard.stats.history import ALL, MOST_SERIES, Counted, History, Recorder, added
from geard.stats.snapshot import FunctionStats, Recent
from geard.supervisor.answers import Request
from geard.supervisor.monitor_start import Start

SPARK_POINTS: Final = 60
SPARK_SECONDS: Final = 5
MOST_QUESTIONS: Final = 50
TREND_SECONDS: Final = 300
"""How far back to look for a queue that grows."""

T = TypeVar("T")
Ask = Callable[[Source], Callable[[Request], T]]
"""Which of a source's questions, as `lambda source: source.jobs`."""

log = logging.getLogger("geard.monitor")


class State:
    """See the module. `start` the greenlets once; `version` goes up with each second's news."""

    def __init__(self, start: Start, *, clock: Callable[[], float] = time.time) -> None:
        self.start_line = start
        self.daemons = daemons_of(start)
        self.watches = [JobServerWatch(server) for server in start.job_servers]
        self.letters = LettersWatch(start.dead_letters, start.job_servers)
        self.schedules = SchedulesWatch(self.control)
        self.waiting = Recorder()  # the history of waiting jobs, as `running` of each function
        self.version = 0
        self.news = threading.Condition()
        self._clock = clock
        self._sparks: dict[str, deque[int]] = {}
        self._sparks_ended: dict[str, int] = {}
        self._trends: dict[str, deque[int]] = {}
        self._second = 0
        self.started_at = clock()  # before that nobody noted what waits
        self._is_seeded = False
        self._recalled: dict[tuple[Callable[[Request], Any], Request], Any] = {}
        self._asked = 0

    def start(self) -> None:
        """Begin to ask."""
        for daemon in self.daemons:
            _spawn(daemon.poll, lambda _: POLL_SECONDS, f"asks {daemon.name}")
        for watch in self.watches:
            _spawn(watch.poll, lambda seconds: seconds, f"asks {watch.name}")
        _spawn(self.letters.poll, lambda seconds: seconds, "reads dead letters")
        _spawn(self.schedules.poll, lambda seconds: seconds, "asks for schedules")
        _spawn(self.tick, lambda _: POLL_SECONDS, "takes notes")

    @property
    def own(self) -> Daemon:
        """This machine's daemon."""
        return self.daemons[0]

    @property
    def control(self) -> ControlSocket:
        """Its supervisor."""
        assert isinstance(self.own.source, ControlSocket)
        return self.own.source

    def own_state(self) -> DaemonState:
        """What peers are told."""
        return DaemonState(self.own.snapshot, tuple(watch.view() for watch in self.watches), self.own.error)

    # --- summed over all daemons ----------------------------------------------------------------------------------

    def job_servers(self) -> list[JobServerView]:
        """Each job server once: several daemons may take jobs from the same."""
        own = [watch.view() for watch in self.watches]
        found = {_identity(view, ""): view for view in own}
        for daemon in self.daemons[1:]:
            for view in daemon.job_servers:
                found.setdefault(_identity(view, daemon.name), _of_machine(view, daemon.name))
        return list(found.values())

    def queues(self) -> dict[str, Queue]:
        """Each function's queue, all job servers together."""
        found: dict[str, Queue] = {}
        for view in self.job_servers():
            for name, queue in view.queues.items() if view.up else ():
                found[name] = add_queues(found[name], queue) if name in found else queue
        return found

    def functions(self) -> dict[str, FunctionStats]:
        """Each function, all daemons together."""
        known = [daemon.snapshot.functions for daemon in self.daemons if daemon.snapshot]
        if len(known) == 1:
            return known[0]
        names = {name: None for functions in known for name in functions}
        return {name: add_functions(functions[name] for functions in known if name in functions) for name in names}

    def recent(self) -> Recent:
        """All functions of all daemons together, now."""
        return add_recents(daemon.snapshot.recent for daemon in self.daemons if daemon.snapshot)

    def spark(self, function: str) -> list[int]:
        """Jobs that ended in each of the last SPARK_POINTS stretches of SPARK_SECONDS."""
        return list(self._sparks.get(function, ()))

    def grows(self, function: str) -> bool:
        """Whether this function's queue has been growing for TREND_SECONDS."""
        trend = self._trends.get(function)
        if trend is None or len(trend) < TREND_SECONDS // SPARK_SECONDS:
            return False
        first, middle, last = trend[0], trend[len(trend) // 2], trend[-1]
        return last > 10 and first < middle < last and last > 1.2 * first

    def recall(self, daemon: Daemon, ask: Ask[T], request: Request) -> T:
        """What a daemon answers, or answered this second to somebody else. Raises what its source raises, and
        GeardError at once for a daemon that is silent.

        However the monitor is hammered, it asks MOST_QUESTIONS a second at most."""
        if daemon.is_silent:
            raise GeardError(daemon.error)
        asks = ask(daemon.source)
        question = asks, request
        if question not in self._recalled:
            if self._asked >= MOST_QUESTIONS:
                raise GeardError("too many questions in this second: ask again")
            self._asked += 1
            self._recalled[question] = asks(request)
        found: T = self._recalled[question]
        return found

    def recall_all(self, ask: Ask[T], request: Request) -> list[T]:
        """The same of every daemon that answers. That one does not is said on top of each page."""
        found = []
        for daemon in self.daemons:
            with suppress(GeardError):
                found.append(self.recall(daemon, ask, request))
        return found

    def seed_sparks(self) -> None:
        """Begin the sparks with what the daemons remember, rather than with nothing after each start of a monitor.

        That is a question to each daemon for each function, and may take a while."""
        for name in list(self.functions())[:MOST_SERIES]:
            asked = Request("", function=name, limit=SPARK_POINTS * SPARK_SECONDS)
            history = added(found for found in (self._ask_history(daemon, asked) for daemon in self.daemons) if found)
            if history:
                ended = [done + failed for done, failed in zip(history.done, history.failed, strict=True)]
                points = [sum(ended[at : at + SPARK_SECONDS]) for at in range(0, len(ended), SPARK_SECONDS)]
                self._sparks[name] = deque(points, maxlen=SPARK_POINTS)
                self._sparks_ended.pop(name, None)

    @staticmethod
    def _ask_history(daemon: Daemon, asked: Request) -> History | None:
        try:
            return None if daemon.is_silent else daemon.source.history(asked)
        except GeardError:
            return None

    # --- each second ----------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Take note of what only the monitor knows, and wake those who wait for news."""
        second = int(self._clock())
        queues, functions = self.queues(), self.functions()
        if functions and not self._is_seeded and all(daemon.error != NOT_ASKED for daemon in self.daemons):
            self._is_seeded = True
            threading.Thread(target=self.seed_sparks, name="recalls", daemon=True).start()
        waits = {name: queue.waiting for name, queue in queues.items() if queue.waiting}
        waiting: dict[str, Counted] = {name: (0, 0, count, {}) for name, count in waits.items()}
        waiting[ALL] = (0, 0, sum(waits.values()), {})
        self.waiting.put(second, waiting)
        if self._second and second // SPARK_SECONDS != self._second // SPARK_SECONDS:
            self._note_sparks(functions)
            self._note_trends(queues)
        self._second = second
        self.version += 1
        self._recalled, self._asked = {}, 0
        with self.news:
            self.news.notify_all()

    def _note_sparks(self, functions: dict[str, FunctionStats]) -> None:
        for name in self._sparks.keys() - functions.keys():
            del self._sparks[name]
            self._sparks_ended.pop(name, None)
        for name, stats in functions.items():
            points = self._sparks.setdefault(name, deque(maxlen=SPARK_POINTS))
            before = self._sparks_ended.get(name)
            if before is not None:
                points.append(max(stats.ended - before, 0))
            self._sparks_ended[name] = stats.ended

    def _note_trends(self, queues: dict[str, Queue]) -> None:
        for name in self._trends.keys() - queues.keys():
            del self._trends[name]
        for name, queue in queues.items():
            self._trends.setdefault(name, deque(maxlen=TREND_SECONDS // SPARK_SECONDS)).append(queue.waiting)


def add_queues(one: Queue, other: Queue) -> Queue:
    """A function's queues in two job servers as one. A worker is connected to each, so the most counts."""
    return Queue(
        one.high + other.high,
        one.normal + other.normal,
        one.low + other.low,
        one.running + other.running,
        max(one.workers, other.workers),
    )


def add_functions(found: Iterable[FunctionStats]) -> FunctionStats:
    """A function in several daemons as one."""
    several = list(found)
    return FunctionStats(
        done=sum(each.done for each in several),
        failed=sum(each.failed for each in several),
        timed_out=sum(each.timed_out for each in several),
        running=sum(each.running for each in several),
        bytes_in=sum(each.bytes_in for each in several),
        bytes_out=sum(each.bytes_out for each in several),
        durations=merged(each.durations for each in several),
        waits=merged(each.waits for each in several),
        recent=add_recents(each.recent for each in several),
        served=any(each.served for each in several),
        paused=any(each.paused for each in several),
    )


def add_recents(found: Iterable[Recent]) -> Recent:
    """Several daemons' recent figures as one: rates and counts added, of the times the worst."""
    several = list(found)
    if len(several) == 1:
        return several[0]
    return Recent(
        per_second=sum(each.per_second for each in several),
        failed_per_second=sum(each.failed_per_second for each in several),
        ended=sum(each.ended for each in several),
        failed=sum(each.failed for each in several),
        p50_seconds=max((each.p50_seconds for each in several), default=0.0),
        p95_seconds=max((each.p95_seconds for each in several), default=0.0),
        wait_p95_seconds=max((each.wait_p95_seconds for each in several), default=0.0),
    )


def _identity(view: JobServerView, machine: str) -> tuple[str, str]:
    """What tells job servers apart: one on loopback is each machine's own."""
    host = view.name.rpartition(":")[0]
    return view.name, machine if host in ("localhost", "127.0.0.1", "[::1]") else ""


def _of_machine(view: JobServerView, machine: str) -> JobServerView:
    return msgspec.structs.replace(view, machine=machine)


def _spawn(work: Callable[[], object], pause: Callable[[float], float], name: str) -> None:
    """Work again and again, in a greenlet of its own (a thread, when nothing is patched)."""

    def loop() -> None:
        while True:
            seconds: object = 0.0
            try:
                seconds = work()
            except Exception:
                log.exception("a bug in geard: the greenlet that %s failed", name)
            time.sleep(max(pause(seconds if isinstance(seconds, float) else 0.0), 0.1))

    threading.Thread(target=loop, name=name, daemon=True).start()
