"""`--watch`: see the config and the capabilities' sources change. For development.

Rules: nothing of the user's is imported to find its sources; watchfiles is imported only here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path

import gevent
from watchfiles import Change, DefaultFilter, watch

from geard.config.model import Config


class Watcher:
    """Calls `changed` in the loop's thread, with what changed. `configured` says what to watch from now on."""

    def __init__(self, config_path: str, changed: Callable[[tuple[str, ...]], None]) -> None:
        self._config_path = os.path.abspath(config_path)
        self._changed = changed
        self._stop = threading.Event()
        self._loop = gevent.get_hub().loop
        logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it counts changes that we name

    def configured(self, config: Config) -> None:
        """Watch the sources of this config, and no longer those of the one before."""
        self._stop.set()
        self._stop = threading.Event()
        roots = {os.path.dirname(self._config_path), *source_roots(config)}
        threading.Thread(target=self._watch, args=(roots, self._stop), daemon=True).start()

    def close(self) -> None:
        """Watch no more. Idempotent."""
        self._stop.set()

    def _watch(self, roots: set[str], stop: threading.Event) -> None:
        wanted = SourceFilter(self._config_path)
        for changes in watch(*roots, watch_filter=wanted, stop_event=stop, ignore_permission_denied=True):
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
