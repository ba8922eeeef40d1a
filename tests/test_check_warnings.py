"""What `geard check` warns of: libraries that block, too few descriptors, a unit that stops it too soon."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from geard import exits
from geard.cli.service import Service, named_service, service_of, span_seconds
from geard.cli.warnings import warnings
from geard.config import Capability, Config, JobServer
from geard.errors import InvalidRequest
from geard.findings import Blocking
from geard.worker.blocking import LIBRARIES, blocking
from geard.worker.capability import bind
from tests.support.commands import geard

# --- the command -----------------------------------------------------------------------------------------------------


def test_warnings_have_their_places_and_change_no_exit_code(tmp_path: Path) -> None:
    (tmp_path / "MySQLdb.py").write_text("def connect(): pass\n")
    (tmp_path / "psycopg2").mkdir()
    (tmp_path / "psycopg2/__init__.py").write_text("from . import extensions\n")
    (tmp_path / "psycopg2/extensions.py").write_text("def get_wait_callback(): return print\n")
    (tmp_path / "pycurl.py").touch()
    (tmp_path / "models.py").write_text("from MySQLdb import connect\nimport pycurl\n")
    (tmp_path / "app.py").write_text("import models, psycopg2\ndef f(workload): pass\nasync def later(w): pass\n")
    (tmp_path / "other.py").write_text("def f(workload): pass\n")
    (tmp_path / "geard.service").write_text("[Service]\nTimeoutStopSec=10\nLimitNOFILE=100\n")
    (tmp_path / "geard.yaml").write_text(f"""\
python_path: ['{tmp_path}']
shutdown_timeout: 25s
greenlets_per_server: 90
capabilities:
  report: app.f
  later: app.later
  threaded: {{function: app.f, thread: true}}
  other: other.f
