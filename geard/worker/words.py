"""What is told of an error of user code, whatever that has made of it: asked for its text, say, it may raise another.

Rule: nothing here raises. A job whose failure could not be told would not be answered.
"""

from __future__ import annotations

import traceback
from typing import TypeGuard, TypeVar

E = TypeVar("E", bound=BaseException)


def is_a(error: BaseException, kinds: type[E] | tuple[type[E], ...]) -> TypeGuard[E]:
    """Whether it is of one of these types. isinstance would ask the error too what it is."""
    return issubclass(type(error), kinds)


def name_of(error: BaseException) -> str:
    """The name of its type."""
    return type.__dict__["__name__"].__get__(type(error))  # type: ignore[no-any-return] # its metaclass may have another


def message_of(error: BaseException) -> str:
    """Its text."""
    try:
        return str.__str__(str(error))  # itself, and none of a subclass
    except BaseException as second:
        return f"its __str__ raised {name_of(second)}"


def repr_of(error: BaseException) -> str:
    """As it stands in code."""
    try:
        return str.__str__(repr(error))
    except BaseException as second:
        return f"{name_of(error)}, whose __repr__ raised {name_of(second)}"


def traceback_of(error: BaseException) -> str:
    """Its traceback, as Python writes it; empty where that fails."""
    try:
        return "".join(traceback.format_exception(error))
    except BaseException:
        return ""


def encodable(text: str) -> str:
    """Without what cannot be encoded."""
    return text.encode(errors="replace").decode()
