"""Text from outside, made fit for a line of a log, a terminal or a title.

Function names, handles, uniques, client ids, the text of exceptions and warnings, what a socket says: others chose it,
and it may set a terminal's title, move its cursor, turn its text around or look like a line of its own. What is to be
shown of it goes through `printable`, and through nothing else.
"""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """`text` in one line, with everything in it that would steer a terminal or break the line as an escape of Python's.

    Escaped are control characters (C0, DEL, C1, line breaks and tabs among them), format characters (the bidirectional
    ones, zero width joiners), the line and paragraph separators, lone surrogates, and what Unicode has not assigned.
    Letters, marks, symbols and spaces of any script stay. A backslash stays too: this is to be read, not parsed.
    """
    if text.isprintable():
        return text
    return "".join(char if _shows(char) else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """The same for a text whose line breaks are our own, as those of a traceback are: they stay."""
    return "\n".join(map(printable, text.split("\n")))


def printable_json(line: str) -> str:
    """JSON that says the same and holds nothing but what `printable` leaves: all else is escaped as JSON does it."""
    if line.isprintable():
        return line
    return "".join(char if _shows(char) else _json_escape(char) for char in line)


def _shows(char: str) -> bool:
    return char.isprintable() or unicodedata.category(char) == "Zs"


def _json_escape(char: str) -> str:
    units = char.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
