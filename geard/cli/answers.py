"""What several job servers answered, as tables for people and as objects for programs. Pure.

Rule: a job server that is down is part of the answer, in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from geard.cli.output import Line
from geard.cli.servers import Answer
from geard.printable import printable

T = TypeVar("T")


class Row(NamedTuple):
    """A row of a table, and how it looks on a terminal (a rich style; empty: plain)."""

    cells: tuple[str, ...]
    style: str = ""


def tables(
    answers: Sequence[Answer[T]],
    header: tuple[str, ...],
    rows: Callable[[T], Sequence[Row]],
    *,
    note: Callable[[T], str] = lambda value: "",
    numbers: Sequence[str] = (),
) -> list[Line]:
    """A table for each job server under its name and a note, with a blank line between.

    `numbers` are the columns to be aligned on the right."""
    lines: list[Line] = []
    for answer in answers:
        if lines:
            lines.append(Line(""))
        if answer.value is None:
            lines.append(Line(f"{answer.server}  down: {answer.reason}", "bold red"))
            continue
        lines.append(Line(f"{answer.server}  {note(answer.value)}".rstrip(), "bold"))
        body = rows(answer.value)
        if body:
            head, *texts = aligned([header, *(row.cells for row in body)], [name in numbers for name in header])
            lines.append(Line(head, "dim"))
            lines.extend(Line(text, row.style) for text, row in zip(texts, body, strict=True))
        else:
            lines.append(Line("none", "dim"))
    return lines


def aligned(table: Sequence[tuple[str, ...]], right: Sequence[bool]) -> list[str]:
    """The rows as lines of columns as wide as they need to be; those of `right` to the right."""
    shown = [[printable(cell) for cell in row] for row in table]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    align = [str.rjust if to_the_right else str.ljust for to_the_right in right]
    return ["  ".join(a(cell, w) for a, cell, w in zip(align, row, widths, strict=True)).rstrip() for row in shown]


def objects(answers: Sequence[Answer[T]], members: Callable[[T], Mapping[str, Any]]) -> list[dict[str, Any]]:
    """An object for each job server: its name, and the members of its value, or the error."""
    return [
        {"server": str(answer.server), **({"error": answer.reason} if answer.value is None else members(answer.value))}
        for answer in answers
    ]


def count(number: int, noun: str) -> str:
    """`1 job`, `2 jobs`, `2 processes`."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"
