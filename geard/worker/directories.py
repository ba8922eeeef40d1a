"""Where a process that imports capabilities works and looks for them: the same for `geard run` and `geard check`."""

from __future__ import annotations

import os
import sys

from geard.config import Config


def enter(config: Config) -> None:
    """Work in the config's directory and import from its python_path first. Once in a process."""
    if config.working_directory:
        os.chdir(config.working_directory)
    sys.path[:0] = [os.path.abspath(directory) for directory in config.python_path]
