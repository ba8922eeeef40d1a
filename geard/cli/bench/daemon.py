"""The daemon of `geard bench`: as `geard run`, with its config as JSON on stdin; it ends with who started it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

import msgspec

from geard.config.load import Source
from geard.config.model import Config
from geard.supervisor.daemon import Daemon

PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Run until told to stop."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=Config)
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    daemon = Daemon(Source("geard bench", config, (), {}))
    code = daemon.run()
    for problem in daemon.start_problems:
        print(problem, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
