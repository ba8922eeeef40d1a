"""The process of an embedded job server: `python -m geard.jobserver.process`, started by geard/jobserver/embedded.py.

Rule: it ends when its stdin does, however the process at the other end came to its end. That is at once, but for jobs
that are in memory only and run: their workers drain, and are waited for. Whoever comes next has the address meanwhile.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final

import gevent
import msgspec
from gevent import os as gevent_os

from geard import exits, logs
from geard.errors import ConfigError, Problem
from geard.jobserver.embedded import Start
from geard.jobserver.server import JobServer

LAST_JOBS_SECONDS: Final = 60.0
"""How long the last jobs may take. Workers have shutdown_timeout for them, which is mostly shorter."""
POLL_SECONDS: Final = 0.05

_STDIN: Final = 0
_STDOUT: Final = 1


def main() -> None:
    """The whole life of the process."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until there is a log to open again
    line = sys.stdin.buffer.readline()
    if not line:
        sys.exit(exits.DONE)
    start = msgspec.json.decode(line, type=Start)
    try:
        logs.configure(start.logging, verbose=start.verbose, process="job server", can_do_without=True)
        server = JobServer([_listener(descriptor) for descriptor in start.descriptors], start.options)
    except ConfigError as error:
        _answer(error.problems)
        sys.exit(exits.CONFIG)
    gevent.signal_handler(signal.SIGUSR1, logs.reopen)
    gevent.spawn(_stop_at_end_of_input, server)
    server.run(on_ready=lambda: _answer(()))


def _listener(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


def _answer(problems: Sequence[Problem]) -> None:
    os.write(_STDOUT, msgspec.json.encode(problems) + b"\n")


def _stop_at_end_of_input(server: JobServer) -> None:
    gevent_os.make_nonblocking(_STDIN)
    while gevent_os.nb_read(_STDIN, 4096):
        continue
    server.stop_accepting()
    deadline = time.monotonic() + LAST_JOBS_SECONDS
    while not server.options.queue and server.rules.running and time.monotonic() < deadline:
        gevent.sleep(POLL_SECONDS)
    server.stop()


if __name__ == "__main__":
    main()
