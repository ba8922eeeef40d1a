"""The config: YAML to frozen, validated data. Nothing else reads YAML or the environment.

What reads files is loaded when it is first used: a worker process is handed its config and needs no YAML.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geard.config.address import parse_address
from geard.config.model import Capability, Config, JobServer, Logging, Tls
from geard.config.units import format_duration, format_size, parse_duration, parse_size

if TYPE_CHECKING:
    from geard.config.load import (
        Source,
        config_from,
        default_path,
        examine_config,
        load_config,
        load_job_servers,
        read_config,
    )

_LOADED_LATER = {
    "Source",
    "config_from",
    "default_path",
    "examine_config",
    "load_config",
    "load_job_servers",
    "read_config",
}

__all__ = [
    "Capability",
    "Config",
    "JobServer",
    "Logging",
    "Source",
    "Tls",
    "config_from",
    "default_path",
    "examine_config",
    "format_duration",
    "format_size",
    "load_config",
    "load_job_servers",
    "parse_address",
    "parse_duration",
    "parse_size",
    "read_config",
]


def __getattr__(name: str) -> Any:
    if name not in _LOADED_LATER:
        raise AttributeError(f"module 'geard.config' has no attribute {name!r}")
    return getattr(import_module("geard.config.load"), name)
