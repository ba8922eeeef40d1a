"""Which part of geard may import which: the arrows that keep the protocol pure and the supervisor small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import geard

PACKAGE = Path(geard.__file__).parent
ARROWS = {  # part -> the parts of geard that it may import, besides itself
    "errors": set(),
    "exits": set(),
    "stats": {"errors"},
    "printable": set(),
    "statefile": set(),
    "protocol": {"errors"},
    "codec": {"errors"},
    "rendezvous": set(),
    "reconnect": {"errors"},
    "times": {"errors"},
    "config": {"errors", "codec", "times"},
    "messages": {"errors", "exits", "config", "stats"},
    "presence": set(),
    "findings": {"errors"},
    "native": set(),
    "interpreter": set(),
    "logs": {"config", "native"},
    "connection": {"errors", "config"},
    "client": {"errors", "protocol", "codec", "config", "connection", "reconnect", "rendezvous"},
    "verdicts": {"errors", "config"},
    "deadletters": {"errors", "exits", "protocol", "config", "logs", "client"},
    "worker": {
        "client",
        "deadletters",
        "verdicts",
        "errors",
        "protocol",
        "codec",
        "config",
        "connection",
        "messages",
        "presence",
        "reconnect",
        "findings",
        "logs",
        "native",
        "interpreter",
        "exits",
        "stats",
    },
    "jobserver": {"errors", "protocol", "config", "connection", "logs", "exits", "interpreter"},
    "scheduler": {
        "errors",
        "exits",
        "protocol",
        "rendezvous",
        "times",
        "config",
        "connection",
        "client",
        "logs",
        "statefile",
    },
    "supervisor": {
        "errors",
        "statefile",
        "protocol",
        "config",
        "connection",
        "messages",
        "presence",
        "findings",
        "interpreter",
        "logs",
        "exits",
        "jobserver",
        "stats",
        "scheduler",  # what it says of its schedules, and nothing else of it
        "deadletters",  # what its process is told, and nothing else of it
    },
    "monitor": {
        "errors",
        "protocol",
        "config",
        "connection",
        "client",
        "messages",
        "logs",
        "exits",
        "stats",
        "printable",
        "supervisor",
        "scheduler",  # what it says of its schedules
        "deadletters",
    },
    "contrib": {"client", "worker"},
    "testing": {
        "errors",
        "protocol",
        "codec",
        "config",
        "messages",
        "client",
        "deadletters",
        "worker",
        "jobserver",
    },
    "pytest_plugin": {"config", "client", "worker", "testing"},
    "examples": {"worker"},
    "reference": {"cli", "config", "errors", "exits", "monitor", "scheduler", "stats"},
}
GEVENT = {"supervisor", "jobserver", "monitor"}
GEVENT_FILES = {
    "deadletters/process.py",
    "worker/begin.py",
    "worker/process.py",
    "worker/isolated.py",
    "worker/greenlets.py",
    "worker/sender.py",
    "worker/watchdog.py",
    "worker/stacks.py",
    "worker/check.py",
    "worker/children.py",
    "worker/fork.py",
    "worker/locks.py",
}
MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module: str) -> set[str]:
    """The full names of what a module imports, where it is run: not for type checkers alone."""
    tree = ast.parse((PACKAGE / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            names.add(node.module or "")
            if node.module == "geard":
                names.update(f"geard.{alias.name}" for alias in node.names)
    return names


def part_of(module: str) -> str:
    return module.removesuffix(".py").split("/")[0]


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) in ARROWS])
def test_imports_point_one_way(module: str) -> None:
    part = part_of(module)
    parts = {name.split(".")[1] for name in imports(module) if name.startswith("geard.")} - {"__version__"}
    assert parts - {part, "printable"} <= ARROWS[part], f"{module} imports against the arrows"


@pytest.mark.parametrize("module", MODULES)
def test_only_what_runs_greenlets_imports_gevent(module: str) -> None:
    if part_of(module) in GEVENT or part_of(module) in ("cli", "__main__") or module in GEVENT_FILES:
        return
    assert not {name for name in imports(module) if name.split(".")[0] in ("gevent", "greenlet")}, module


def test_only_native_asks_gevent_for_what_it_has_replaced() -> None:
    assert [module for module in MODULES if "get_original" in (PACKAGE / module).read_text()] == ["native.py"]


def test_protocol_and_stats_touch_no_socket_clock_or_log() -> None:
    forbidden = {"socket", "ssl", "time", "logging", "threading", "select", "os", "datetime"}
    for module in MODULES:
        if part_of(module) in ("protocol", "stats"):
            assert not imports(module) & forbidden, module


@pytest.mark.parametrize(
    ("statement", "unloaded"),
    [
        ("import geard", ["socket", "ssl", "threading", "gevent", "msgspec"]),
        ("import geard.protocol", ["socket", "ssl", "gevent"]),
        ("import geard; geard.WorkerPool, geard.Client, geard.Worker", ["gevent"]),
        (
            "import geard.supervisor.daemon",
            ["geard.worker", "geard.client", "geard.monitor", "flask"],
        ),
        ("import geard.worker.process", ["geard.client"]),
        ("import geard.supervisor.imports", ["geard.worker", "gevent"]),
        ("import geard.pytest_plugin", ["geard.testing", "msgspec", "gevent"]),
        ("import geard.testing", ["gevent"]),
    ],
)
def test_importing_loads_no_more_than_it_must(statement: str, unloaded: list[str]) -> None:
    code = f"import sys; {statement}; print(*[name for name in {unloaded} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
