"""A worker by hand, for tests of clients: it answers exactly what its test wants answered."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from geard.protocol import Command, Packet
from tests.support.raw import Peer

Handler = Callable[[Peer, Packet], None]


def reverse(peer: Peer, job: Packet) -> None:
    """Complete with the workload reversed."""
    peer.send(Command.WORK_COMPLETE, job.handle, job.workload[::-1])


class RawWorker:
    """One connection that runs one job at a time, in a thread; `handlers` answer the jobs by function."""

    def __init__(self, address: str, handlers: dict[str, Handler]) -> None:
        self.jobs: list[Packet] = []
        self.error: BaseException | None = None
        self._handlers = {name.encode(): handler for name, handler in handlers.items()}
        self._peer = Peer.connect(address)
        for name in self._handlers:
            self._peer.send(Command.CAN_DO, name)
        self._peer.send(Command.ECHO_REQ, b"registered")
        self._peer.expect(Command.ECHO_RES)
        self._peer.socket.settimeout(None)
        self._closing = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            while True:
                self._peer.send(Command.GRAB_JOB_UNIQ)
                job = self._peer.receive()
                if job.command is Command.JOB_ASSIGN_UNIQ:
                    self.jobs.append(job)
                    self._handlers[job.function](self._peer, job)
                elif job.command is Command.NO_JOB:
                    self._peer.send(Command.PRE_SLEEP)
                    self._peer.expect(Command.NOOP)
        except BaseException as error:
            if not self._closing:
                self.error = error

    def close(self) -> None:
        self._closing = True
        self._peer.socket.shutdown(2)
        self._thread.join()
        self._peer.close()

    def __enter__(self) -> RawWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        assert self.error is None, self.error
