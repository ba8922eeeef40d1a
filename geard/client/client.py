"""Client: submit jobs to Gearman job servers, and ask about them.

    with Client(["localhost:4730"]) as client:
        print(client.run("reverse", "hello"))

Rules: one client may be shared by any number of threads or greenlets; all use one connection, to the first job server
that answers. A job is never submitted twice: when a connection is lost the error says what is known of the job, and
the next call connects again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeVar, overload

from geard.client import bulk, requests
from geard.client.codec import Codec, codec_for
from geard.client.exchange import Exchange
from geard.client.reply import Reply, Submission
from geard.client.requests import Priority, When
from geard.client.servers import Servers
from geard.client.task import Event, Task, deadline_after, number, outcome_of, result_of, text_of
from geard.config import JobServer, parse_address
from geard.connection import CONNECT_TIMEOUT_SECONDS
from geard.errors import ConnectionLost, InvalidRequest, JobTimeout, ServerTimeout
from geard.protocol import DEFAULT_MAX_PACKET_BYTES, Command, request

ANSWER_TIMEOUT_SECONDS: Final = 30.0
IDLE_SECONDS: Final = 1.0  # a connection unused for so long is looked at before it is used again
POLL_SECONDS: Final = (0.05, 1.0)  # Client.wait asks again after the first, and ever later up to the second

T = TypeVar("T")


class JobState(NamedTuple):
    """What the job server knows of a job. One that it does not know has ended, or never was."""

    known: bool
    running: bool
    numerator: int
    denominator: int
    clients: int | None = None  # that wait for it; only status_unique tells


class Client:
    """A client of one or more job servers. Connects when first used, to the first that answers.

    `servers` are addresses (`host`, `host:port`, `[v6]:port`) or JobServers. `encoding` is how workloads and results
    become bytes: `bytes`, `json` or a text codec; each call may have its own. With `exceptions` a worker's exception
    comes as JobException with its text, otherwise as JobFailed.

    Every call raises InvalidRequest before anything is sent, CannotConnect when no job server answers, ConnectionLost
    (`job_created` tells what is known), ServerTimeout when the job server owes an answer for `answer_timeout_seconds`,
    and ServerError (QueueFull) when it refuses. A `timeout` is in seconds, None is as long as it takes; it raises
    JobTimeout, and the job itself may go on."""

    def __init__(
        self,
        servers: str | JobServer | Sequence[str | JobServer] = "localhost",
        *,
        encoding: str = "utf-8",
        exceptions: bool = True,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
    ) -> None:
        wanted = [servers] if isinstance(servers, str | JobServer) else servers
        parsed = [parse_address(server) if isinstance(server, str) else server for server in wanted]
        if not parsed:
            raise InvalidRequest("a client needs at least one job server")
        self._servers = Servers(parsed, connect_timeout_seconds, max_packet_bytes)
        self._codec = codec_for(encoding)
        self._options = ["exceptions"] if exceptions else []
        self._answer_timeout_seconds = answer_timeout_seconds
        self._exchange: Exchange | None = None
        self._connecting = threading.Lock()
        self._used = 0.0  # when the exchange was last used, by time.monotonic()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Client {'closed' if self._closed else self._exchange or self._servers}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; whoever still waits gets ConnectionLost. Idempotent."""
        self._closed = True
        exchange = self._exchange
        if exchange is not None and exchange.lost is None:
            exchange.fail(ConnectionLost(f"the client has closed its connection to {exchange.server}"))

    # --- jobs ----------------------------------------------------------------------------------------------------

    def run(
        self,
        function: str,
        workload: Any,
        *,
        unique: str | None = None,
        priority: Priority = "normal",
        reducer: str | None = None,
        timeout: float | None = None,
        encoding: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Any:
        """Submit a job, wait for its end and return its result. See `submit` for the arguments, Task.result for what
        it raises."""
        deadline = deadline_after(timeout)
        codec = self._codec_for(encoding)
        submission = Submission(wants_all=on_event is not None)
        unique, packet = requests.job(requests.FOREGROUND, function, unique, codec.encode(workload), priority, reducer)
        exchange = self._ask(submission, packet, deadline)
        if on_event is not None:
            left = None if deadline is None else deadline - time.monotonic()
            return Task(function, unique, submission, exchange, codec, on_event).result(left)
        if not exchange.wait(submission, submission.ended, deadline):
            raise JobTimeout(f"{function}: no result within {timeout:g} s; the job may still run")
        return result_of(submission, function, codec)

    def submit(
        self,
        function: str,
        workload: Any,
        *,
        unique: str | None = None,
        priority: Priority = "normal",
        reducer: str | None = None,
        encoding: str | None = None,
        on_event: Callable[[Event], None] | None = None,
    ) -> Task:
        """Submit a job in the foreground and return, once the job server has it.

        `unique` makes jobs of a function that have the same one a single job: a str of at most 64 bytes, "workload" for
        a hash of function and workload, None for a random one. `priority` is low, normal or high. `reducer` names the
        function that the job server tells the worker to reduce with. `on_event` is called, by the caller that waits for
        the result, with each Status, Data and Warning."""
        codec = self._codec_for(encoding)
        submission = Submission(wants_all=True)
        unique, packet = requests.job(requests.FOREGROUND, function, unique, codec.encode(workload), priority, reducer)
        return Task(function, unique, submission, self._ask(submission, packet), codec, on_event)

    def submit_background(
        self,
        function: str,
        workload: Any,
        *,
        unique: str | None = None,
        priority: Priority = "normal",
        reducer: str | None = None,
        at: When | None = None,
        encoding: str | None = None,
    ) -> str:
        """Submit a job whose result nobody waits for, and return its handle.

        `at` is when it may start: a datetime, or a delay (timedelta or seconds), in whole seconds, rounded up; not
        together with `priority` or `reducer`. See `submit` for the other arguments."""
        packet = self._background(self._codec_for(encoding), function, workload, unique, priority, reducer, at)
        reply = Reply(Command.JOB_CREATED)
        self._ask(reply, packet)
        return text_of(_fields(reply)[0])

    # --- many jobs -----------------------------------------------------------------------------------------------

    def submit_many_background(
        self,
        function: str,
        workloads: Iterable[Any],
        *,
        unique: Literal["workload"] | None = None,
        priority: Priority = "normal",
        at: When | None = None,
        encoding: str | None = None,
    ) -> Iterator[str]:
        """Submit a background job for each workload, many at a time, and yield their handles in order.

        Lazy: it submits as it is iterated, some hundreds ahead. A refused job raises in its place and ends it; with
        ConnectionLost the jobs whose handles were not yielded are of unknown fate."""
        codec = self._codec_for(encoding)
        packets = (self._background(codec, function, workload, unique, priority, None, at) for workload in workloads)
        return map(text_of, bulk.submit_all(self._connected, self._answered, packets))

    @overload
    def map(
        self,
        function: str,
        workloads: Iterable[T],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        pairs: Literal[False] = ...,
        priority: Priority = ...,
        unique: Literal["workload"] | None = ...,
        encoding: str | None = ...,
    ) -> Iterator[Any]: ...

    @overload
    def map(
        self,
        function: str,
        workloads: Iterable[T],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        pairs: Literal[True],
        priority: Priority = ...,
        unique: Literal["workload"] | None = ...,
        encoding: str | None = ...,
    ) -> Iterator[tuple[T, Any]]: ...

    def map(
        self,
        function: str,
        workloads: Iterable[Any],
        *,
        concurrency: int = 50,
        ordered: bool = True,
        pairs: bool = False,
        priority: Priority = "normal",
        unique: Literal["workload"] | None = None,
        encoding: str | None = None,
    ) -> Iterator[Any]:
        """Run a job for each workload, `concurrency` at a time, and yield the results: in the order of the workloads,
        or as they come if not `ordered`.

        Lazy: workloads are taken as results are, and few of either are held. The first failure raises and ends it; with
        `pairs` it yields (workload, result or exception) and goes on."""
        if concurrency < 1:
            raise InvalidRequest(f"concurrency is at least 1, not {concurrency}")
        codec = self._codec_for(encoding)

        def packet_of(workload: Any) -> bytes:
            return requests.job(requests.FOREGROUND, function, unique, codec.encode(workload), priority)[1]

        window = bulk.Window(
            self._connected, self._answered, packet_of, workloads, concurrency=concurrency, ordered=ordered
        )
        if pairs:
            return ((workload, outcome_of(submission, function, codec)) for workload, submission in window)
        return (result_of(submission, function, codec) for _, submission in window)

    # --- questions -----------------------------------------------------------------------------------------------

    def status(self, handle: str) -> JobState:
        """What the job server that this client is connected to knows of a job."""
        reply = Reply(Command.STATUS_RES)
        self._ask(reply, request(Command.GET_STATUS, requests.key("handle", handle)))
        return _job_state(_fields(reply))

    def status_unique(self, unique: str) -> JobState:
        """The same by the job's unique, and how many clients wait for it."""
        reply = Reply(Command.STATUS_RES_UNIQUE)
        self._ask(reply, request(Command.GET_STATUS_UNIQUE, requests.key("unique", unique)))
        return _job_state(_fields(reply))

    def wait(
        self, handle: str, on_progress: Callable[[JobState], None] | None = None, *, timeout: float | None = None
    ) -> bool:
        """Wait until the job server no longer knows a background job: it has ended, well or not; nobody can tell which.

        Calls `on_progress` with each state that differs from the last. False when the job was not known at all.
        Raises JobTimeout."""
        deadline = deadline_after(timeout)
        pause, longest = POLL_SECONDS
        last: JobState | None = None
        while (state := self.status(handle)).known:
            if state != last and on_progress is not None:
                on_progress(state)
            last = state
            if deadline is not None:
                if time.monotonic() >= deadline:
                    raise JobTimeout(f"{handle}: not done within {timeout:g} s; the job may still run")
                pause = min(pause, max(deadline - time.monotonic(), 0))
            time.sleep(pause)
            pause = min(pause * 1.5, longest)
        return last is not None

    def echo(self, data: bytes) -> bytes:
        """Send data to the job server and return what it sends back: the same."""
        if not isinstance(data, bytes):
            raise InvalidRequest(f"echo takes bytes, not {type(data).__name__}")
        reply = Reply(Command.ECHO_RES)
        self._ask(reply, request(Command.ECHO_REQ, data))
        return _fields(reply)[0]

    def option(self, name: str) -> None:
        """Set an option of the connection, and of those that may follow it. Raises ServerError for one unknown."""
        reply = Reply(Command.OPTION_RES)
        self._ask(reply, request(Command.OPTION_REQ, requests.name(name)))
        if name not in self._options:
            self._options.append(name)

    # --- inside --------------------------------------------------------------------------------------------------

    def _codec_for(self, encoding: str | None) -> Codec:
        return self._codec if encoding is None else codec_for(encoding)

    def _background(
        self,
        codec: Codec,
        function: str,
        workload: Any,
        unique: str | None,
        priority: Priority,
        reducer: str | None,
        at: When | None,
    ) -> bytes:
        data = codec.encode(workload)
        if at is None:
            return requests.job(requests.BACKGROUND, function, unique, data, priority, reducer)[1]
        if priority != "normal" or reducer is not None:
            raise InvalidRequest("a job with `at` has no priority and no reducer: the protocol has no packet for both")
        return requests.job_at(function, unique, data, at, time.time())[1]

    def _ask(self, reply: Reply, packet: bytes, deadline: float | None = None) -> Exchange:
        """Send a request and wait for its answer. Raises what the answer is if it is an error."""
        exchange = self._connected(deadline)
        try:
            exchange.post(reply, packet)
            exchange.flush()
            self._answered(exchange, reply, deadline)
        except BaseException:
            reply.abandoned = True
            raise
        return exchange

    def _answered(self, exchange: Exchange, reply: Reply, deadline: float | None = None) -> None:
        """Wait for the answer to a request that was sent, and raise it if it is an error."""
        patience = self._used + self._answer_timeout_seconds
        if deadline is not None and deadline < patience:
            if not exchange.wait(reply, reply.answered, deadline):
                raise JobTimeout(f"{exchange.server} has not answered in time; the job's fate is unknown")
        elif not exchange.wait(reply, reply.answered, patience):
            # What it owes comes in order: as long as this answer is missing, no other can come either.
            exchange.fail(
                ServerTimeout(f"{exchange.server} has not answered within {self._answer_timeout_seconds:g} s")
            )
            raise exchange.loss_of(reply)
        if reply.error is not None:
            raise reply.error

    def _connected(self, deadline: float | None = None) -> Exchange:
        """The exchange in use, or a new one."""
        exchange = self._exchange
        before, self._used = self._used, time.monotonic()
        if exchange is not None and exchange.lost is None and self._used - before < IDLE_SECONDS:
            return exchange
        with self._connecting:
            if self._closed:
                raise InvalidRequest("the client is closed")
            exchange = self._exchange
            if exchange is not None:
                if exchange.lost is None:
                    exchange.look()
                if exchange.lost is None:
                    return exchange
                self._servers.put_last(exchange.server)
            self._exchange = exchange = self._servers.connect(self._options, deadline)
            return exchange


def _fields(reply: Reply) -> list[bytes]:
    if reply.fields is None:
        raise RuntimeError(f"{reply!r} has no answer")
    return reply.fields


def _job_state(fields: list[bytes]) -> JobState:
    _, known, running, *numbers = fields
    return JobState(known != b"0", running != b"0", *map(number, numbers))
