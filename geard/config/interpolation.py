"""`${NAME}` and `${NAME:-default}` in the config's scalars, filled in from the environment; `$${` stands for `${`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from geard.config.filled import cut
from geard.config.problems import Refused

_REFERENCE: Final = re.compile(r"\$(?P<escaped>\$\{)|\$\{(?P<body>[^}]*)(?P<end>\}?)")
_BODY: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>.*))?", re.DOTALL)
_EXPECTED: Final = "${NAME} or ${NAME:-default}; $${ stands for ${ itself"


def expand(text: str, environ: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """`text` with its references filled in, and the variables that this took from the environment, with their values.

    As in the shell, a default serves for an empty variable too.

    Raises Refused for a malformed reference, and for an unset variable without a default."""

    if "${" not in text:
        return text, {}
    found: dict[str, str] = {}

    def value(match: re.Match[str]) -> str:
        if match["escaped"]:
            return "${"
        body = _BODY.fullmatch(match["body"])
        if not match["end"] or not body:
            raise Refused(f"{cut(match[0])} is not a reference to a variable", expected=_EXPECTED)
        name, default = body["name"], body["default"]
        if default is not None and "${" in default:
            raise Refused(f"the default of ${{{name}}} holds another reference", expected="plain text as the default")
        there = environ.get(name)
        if there is None and default is None:
            raise Refused(
                f"the environment variable {name} is not set",
                hint=f"set it, or give a default: ${{{name}:-default}}",
            )
        if there:
            found[name] = there
        return there or default or ""

    return _REFERENCE.sub(value, text), found
