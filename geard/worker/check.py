"""What `geard check` runs in a fresh, monkey-patched interpreter: import every capability, as a worker process would.

The config comes as JSON on stdin, the Findings go as JSON to stdout. Rules:
- That is all that ever reaches stdout. What user modules print while they are imported goes to stderr.
- Processes that user modules start meanwhile are no reason to wait: none holds our stdout, and forks end with us.
"""

from __future__ import annotations

import faulthandler
import inspect
import multiprocessing
import os
import sys
import traceback
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Final

import gevent
import msgspec
from greenlet import greenlet

from geard import native
from geard.config.model import Config
from geard.errors import most
from geard.findings import IMPORT_TIMEOUT_SECONDS, Findings, Served
from geard.messages import as_json
from geard.worker import children, locks, multiprocess
from geard.worker.blocking import blocking
from geard.worker.capability import BoundCapability, resolve_all
from geard.worker.directories import enter
from geard.worker.fork import Forks
from geard.worker.forked import end_if_forked
from geard.worker.hooks import check_hooks

BLOCKING: Final = {  # what modules import by name from the standard library that a patched process must not block in
    "os": ("fork", "forkpty", "waitpid"),
    "queue": ("SimpleQueue",),
    "select": ("poll", "select"),
    "socket": ("create_connection", "getaddrinfo", "gethostbyname", "socket", "socketpair"),
    "ssl": ("SSLContext", "SSLSocket"),
    "subprocess": ("Popen", "call", "check_call", "check_output", "run"),
    "threading": ("Event", "Lock", "RLock", "Thread", "Timer", "local"),
    "time": ("sleep",),
}
_OWN: Final = {"gevent", "greenlet", "zope", "geard", "__main__"}


def examine(config: Config) -> Findings:
    """Import what the config names, in this process, which enters the config's directory for it."""
    early = imported_early(sys.modules, replaced())
    enter(config)
    capabilities, problems = resolve_all(config)
    problems += check_hooks(config)
    served = tuple(describe(capability) for capability in capabilities)
    return Findings(served, most(problems), early, blocking(capabilities))


def describe(capability: BoundCapability) -> Served:
    """How a capability would be called."""
    convention = "function(job, workload)" if capability.hands_on else "function(workload)"
    if capability.asynchronous:
        convention = f"async {convention}"
    if inspect.isgeneratorfunction(capability.function) or inspect.isasyncgenfunction(capability.function):
        convention += ", a generator"
    return Served(capability.name, convention, capability.codec.name)


def replaced() -> list[object]:
    """The originals of BLOCKING that the patch has replaced in this process."""
    pairs = [(import_module(module), name) for module, names in BLOCKING.items() for name in names]
    originals = [(native.original(module.__name__, name), getattr(module, name)) for module, name in pairs]
    return [original for original, now in originals if original is not now]


def imported_early(modules: Mapping[str, object], originals: Collection[object]) -> tuple[str, ...]:
    """The modules, but for Python's and gevent's own, that hold one of the originals: what starts with the interpreter,
    such as a .pth file, imported them before the patch."""
    ids = {id(original) for original in originals}
    own = _OWN | sys.stdlib_module_names
    return tuple(
        sorted(
            name
            for name, module in list(modules.items())
            if name.partition(".")[0] not in own
            and any(id(value) in ids for value in list(getattr(module, "__dict__", {}).values()))
        )
    )


def show_hang(importer: greenlet) -> None:
    """In a native thread: say on stderr where the imports hang, if they have not ended in time."""
    native.sleep(IMPORT_TIMEOUT_SECONDS)
    if importer.gr_frame:  # it waits for something, and the loop runs
        traceback.print_stack(importer.gr_frame)
    else:
        faulthandler.dump_traceback()


def main() -> None:
    """Config in, findings out."""
    for part in (children, locks, multiprocess):
        part.install()
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    with os.fdopen(os.dup(sys.stdout.fileno()), "wb") as answer:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        Forks(answer).install()
        faulthandler.enable()  # where an import crashes the interpreter
        gevent.get_hub().threadpool.spawn(show_hang, gevent.getcurrent())
        findings = examine(config)
        end_if_forked()
        answer.write(as_json(findings))
    for child in multiprocessing.active_children():
        child.kill()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)  # whatever threads and exit handlers user modules have made


if __name__ == "__main__":
    main()
