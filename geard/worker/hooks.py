"""The config's on_start and on_stop: functions that are called once in each worker process, before it takes jobs and
after its last one."""

from __future__ import annotations

import inspect
import logging

from geard.config import Config
from geard.errors import CapabilityError, ConfigError, Problem
from geard.worker.importing import import_path, problem_of
from geard.worker.words import repr_of

log = logging.getLogger("geard.worker")


def check_hooks(config: Config) -> list[Problem]:
    """What is wrong with the config's on_start and on_stop. They are not called: that is for worker processes only."""
    return [*_check("on_start", config.on_start), *_check("on_stop", config.on_stop)]


def _check(key: str, path: str | None) -> list[Problem]:
    if path is None:
        return []
    try:
        function = import_path(path)
        inspect.signature(function).bind()
    except CapabilityError as error:
        return [problem_of(error, key)]
    except TypeError as error:
        return [Problem(f"{path} cannot be called without arguments: {error}", key=key)]
    except ValueError:
        return []  # a C function that does not tell its signature
    return []


def call_on_start(path: str) -> None:
    """Call it. Raises ConfigError for whatever it raises: this process cannot run then."""
    try:
        import_path(path)()
    except BaseException as error:  # user code: any way it fails
        log.error("on_start failed", exc_info=error)
        raise ConfigError([Problem(f"{path} raised {repr_of(error)}", key="on_start")]) from error


def call_on_stop(path: str) -> None:
    """Call it. What it raises is logged: this process ends in any case."""
    try:
        import_path(path)()
    except BaseException as error:  # user code: any way it fails
        log.error("on_stop failed", exc_info=error)
