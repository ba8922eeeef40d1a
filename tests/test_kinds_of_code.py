"""docs/kinds-of-code.md: each kind, as it says to run it, waits for something while another job runs.

Both run in one worker process: if the first held up the loop, the second would not run.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import pytest

from geard.config import Capability
from tests.support.databases import Postgres, Redis, Web, need_modules
from tests.support.pool import Caller, start_pool
from tests.support.servers import Gearmand
from tests.support.waiting import eventually

MODULES = ("aiohttp", "numpy", "psycopg", "redis", "requests", "sqlalchemy")
PLAIN = ("requests", "redis", "psycopg", "sqlalchemy", "subprocess", "multiprocessing")
IN_THREADS = ("numpy", "sqlite", "requests", "psycopg")
ASYNC = ("aiohttp", "async_redis", "async_psycopg")


class World:
    """The servers, one worker process that has every capability, and what each kind of code waits for."""

    def __init__(self, stack: ExitStack, directory: Path) -> None:
        need_modules(*MODULES)
        self.directory = directory
        self.redis, self.postgres, self.gearmand = Redis(), Postgres(), Gearmand()
        for server in (self.redis, self.postgres, self.gearmand):
            stack.enter_context(server)
        offered: dict[str, str | Capability] = {
            f"{kind}": Capability(f"tests.support.kinds.with_{kind}") for kind in PLAIN + ASYNC
        }
        for kind in IN_THREADS:
            offered[f"thread {kind}"] = Capability(f"tests.support.kinds.with_{kind}", thread=True)
        pool = start_pool("process", self.gearmand.address, {"echo": "echo", **offered}, block_warning_seconds=0.2)
        self.pool = stack.enter_context(pool)

    def postgres_lock(self) -> tuple[str, Callable[[], object]]:
        keeper = import_module("psycopg").connect(self.postgres.url, autocommit=True)
        keeper.execute("SELECT pg_advisory_lock(4730)")
        return self.postgres.url, keeper.close

    def redis_queue(self) -> tuple[str, Callable[[], object]]:
        return self.redis.url, lambda: self.redis.ask("RPUSH", "queue", "pushed")

    def fifo(self) -> tuple[str, Callable[[], object]]:
        path = self.directory / "fifo"
        os.mkfifo(path)
        return str(path), lambda: path.write_text("written")

    def file(self) -> tuple[str, Callable[[], object]]:
        path = self.directory / "file"
        return str(path), path.touch

    def database(self) -> tuple[str, Callable[[], object]]:
        path = self.directory / "database"
        keeper = sqlite3.connect(path)
        keeper.executescript("CREATE TABLE made (number); BEGIN IMMEDIATE; INSERT INTO made VALUES (1)")
        return str(path), keeper.commit


WAITS: dict[str, tuple[Callable[[World], tuple[str, Callable[[], object]]], bytes]] = {
    "redis": (World.redis_queue, b"pushed"),
    "async_redis": (World.redis_queue, b"pushed"),
    "psycopg": (World.postgres_lock, b"locked"),
    "async_psycopg": (World.postgres_lock, b"locked"),
    "sqlalchemy": (World.postgres_lock, b"locked"),
    "subprocess": (World.fifo, b"written"),
    "multiprocessing": (World.file, b"found found"),
    "numpy": (World.file, b"200"),
    "sqlite": (World.database, b"3"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(stack, tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("function", [*PLAIN, *(f"thread {kind}" for kind in IN_THREADS), *ASYNC])
def test_a_job_runs_while_another_waits_in_a_library(world: World, tmp_path: Path, function: str) -> None:
    world.directory = tmp_path
    kind = function.split()[-1]
    begun = tmp_path / "begun"
    logged = len(world.pool.log)
    with Web() as web, Caller(world.gearmand.address) as waiting, Caller(world.gearmand.address) as other:
        if kind in WAITS:
            prepare, result = WAITS[kind]
            where, release = prepare(world)
        else:
            where, release, result = web.url, web.released.set, b"page"
        waiting.submit(function, f"{begun} {where}")
        eventually(begun.exists, what="the wait")
        for number in range(3):
            assert other.run("echo", str(number)) == ("WORK_COMPLETE", b"%d" % number)
        release()
        assert waiting.packets()[-1].fields[1:] == [result]
    assert "holds the loop" not in world.pool.log[logged:]


def test_the_documentation_names_what_is_tried_here() -> None:
    chapter = (Path(__file__).parent.parent / "docs" / "kinds-of-code.md").read_text()
    libraries = {"sqlite": "sqlite3", "async_redis": "redis.asyncio", "async_psycopg": "psycopg.AsyncConnection"}
    for kind in PLAIN + IN_THREADS + ASYNC:
        assert f"`{libraries.get(kind, kind)}`" in chapter
