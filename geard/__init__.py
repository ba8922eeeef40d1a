"""geard: the worker daemon, client and tools for Gearman job servers.

The public names are loaded when they are first used: importing geard loads neither socket nor gevent, so that a
process can still be monkey-patched after it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Admin": "geard.client.admin",
    "Capability": "geard.config",
    "Client": "geard.client",
    "Config": "geard.config",
    "ConfigError": "geard.errors",
    "ConnectionLost": "geard.errors",
    "GeardError": "geard.errors",
    "InvalidRequest": "geard.errors",
    "InvalidResult": "geard.errors",
    "Handle": "geard.client",
    "Job": "geard.worker",
    "JobException": "geard.errors",
    "JobFailed": "geard.errors",
    "JobServer": "geard.config",
    "JobTimeout": "geard.errors",
    "QueueFull": "geard.errors",
    "Fail": "geard.verdicts",
    "Reject": "geard.verdicts",
    "Retry": "geard.verdicts",
    "ResultTooLarge": "geard.errors",
    "ServerError": "geard.errors",
    "Task": "geard.client",
    "Worker": "geard.worker",
    "WorkerPool": "geard.worker",
    "current_job": "geard.worker",
    "config_from": "geard.config",
    "load_config": "geard.config",
}

__all__ = ["__version__", *sorted(_HOME)]

if TYPE_CHECKING:
    from geard.client import Client as Client
    from geard.client import Handle as Handle
    from geard.client import Task as Task
    from geard.client.admin import Admin as Admin
    from geard.config import Capability as Capability
    from geard.config import Config as Config
    from geard.config import JobServer as JobServer
    from geard.config import config_from as config_from
    from geard.config import load_config as load_config
    from geard.errors import ConfigError as ConfigError
    from geard.errors import ConnectionLost as ConnectionLost
    from geard.errors import GeardError as GeardError
    from geard.errors import InvalidRequest as InvalidRequest
    from geard.errors import InvalidResult as InvalidResult
    from geard.errors import JobException as JobException
    from geard.errors import JobFailed as JobFailed
    from geard.errors import JobTimeout as JobTimeout
    from geard.errors import QueueFull as QueueFull
    from geard.errors import ResultTooLarge as ResultTooLarge
    from geard.errors import ServerError as ServerError
    from geard.verdicts import Fail as Fail
    from geard.verdicts import Reject as Reject
    from geard.verdicts import Retry as Retry
    from geard.worker import Job as Job
    from geard.worker import Worker as Worker
    from geard.worker import WorkerPool as WorkerPool
    from geard.worker import current_job as current_job


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geard' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
