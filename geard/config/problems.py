"""How the config's readers say what is wrong: a value is Refused, and At makes that a Problem with its key path.

Rules:
- Nothing stops at the first problem. Each reader is called under `at.reporting()`, which takes note and goes on.
- Past the first hundred problems are counted only, so that a file of any size is told in a screenful or two.
- A value that came from the environment is never told (filled.py): messages take values from `at.shown`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from geard.config.filled import NOTHING_FILLED, Filled, cut
from geard.errors import MOST_PROBLEMS, Problem, most

LONGEST_PATH: Final = 300  # characters of a path, for one, that an error shows


class Refused(Exception):
    """A value that cannot be used, and why. Never leaves geard.config."""

    def __init__(self, message: str, *, expected: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.expected = expected
        self.hint = hint


class Unusable:
    """Stands for a value whose problem is known already; whatever reads it stays silent."""


UNUSABLE: Final = Unusable()


class Problems:
    """The problems found so far: the first hundred, and how many more."""

    def __init__(self) -> None:
        self._found: list[Problem] = []
        self._more = 0

    def __iter__(self) -> Iterator[Problem]:
        return iter(most(self._found, more=self._more))

    @property
    def is_full(self) -> bool:
        """Whether one more would only be counted."""
        return len(self._found) >= MOST_PROBLEMS

    def add(self, problem: Problem) -> None:
        """Take note."""
        if self.is_full:
            self._more += 1
        else:
            self._found.append(problem)


@dataclass(frozen=True)
class At:
    """A place in the config, by its key path (`capabilities.reverse.timeout`, `job_servers[1]`).

    `directory` is what relative paths start from."""

    problems: Problems
    directory: str
    filled: Filled = NOTHING_FILLED
    path: str = ""

    def key(self, name: object) -> At:
        """The entry `name` of the mapping here."""
        return At(self.problems, self.directory, self.filled, join_key(self.path, name))

    def item(self, index: int) -> At:
        """The item `index` of the list here."""
        return At(self.problems, self.directory, self.filled, join_item(self.path, index))

    def shown(self, text: str) -> str:
        """`text`, made of the value here, as an error may tell it: not if that came from the environment."""
        return self.filled.stand_in(self.path) or cut(text, LONGEST_PATH)

    def describe(self, value: object) -> str:
        """The value here as an error may name it."""
        shown = describe(value)
        return self.shown(shown) if self.path in self.filled.written else shown

    def report(self, message: str, *, expected: str = "", hint: str = "") -> None:
        """Note one problem here."""
        self.problems.add(Problem(message, key=self.path, expected=expected, hint=hint))

    @contextmanager
    def reporting(self) -> Iterator[None]:
        """Note the refusal that ends the block, and go on after it."""
        try:
            yield
        except Refused as refused:
            if refused.message:
                self.report(refused.message, expected=refused.expected, hint=refused.hint)


def join_key(path: str, name: object) -> str:
    """The key path of an entry; a name that cannot be shown as it is, in quotes."""
    text = str(name)
    shown = text if text and text.isprintable() else json.dumps(text)
    return f"{path}.{shown}" if path else shown


def join_item(path: str, index: int) -> str:
    """The key path of a list's item."""
    return f"{path}[{index}]"


def describe(value: object) -> str:
    """A value as an error message names it, in the words of YAML, cut short."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        shown = json.dumps(value if len(value) <= 60 else value[:59] + "…", ensure_ascii=False)
        return f"the text {shown.encode(errors='backslashreplace').decode()}"
    if isinstance(value, int | float):
        return f"the number {value:.17g}" if isinstance(value, float) else f"the number {str(value)[:30]}"
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    return f"a {type(value).__name__}"
