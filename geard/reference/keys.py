"""The keys of the config: kind and default from the code, what they are for from the comments of etc/geard.yaml.

In that file, the comment above a key of the top level is its paragraph, and keys in a row share one; the comment behind
any other key, with the lines that go on in the same column, is that key's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from geard.config.keys import CONFIG_KEYS
from geard.config.keys import config as whole_config
from geard.config.kinds import Kind, kind_of
from geard.config.records import Key
from geard.config.units import format_duration, format_size

_TOP: Final = re.compile(r"(?:# )?(?P<name>[a-z_]+):")
_BELOW: Final = re.compile(r"[\s#-]*?(?P<name>[a-z_]+):(?P<value>[^#]*)(?:#\s?(?P<comment>.*))?$")


class ConfigKey(NamedTuple):
    """One key. In `name`, NAME stands for what the writer names, and [] for each item of a list."""

    name: str  # "shutdown_timeout", "capabilities.NAME.retry.times", "job_servers[].tls.ca"
    kind: str  # in words, as an error would expect it
    default: str  # as it would be written; "" where there is none (the paragraph says what happens then)
    required: bool
    paragraph: str


def config_keys() -> tuple[ConfigKey, ...]:
    """Every key, a mapping's before those within it, in the order of geard/config/keys.py."""
    return tuple(_keys("", CONFIG_KEYS, _struct_of(whole_config), ""))


@cache
def example_config() -> str:
    """The text of etc/geard.yaml, which the wheel holds within the package."""
    packaged = files("geard.reference").joinpath("geard.yaml")
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "etc" / "geard.yaml").read_text(encoding="utf-8")


@cache
def paragraphs() -> Mapping[str, str]:
    """What etc/geard.yaml says of each key, by its name as in ConfigKey."""
    found: dict[str, str] = {}
    above: list[str] = []
    section, is_in_row = "", False
    column, last = -1, ""
    for line in example_config().splitlines():
        top = _TOP.match(line)
        if top and top["name"] in CONFIG_KEYS:
            text = " ".join(above) if not is_in_row else found[section]
            section, is_in_row, column, last = top["name"], True, -1, ""
            found[section] = text
            above = []
        elif not line.strip():
            above, is_in_row, column = [], False, -1
        elif column >= 0 and line.find("#", 1) == column and not line[:column].strip(" #"):
            found[last] += f" {line[column:].strip('# ')}"
        elif (below := _BELOW.match(line)) and (name := _within(section, last, below["name"])):
            last, column, is_in_row = name, line.find("#", below.end("value")), False
            if below["comment"]:
                found.setdefault(name, below["comment"].strip())
        elif line.startswith("# "):
            above.append(line[2:].strip())
    return found


def _within(section: str, last: str, name: str) -> str:
    """The full name of a key that stands in `section` after the key `last`; "" if there is none of that name."""
    for around in _arounds(last or section):
        for known in _names():
            if known.rpartition(".")[0].removesuffix(".NAME").removesuffix("[]") == around and known.endswith(
                f".{name}"
            ):
                return known
    return ""


def _arounds(name: str) -> Iterator[str]:
    while name:
        yield name.removesuffix(".NAME").removesuffix("[]")
        name = name.rpartition(".")[0]


@cache
def _names() -> tuple[str, ...]:
    return tuple(name for name, _, _, _ in _walk("", CONFIG_KEYS, _struct_of(whole_config)))


def _struct_of(parser: Callable[..., Any]) -> type:
    return next(_records("", parser))[2]


def _keys(prefix: str, keys: Mapping[str, Key], struct: type, around: str) -> Iterator[ConfigKey]:
    texts = paragraphs()
    for name, key, kind, info in _walk(prefix, keys, struct):
        required = info.required
        default = "" if required else _written(_default(info), key.field)
        yield ConfigKey(name, kind.words, default, required, texts.get(name, ""))


def _walk(
    prefix: str, keys: Mapping[str, Key], struct: type
) -> Iterator[tuple[str, Key, Kind, msgspec.structs.FieldInfo]]:
    infos = {info.name: info for info in msgspec.structs.fields(struct)}
    for name, key in keys.items():
        kind = kind_of(key.parse)
        full = f"{prefix}{name}"
        yield full, key, kind, infos[key.field or name]
        for below, inner, of in _records(full, key.parse):
            yield from _walk(f"{below}.", inner, of)


def _records(name: str, parser: Callable[..., Any]) -> Iterator[tuple[str, Mapping[str, Key], type]]:
    """The mappings that a value may be or hold: where, with which keys, and the struct that each becomes."""
    kind = kind_of(parser)
    if kind.keys is not None and kind.struct is not None:
        yield name, kind.keys, kind.struct
    for one in kind.either:
        yield from _records(name, one)
    if kind.items is not None:
        yield from _records(f"{name}[]", kind.items)
    if kind.values is not None:
        yield from _records(f"{name}.NAME", kind.values)


def _default(info: msgspec.structs.FieldInfo) -> Any:
    return info.default if info.default_factory is msgspec.NODEFAULT else info.default_factory()


def _written(value: Any, field: str) -> str:
    """A default as one would write it."""
    if value is None or isinstance(value, dict):
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.endswith("_seconds"):
        return format_duration(value)
    if field.endswith("_bytes"):
        return format_size(value)
    if type(value) is tuple:
        return f"[{', '.join(map(str, value))}]"
    if hasattr(value, "most_seconds"):
        return f"{format_duration(value.least_seconds)}..{format_duration(value.most_seconds)}"
    if isinstance(value, msgspec.Struct) and type(value).__str__ is object.__str__:
        return ""
    return str(value)
