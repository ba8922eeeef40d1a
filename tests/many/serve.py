"""Embedded job servers, all in this process: `python -m tests.many.serve DIRECTORY PORT...`, each with a queue file."""

from __future__ import annotations

import sys

from gevent.event import Event

from geard.config import JobServer as Address
from geard.jobserver.listeners import listen
from geard.jobserver.options import Options
from geard.jobserver.server import JobServer
from tests.support.servers import HOST


def main(directory: str, *ports: str) -> None:
    """Serve until the process is ended."""
    servers = [
        JobServer(listen(Address(HOST, int(port))), Options(queue=f"{directory}/{port}.queue")) for port in ports
    ]
    for server in servers:
        server.start()
    print("ready", flush=True)
    Event().wait()


if __name__ == "__main__":
    main(*sys.argv[1:])
