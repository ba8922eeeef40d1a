"""Which capabilities use a library whose calls block without yielding, and so hold up every other job of their process.

Such libraries wait in C code, which the monkey patch does not reach. They are known here by name; some know how to
wait in gevent's way, when they are told to.

Rule: nothing of user modules is called here; they are only looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Final

from geard.findings import Blocking
from geard.worker.capability import BoundCapability

Modules = Mapping[str, ModuleType]


def _always(modules: Modules) -> bool:
    return True


def _without(*names: str) -> Callable[[Modules], bool]:
    """It blocks where none of these modules is loaded."""
    return lambda modules: not any(name in modules for name in names)


def _psycopg2(modules: Modules) -> bool:
    if "psycogreen" in modules:  # whoever has imported it will call it, in on_start at the latest
        return False
    extensions = modules.get("psycopg2.extensions")
    get = getattr(extensions, "get_wait_callback", None)
    return get is None or get() is None


def _oracledb(modules: Modules) -> bool:
    is_thin = getattr(modules.get("oracledb"), "is_thin_mode", None)
    return is_thin is None or not is_thin()


LIBRARIES: Final[Mapping[str, Callable[[Modules], bool]]] = {  # name -> whether it blocks in this interpreter
    "MySQLdb": _always,
    "psycopg2": _psycopg2,
    "grpc": _without("grpc.experimental.gevent"),
    "cx_Oracle": _always,
    "oracledb": _oracledb,
    "pyodbc": _always,
    "pymssql": _always,
    "ibm_db": _always,
    "pycurl": _always,
    "confluent_kafka": _always,
    "zmq": _without("zmq.green"),
}


def blocking(capabilities: Iterable[BoundCapability], modules: Modules | None = None) -> tuple[Blocking, ...]:
    """The libraries that block, by the capabilities whose modules import them and do not run in a native thread. What
    is loaded by nobody who can be found has no capability to its name.

    `modules` are those of this interpreter, unless a test has others."""
    modules = sys.modules if modules is None else modules
    loaded = [name for name, blocks in LIBRARIES.items() if name in modules and _asked(blocks, modules)]
    if not loaded:
        return ()
    bound = list(capabilities)
    reached = {one.name: libraries_of(_home(one.function), modules) for one in bound}
    found = [
        Blocking(one.name, library, one.asynchronous)
        for one in bound
        for library in loaded
        if library in reached[one.name] and not one.spec.thread
    ]
    if not all(one.spec.thread for one in bound):
        somebodys = set().union(*reached.values())
        found += [Blocking("", library) for library in loaded if library not in somebodys]
    return tuple(found)


def libraries_of(module: str, modules: Modules) -> set[str]:
    """The LIBRARIES that a module has imported, or what it has imported of the user's own has: what is installed, and
    Python's own, is not looked into."""
    found: set[str] = set()
    to_do, seen = [module], {module}
    while to_do:
        for name in _imported(modules.get(to_do.pop())):
            top = name.partition(".")[0]
            if top in LIBRARIES:
                found.add(top)
            elif name not in seen and _is_users(modules.get(name)):
                to_do.append(name)
            seen.add(name)
    return found


def _imported(module: ModuleType | None) -> set[str]:
    """The modules that the names in a module come from."""
    names: set[str] = set()
    for value in list(vars(module).values()) if module else ():
        with suppress(Exception):  # it may be an object that pretends to be another
            if isinstance(value, ModuleType):
                names.add(value.__name__)
            elif isinstance(value, type | FunctionType | BuiltinFunctionType):
                names.add(value.__module__)
            else:
                names.add(type(value).__module__)
    return {name for name in names if isinstance(name, str)}


def _is_users(module: ModuleType | None) -> bool:
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or module is None or module.__name__.partition(".")[0] in sys.stdlib_module_names:
        return False
    return "/site-packages/" not in file and "/dist-packages/" not in file


def _home(function: Any) -> str:
    """The module of a callable, below what decorators have put around it."""
    for _ in range(100):
        function = getattr(function, "__wrapped__", None) or getattr(function, "func", None) or function
    name = getattr(function, "__module__", None)
    return name if isinstance(name, str) else type(function).__module__


def _asked(blocks: Callable[[Modules], bool], modules: Modules) -> bool:
    try:
        return blocks(modules)
    except Exception:  # the library's own
        return True
