"""What of a config was filled in from the environment, so that no error shows it: it may be a secret.

Two lines of defence: whoever words a problem takes the value from `At.shown`, which names the variable instead; and the
one place that all problems pass (Source.locate) puts the variable's name for its value wherever that still stands.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from geard.errors import Problem

SHOWN_CHARACTERS: Final = 60
TELLING_CHARACTERS: Final = 4
"""A value shorter than this stands in many a message by chance: it is looked for only where it belongs."""


@dataclass(eq=False)
class Filled:
    """`written`: the scalars that hold a variable's value, as they are written, by key path. `values`: the variables'
    values by name. `keys`: the key paths that themselves hold one, as they are written. `around`: the key paths of
    all lists and mappings that one of these is in."""

    written: dict[str, str] = field(default_factory=dict)
    values: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    around: set[str] = field(default_factory=set)

    def holds(self, path: str) -> bool:
        """Whether the value at this key path, or anything in it, is from the environment."""
        return path in self.written or path in self.around

    def stand_in(self, path: str) -> str:
        """What to tell instead of the value at this key path; "" where the value may be told."""
        if path in self.written:
            return f"what {cut(self.written[path])} stands for"
        return "what is filled in here" if path in self.around else ""

    def redact(self, problem: Problem) -> Problem:
        """The problem with the names of variables for their values."""
        if not self.values:
            return problem
        is_here = self.holds(problem.key)
        return replace(
            problem,
            message=self._named(problem.message, is_here),
            hint=self._named(problem.hint, is_here),
            key=self._written_key(problem.key),
        )

    def _named(self, text: str, is_here: bool) -> str:
        pieces: dict[str, str] = {}
        for name, value in self.values.items():
            for piece in _pieces(value, is_here):
                pieces.setdefault(piece, f"${{{name}}}")
        if not pieces:
            return text
        longest_first = sorted(pieces, key=len, reverse=True)
        pattern = "|".join(_as_word(piece) for piece in longest_first)
        return re.sub(pattern, lambda match: pieces[match[0]], text)

    def _written_key(self, key: str) -> str:
        for path, written in sorted(self.keys.items(), key=lambda item: -len(item[0])):  # the innermost first
            if key == path or key.startswith((f"{path}.", f"{path}[")):
                key = written + key[len(path) :]
        return key


NOTHING_FILLED: Final = Filled()


def cut(text: str, most_characters: int = SHOWN_CHARACTERS) -> str:
    """A text as an error may hold it: the first of it, where it is long."""
    return text if len(text) <= most_characters else f"{text[: most_characters - 1]}…"


def _pieces(value: str, is_here: bool) -> Iterator[str]:
    """What to look for: the value, also as Python quotes it; where it belongs, the parts of a dotted path too."""
    if not is_here and len(value) < TELLING_CHARACTERS:
        return
    forms = {value, repr(value)[1:-1], value.strip(), value.lower()}
    parts = re.split(r"[.:/,\s]", value) if is_here else ()
    yield from (piece for piece in (*forms, *parts) if any(map(str.isalnum, piece)))


def _as_word(piece: str) -> str:
    before = r"(?<!\w)" if piece[0].isalnum() and len(piece) < 8 else ""
    after = r"(?!\w)" if piece[-1].isalnum() and len(piece) < 8 else ""
    return f"{before}{re.escape(piece)}{after}"
