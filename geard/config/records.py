"""Mappings and lists read by a table: the key's name -> the field that it fills and the parser of its value.

Rules:
- Every problem below is reported at its own place; a record is refused only when a key that it needs is missing or bad.
- An empty value is the same as none where the model's default is None.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from geard.config.kinds import kind
from geard.config.problems import UNUSABLE, At, Refused
from geard.config.values import Parser, refuse

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)


class Key(NamedTuple):
    """One key of a record: what reads its value, and the model's field where it differs from the key's name."""

    parse: Parser[Any]
    field: str = ""


class Check(NamedTuple, Generic[S]):
    """A judgement on several fields together, made when none of them is bad by itself."""

    fields: frozenset[str]
    judge: Callable[[S, At], None]


def record(struct: type[S], keys: Mapping[str, Key], *checks: Check[S]) -> Parser[S]:
    """The parser of a mapping that becomes a `struct`."""
    infos = {info.name: info for info in msgspec.structs.fields(struct)}
    fields = {name: key.field or name for name, key in keys.items()}
    required = [name for name, field in fields.items() if infos[field].required]
    expected = f"a mapping with the keys {', '.join(keys)}"

    @kind("a mapping", keys=keys, struct=struct)
    def parse(value: Any, at: At) -> S:
        if not isinstance(value, Mapping):
            raise refuse(value, expected, at)
        found: dict[str, Any] = {}
        bad: set[str] = set()
        for name, item in value.items():
            here = at.key(name)
            if name not in keys:
                here.report("unknown key", **({} if at.problems.is_full else suggestion(name, keys)))
            elif item is not None or infos[fields[name]].default is not None:
                bad.add(fields[name])
                with here.reporting():
                    found[fields[name]] = keys[name].parse(usable(item), here)
                    bad.remove(fields[name])
        for name in required:
            if name not in value:
                at.report(f"`{name}` is missing", expected=expected)
        if any(fields[name] not in found for name in required):
            raise already_reported()
        made = struct(**found)
        for check in checks:
            if not check.fields & bad:
                check.judge(made, at)
        return made

    return parse


def list_of(
    parse_item: Parser[T], expected: str, identity: Callable[[T], Hashable] | None = None
) -> Parser[tuple[T, ...]]:
    """The parser of a list. Bad items are reported and left out, and so are items that `identity` finds twice."""

    @kind(expected, items=parse_item)
    def parse(value: Any, at: At) -> tuple[T, ...]:
        if not isinstance(value, list | tuple):
            raise refuse(value, expected, at)
        found: list[T] = []
        places: dict[Hashable, At] = {}
        for index, item in enumerate(value):
            here = at.item(index)
            with here.reporting():
                parsed = parse_item(usable(item), here)
                first = places.setdefault(identity(parsed) if identity else index, here)
                if first is not here:
                    raise Refused(f"{here.shown(str(parsed))} is given twice", hint=f"the first is {first.path}")
                found.append(parsed)
        return tuple(found)

    return parse


def already_reported() -> Refused:
    """Ends the reading of a value whose problems are noted."""
    return Refused("")


def usable(value: Any) -> Any:
    """`value`, unless its problem is known already."""
    if value is UNUSABLE:
        raise already_reported()
    return value


def suggestion(name: object, keys: Mapping[str, Key]) -> dict[str, str]:
    """What to say of an unknown key: the nearest known one, else all of them."""
    near = difflib.get_close_matches(str(name)[:100], keys, n=1)
    return {"hint": f"did you mean `{near[0]}`?"} if near else {"expected": f"one of {', '.join(keys)}"}
