"""How the demo shows its jobs: rows that live, on a terminal; elsewhere a line for each job that ends."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import click

from geard.cli.demo.jobs import Row
from geard.cli.output import on_terminal
from geard.printable import printable

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

BAR_WIDTH: Final = 24
REDRAWS_PER_SECOND: Final = 15
SPINNER: Final = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


class PlainStage:
    """Lines, for pipes and logs."""

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """While the body runs, something is waited for."""
        click.echo(f"{text} ...")
        yield

    @contextmanager
    def showing(self) -> Iterator[None]:
        """While the body runs, jobs do."""
        yield

    def started(self, row: Row) -> None:
        """A job is submitted. Its end is what a log wants."""

    def ended(self, row: Row) -> None:
        """A job is over."""
        outcome = "failed:" if row.failed else "->"
        click.echo(printable(f"{row.function} {row.asked} {outcome} {row.answer} ({row.seconds:.3f} s)"))

    def say(self, *lines: str) -> None:
        """Lines of text."""
        for line in lines:
            click.echo(line)


class LiveStage(PlainStage):
    """Rows that are drawn again and again."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._rows: list[Row] = []

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        with self._console.status(text, spinner_style="cyan"):
            yield

    @contextmanager
    def showing(self) -> Iterator[None]:
        from rich.live import Live

        with Live(console=self._console, get_renderable=self._draw, refresh_per_second=REDRAWS_PER_SECOND):
            yield

    def started(self, row: Row) -> None:
        self._rows.append(row)

    def ended(self, row: Row) -> None:
        """It is seen."""

    def say(self, *lines: str) -> None:
        from rich.text import Text

        for line in lines:
            command = line.startswith("    ")
            self._console.print(Text(line, "bold cyan" if command else ""), soft_wrap=True)

    def _draw(self) -> RenderableType:
        from rich.console import Group

        now = time.monotonic()
        return Group(*(row_line(row, now) for row in list(self._rows)))


def row_line(row: Row, now: float) -> Text:
    """A row as it stands: a mark, what was asked, and a bar or what came of it."""
    from rich.text import Text

    if row.seconds is None:
        mark, style = SPINNER[int(now * REDRAWS_PER_SECOND) % len(SPINNER)], "cyan"
    else:
        mark, style = ("✗", "red") if row.failed else ("✓", "green")
    line = Text.assemble((mark, style), "  ", (f"{row.function:14}", "bold"), (f"{_cut(row.asked, 16):18}", "dim"))
    if row.seconds is None and row.progress is not None:
        done, total = row.progress
        full = BAR_WIDTH * done // max(total, 1)
        line.append("━" * full, "cyan").append("━" * (BAR_WIDTH - full), "dim").append(f" {done:,}/{total:,}")
    else:
        line.append(printable(row.answer), "" if row.seconds is None else style)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def _cut(text: str, width: int) -> str:
    text = printable(text)
    return text if len(text) <= width else text[: width - 1] + "…"


def stage() -> PlainStage:
    """The one for where stdout leads."""
    return LiveStage() if on_terminal(sys.stdout) else PlainStage()
