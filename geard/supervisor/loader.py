"""Reading the config again, for a reload.

Rules:
- The loop never waits for it. The file is read in a thread, and capabilities are imported in a process of their own,
  which ends when this does.
- Each `begin` has an outcome, whatever fails or hangs: a reload that heard of none would never end, nor any after it
  begin.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import gevent
import gevent.subprocess

from geard.config.load import Source
from geard.errors import ConfigError, Problem
from geard.supervisor.imports import with_import_problems

READ_SECONDS: Final = 30.0
"""How long a file may take to be read: one on a file server that is gone, a FIFO."""

log = logging.getLogger(__name__)

Outcome = Source | ConfigError


class Loader:
    """See the module. `read` raises ConfigError, or has what is wrong in its Source; `loaded` hears each outcome."""

    def __init__(self, file: str, read: Callable[[str], Source], loaded: Callable[[Outcome], None]) -> None:
        self._file = file
        self._read = read
        self._loaded = loaded
        self._loading: gevent.Greenlet[..., None] | None = None

    def __repr__(self) -> str:
        return f"<Loader {self._file}{' loading' if self._loading else ''}>"

    def begin(self) -> None:
        """Begin to read it."""
        self._loading = gevent.spawn(self._load)

    def close(self) -> None:
        """Read no more."""
        if self._loading:
            self._loading.kill()  # with the process that it may be waiting for

    def _load(self) -> None:
        try:
            with gevent.Timeout(READ_SECONDS):
                outcome = gevent.get_hub().threadpool.apply(_read, (self._read, self._file))
            if isinstance(outcome, Source) and outcome.problems:
                outcome = ConfigError(with_import_problems(outcome, run=gevent.subprocess.run).problems)
        except gevent.Timeout:  # the thread is left to itself
            outcome = ConfigError([Problem(f"could not be read within {READ_SECONDS:g} s", self._file)])
        except Exception as error:
            outcome = _failure(error, self._file)
        self._loaded(outcome)


def _read(read: Callable[[str], Source], file: str) -> Outcome:
    """The config, or why not. For a thread: what it raised there would be printed."""
    try:
        return read(file)
    except ConfigError as error:
        return error
    except Exception as error:
        return _failure(error, file)


def _failure(error: Exception, file: str) -> ConfigError:
    log.error("a bug in geard: reading the config failed", exc_info=error)
    return ConfigError([Problem(f"cannot read the config: {error!r}", file)])
