"""The JSON Schema of a config, made from the kinds of its keys: for editors, `geard check --schema`.

Rules:
- What the daemon takes, the schema takes: references to the environment, short forms, empty values. It says nothing of
  what only the daemon can see: files, modules, two keys at once.
- It is draft-07, which every editor knows; it refers to nothing outside of itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from geard.config.keys import config as whole_config
from geard.config.kinds import kind_of
from geard.config.records import Key
from geard.reference.keys import paragraphs

REFERENCE: Final = {"$ref": "#/definitions/reference"}
_DEFINITIONS: Final = {
    "reference": {
        "type": "string",
        "pattern": r"\$\{",
        "description": "${NAME} or ${NAME:-default}, filled in from the environment",
    }
}


def schema() -> dict[str, Any]:
    """The schema, with the texts of etc/geard.yaml."""
    head = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "The config of geard",
        "definitions": _DEFINITIONS,
    }
    return {**head, **_of(whole_config, ""), "required": ["capabilities"]}


def schema_text() -> str:
    """The schema as a file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _of(parser: Callable[..., Any], name: str) -> dict[str, Any]:
    """The schema of one value, whatever it is; `name` is that of its key, as the reference has it."""
    kind = kind_of(parser)
    if kind.keys is not None and kind.struct is not None:
        return _of_record(kind.keys, kind.struct, name)
    if kind.items is not None:
        return {"type": "array", "items": _of(kind.items, f"{name}[]"), **kind.schema}
    if kind.values is not None:
        return {"type": "object", "additionalProperties": _of(kind.values, f"{name}.NAME"), **kind.schema}
    if len(kind.either) == 1:
        return _of(kind.either[0], name)
    if kind.either:
        return {"anyOf": [_of(one, name) for one in kind.either]}
    return {"anyOf": [kind.schema, REFERENCE]} if kind.schema else {}


def _of_record(keys: Mapping[str, Key], struct: type, name: str) -> dict[str, Any]:
    infos = {info.name: info for info in msgspec.structs.fields(struct)}
    properties = {}
    for key, one in keys.items():
        full = f"{name}.{key}" if name else key
        info = infos[one.field or key]
        value = _of(one.parse, full)
        if info.default is None:  # an empty value is the same as none
            value = {"anyOf": [value, {"type": "null"}]}
        text = ". ".join(
            filter(None, [paragraphs().get(full, "").rstrip("."), f"Expected: {kind_of(one.parse).words}"])
        )
        properties[key] = {"description": text, **value}
    required = [key for key, one in keys.items() if infos[one.field or key].required]
    found = {"type": "object", "properties": properties, "additionalProperties": False}
    return found | ({"required": required} if required else {})
