"""What a worker process does before its first job, and at its end; one with isolated jobs does the same.

Rule: nothing of user code is imported before signals, forks and the log are as they must be.
"""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import signal
from functools import partial
from typing import NoReturn

import gevent
from gevent import socket
from setproctitle import setproctitle

from geard import exits, logs, messages
from geard.config import Config
from geard.deadletters import link
from geard.errors import ConfigError, Problem
from geard.messages import STACKS_SIGNAL, CannotStart, Start
from geard.worker import children, locks, multiprocess
from geard.worker.current import current_job
from geard.worker.directories import enter
from geard.worker.fork import IGNORED, Forks
from geard.worker.forked import end_if_forked
from geard.worker.greenlets import runtime, start_greenlet
from geard.worker.hooks import call_on_start, check_hooks
from geard.worker.pool import WorkerPool


class LineReader:
    """Lines from a socket; an empty one at its end."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._received = b""

    def next_line(self) -> bytes:
        """Block until a whole line is there."""
        while b"\n" not in self._received:
            try:
                data = self._socket.recv(65536)
            except OSError:
                return b""
            if not data:
                return b""
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line


def make_pool(start: Start) -> WorkerPool:
    """Enter the config's directory and path, import its capabilities, call its on_start. Raises ConfigError."""
    config = start.config
    enter(config)
    problems: list[Problem] = []
    try:
        pool = WorkerPool(
            config,
            spawn=start_greenlet,
            runtime=runtime(_native_threads(config)),
            verbose=start.verbose,
            keep=partial(link.keep, start.dead_letters) if start.dead_letters else None,
            sharers=start.sharers,
            place=start.number,
        )
    except ConfigError as error:
        problems += error.problems
    problems += check_hooks(config)
    if problems:
        raise ConfigError(problems)
    if config.on_start:
        call_on_start(config.on_start)
    return pool


def _native_threads(config: Config) -> int:
    return len(config.job_servers) * sum(
        capability.greenlets_per_server or config.greenlets_per_server
        for capability in config.capabilities.values()
        if capability.thread
    )


def leave(code: int) -> NoReturn:
    """End the process."""
    # What user code registered runs; what it left running does not keep the process. multiprocessing waits at exit for
    # the processes of a pool that nobody has closed.
    for child in multiprocessing.active_children():
        child.kill()
    atexit._run_exitfuncs()  # the last of them, since it was the first, writes what is left of the log
    os._exit(code)


def begin(descriptor: int, title: str) -> tuple[socket.socket, LineReader, Start, Forks]:
    """What comes before user code is imported: signals, forks, and the Start from the other end of the socket pair."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    children.install()
    locks.install()
    multiprocess.install()
    faulthandler.register(STACKS_SIGNAL, file=logs.stderr_without_waiting(), all_threads=True)
    # A greenlet of user code that raises SystemExit ends itself, not the process.
    gevent.get_hub().SYSTEM_ERROR = ()
    parent = socket.socket(fileno=descriptor)
    lines = LineReader(parent)
    line = lines.next_line()
    if not line:
        leave(exits.DONE)
    start = messages.load_start(line)
    if isinstance(start, CannotStart):
        parent.sendall(messages.dump(start))
        leave(start.exit_code)
    setproctitle(f"geard: {title} {start.number} generation {start.generation}, starting")
    name = f"{title} {start.number}"
    logs.configure(
        start.config.logging, verbose=start.verbose, process=name, current_job=current_job, can_do_without=True
    )
    logs.capture_output(current_job)
    forks = Forks(parent)
    forks.install()
    return parent, lines, start, forks


def import_all(parent: socket.socket, start: Start, forks: Forks) -> WorkerPool:
    """The pool with all capabilities. Where there can be none, tell the parent why and end."""
    try:
        forks.pool = pool = make_pool(start)
        end_if_forked()
    except ConfigError as error:
        end_if_forked(error)
        parent.sendall(messages.dump(CannotStart(error.problems, exits.CONFIG)))
        leave(exits.CONFIG)
    return pool
