"""The commands of the command line, as click has them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import click

from geard.cli import cli

_EXAMPLES: Final = re.compile(r"Examples?(?:, [^:]*)?:\s*(.*)", re.DOTALL)
_EXIT_CODES: Final = re.compile(r"(?:Exit codes: |Exits )(.*)", re.DOTALL)


class Block(NamedTuple):
    """A paragraph of help; one that is `verbatim` keeps its lines."""

    text: str
    verbatim: bool = False


class Option(NamedTuple):
    """An option: `names` as written (`-c`, `--config`), `metavar` for its value ("" for a flag)."""

    names: tuple[str, ...]
    metavar: str
    help: str
    default: str  # in words of the command line; "" where there is none to tell
    required: bool
    multiple: bool
    environment: tuple[str, ...]  # variables that it is taken from


class Argument(NamedTuple):
    """An argument: `metavar` as the usage line has it."""

    metavar: str
    required: bool
    multiple: bool


class Command(NamedTuple):
    """A command, or a group of them (`is_group`), whose commands follow it. `name` has its group's in front."""

    name: str  # "submit", "dead list"
    summary: str  # one line
    usage: str  # "geard submit [OPTIONS] [FUNCTION] [WORKLOAD]"
    help: tuple[Block, ...]  # without examples and exit codes
    examples: tuple[str, ...]  # lines of a shell
    exit_codes: str  # a sentence; "" where there is nothing beside the common ones
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    is_group: bool = False
    hidden: bool = False


def commands(*, hidden: bool = False) -> tuple[Command, ...]:
    """Every command, in the order of `geard --help`; with those that people have no use for if `hidden`."""
    return tuple(_below(cli, click.Context(cli, info_name="geard"), hidden))


def _below(group: click.Group, context: click.Context, hidden: bool) -> Iterator[Command]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if command.hidden and not hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        yield _described(command, inner)
        if isinstance(command, click.Group):
            yield from _below(command, inner, hidden)


def _described(command: click.Command, context: click.Context) -> Command:
    blocks, examples, exit_codes = _help(command.help or "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    parameters = [one for one in command.params if not getattr(one, "hidden", False)]
    return Command(
        name=context.command_path.partition(" ")[2],
        summary=command.get_short_help_str(200).rstrip("."),
        usage=usage,
        help=blocks,
        examples=examples,
        exit_codes=exit_codes,
        options=tuple(_option(one, context) for one in parameters if isinstance(one, click.Option)),
        arguments=tuple(_argument(one, context) for one in parameters if isinstance(one, click.Argument)),
        is_group=isinstance(command, click.Group),
        hidden=command.hidden,
    )


def _option(option: click.Option, context: click.Context) -> Option:
    shown: dict[str, Any] = dict(option.get_help_extra(context))
    variables = option.envvar or ()
    return Option(
        names=(*option.opts, *option.secondary_opts),
        metavar="" if option.is_flag or option.count else option.make_metavar(context),
        help=option.help or "",
        default=str(shown.get("default", "")),
        required=option.required,
        multiple=option.multiple,
        environment=(variables,) if isinstance(variables, str) else tuple(variables),
    )


def _argument(argument: click.Argument, context: click.Context) -> Argument:
    return Argument(argument.make_metavar(context), argument.required, argument.nargs != 1)


def _help(text: str) -> tuple[tuple[Block, ...], tuple[str, ...], str]:
    blocks: list[Block] = []
    examples: list[str] = []
    exit_codes = ""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        verbatim = paragraph.startswith("\b")
        lines = paragraph.removeprefix("\b").strip("\n").split("\n")
        said, shown, codes = _taken_apart(lines, verbatim)
        examples += shown
        exit_codes = codes or exit_codes
        if said:
            blocks.append(Block("\n".join(said) if verbatim else " ".join(said), verbatim))
    return tuple(blocks), tuple(examples), exit_codes


def _taken_apart(lines: list[str], verbatim: bool) -> tuple[list[str], list[str], str]:
    """What a paragraph says, the examples in it, and what it says of exit codes."""
    said: list[str] = []
    examples: list[str] = []
    codes: list[str] = []
    part = said
    for line in lines:
        if found := _EXAMPLES.match(line):
            part, line = examples, found[1]
        elif found := _EXIT_CODES.match(line):
            part, line = codes, found[1]
        if line.strip():
            part.append(line if part is said and verbatim else line.strip())
    return said, examples, " ".join(codes)
