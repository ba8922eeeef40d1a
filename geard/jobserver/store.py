"""The queue file: background jobs in SQLite, so that they outlive the job server.

Rules:
- `commit` takes all that a turn decided, in one transaction. What it added is on the disk when it returns (fsync); if
  it raises, none of it is there.
- Jobs that ended are removed without waiting for the disk: a killed job server does not run them again, and a machine
  that loses its power may run the last few again.
- One job server at a time: the file is locked for as long as it is open.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from geard.errors import ConfigError, GeardError, Problem
from geard.jobserver.state import Job

_APPLICATION_ID: Final = 0x67656172  # "gear"
_VERSION: Final = 1
_SCHEMA: Final = (
    """CREATE TABLE job (number INTEGER PRIMARY KEY, function BLOB NOT NULL, unique_id BLOB NOT NULL,
       workload BLOB NOT NULL, priority INTEGER NOT NULL, reducer BLOB NOT NULL, due REAL NOT NULL)""",
    "CREATE TABLE counter (next_number INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (1)",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_VERSION}",
)


_ODD_JOBS: Final = """SELECT count(*) FROM job WHERE priority NOT IN (0, 1, 2) OR typeof(due) != 'real'
    OR (typeof(function), typeof(unique_id), typeof(workload), typeof(reducer)) != ('blob', 'blob', 'blob', 'blob')"""


class CannotStore(GeardError):
    """The queue file takes no more, mostly because the disk is full. Nothing of this commit was stored."""


class StoredJob(NamedTuple):
    """A row of the queue file."""

    number: int
    function: bytes
    unique: bytes
    workload: bytes
    priority: int
    reducer: bytes
    due: float


class Store:
    """An open queue file. Raises ConfigError when it cannot be used, with what to do."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._synchronous = ""  # as the last commit had it
        if not path:
            raise ConfigError([Problem("the queue file has no name", hint="without --queue, jobs are in memory only")])
        try:
            # Absolute, for SQLite has names that are no files: ":memory:".
            self._database = sqlite3.connect(os.path.abspath(path), isolation_level=None, timeout=0)
            self._open()
        except sqlite3.Error as error:
            raise ConfigError([_problem(path, error)]) from error

    def __repr__(self) -> str:
        return f"<Store {self.path}>"

    @property
    def next_number(self) -> int:
        """The number for the next job: no stored job ever had it."""
        execute = self._database.execute
        counted: int = execute("SELECT next_number FROM counter").fetchone()[0]
        last: int = execute("SELECT coalesce(max(number), 0) FROM job").fetchone()[0]
        return max(counted, last + 1)  # the counter may have been lost where a damaged file was recovered

    def jobs(self) -> Iterator[StoredJob]:
        """All jobs, in the order of their submission."""
        return (StoredJob(*row) for row in self._database.execute("SELECT * FROM job ORDER BY number"))

    def commit(self, added: Iterable[Job], ended: Iterable[int], next_number: int) -> None:
        """Store the jobs of a turn and remove those that ended. Raises CannotStore; then neither was done."""
        execute = self._database.execute
        try:
            rows = [
                (job.number, job.function.name, job.unique, job.workload, job.priority, job.reducer, job.due)
                for job in added
            ]
            wanted = "FULL" if rows else "NORMAL"
            if wanted != self._synchronous:  # to say it again would cost a tenth of a small commit
                self._synchronous = ""  # unknown, should this fail
                execute(f"PRAGMA synchronous = {wanted}")
                self._synchronous = wanted
            execute("BEGIN IMMEDIATE")
            if rows:
                self._database.executemany("INSERT INTO job VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                execute("UPDATE counter SET next_number = ?", (next_number,))
            self._database.executemany("DELETE FROM job WHERE number = ?", [(number,) for number in ended])
            execute("COMMIT")
        except Exception as error:  # no memory, a workload too large for SQLite: whatever it is, there is a next turn
            with suppress(sqlite3.Error):  # SQLite itself rolls back after some errors
                execute("ROLLBACK")
            reason = str(error) or type(error).__name__
            raise CannotStore(f"cannot write the queue file {self.path}: {reason}") from error

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def _open(self) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        if not execute("SELECT 1 FROM sqlite_master").fetchone():
            execute("BEGIN EXCLUSIVE")
            for statement in _SCHEMA:
                execute(statement)
            execute("COMMIT")
        found = execute("PRAGMA application_id").fetchone()[0], execute("PRAGMA user_version").fetchone()[0]
        if found != (_APPLICATION_ID, _VERSION):
            raise sqlite3.DatabaseError("it is a database, but not a queue of this version of geard")
        [verdict] = execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        [odd] = execute(_ODD_JOBS).fetchone()
        if odd:
            raise sqlite3.DatabaseError(f"rows of its table `job` that are no jobs: {odd}")
        if not execute("SELECT 1 FROM counter").fetchone():
            execute("INSERT INTO counter VALUES (1)")


def _problem(path: str, error: sqlite3.Error) -> Problem:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith("SQLITE_BUSY"):
        return Problem("another job server uses this queue file", path, hint="stop it, or give each its own --queue")
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR")):
        return Problem(
            f"cannot open the queue file: {error}",
            path,
            hint="the folder must exist and have space, and it and the file must be writable",
        )
    return Problem(
        f"cannot use the queue file: {error}",
        path,
        expected="a queue that geard jobserver wrote",
        hint="restore a copy, or recover what is left (sqlite3 FILE .recover); to start with an empty queue, "
        "move the file away together with its -wal file",
    )
