"""`python -m geard.supervisor.check_state`: whether the code that is installed can go on from the state on stdin."""

from __future__ import annotations

import sys

import geard.supervisor.daemon  # noqa: F401 - all that the new supervisor will need
from geard.supervisor.state import CannotUpgrade, load

if __name__ == "__main__":
    try:
        load(sys.stdin.buffer.read())
    except CannotUpgrade as error:
        sys.exit(str(error))
