"""Where a process that imports capabilities works and looks for them: the same for `geard run` and `geard check`."""

from __future__ import annotations

import os
import sys

from geard.config import Config


def enter(config: Config) -> None:
    """Work in the config's directory; import from its python_path first, from that directory last. Once in a process.

    Last: a file there that is called logging.py must not stand in for Python's own."""
    if config.working_directory:
        os.chdir(config.working_directory)
    sys.path[:0] = [os.path.abspath(directory) for directory in config.python_path]
    sys.path.append(os.getcwd())
