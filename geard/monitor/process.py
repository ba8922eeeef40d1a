"""The monitor's process: `python -m gevent.monkey --module geard.monitor.process FD`, patched before all else.

Rules:
- FD is one end of a socket pair with the supervisor; its first line is a Start. Its end means that the monitor is no
  longer wanted: it ends at once, for it holds nothing that anybody would miss.
- It says ALIVE on it every few seconds, from its loop. A monitor that hangs is killed and started again.
- `geard monitor` runs it without a supervisor of its own: `serve` alone, from a Start that stdin holds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import Any, Final, NoReturn

import gevent
import msgspec
from gevent import socket
from setproctitle import setproctitle

from geard import exits, logs
from geard.monitor.app import make_app
from geard.monitor.server import make_server
from geard.monitor.state import State
from geard.supervisor.monitor_start import ALIVE, ALIVE_SECONDS, Start

MAX_START_BYTES: Final = 16 * 1024 * 1024

log = logging.getLogger("geard.monitor")


def main(descriptor: int) -> NoReturn:
    """The whole life of the process beside a supervisor."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    link = socket.socket(fileno=descriptor)
    lines = link.makefile("rb")
    line = lines.readline(MAX_START_BYTES)
    if not line:
        sys.exit(exits.DONE)
    start = msgspec.json.decode(line, type=Start)
    logs.configure(start.logging, verbose=start.verbose, process="monitor", can_do_without=True)
    gevent.spawn(_end_with, lines)
    gevent.spawn(_say_alive, link)
    serve(start)


def serve(start: Start) -> NoReturn:
    """Serve for ever. Exits with CONFIG when it cannot listen or read its files."""
    setproctitle(f"geard: monitor on {start.monitor.listen}")
    gevent.get_hub().SYSTEM_ERROR = ()
    state = State(start)
    try:
        app = make_app(state)
        server = make_server(start.monitor, app.wsgi_app)
    except OSError as error:
        log.error("the monitor cannot serve on %s: %s", start.monitor.listen, error)
        _leave(exits.CONFIG)
    state.start()
    gevent.signal_handler(signal.SIGTERM, _leave, exits.DONE)
    log.info("the monitor serves on %s", address(start))
    server.serve_forever()
    _leave(exits.DONE)


def address(start: Start) -> str:
    """Where a browser finds it."""
    listen, scheme = start.monitor.listen, "https" if start.monitor.certificate else "http"
    return listen.path or f"{scheme}://{listen}{start.monitor.base_path}/"


def _end_with(lines: Any) -> None:
    while lines.readline(MAX_START_BYTES):
        continue
    _leave(exits.DONE)


def _say_alive(link: socket.socket) -> None:
    while True:
        link.sendall(ALIVE)
        gevent.sleep(ALIVE_SECONDS)


def _leave(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)


def alone() -> NoReturn:
    """The whole life of `geard monitor`: its Start is the one line on stdin."""
    start = msgspec.json.decode(sys.stdin.buffer.readline(MAX_START_BYTES), type=Start)
    logs.configure(start.logging, verbose=start.verbose, process="monitor", can_do_without=True)
    gevent.signal_handler(signal.SIGINT, _leave, exits.DONE)
    serve(start)


if __name__ == "__main__":
    main(int(sys.argv[1])) if len(sys.argv) > 1 else alone()
