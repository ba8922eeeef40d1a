"""The man pages geard(1) and geard.yaml(5), as roff. `python -m geard.reference.man DIR` writes them.

Those in docs/man/ are made so, and the wheel installs them; a test holds them to be current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Final

from geard import __version__
from geard.config.load import SEARCH_PATH
from geard.reference.command_line import Command, Option, commands
from geard.reference.keys import ConfigKey, config_keys, example_config
from geard.reference.tables import exit_codes


def command_page() -> str:
    """geard(1)."""
    found = commands()
    lines = [
        *_head("geard", 1, "run Python functions as Gearman jobs; submit and inspect jobs"),
        ".SH SYNOPSIS",
        *(_usage(command) for command in found if not command.is_group),
        ".SH DESCRIPTION",
        _text(
            "geard runs Python functions as jobs from Gearman job servers, thousands at a time, as a daemon that "
            "systemd supervises and that reloads without losing a job. It submits and inspects jobs too. Its config is"
        ),
        ".BR geard.yaml (5).",
        ".SH COMMANDS",
        *(line for command in found for line in _command(command)),
        ".SH EXIT STATUS",
        *(line for code in exit_codes() for line in _item(str(code.code), code.meaning)),
        ".SH ENVIRONMENT",
        *_item("GEARMAN_SERVERS", "The job servers that commands ask, with commas between, where no option names any."),
        *_item("GEARD_CONFIG", "The config file, where no option names one."),
        ".SH FILES",
        *_item(", ".join(SEARCH_PATH), "The config: the first of these that is there, where nothing names another."),
        ".SH SEE ALSO",
        ".BR geard.yaml (5),",
        ".BR systemd.service (5)",
    ]
    return "\n".join(lines) + "\n"


def config_page() -> str:
    """geard.yaml(5)."""
    intro = example_config().partition("# --- ")[0].split("\n#\n")[1:]  # the first is about that file
    paragraphs = [" ".join(line.lstrip("# ") for line in part.splitlines()) for part in intro]
    sample = files("geard.cli.init").joinpath("files", "geard.yaml.txt").read_text(encoding="utf-8")
    lines = [
        *_head("geard.yaml", 5, "the config of geard"),
        ".SH DESCRIPTION",
        _text(
            "The config of the daemon, a YAML file: where its job servers are, and which functions it runs. The "
            "command geard check says what is wrong with one, or what would run; geard reload takes over a changed one."
        ),
        *_paragraphs(paragraphs),
        ".SH KEYS",
        _text("In the names, NAME is one that you choose, and [] is each item of a list."),
        *(line for key in config_keys() for line in _key(key)),
        ".SH EXAMPLE",
        *_verbatim(line for line in sample.splitlines() if not line.startswith("#")),
        ".SH SEE ALSO",
        ".BR geard (1)",
    ]
    return "\n".join(lines) + "\n"


PAGES: Final = {"geard.1": command_page, "geard.yaml.5": config_page}


def _head(name: str, section: int, purpose: str) -> list[str]:
    return [
        '.\\" Made by geard/reference/man.py from the code: change it there.',
        f'.TH {_text(name.upper())} {section} "" "geard {__version__}" "geard"',
        ".SH NAME",
        rf"{_text(name)} \- {_text(purpose)}",
    ]


def _usage(command: Command) -> str:
    name = f"geard {command.name}"
    left = command.usage.removeprefix(name).strip()
    return "\n".join([f".B {_text(name)}", *([_text(left)] if left else []), ".br"])


def _command(command: Command) -> Iterator[str]:
    yield f".SS {_text(f'geard {command.name}')}"
    for block in command.help:
        yield from _verbatim(block.text.splitlines()) if block.verbatim else [".PP", _text(block.text)]
    for argument in command.arguments:
        if argument.metavar.startswith("{"):
            yield from [".PP", _text(f"The argument is one of {argument.metavar}.")]
    for option in command.options:
        yield from _option(option)
    if command.examples:
        yield from [".PP", "Examples:", *_verbatim(command.examples)]
    if command.exit_codes:
        yield from [".PP", _text(f"Exit codes: {command.exit_codes}")]


def _option(option: Option) -> Iterator[str]:
    value = rf" \fI{_text(option.metavar)}\fR" if option.metavar else ""
    names = ", ".join(rf"\fB{_text(name)}\fR{value}" for name in option.names)
    told = [option.help]
    if option.default:
        told.append(f"Default: {option.default}.")
    if option.environment:
        told.append(f"Or ${', $'.join(option.environment)}.")
    yield from [".TP", names, _text(" ".join(filter(None, told))) or r"\&"]


def _key(key: ConfigKey) -> Iterator[str]:
    yield from [".TP", rf"\fB{_text(key.name)}\fR"]
    default = f" Default: {key.default}." if key.default else " Required." if key.required else ""
    yield _text(f"{key.paragraph[:1].upper()}{key.paragraph[1:].rstrip('.:')}.")
    yield ".br"
    yield _text(f"A value: {key.kind}.{default}")


def _item(term: str, text: str) -> list[str]:
    return [".TP", rf"\fB{_text(term)}\fR", _text(text)]


def _paragraphs(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        yield from [".PP", _text(text.strip())]


def _verbatim(lines: Iterable[str]) -> list[str]:
    return [".PP", ".RS 4", ".EX", *(_text(line) for line in lines), ".EE", ".RE"]


def _text(text: str) -> str:
    """Text that roff shows as it is."""
    escaped = text.replace("\\", r"\e").replace("-", r"\-").replace("^", r"\(ha").replace("~", r"\(ti")
    escaped = escaped.replace("`", r"\(ga").replace("'", r"\(aq").replace('"', r"\(dq")
    escaped = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in escaped)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


def main(directory: str) -> None:
    """Write the pages."""
    for name, page in PAGES.items():
        Path(directory, name).write_text(page(), encoding="ascii")


if __name__ == "__main__":
    main(sys.argv[1])
