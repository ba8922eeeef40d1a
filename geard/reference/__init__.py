"""What geard has, as plain data read from the code: the man pages, the site's reference and the schema are made of it.

Nothing here is loaded by the daemon or its worker processes.
"""

from geard.reference.commands import Argument, Block, Command, Option, commands
from geard.reference.keys import ConfigKey, config_keys, example_config
from geard.reference.tables import ErrorClass, ExitCode, MetricFamily, error_classes, exit_codes, metrics

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
]
