"""The command: the loop of keys and looks."""

from __future__ import annotations

import sys
import time
from typing import Final

import click
import msgspec

from geard.cli.control import with_socket
from geard.cli.options import time_option
from geard.cli.output import on_terminal, write_json, write_lines
from geard.cli.top.draw import COLUMNS, JOBS, PARTS, View, draw
from geard.cli.top.look import Look, Watcher
from geard.cli.top.report import report
from geard.cli.top.terminal import Terminal
from geard.errors import CannotConnect, InvalidRequest
from geard.monitor.daemons import ControlSocket

CTRL_L: Final = "\x0c"
MOST_JOBS: Final = 10_000
SCROLLS: Final = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -20, "page down": 20, "home": -(10**6), "end": 10**6}


@click.command()
@with_socket
@time_option("-n", "--interval", default="1s", text="How often to look.")
@click.option("--once", is_flag=True, help="Print it once, as plain lines on anything but a terminal, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each look, a line each.")
def top(socket_path: str, interval: float, once: bool, as_json: bool) -> None:
    """Show live what the daemon does: what is wrong, its rates, its job servers, functions and running jobs.

    DONE/S and FAIL/S are of the last five seconds, P50 and P95 of the last minute, FAILED and DONE since the daemon's
    start. Keys: q quits, p pauses, s sorts by the next column, r turns the order round, Tab shows functions or jobs
    alone, the arrows scroll. When the daemon goes away, it says so, and goes on when the daemon is back.

    \b
    Examples:
      geard top
      geard top --once
      geard top --once --json | jq '.functions | map_values(.failed)'

    Exit codes: 0, 2 there is no terminal to draw on, 69 no daemon answers (at the start, or with --once), 130 Ctrl-C.
    """
    source = ControlSocket(socket_path)
    if once or as_json:
        _print(Watcher(source, interval_seconds=interval, news=lambda: None), interval, once, as_json)
        return
    if not on_terminal(sys.stdout) or not on_terminal(sys.stdin):
        raise InvalidRequest("there is no terminal to draw on: --once or --json prints it")
    with Terminal() as terminal:
        watcher = Watcher(source, interval_seconds=interval, news=terminal.wake)
        watcher.start()
        _live(terminal, watcher)


def _print(watcher: Watcher, interval_seconds: float, once: bool, as_json: bool) -> None:
    """Once, or on and on."""
    while True:
        next_time = time.monotonic() + interval_seconds
        look = watcher.look()
        if once and look.error:
            raise CannotConnect(look.error)
        if as_json:
            write_json(report(look))
        else:
            write_lines(draw(look, View()))
        if once:
            return
        time.sleep(max(next_time - time.monotonic(), 0))


def _live(terminal: Terminal, watcher: Watcher) -> None:
    """Until q."""
    view, held = View(), Look()
    while True:
        look = held if view.paused else watcher.last
        columns, lines = terminal.size
        try:
            terminal.show(draw(look, view, width=columns, height=lines, keys=True))
        except OSError:  # the terminal is gone
            return
        pressed = terminal.keys()
        if pressed is None:
            return
        for key in pressed:
            if key in ("q", "Q"):
                return
            if key == CTRL_L:
                terminal.redraw()
            if key in ("p", "space") and not view.paused:
                held = look
            most = len(look.jobs.jobs) if view.part == JOBS else len(look.now.functions) if look.now else 0
            view = turned(view, key, most=most)
        watcher.most_jobs = min(max(100, view.offset + 2 * lines), MOST_JOBS) if view.part == JOBS else 100


def turned(view: View, key: str, *, most: int = 0) -> View:
    """The view after a key; `most` lines can be scrolled."""
    match key:
        case "p" | "space":
            return msgspec.structs.replace(view, paused=not view.paused)
        case "s" | "S":
            sort = (view.sort + (1 if key == "s" else -1)) % len(COLUMNS)
            return msgspec.structs.replace(view, sort=sort, reverse=False, offset=0)
        case "r":
            return msgspec.structs.replace(view, reverse=not view.reverse, offset=0)
        case "tab" | "back tab":
            part = PARTS[(PARTS.index(view.part) + (1 if key == "tab" else -1)) % len(PARTS)]
            return msgspec.structs.replace(view, part=part, offset=0)
        case _ if key in SCROLLS:
            return msgspec.structs.replace(view, offset=min(max(view.offset + SCROLLS[key], 0), max(most - 1, 0)))
    return view
