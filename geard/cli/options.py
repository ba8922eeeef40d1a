"""Values of options: text that is refused as a usage error where it cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from geard.cli.times import some_time
from geard.errors import InvalidRequest


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """A callback for an option whose text `parse` reads, raising InvalidRequest; each text of a repeatable one."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        try:
            if isinstance(value, tuple):
                return tuple(map(parse, value))
            return None if value is None else parse(value)
        except InvalidRequest as error:
            raise click.BadParameter(str(error)) from error

    return callback


def time_option(
    *names: str, text: str, default: str | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that says how long, in seconds for the command; `text` is its help."""
    return click.option(
        *names,
        callback=parsed(some_time),
        default=default,
        show_default=default is not None,
        metavar="DURATION",
        help=text,
    )
