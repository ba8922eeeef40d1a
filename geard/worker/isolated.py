"""A process in which one job runs at a time and nothing else: for jobs that are suspected of killing their process.

`python -P -m gevent.monkey --module geard.worker.isolated FD ALIVE`: a fresh interpreter, patched as a worker process.

Rules:
- FD is one end of a socket pair. The other side, isolation.py, sends Start and awaits Ready or CannotStart, as lines of
  geard/messages.py. From then on both speak Gearman packets: JOB_ASSIGN_UNIQ comes in, and what the job would send to
  its job server goes out, then ECHO_REQ with ENDED. ECHO_REQ with BEAT, once a second, tells that the loop is alive.
- It dies with the process that started it, which holds the other end of the pipe ALIVE; and it is the first that the
  kernel kills when memory runs out.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn, cast

import gevent
import msgspec
from gevent import socket
from setproctitle import setproctitle

from geard import exits, messages, native
from geard.messages import Ready
from geard.protocol import Command, Decoder, request
from geard.worker.begin import begin, import_all, leave
from geard.worker.fork import die_at_end_of
from geard.worker.forked import end_if_forked
from geard.worker.isolation import BEAT, BEAT_SECONDS, ENDED, FAILED, Failed
from geard.worker.job import Job
from geard.worker.policy import Policy, judge
from geard.worker.run import failure, run
from geard.worker.words import encodable, traceback_of

if TYPE_CHECKING:
    from geard.worker.session import Session

_OOM_SCORE: Final = "800"


class Wire:
    """As much of a Session as a Job asks for: what it sends goes to the process that waits for it.

    Jobs send from native threads too, so nothing of gevent is used for it. The other side always reads."""

    lost = behind = False

    def __init__(self, parent: socket.socket, address: str) -> None:
        self.address = address
        self._descriptor = parent.fileno()
        self._sending = native.allocate_lock()

    def send(self, packet: bytes) -> None:
        """Send at once; when nobody reads any more, it is too late for everything."""
        with self._sending:
            while packet:
                try:
                    packet = packet[os.write(self._descriptor, packet) :]
                except BlockingIOError:
                    native.wait_until_writable(self._descriptor)
                except OSError:
                    os._exit(exits.DONE)

    def answer(self, packet: bytes) -> bool:
        """Send the last packet of a job."""
        self.send(packet)
        return True

    def wake(self) -> None:
        """There is nobody to wake: nothing waits to be written."""


def main(descriptor: int, alive: int) -> NoReturn:
    """The whole life of an isolated process."""
    die_at_end_of(alive)
    _be_the_first_to_go()
    parent, _, start, forks = begin(descriptor, "isolated")
    pool = import_all(parent, start, forks)
    (capability,) = pool.capabilities
    wire = Wire(parent, str(start.config.job_servers[0]))
    if capability.policy:  # what becomes of the job is up to the process that has it from its job server
        capability.after_failure = partial(_tell, wire, capability.policy)
    gevent.spawn(_beat, wire)
    wire.send(messages.dump(Ready(())))
    setproctitle(f"geard: isolated {start.number} generation {start.generation}, {capability.name}")
    decoder = Decoder(max_packet_bytes=2**32)
    while True:
        data = _receive(parent)
        if not data:
            leave(exits.DONE)
        decoder.feed(data)
        for packet in decoder:
            job = Job(
                cast("Session", wire), capability, packet.handle, packet.unique, packet.workload, time.monotonic()
            )
            job.started = job.received
            gevent.spawn(_run, job).join()
            wire.send(request(Command.ECHO_REQ, ENDED))


def _run(job: Job) -> None:
    run(job)
    end_if_forked()  # a child that the job has forked, and let return


def _tell(wire: Wire, policy: Policy, job: Job, error: BaseException) -> bool:
    told = Failed(encodable(failure(error)), encodable(traceback_of(error)), judge(policy, error))
    wire.send(request(Command.ECHO_REQ, FAILED + msgspec.json.encode(told)))
    return True


def _receive(parent: socket.socket) -> bytes:
    try:
        return parent.recv(1 << 20)
    except OSError:
        return b""


def _beat(wire: Wire) -> None:
    while True:
        gevent.sleep(BEAT_SECONDS)
        wire.send(request(Command.ECHO_REQ, BEAT))


def _be_the_first_to_go() -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(_OOM_SCORE)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
