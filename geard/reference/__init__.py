"""What geard has, as plain data read from the code: the man pages, the site's reference and the schema are made of it.

Nothing here is loaded by the daemon or its worker processes, and each part only when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geard.reference.command_line import Argument, Block, Command, Option, commands
    from geard.reference.json_schema import schema, schema_text
    from geard.reference.keys import ConfigKey, config_keys, example_config
    from geard.reference.tables import ErrorClass, ExitCode, MetricFamily, error_classes, exit_codes, metrics

_LOADED_LATER = {
    "command_line": ("Argument", "Block", "Command", "Option", "commands"),
    "keys": ("ConfigKey", "config_keys", "example_config"),
    "json_schema": ("schema", "schema_text"),
    "tables": ("ErrorClass", "ExitCode", "MetricFamily", "error_classes", "exit_codes", "metrics"),
}

__all__ = [
    "Argument",
    "Block",
    "Command",
    "ConfigKey",
    "ErrorClass",
    "ExitCode",
    "MetricFamily",
    "Option",
    "commands",
    "config_keys",
    "error_classes",
    "example_config",
    "exit_codes",
    "metrics",
    "schema",
    "schema_text",
]


def __getattr__(name: str) -> Any:
    for module, names in _LOADED_LATER.items():
        if name in names:
            return getattr(import_module(f"geard.reference.{module}"), name)
    raise AttributeError(f"module 'geard.reference' has no attribute {name!r}")
