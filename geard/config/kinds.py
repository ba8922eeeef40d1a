"""What a kind of value is, told beside its parser: in words for the reference, and as JSON Schema for editors.

Rule: a parser is what decides; its Kind never refuses what the parser takes. It may take what the parser refuses: no
schema sees the file system, or two keys at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    from geard.config.records import Key

P = TypeVar("P", bound=Callable[..., Any])


class Kind(NamedTuple):
    """`words` say what the value is. `schema` is that of one scalar, or what goes for a list or a mapping as a whole;
    `either`, `items`, `values` and `keys` say which other kinds it is made of, by their parsers."""

    words: str
    schema: Mapping[str, Any] = {}
    either: tuple[Callable[..., Any], ...] = ()  # one of these
    items: Callable[..., Any] | None = None  # a list of these
    values: Callable[..., Any] | None = None  # a mapping of names to these
    keys: Mapping[str, Key] | None = None  # a mapping with these keys, which becomes a `struct`
    struct: type | None = None


_KINDS: WeakKeyDictionary[Callable[..., Any], Kind] = WeakKeyDictionary()  # some are made anew for each reading


def kind(words: str, **what: Any) -> Callable[[P], P]:
    """Note beside a parser what it reads; the keywords are the fields of Kind."""

    def noted(parser: P) -> P:
        _KINDS[parser] = Kind(words, **what)
        return parser

    return noted


def kind_of(parser: Callable[..., Any]) -> Kind:
    """What `parser` reads. Raises LookupError where nobody has said so."""
    return _KINDS[parser]
