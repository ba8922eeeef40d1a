"""The low-level worker: one plain blocking connection, one job at a time, for those who build their own pool.

    with Worker.connect("localhost:4730", {"reverse": reverse}) as worker:
        while True:
            worker.work()

Nothing reconnects here, and nothing runs beside the caller: an error of the connection is raised where it is found.
WorkerPool is what a program wants that only has functions to offer.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from geard.config import Capability, JobServer, parse_address
from geard.connection import Connection
from geard.errors import ConnectionLost, InvalidRequest, PacketTooLarge, ProtocolError, ServerError
from geard.protocol import DEFAULT_MAX_PACKET_BYTES, Command, Oversized, Packet, request
from geard.worker.capability import BoundCapability, bind
from geard.worker.job import Job
from geard.worker.pool import default_client_id
from geard.worker.run import refuse, run
from geard.worker.session import Session
from geard.worker.threads import THREADS
from geard.worker.window import GrabWindow

if TYPE_CHECKING:
    from geard.client import Client  # loaded for those who use it

log = logging.getLogger("geard.worker")

ASK_AGAIN_SECONDS: Final = 1.0
"""An idle worker asks again after so long: a delayed job that falls due wakes nobody."""

ASSIGNMENTS: Final = {  # how to ask for a job -> how it comes
    Command.GRAB_JOB: (Command.JOB_ASSIGN,),
    Command.GRAB_JOB_UNIQ: (Command.JOB_ASSIGN_UNIQ,),
    Command.GRAB_JOB_ALL: (Command.JOB_ASSIGN_ALL, Command.JOB_ASSIGN_UNIQ),  # the latter when there is no reducer
}
_ASSIGNED: Final = {command for commands in ASSIGNMENTS.values() for command in commands}


class GrabbedJob(Job):
    """A job of the low-level worker. `reducer` is empty but for a reduce job that came by GRAB_JOB_ALL."""

    reducer: str = ""

    @classmethod
    def of(cls, session: Session, capability: BoundCapability, packet: Packet, now: float) -> GrabbedJob:
        """The job that a packet assigns."""
        unique = b"" if packet.command is Command.JOB_ASSIGN else packet.unique
        reducer = packet.reducer.decode() if packet.command is Command.JOB_ASSIGN_ALL else ""
        return cls(
            session, capability, packet.handle, unique, packet.workload, received=now, started=now, reducer=reducer
        )


class Worker:
    """A worker on one connection; a context manager. Not to be shared between threads or greenlets.

    Every method raises ConnectionLost when the job server is gone; its jobs go to other workers then."""

    def __init__(self, connection: Connection, *, encoding: str, max_packet_bytes: int) -> None:
        self._encoding = encoding
        self._capabilities: dict[bytes, BoundCapability] = {}
        self._client: Client | None = None
        self._packets: deque[Packet] = deque()
        self._session = Session(
            connection,
            max_packet_bytes=max_packet_bytes,
            window=GrabWindow(1),
            grabs_due=lambda owed: 0,  # only `grab` asks for jobs
            finished=lambda: False,
            wake_writer=self._flush,
        )
        self._session.asleep = True  # only pre_sleep sends PRE_SLEEP

    @classmethod
    def connect(
        cls,
        server: str | JobServer,
        capabilities: Mapping[str, Callable[..., Any] | Capability] | None = None,
        *,
        encoding: str = "utf-8",
        client_id: str | None = None,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
    ) -> Worker:
        """Connect, say who we are and what we can do. Raises CannotConnect, InvalidRequest, CapabilityError."""
        address = parse_address(server) if isinstance(server, str) else server
        worker = cls(Connection.dial(address), encoding=encoding, max_packet_bytes=max_packet_bytes)
        try:
            worker.set_client_id(client_id or default_client_id())
            for name, function in (capabilities or {}).items():
                worker.can_do(name, function)
        except BaseException:
            worker.close()
            raise
        return worker

    def __repr__(self) -> str:
        return f"<Worker {self._session.address}: {', '.join(c.name for c in self._capabilities.values())}>"

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up. A job that was grabbed and not answered goes to another worker."""
        self._session.connection.close()
        if self._client:
            self._client.close()

    # --- abilities ------------------------------------------------------------------------------------------------

    def can_do(self, name: str, function: Callable[..., Any] | Capability) -> None:
        """Offer a function: CAN_DO. Offering one twice only changes what serves it, since gearmand counts a second
        CAN_DO as a second worker."""
        known = name.encode() in self._capabilities
        capability = self._bind(name, function)
        if not known:
            self._send(Command.CAN_DO, capability.raw_name)

    def can_do_timeout(self, name: str, function: Callable[..., Any] | Capability, timeout: int) -> None:
        """Offer a function with a time limit kept by the job server: CAN_DO_TIMEOUT.

        `timeout` is in the job server's unit: gearmand 1.1.20 takes it as milliseconds, and anything less as 1000. It
        has one timer for each connection and queues the job again when it expires; see Capability.timeout_seconds for
        a limit that works."""
        self._send(Command.CAN_DO_TIMEOUT, self._bind(name, function).raw_name, b"%d" % timeout)

    def cant_do(self, name: str) -> None:
        """Offer a function no more: CANT_DO. gearmand queues a job of it that is in flight again, at once."""
        self._capabilities.pop(name.encode(), None)
        self._send(Command.CANT_DO, name.encode())

    def reset_abilities(self) -> None:
        """Offer nothing any more: RESET_ABILITIES. Jobs in flight are queued again, as with cant_do."""
        self._capabilities.clear()
        self._send(Command.RESET_ABILITIES)

    def set_client_id(self, client_id: str) -> None:
        """Say who we are, for the admin command `workers`: SET_CLIENT_ID."""
        self._send(Command.SET_CLIENT_ID, client_id.encode())

    def all_yours(self) -> None:
        """ALL_YOURS: this worker serves one job server only. No server that we know takes it: gearmand 1.1.20 answers
        ERROR `INVALID_COMMAND`, which the next call raises as ServerError."""
        self._send(Command.ALL_YOURS)

    # --- jobs -----------------------------------------------------------------------------------------------------

    def work(self, *, grab: Command = Command.GRAB_JOB_UNIQ, timeout_seconds: float | None = None) -> Job | None:
        """Do one job: wait for it, run it, answer it. Returns it, or None if none came within the timeout."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while (job := self.grab(grab)) is None:
            self.pre_sleep()
            left = ASK_AGAIN_SECONDS if deadline is None else min(ASK_AGAIN_SECONDS, deadline - time.monotonic())
            if left <= 0:
                return None
            self.sleep(left)
        run(job)
        self._flush()
        return job

    def grab(self, command: Command = Command.GRAB_JOB_UNIQ) -> GrabbedJob | None:
        """Ask for a job and await the answer; None when there is none (NO_JOB). GRAB_JOB brings no unique,
        GRAB_JOB_ALL brings the reducer too. The caller answers the job (`job.complete` …), then calls `flush`."""
        if command not in ASSIGNMENTS:
            raise InvalidRequest(
                f"{command.name} does not grab a job: expected {', '.join(c.name for c in ASSIGNMENTS)}"
            )
        self._send(command)
        while True:
            packet = self._await(*ASSIGNMENTS[command], Command.NO_JOB)
            if packet.command is Command.NO_JOB:
                return None
            capability = self._capabilities.get(packet.function)
            if capability and not isinstance(packet, Oversized):
                return GrabbedJob.of(self._session, capability, packet, time.monotonic())
            _, answer = refuse(capability, packet)
            self._session.answer(answer)
            self._send(command)

    def flush(self) -> None:
        """Send what jobs have said and answered."""
        self._flush()

    def pre_sleep(self) -> None:
        """Ask for a NOOP when a job comes: PRE_SLEEP."""
        self._send(Command.PRE_SLEEP)

    def sleep(self, timeout_seconds: float | None = None) -> bool:
        """Block until a NOOP has come, or the timeout has passed. Whether one came."""
        return self._next(timeout_seconds, Command.NOOP) is not None

    def echo(self, data: bytes) -> bytes:
        """Have the job server send `data` back: ECHO_REQ."""
        self._send(Command.ECHO_REQ, data)
        return self._await(Command.ECHO_RES).data

    # --- packets --------------------------------------------------------------------------------------------------

    def _bind(self, name: str, function: Callable[..., Any] | Capability) -> BoundCapability:
        spec = function if isinstance(function, Capability) else Capability(function)
        capability = bind(name, spec, self._encoding)
        capability.prepare(THREADS)
        capability.client = self._client_of_jobs
        self._capabilities[capability.raw_name] = capability
        return capability

    def _client_of_jobs(self) -> Client:
        if self._client is None:
            from geard.client import Client  # for those who use it

            self._client = Client(self._session.connection.server, encoding=self._encoding)
        return self._client

    def _send(self, command: Command, *fields: bytes) -> None:
        self._session.open([request(command, *fields)])
        self._flush()

    def _flush(self) -> None:
        self._session.flush()
        if self._session.lost:
            raise self._session.error or ConnectionLost(f"lost {self._session.address}")

    def _await(self, *commands: Command) -> Packet:
        packet = self._next(None, *commands)
        assert packet is not None  # without a timeout there is an answer or an error
        return packet

    def _next(self, timeout_seconds: float | None, *commands: Command) -> Packet | None:
        """The next packet of these types. A NOOP that nobody waits for is passed over: it is a hint, no answer."""
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        while True:
            while not self._packets:
                left = None if deadline is None else max(0.001, deadline - time.monotonic())
                data = self._session.connection.receive(left)
                if data is None:
                    return None
                self._session.decoder.feed(data)
                self._packets.extend(self._session.decoder)
            packet = self._packets.popleft()
            if isinstance(packet, Oversized) and packet.command not in _ASSIGNED:
                raise PacketTooLarge(packet.text)
            if packet.command in commands:
                return packet
            if packet.command is Command.ERROR:
                error = ServerError(packet.code.decode(errors="replace"), packet.text.decode(errors="replace"))
                if error.code != "JOB_NOT_FOUND":
                    raise error
                # About an earlier job, and no answer to what is awaited here.
                log.warning("%s no longer knows a job that we answered; another worker has it", self._session.address)
                continue
            if packet.command is not Command.NOOP:
                raise ProtocolError(f"{self._session.address} sent {packet.command.name}, which nobody asked for")
