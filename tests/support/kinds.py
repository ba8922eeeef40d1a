"""Kinds of code, as users write them, with the libraries that they use: each says when it begins to wait.

The workload is `BEGUN WHERE`: a file to make just before the wait, and where to find what is waited for.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import subprocess
import time
from importlib import import_module
from pathlib import Path
from typing import Any

aiohttp: Any = import_module("aiohttp")
numpy: Any = import_module("numpy")
psycopg: Any = import_module("psycopg")
redis: Any = import_module("redis")
redis_asyncio: Any = import_module("redis.asyncio")
requests: Any = import_module("requests")
sqlalchemy: Any = import_module("sqlalchemy")
import_module("sqlalchemy.dialects.postgresql")  # else within the first job, which holds the loop meanwhile

LOCK = "SELECT pg_advisory_xact_lock(4730)"


def begin(workload: str) -> str:
    """Say so; where to find what is waited for."""
    begun, where = workload.split(" ", 1)
    Path(begun).touch()
    return where


def echo(workload: str) -> str:
    return workload


def with_requests(workload: str) -> str:
    return str(requests.get(begin(workload), timeout=60).text)


def with_redis(workload: str) -> str:
    client = redis.Redis.from_url(begin(workload))
    _, value = client.blpop("queue", timeout=60)
    return str(value.decode())


def with_psycopg(workload: str) -> str:
    with psycopg.connect(begin(workload)) as connection:
        connection.execute(LOCK)
        return str(connection.execute("SELECT 'locked'").fetchone()[0])


def with_sqlalchemy(workload: str) -> str:
    engine = sqlalchemy.create_engine(begin(workload).replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text(LOCK))
        return str(connection.execute(sqlalchemy.text("SELECT 'locked'")).scalar())


def with_subprocess(workload: str) -> str:
    done = subprocess.run(["cat", begin(workload)], capture_output=True, text=True, check=True)
    return done.stdout


def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return "found"


def with_multiprocessing(workload: str) -> str:
    with multiprocessing.Pool(2) as pool:
        return " ".join(pool.map(wait_for_file, [begin(workload)] * 2))


def with_numpy(workload: str) -> str:
    """For `thread: true`: numpy gives up the interpreter lock, and not the loop."""
    path = begin(workload)
    matrix = numpy.eye(200)
    while not os.path.exists(path):
        matrix = matrix @ matrix
    return str(int(matrix.trace()))


def with_sqlite(workload: str) -> str:
    """For `thread: true`: it waits for the lock in C."""
    with sqlite3.connect(begin(workload), timeout=60) as database:
        database.execute("INSERT INTO made VALUES (2)")
        return str(database.execute("SELECT sum(number) FROM made").fetchone()[0])


async def with_aiohttp(workload: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(begin(workload)) as response:
        return str(await response.text())


async def with_async_redis(workload: str) -> str:
    async with redis_asyncio.from_url(begin(workload)) as client:
        _, value = await client.blpop("queue", timeout=60)
        return str(value.decode())


async def with_async_psycopg(workload: str) -> str:
    async with await psycopg.AsyncConnection.connect(begin(workload)) as connection:
        await connection.execute(LOCK)
        row = await (await connection.execute("SELECT 'locked'")).fetchone()
        return str(row[0])
