"""What a chart shows, as columns of equal length: a point for each second, or each minute of a day.

Rules:
- What nobody counted is not shown as zero: the columns begin where the daemon did, and what waited before the monitor
  has begun to take notes is not known.
- A chart that has been drawn asks only for what is newer than its last point.
"""

from __future__ import annotations

from typing import Any, Final

from geard.monitor.state import State
from geard.stats.history import History, added
from geard.supervisor.answers import Request

SPANS: Final = {"15m": (900, False), "1h": (3600, False), "1d": (1440, True)}
"""How many points, and whether they are minutes."""


def columns(state: State, function: str, span: str, after: int, now: float) -> dict[str, Any]:
    """Of a function, or of all together: times, done, failed, running, waiting, p50, p95; those later than `after`."""
    points, minutes = SPANS.get(span, SPANS["15m"])
    step = 60 if minutes else 1
    if 0 < now - after < points * step:
        points = int((now - after) / step) + 2
    request = Request("", function=function, limit=points, minutes=minutes)
    together = added(filter(None, state.recall_all(lambda source: source.history, request)))
    rings = state.waiting.minutes if minutes else state.waiting.seconds
    return _columns(together, rings.history(function, points), step, after, state.started_at)


def _columns(history: History | None, waiting: History | None, step: int, after: int, since: float) -> dict[str, Any]:
    if history is None:
        return {"step": step, "time": []}
    length, end = len(history.done), history.end
    first = next((i for i in range(length) if history.done[i] or history.failed[i] or history.running[i]), length - 1)
    first = max(min(first, length - 60), 0)  # what was before the daemon's start is no zero
    first = max(first, length - max((end - after) // step, 0)) if after else first
    times = [end - step * (length - 1 - i) for i in range(first, length)]
    known = dict(zip(_times(waiting), waiting.running, strict=True)) if waiting else {}
    known = {time: count for time, count in known.items() if time >= since}
    return {
        "step": step,
        "time": times,
        "done": [count / step for count in history.done[first:]],
        "failed": [count / step for count in history.failed[first:]],
        "running": history.running[first:],
        "waiting": [known.get(time) for time in times],
        "p50": history.p50_seconds[first:],
        "p95": history.p95_seconds[first:],
    }


def _times(history: History) -> list[int]:
    return [history.end - history.step_seconds * i for i in range(len(history.running) - 1, -1, -1)]
