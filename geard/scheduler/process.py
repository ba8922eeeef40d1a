"""The scheduler's process: `python -m geard.scheduler.process FD`, plain threads, nothing patched.

FD is one end of a socket pair with the supervisor. A Plan comes over it, first and after each reload; its end means
that the supervisor is gone, or wants this to end: what waits on the job servers waits there without us.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading

from setproctitle import setproctitle

from geard import exits, logs
from geard.config.model import state_directory
from geard.scheduler.memory import MemoryFile
from geard.scheduler.scheduler import TURN_SECONDS, Scheduler
from geard.scheduler.states import Plan, States, dump, load_plan


def main(descriptor: int) -> int:
    """Serve until the supervisor's end of the socket closes; the exit code."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, signal.SIG_IGN)
    setproctitle("geard: scheduler")
    over = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: logs.reopen())
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    supervisor = socket.socket(fileno=descriptor)
    supervisor.setblocking(True)  # it was made by gevent
    lines = supervisor.makefile("rb")
    line = lines.readline()
    if not line:
        return exits.DONE
    plan = load_plan(line)
    _configure_log(plan)

    def tell(states: States) -> None:
        try:
            supervisor.sendall(dump(states))
        except OSError:
            over.set()

    scheduler = Scheduler(plan, MemoryFile(state_directory(plan.config)), tell)

    def listen() -> None:
        for line in lines:
            plan = load_plan(line)
            _configure_log(plan)
            scheduler.replace(plan)
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    while not over.wait(TURN_SECONDS):
        scheduler.turn()
    scheduler.close()
    return exits.DONE


def _configure_log(plan: Plan) -> None:
    logs.configure(plan.config.logging, verbose=plan.verbose, process="scheduler", can_do_without=True)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
