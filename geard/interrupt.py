"""What Ctrl-C raises in a command."""

from __future__ import annotations

from typing import NoReturn


class Interrupt(KeyboardInterrupt):
    """A KeyboardInterrupt to all who catch it.

    Of Python's own, `python -m geard` dies by the signal in the end, caught or not, if it was raised within an exec()
    of text: dataclasses and named tuples are made by one while they are imported."""


def interrupt(number: int, frame: object) -> NoReturn:
    """A handler for signals."""
    raise Interrupt
