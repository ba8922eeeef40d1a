"""The config's on_start: a function that is called once in each worker process, before it takes jobs."""

from __future__ import annotations

import inspect
import logging

from geard.errors import CapabilityError, ConfigError, Problem
from geard.worker.capability import import_path

log = logging.getLogger("geard.worker")


def check_on_start(path: str) -> list[Problem]:
    """What is wrong with the config's on_start. It is not called: that is for worker processes only."""
    try:
        function = import_path(path)
        inspect.signature(function).bind()
    except CapabilityError as error:
        message, _, hint = str(error).partition("\n")
        return [Problem(message, key="on_start", hint=hint)]
    except TypeError as error:
        return [Problem(f"{path} cannot be called without arguments: {error}", key="on_start")]
    except ValueError:
        return []  # a C function that does not tell its signature
    return []


def call_on_start(path: str) -> None:
    """Call it. Raises ConfigError for whatever it raises: this process cannot run then."""
    try:
        import_path(path)()
    except BaseException as error:  # user code: any way it fails
        log.error("on_start failed", exc_info=error)
        raise ConfigError([Problem(f"{path} raised {error!r}", key="on_start")]) from error