""")
    done = geard("check", "--unit", "./geard.service", cwd=tmp_path)
    assert done.returncode == exits.DONE, done
    assert done.stdout.startswith(b"geard.yaml can run.\n")
    said = done.stderr.decode().splitlines()
    hold_up = "whose calls hold up all other {} of the process while they wait"
    jobs, coroutines = hold_up.format("jobs"), hold_up.format("coroutines")
    assert said == [
        f"geard.yaml:5:3: capabilities.report: warning: its module imports MySQLdb, {jobs}",
        "    add `thread: true`, or PyMySQL, which yields",
        f"geard.yaml:5:3: capabilities.report: warning: its module imports pycurl, {jobs}",
        "    add `thread: true`",
        f"geard.yaml:6:3: capabilities.later: warning: its module imports MySQLdb, {coroutines}",
        "    call it with asyncio.to_thread",
        f"geard.yaml:6:3: capabilities.later: warning: its module imports pycurl, {coroutines}",
        "    call it with asyncio.to_thread",
        (
            "geard.yaml:2:1: shutdown_timeout: warning: 25s is longer than TimeoutStopSec (10s) of geard.service: "
            "unless systemd hears geard ask for more time, it kills what still runs then"
        ),
        "    TimeoutStopSec=30 in the unit, as `geard unit` writes it",
        (
            "geard.yaml:3:1: greenlets_per_server: warning: a worker process has 90 greenlets and 1 connection to job "
            "servers, and may have 100 files and sockets open (LimitNOFILE of geard.service): jobs that open one fail "
            "when all are in use"
        ),
        "    raise it to 211, or have more `processes` of fewer greenlets",
    ]


# --- libraries that block --------------------------------------------------------------------------------------------


def module(name: str, **names: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__file__ = f"/home/me/{name}.py"
    vars(made).update(names)
    return made


def function_of(home: str) -> Callable[[Any], Any]:
    def f(workload: Any) -> Any:
        return workload

    f.__module__ = home
    return f


def found(*modules: types.ModuleType, thread: bool = False, home: str = "app") -> list[tuple[str, str]]:
    """(capability, library) for a capability whose function is of the module `app`."""
    bound = bind("f", Capability(function_of(home), thread=thread), "utf-8")
    return [(one.capability, one.library) for one in blocking([bound], {one.__name__: one for one in modules})]


def test_a_library_is_found_by_what_modules_hold_of_it_and_through_the_users_own() -> None:
    library = module("MySQLdb")
    connection = type("Connection", (), {"__module__": "MySQLdb.connections"})
    for held in (library, connection, connection()):
        assert found(library, module("app", held=held)) == [("f", "MySQLdb")]
    models = module("models", held=library)
    assert found(library, models, module("app", models=models)) == [("f", "MySQLdb")]
    assert found(library, models, module("app", models=models), thread=True) == []
    assert found(module("app")) == []


def test_what_is_installed_is_not_looked_into_and_nobodys_library_is_told_without_a_name() -> None:
    library = module("MySQLdb")
    orm = module("orm", held=library)
    orm.__file__ = "/usr/lib/python3/dist-packages/orm.py"
    assert found(library, orm, module("app", orm=orm)) == [("", "MySQLdb")]
    assert found(library, orm, module("app", orm=orm), thread=True) == []


def test_modules_that_go_in_circles_or_raise_when_looked_at_do_no_harm() -> None:
    class Hostile:
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(name)

    library, app, models = module("pyodbc"), module("app"), module("models")
    vars(app).update(models=models, hostile=Hostile())
    vars(models).update(app=app, library=library)
    assert found(library, app, models) == [("f", "pyodbc")]
    assert found(library, home="not.there") == [("", "pyodbc")]


@pytest.mark.parametrize(
    ("library", "told", "modules"),
    [
        ("psycopg2", {"extensions": {"get_wait_callback": lambda: print}}, []),
        ("psycopg2", {}, ["psycogreen"]),
        ("grpc", {}, ["grpc.experimental.gevent"]),
        ("oracledb", {"": {"is_thin_mode": lambda: True}}, []),
        ("zmq", {}, ["zmq.green"]),
    ],
)
def test_a_library_that_was_told_to_yield_is_none_that_blocks(
    library: str, told: dict[str, dict[str, Any]], modules: list[str]
) -> None:
    plain = module(library)
    app = module("app", held=plain)
    assert found(plain, app) == [("f", library)]
    assert library in LIBRARIES
    vars(plain).update(told.get("", {}))
    parts = [module(f"{library}.{part}", **names) for part, names in told.items() if part]
    assert found(plain, app, *parts, *map(module, modules)) == []


def test_a_decorated_function_is_of_the_module_that_it_was_written_in() -> None:
    library = module("pymssql")
    wrapped = function_of("decorators")
    wrapped.__wrapped__ = function_of("app")  # type: ignore[attr-defined]
    bound = bind("f", Capability(wrapped), "utf-8")
    modules = {"pymssql": library, "app": module("app", held=library)}
    assert blocking([bound], modules) == (Blocking("f", "pymssql"),)


# --- descriptors -----------------------------------------------------------------------------------------------------


def texts(config: Config, service: Service | None, descriptors: float) -> list[str]:
    return [str(problem).partition(":")[0] for problem in warnings(config, (), service, descriptors)]


def test_descriptors_are_counted_for_each_group_of_processes_over_all_job_servers() -> None:
    config = Config(
        job_servers=(JobServer("one"), JobServer("two")),
        greenlets_per_server=100,
        capabilities={
            "a": Capability("m.a"),
            "b": Capability("m.b", greenlets_per_server=20),  # of its own, in the common processes
            "c": Capability("m.c", processes=2, greenlets_per_server=500),
        },
    )
    enough = 2 * 120 + 2 * 2 + 30  # greenlets, connections, others
    assert texts(config, None, enough) == ["capabilities.c"]
    assert texts(config, None, enough - 1) == ["greenlets_per_server", "capabilities.c"]
    assert texts(config, None, 2 * 500 + 2 + 30) == []
    assert texts(config, None, math.inf) == []
    assert texts(config, Service("geard.service", {"LimitNOFILE": "infinity"}), 5) == []
    assert texts(config, Service("geard.service", {}), math.inf) == ["capabilities.c"]  # systemd's own 1024


# --- the unit --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("1min 30s", 90.0),
        ("1h30m", 5400.0),
        ("500ms", 0.5),
        ("2 days", 172800.0),
        ("infinity", math.inf),
        ("", None),
        ("soon", None),
        ("5 parsecs", None),
    ],
)
def test_time_spans_are_read_as_systemd_writes_them(text: str, seconds: float | None) -> None:
    assert span_seconds(text) == seconds


def test_a_unit_without_the_settings_has_systemds_own() -> None:
    assert Service("geard.service").stop_seconds == 90
    assert Service("geard.service", {"TimeoutStopSec": "0"}).stop_seconds == math.inf
    assert Service("geard.service", {"TimeoutSec": "7"}).stop_seconds == 7
    assert Service("geard.service").descriptors == 1024
    assert Service("geard.service", {"LimitNOFILE": "4096:8192"}).descriptors == 4096


def test_the_unit_of_a_config_is_found_with_its_drop_ins(tmp_path: Path) -> None:
    etc, lib = tmp_path / "etc", tmp_path / "lib"
    config = tmp_path / "shop.yaml"
    for directory in (etc / "geard@shop.service.d", lib / "geard@.service.d"):
        directory.mkdir(parents=True)
    (etc / "other.service").write_text("[Service]\nExecStart=/usr/bin/true\n")
    (lib / "geard.service").write_text("[Service]\nExecStart=geard run -c /etc/geard.yaml\n")
    (lib / "geard@.service").write_text(
        f"[Unit]\nTimeoutStopSec=1\n[Service]\n# TimeoutStopSec=2\nExecStart=geard run \\\n  -c {tmp_path}/%i.yaml\n"
        "TimeoutStopSec=30\n"
    )
    (lib / "geard@.service.d/10.conf").write_text("[Service]\nTimeoutStopSec=40\nLimitNOFILE=5\n")
    path = (str(etc), str(lib))
    service = service_of(str(config), path)
    assert service is not None
    assert (service.name, service.stop_seconds, service.descriptors) == ("geard@.service", 40, 5)
    (etc / "geard@shop.service.d/20.conf").write_text("[Service]\nTimeoutSec=50\n")
    named = named_service("geard@shop", path)
    assert (named.stop_seconds, named.descriptors, named.runs(str(config))) == (50, 5, True)
    assert service_of(str(tmp_path / "elsewhere/none.yaml"), path) is None
    with pytest.raises(InvalidRequest, match=r"no unit other2\.service: looked in "):
        named_service("other2", path)
    with pytest.raises(InvalidRequest, match="cannot be read: no such file"):
        named_service(str(tmp_path / "none.service"), path)


def test_the_units_that_come_with_geard_are_found_by_the_configs_that_they_run() -> None:
    path = (str(Path(__file__).parents[1] / "systemd"),)
    assert getattr(service_of("/etc/geard/geard.yaml", path), "name", "") == "geard.service"
    assert getattr(service_of("/etc/geard/shop.yaml", path), "name", "") == "geard@.service"


def test_looking_for_libraries_that_block_loads_none() -> None:
    code = "import sys, geard.worker.blocking; print([n for n in geard.worker.blocking.LIBRARIES if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
