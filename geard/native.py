"""Threads, locks, waiting and processes as the operating system has them, in a process that gevent has patched too.

What uses these goes on while the loop is held, and does not switch greenlets. Nobody else in geard asks gevent for what
it has replaced, and gevent is asked only where it is loaded already.
"""

from __future__ import annotations

import select
import sys
from importlib import import_module
from typing import Any


def original(module: str, name: str) -> Any:
    """What `module.name` was before gevent replaced it, where it has."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey.get_original(module, name) if monkey else getattr(import_module(module), name)


allocate_lock = original("_thread", "allocate_lock")
RLock = original("_thread", "RLock")
start_new_thread = original("_thread", "start_new_thread")
get_ident = original("_thread", "get_ident")
SimpleQueue = original("queue", "SimpleQueue")
sleep = original("time", "sleep")
_poll = original("select", "poll")
fork = original("os", "fork")
forkpty = original("os", "forkpty")
waitpid = original("os", "waitpid")


def wait_until_writable(descriptor: int) -> None:
    """Block this thread, and the loop if it is the loop's, until a write would do something: succeed or fail."""
    poll = _poll()
    poll.register(descriptor, select.POLLOUT)
    poll.poll()
