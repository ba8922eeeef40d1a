"""`--watch`: see the config and the capabilities' sources change. For development.

Rules:
- Nothing of the user's is imported to find its sources; watchfiles is imported only here.
- No change is missed between two watches: the one before goes on until the next one sees. Both may tell of one.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Final

import gevent
from watchfiles import Change, DefaultFilter, watch

from geard.config.model import Config

SEEN_MILLISECONDS: Final = 1000
"""A watch says so often that it sees nothing, and so that it sees."""


class Watcher:
    """Calls `changed` in the loop's thread, with what changed. `configured` says what to watch from now on."""

    def __init__(self, config_path: str, changed: Callable[[tuple[str, ...]], None]) -> None:
        self._config_path = os.path.abspath(config_path)
        self._changed = changed
        self._roots: set[str] = set()
        self._stop = threading.Event()
        self._loop = gevent.get_hub().loop
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes that we name

    def configured(self, config: Config) -> None:
        """Watch the sources of this config, and no longer those of the one before."""
        roots = {os.path.dirname(self._config_path), *source_roots(config)}
        if roots != self._roots:
            before, self._stop, self._roots = self._stop, threading.Event(), roots
            threading.Thread(target=self._watch, args=(roots, self._stop, before), daemon=True).start()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._stop.set()

    def _watch(self, roots: set[str], stop: threading.Event, before: threading.Event) -> None:
        for changes in watch(
            *roots,
            watch_filter=SourceFilter(self._config_path),
            stop_event=stop,
            rust_timeout=SEEN_MILLISECONDS,
            yield_on_timeout=True,
            ignore_permission_denied=True,
        ):
            before.set()
            if changes:
                paths = tuple(sorted(path for _, path in changes))
                self._loop.run_callback_threadsafe(self._changed, paths)


class SourceFilter(DefaultFilter):
    """Python files and the config itself."""

    def __init__(self, config_path: str) -> None:
        self._config_path = os.path.realpath(config_path)
        super().__init__()

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path) and (path.endswith(".py") or os.path.realpath(path) == self._config_path)


def source_roots(config: Config) -> set[str]:
    """The directories that hold the capabilities' modules: their packages, or the directory of a plain module."""
    path = [*config.python_path, config.working_directory or os.getcwd(), *sys.path]
    return {root for capability in config.capabilities.values() for root in _roots(str(capability.function), path)}


def _roots(dotted_path: str, path: list[str]) -> Iterator[str]:
    spec = PathFinder.find_spec(dotted_path.replace(":", ".").split(".")[0], path)
    if spec is None:
        return
    if spec.submodule_search_locations:
        yield from spec.submodule_search_locations
    elif spec.origin and Path(spec.origin).is_file():
        yield str(Path(spec.origin).parent)
