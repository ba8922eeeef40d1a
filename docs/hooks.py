"""What the site's reference pages are made of: a line `*Made from the code: NAME.*` becomes what MAKERS has for it.

Rule: nothing here says anything about geard that it does not read from the code.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final, NamedTuple

import geard
from geard import reference, testing, verdicts
from geard.cli.warnings import INSTEAD
from geard.worker.blocking import LIBRARIES

MADE: Final = re.compile(r"^\*Made from the code: (.+)\.\*$", re.MULTILINE)
LOADED: Final = re.compile(
    r"""<(?:script|img|iframe|link(?! rel="?(?:canonical|next|prev)))\b[^>]* (?:src|href)=["']?(?:https?:)?//[^>]*>"""
)
PACKAGE: Final = Path(geard.__file__).parent


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return MADE.sub(lambda match: MAKERS[match[1]](), markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page: none loads anything from another host."""
    if found := LOADED.search(output):
        raise ValueError(f"{page.file.src_uri} loads from another host: {found[0]}")
    return output


# --- tables ------------------------------------------------------------------------------------------------------


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    """A table; `head` has the titles of its columns, with bars between."""
    columns = head.count("|") + 1
    lines = [f"| {head} |", f"|{'---|' * columns}"]
    return "\n".join(lines + [f"| {' | '.join(map(cell, row))} |" for row in rows])


def cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def prose(text: str) -> str:
    """Text of a docstring, a comment or a help: only what stands in backticks means anything, and links to pages."""
    parts = re.split(r"(`[^`]*`)", text)
    parts[::2] = (re.sub(r"[*_<]", lambda sign: f"\\{sign[0]}", part) for part in parts[::2])
    return re.sub(r"\bdocs/([\w-]+)\.md\b", r"[\1](\1.md)", "".join(parts))


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def exit_codes() -> str:
    return table("code | meaning", ((str(one.code), prose(one.meaning)) for one in reference.exit_codes()))


def metrics() -> str:
    rows = (
        (code(one.name), one.type, ", ".join(map(code, one.labels)), prose(one.help)) for one in reference.metrics()
    )
    return table("metric | type | labels |", rows)


# --- commands ----------------------------------------------------------------------------------------------------


def commands() -> str:
    return "\n\n".join(map(command, reference.commands()))


def command(one: reference.Command) -> str:
    parts = [f"### geard {one.name}", f"```text\n{one.usage}\n```", f"{prose(one.summary)}."]
    said = [block for block in one.help if block.text.rstrip(".") != one.summary]
    parts += [f"```text\n{block.text}\n```" if block.verbatim else prose(block.text) for block in said]
    if one.options:
        parts.append(table("option |", map(option, one.options)))
    if one.examples:
        parts.append("```sh\n" + "\n".join(one.examples) + "\n```")
    if one.exit_codes:
        parts.append(f"Exit codes: {prose(one.exit_codes)}")
    return "\n\n".join(parts)


def option(one: reference.Option) -> tuple[str, str]:
    names = ", ".join(one.names)
    notes = [
        f"Default: {code(one.default)}." if one.default else "",
        f"From the environment: {', '.join(code(f'${name}') for name in one.environment)}." if one.environment else "",
    ]
    return code(f"{names} {one.metavar}".strip()), " ".join([prose(one.help), *filter(None, notes)])


# --- config ------------------------------------------------------------------------------------------------------


def config_keys() -> str:
    parts = []
    top = ""
    for key in reference.config_keys():
        name = re.split(r"[.\[]", key.name)[0]
        if name != top:
            top = name
            parts.append(f"### {top}")
        if key.name != top:
            parts.append(f"#### `{key.name}`")
        if key.paragraph:
            parts.append(prose(sentence(key.paragraph)))
        default = ["Required."] if key.required else [f"Default: {code(key.default)}."] if key.default else []
        parts.append(" ".join([f"*{cell(prose(key.kind))}*.", *default]))
    return "\n\n".join(parts)


def sentence(text: str) -> str:
    """A comment, which may be a phrase, as a sentence."""
    text = text.rstrip(":;, ")
    return text if text.endswith((".", ")")) else f"{text}."


# --- errors ------------------------------------------------------------------------------------------------------


def error_classes() -> str:
    said: dict[str, dict[str, None]] = {}
    names = tuple(one.name for one in reference.error_classes())
    for file in sorted(PACKAGE.rglob("*.py")):
        if not {"cli", "monitor", "reference", "testing"} & set(file.relative_to(PACKAGE).parts):
            for call in calls(file, names):
                said.setdefault(name_of(call.func), {})[wording(call.args[0], file)] = None
    return "\n\n".join(error_class(one, said.get(one.name, {})) for one in reference.error_classes())


def error_class(one: reference.ErrorClass, said: Iterable[str]) -> str:
    where = "geard" if one.name in geard.__all__ else "geard.errors"
    text = f"### `{where}.{one.name}`\n\nA kind of {' and '.join(map(code, one.bases))}. {docstring(one.text)}"
    lines = [f"- {prose(cell(words))}" for words in said if words.strip("… :")]
    return (
        text if one.name == "CapabilityError" else "\n\n".join([text, *["In words:", "\n".join(lines)] * bool(lines)])
    )


def docstring(text: str) -> str:
    return prose(inspect.cleandoc(text))


def raised_by_capabilities() -> str:
    found = [getattr(verdicts, name) for name in ("Retry", "Fail", "Reject")]
    return "\n\n".join(f"### `geard.{one.__name__}`\n\n{docstring(one.__doc__)}" for one in found)


class Said(NamedTuple):
    """What the code says of a problem, with … for what is filled in."""

    text: str
    expected: str
    hint: str


def problems() -> str:
    """The messages of the calls that report a problem of a config."""
    files = sorted([*(PACKAGE / "config").glob("*.py"), *(PACKAGE / "worker").glob("*.py")])
    files += [PACKAGE / "supervisor" / name for name in ("daemon.py", "generation.py", "imports.py", "embedded.py")]
    files += [PACKAGE / "cli" / "warnings.py"]
    found = dict.fromkeys(said for file in files for said in messages(file, REPORTING))
    return table("what is wrong | expected | what to do", (tuple(map(prose, said)) for said in found))


REPORTING: Final = ("CapabilityError", "Problem", "Refused", "_fail", "_note", "report")


def messages(file: Path, names: tuple[str, ...]) -> Iterator[Said]:
    """What the calls of these names in a file say; not those that only hand on what another one says."""
    for call in calls(file, names):
        given = {keyword.arg: keyword.value for keyword in call.keywords}
        parts = (call.args[0], given.get("expected"), given.get("hint"))
        text, expected, hint = (wording(part, file) if part else "" for part in parts)
        text, _, more = text.partition("\n")
        if text.strip("… :"):
            said, _, wanted = more.partition("expected ") if more.startswith("expected ") else (more, "", "")
            yield Said(text, wanted if expected in ("", "…") else expected, said if hint in ("", "…") else hint)


def module_of(file: Path) -> ModuleType:
    return importlib.import_module(".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts))


def calls(file: Path, names: tuple[str, ...]) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and node.args and name_of(node.func) in names:
            yield node


def name_of(function: ast.expr) -> str:
    return getattr(function, "attr", "") or getattr(function, "id", "")


def wording(value: ast.expr, file: Path, local: Mapping[str, ast.expr] | None = None) -> str:
    """A text of the code: constants as they are, what is filled in as …, alternatives with a slash between."""
    match value:
        case ast.Constant():
            return str(value.value)
        case ast.JoinedStr():
            parts = (wording(part, file, local) for part in value.values)
            return re.sub(r"…(?: ?…)+", "…", "".join(parts))
        case ast.FormattedValue(value=ast.Name(id=name)) if not (local and name in local):
            return wording(value.value, file)
        case ast.FormattedValue(value=ast.Name() as name):
            return wording(name, file, local)
        case ast.IfExp():
            return " / ".join(filter(None, (wording(one, file, local) for one in (value.body, value.orelse))))
        case ast.Name(id=name) if name.strip("_").isupper():
            return str(getattr(module_of(file), name))
        case ast.Name(id=name) if local and name in local:
            return wording(local[name], file, {other: one for other, one in local.items() if other != name})
    return "…"


def findings() -> str:
    """What the functions of geard/monitor/problems.py say is wrong."""
    file = PACKAGE / "monitor" / "problems.py"
    rows = []
    for function in ast.walk(ast.parse(file.read_text())):
        if not isinstance(function, ast.FunctionDef):
            continue
        local: dict[str, ast.expr] = {}
        for node in sorted(ast.walk(function), key=lambda node: getattr(node, "lineno", 0)):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    local[name] = value
                case ast.Call(func=ast.Name(id="Finding"), args=[level, _, text, *more]):
                    given = {keyword.arg: keyword.value for keyword in node.keywords}
                    hint = more[0] if more else given.get("hint")
                    said = (wording(one, file, local) if one else "" for one in (level, text, hint))
                    rows.append(tuple(said))
    return table("level | what is wrong | what to do, or where to look", (tuple(map(prose, row)) for row in rows))


def libraries() -> str:
    """The libraries that `geard check` warns of."""
    rows = ((code(name), prose(INSTEAD.get(name, ""))) for name in LIBRARIES)
    return table("library | instead of a native thread", rows)


# --- Python ------------------------------------------------------------------------------------------------------


def python() -> str:
    """The public names, for mkdocstrings, each where it is defined."""
    return "\n\n".join([*public(geard), *public(testing)])


def public(module: Any) -> Iterator[str]:
    yield f"## {module.__name__}"
    for name in module.__all__:
        if not name.startswith("_"):
            public_name = f"{module.__name__}.{name}"
            options = f"options: {{heading: '{public_name}', toc_label: '{public_name}'}}"
            yield f"::: {getattr(module, name).__module__}.{name}\n    {options}"


MAKERS: Final[dict[str, Callable[[], str]]] = {
    "commands": commands,
    "config keys": config_keys,
    "error classes": error_classes,
    "exit codes": exit_codes,
    "findings": findings,
    "libraries that block": libraries,
    "metrics": metrics,
    "problems of a config": problems,
    "Python": python,
    "verdicts": raised_by_capabilities,
}
