"""The file of dead letters.

Rules:
- A letter is committed, and on the disk, before `add` returns.
- Any number of processes may have the file open (SQLite, write-ahead log). One that was moved away or deleted is made
  anew, rather than written to where nobody sees it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from msgspec import Struct

from geard.deadletters.letter import DeadLetter, DeadLettersUnusable

BUSY_SECONDS: Final = 5.0

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    function TEXT NOT NULL, workload BLOB NOT NULL, id_unique TEXT NOT NULL, handle TEXT NOT NULL, server TEXT NOT NULL,
    attempts INTEGER NOT NULL, first_at REAL NOT NULL, last_at REAL NOT NULL,
    error TEXT NOT NULL, traceback TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS by_time ON letters (last_at);
CREATE INDEX IF NOT EXISTS by_function ON letters (function, last_at);
"""
_COLUMNS: Final = (
    "function, workload, id_unique, handle, server, attempts, first_at, last_at, error, traceback"  # as in DeadLetter
)


class Group(Struct, frozen=True):
    """Letters of one function with one error."""

    function: str
    error: str
    count: int
    first_at: float
    last_at: float


class Filter(Struct, frozen=True):
    """Which letters are meant: all that fit each of what is given."""

    ids: tuple[int, ...] = ()
    function: str | None = None
    error: str | None = None  # a part of the error's text
    older_than: float | None = None  # Unix seconds: that failed last before
    newer_than: float | None = None
    whole_error: str | None = None  # all of the error's text

    def where(self) -> tuple[str, list[Any]]:
        """The condition in SQL, and its values."""
        parts: list[str] = []
        values: list[Any] = []
        if self.ids:
            parts.append(f"id IN ({', '.join('?' * len(self.ids))})")
            values += self.ids
        for condition, value in (
            ("function = ?", self.function),
            ("instr(error, ?) > 0", self.error),
            ("last_at < ?", self.older_than),
            ("last_at > ?", self.newer_than),
            ("error = ?", self.whole_error),
        ):
            if value is not None:
                parts.append(condition)
                values.append(value)
        return " AND ".join(parts) or "1", values


ALL: Final = Filter()


class DeadLetters:
    """The file at `path`, opened when first used. For one thread. Every method raises DeadLettersUnusable."""

    def __init__(self, path: str, *, create: bool = True) -> None:
        """Without `create`, a file that is not there is an error."""
        self.path = path
        self._create = create
        self._connection: sqlite3.Connection | None = None
        self._inode = 0

    def __enter__(self) -> DeadLetters:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        connection, self._connection = self._connection, None
        if connection:
            connection.close()

    def add(self, letters: Sequence[DeadLetter]) -> None:
        """Keep these, all or none of them."""
        rows = [msgspec.structs.astuple(letter)[:-1] for letter in letters]
        with self._opened() as connection:
            connection.executemany(f"INSERT INTO letters ({_COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?)", rows)  # noqa: S608

    def count(self, which: Filter = ALL) -> int:
        """How many there are."""
        where, values = which.where()
        with self._opened() as connection:
            (count,) = connection.execute(f"SELECT count(*) FROM letters WHERE {where}", values).fetchone()  # noqa: S608
        return int(count)

    def find(self, which: Filter = ALL, *, most: int | None = None, workloads: bool = True) -> list[DeadLetter]:
        """The letters that are meant, the latest first; without `workloads`, which may be large, these are empty."""
        where, values = which.where()
        columns = _COLUMNS if workloads else _COLUMNS.replace("workload", "x''", 1)
        query = f"SELECT {columns}, id FROM letters WHERE {where} ORDER BY last_at DESC, id DESC LIMIT ?"  # noqa: S608
        with self._opened() as connection:
            rows = connection.execute(query, [*values, -1 if most is None else most]).fetchall()
        return [DeadLetter(*row) for row in rows]

    def counts(self) -> dict[str, int]:
        """How many there are of each function."""
        with self._opened() as connection:
            return dict(connection.execute("SELECT function, count(*) FROM letters GROUP BY function"))

    def groups(self, *, most: int = 200) -> list[Group]:
        """The letters by function and error, those with the latest first."""
        query = """SELECT function, error, count(*), min(first_at), max(last_at) AS latest FROM letters
                   GROUP BY function, error ORDER BY latest DESC LIMIT ?"""
        with self._opened() as connection:
            return [Group(*row) for row in connection.execute(query, [most])]

    def drop(self, which: Filter) -> int:
        """Forget these; how many they were."""
        where, values = which.where()
        with self._opened() as connection:
            return connection.execute(f"DELETE FROM letters WHERE {where}", values).rowcount  # noqa: S608

    def prune(self, *, keep_seconds: float | None, most: int | None, now: float | None = None) -> int:
        """Forget those that are too old or too many, the oldest first; how many they were."""
        with self._opened() as connection:
            gone = 0
            if keep_seconds is not None:
                before = (time.time() if now is None else now) - keep_seconds
                gone += connection.execute("DELETE FROM letters WHERE last_at < ?", [before]).rowcount
            if most is not None:
                query = """DELETE FROM letters WHERE id IN
                           (SELECT id FROM letters ORDER BY last_at DESC, id DESC LIMIT -1 OFFSET ?)"""
                gone += connection.execute(query, [most]).rowcount
            return gone

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """The open file, in a transaction that ends with the block."""
        try:
            connection = self._open()
            with connection:
                yield connection
        except (sqlite3.Error, OSError, OverflowError) as error:
            self.close()  # whatever is wrong may be over when it is opened again
            raise DeadLettersUnusable(f"dead letters in {self.path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        if self._connection and self._inode != _inode(self.path):
            self.close()
        if self._connection is None:
            if not self._create and not os.path.exists(self.path):
                raise FileNotFoundError("there is no such file: no job has failed for good yet")
            if self._create:
                os.makedirs(os.path.dirname(self.path) or ".", exist_ok=True)
            connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                connection.executescript(_SCHEMA)
            except sqlite3.Error:
                connection.close()
                raise
            self._connection, self._inode = connection, _inode(self.path)
        return self._connection


def _inode(path: str) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0
