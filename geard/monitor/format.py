"""How numbers, times and text from jobs are written on a page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from geard.printable import printable

DASH: Final = "\N{EN DASH}"
SPARK_WIDTH: Final = 120
SPARK_HEIGHT: Final = 24


def count(value: float) -> str:
    """`1,234`; small rates with a digit behind the point."""
    if isinstance(value, float) and value != int(value) and value < 100:
        return f"{value:.1f}"
    return f"{value:,.0f}"


def seconds(value: float) -> str:
    """`0.4 ms`, `12 ms`, `1.2 s`, `3 min`, `2 h`, `4 d`; a dash for nothing."""
    if value <= 0:
        return DASH
    for limit, factor, unit in ((0.01, 1000, "ms"), (1, 1000, "ms"), (10, 1, "s"), (120, 1, "s")):
        if value < limit:
            return f"{value * factor:.{1 if limit in (0.01, 10) else 0}f} {unit}"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172800 else f"{value / 86400:.0f} d"


def size(value: float) -> str:
    """`12 MiB`."""
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def percent(part: float, whole: float) -> str:
    """`3.2 %`; a dash of nothing."""
    return f"{100 * part / whole:.1f} %" if whole else DASH


def clock(unix_time: float) -> str:
    """The time of day here, with the day when it is not today."""
    then = time.localtime(unix_time)
    today = then[:3] == time.localtime()[:3]
    return time.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S", then) if unix_time else DASH


def show(text: str) -> str:
    """Text from a job in one line, with nothing in it that steers the reader's eye."""
    return printable(text)


def show_lines(text: str) -> str:
    """The same for a traceback: its line breaks stay."""
    return "\n".join(printable(line.replace("\t", "    ")) for line in text.split("\n"))


def spark(points: Sequence[int]) -> str:
    """The `points` of an SVG polyline; "" where there is nothing to see."""
    top = max(points, default=0)
    if top == 0:
        return ""
    step = SPARK_WIDTH / max(len(points) - 1, 1)
    room = SPARK_HEIGHT - 3
    return " ".join(f"{i * step:.0f},{SPARK_HEIGHT - 1.5 - room * point / top:.1f}" for i, point in enumerate(points))


FILTERS: Final = {
    "count": count, "seconds": seconds, "size": size, "clock": clock, "show": show, "show_lines": show_lines,
    "spark": spark,
}  # fmt: skip
