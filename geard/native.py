"""Threads, locks and waiting as the operating system has them, in a process that gevent has patched too.

What is written here must go on while the loop is held, and must not switch greenlets. gevent is asked only where it is
loaded already.
"""

from __future__ import annotations

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
poll = original("select", "poll")
