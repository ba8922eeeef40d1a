"""Client: submit jobs to Gearman job servers, and ask about them.

    with Client(["localhost:4730"]) as client:
        print(client.run("reverse", "hello"))

Rules: one client may be shared by any number of threads or greenlets; all use one connection, to the first job server
that answers, or one to each (see `choose`). A job is never submitted twice: when a connection is lost the error says
what is known of the job, and the next call connects again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TypeVar, overload

from geard.client import requests
from geard.client.choice import CHOICES, Choose
from geard.client.line import Line
from geard.client.reply import Reply, Submission, fields_of
from geard.client.requests import Priority, When, encoded
from geard.client.results import outcome_of, result_of
from geard.client.servers import Servers
from geard.client.state import JobState, wait_until_unknown
from geard.client.task import Event, Task, deadline_after, left
from geard.codec import Codec, codec_for
from geard.config import JobServer, parse_address
from geard.connection import CONNECT_TIMEOUT_SECONDS
from geard.errors import InvalidRequest, JobTimeout
from geard.protocol import DEFAULT_MAX_PACKET_BYTES, Command, request

if TYPE_CHECKING:
    from geard.client.fleet import Fleet  # loaded where it is wanted

ANSWER_TIMEOUT_SECONDS: Final = 30.0

T = TypeVar("T")


class Client:
    """A client of one or more job servers. Connects when first used, to the first that answers.

    `servers` are addresses (`host`, `host:port`, `[v6]:port`) or JobServers. `encoding` is how workloads and results
    become bytes: `bytes`, `json` or a text codec; each call may have its own. With `exceptions` a worker's exception
    comes as JobException with its text, otherwise as JobFailed.

    `choose` is how it uses several job servers. "first": one at a time, the first that answers. "spread": all, in
    turns, and past those that owe this client clearly more than the others. "unique": as "spread", but those with the
    same function and `unique` go to the same one, whichever client they come from. The workers must serve them all. One
    that cannot be reached is left out until it answers again, and its jobs go to the others; under "unique" equal jobs
    may meet again only when it is back. What was sent to a job server that is lost is not sent to another.

    Every call raises InvalidRequest before anything is sent, CannotConnect when no job server answers, ConnectionLost
    (`job_created` tells what is known), ServerTimeout when the job server owes an answer for `answer_timeout_seconds`,
    and ServerError (QueueFull) when it refuses. A `timeout` is in seconds, over all that the call does; None is as long
    as it takes. It raises JobTimeout, or CannotConnect if there was no connection yet; the job may go on.

    In a child that was forked, the client connects anew; jobs and results that the parent waits for stay the parent's,
    and raise ConnectionLost in the child. A call from a signal handler that has interrupted another call of its thread
    raises InvalidRequest."""

    def __init__(
        self,
        servers: str | JobServer | Sequence[str | JobServer] = "localhost",
        *,
        choose: Choose = "first",
        encoding: str = "utf-8",
        exceptions: bool = True,
        connect_timeout_seconds: float = CONNECT_TIMEOUT_SECONDS,
        answer_timeout_seconds: float = ANSWER_TIMEOUT_SECONDS,
        max_packet_bytes: int = DEFAULT_MAX_PACKET_BYTES,
    ) -> None:
        if choose not in CHOICES:
            raise InvalidRequest(f"choose is one of {', '.join(CHOICES)}, not {choose!r}")
        parsed = _parsed(servers)
        self._codec = codec_for(encoding, "workload")

        def line(servers: Sequence[JobServer]) -> Line:
            return Line(
                Servers(servers, connect_timeout_seconds, max_packet_bytes),
                options=["exceptions"] if exceptions else [],
                answer_timeout_seconds=answer_timeout_seconds,
            )

        def converse() -> Line | Fleet:
            if choose == "first":
                return line(parsed)
            from geard.client.fleet import Fleet

            return Fleet(parsed, lambda server: line([server]), choose=choose, dial_seconds=connect_timeout_seconds)

        self._converse = converse
        self._only = converse()

    @classmethod
    def from_config(cls, path: str | os.PathLike[str], **options: Any) -> Self:
        """A client of the `job_servers` of a config file, TLS and all; `options` are the constructor's. ConfigError."""
        from geard.config import load_job_servers

        return cls(load_job_servers(path), **options)

    def __repr__(self) -> str:
        return f"<Client {self._conversation.state}>"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def set_servers(self, servers: str | JobServer | Sequence[str | JobServer]) -> None:
        """Use these job servers from now on, in a client that uses several: one that is new gets its share, one that
        is not among them any more no further job. Jobs and tasks that it has are waited for as before."""
        self._conversation.set_servers(_parsed(servers))

    def close(self) -> None:
        """Close the connection; whoever still waits gets ConnectionLost. Idempotent."""
        self._conversation.close()

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
        packet = requests.job(requests.FOREGROUND, function, unique, encoded(workload, codec), priority, reducer)
        exchange = self._conversation.ask(submission, packet, deadline)
        try:
            if on_event is not None:
                task = Task(function, requests.unique_of(packet), submission, exchange, codec, on_event)
                return task.result(left(deadline))
            if not exchange.wait(submission, submission.ended, deadline):
                raise JobTimeout(f"{function}: no result within {timeout:g} s; the job may still run")
        except BaseException:
            submission.abandon()
            raise
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
        timeout: float | None = None,
    ) -> Task:
        """Submit a job in the foreground and return, once the job server has it.

        `unique` makes jobs of a function that have the same one a single job: a str of at most 64 bytes, "workload" for
        a hash of function and workload, None for a random one. `priority` is low, normal or high. `reducer` names the
        function that the job server tells the worker to reduce with. `on_event` is called, by the caller that waits for
        the result, with each Status, Data and Warning. `timeout` bounds the submission, not the job."""
        codec = self._codec_for(encoding)
        submission = Submission(wants_all=True)
        packet = requests.job(requests.FOREGROUND, function, unique, encoded(workload, codec), priority, reducer)
        conversation = self._conversation
        exchange = conversation.ask(submission, packet, deadline_after(timeout))
        unique = requests.unique_of(packet)
        return Task(function, unique, submission, exchange, codec, on_event, conversation.handle_of)

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
        timeout: float | None = None,
    ) -> str:
        """Submit a job whose result nobody waits for, and return its handle: of a client that uses several job servers
        a Handle, which remembers its own in `server`.

        `at` is when it may start: a datetime, or a delay (timedelta, or seconds, ten years of them at most), in whole
        seconds, rounded up; not together with `priority` or `reducer`. See `submit` for the other arguments."""
        data = encoded(workload, self._codec_for(encoding))
        packet = requests.background_job(function, unique, data, priority, reducer, at, time.time)
        reply, conversation = Reply(Command.JOB_CREATED), self._conversation
        return conversation.handle_of(reply, conversation.ask(reply, packet, deadline_after(timeout)))

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
        timeout: float | None = None,
    ) -> Iterator[str]:
        """Submit a background job for each workload, many at a time, and yield their handles in order.

        Lazy: it submits as it is iterated, some hundreds ahead. A refused job, or a workload that cannot be encoded,
        raises in its place and ends it; with ConnectionLost, and with JobTimeout when it is not through `timeout`
        seconds after its start, the jobs whose handles were not yielded are of unknown fate."""
        codec = self._codec_for(encoding)
        packets: Iterator[bytes]
        if at is None:
            packets = map(requests.job_maker(requests.BACKGROUND, function, unique, codec, priority), workloads)
        else:
            packets = (
                requests.background_job(function, unique, encoded(workload, codec), priority, None, at, time.time)
                for workload in workloads
            )
        return self._conversation.submit_all(packets, timeout)

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
        timeout: float | None = ...,
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
        timeout: float | None = ...,
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
        timeout: float | None = None,
    ) -> Iterator[Any]:
        """Run a job for each workload, `concurrency` at a time, and yield the results: in the order of the workloads,
        or as they come if not `ordered`.

        Lazy: workloads are taken as results are, and few of either are held. The first failure raises and ends it; with
        `pairs` it yields (workload, result or exception) and goes on, until no job server can be reached: CannotConnect
        comes after all that were submitted. Raises JobTimeout, with `pairs` too, if it is not through `timeout` seconds
        after its start; what was submitted may still run."""
        if concurrency < 1:
            raise InvalidRequest(f"concurrency is at least 1, not {concurrency}")
        codec = self._codec_for(encoding)

        window = self._conversation.window(
            requests.job_maker(requests.FOREGROUND, function, unique, codec, priority),
            workloads,
            concurrency=concurrency,
            ordered=ordered,
            timeout=timeout,
        )
        if pairs:
            return ((workload, outcome_of(submission, function, codec)) for workload, submission in window)
        return (result_of(submission, function, codec) for _, submission in window)

    # --- questions -----------------------------------------------------------------------------------------------

    def status(self, handle: str, *, timeout: float | None = None) -> JobState:
        """What a job server knows of a job: the one that this client is connected to, or of a client that uses several
        the one of the Handle.

        Other text is asked of all of them, and who knows it answers; job servers on one host may have equal handles.
        Where none knows it and one could not be asked, it raises why: the job may be there. A Handle whose job server
        is none of the client's is an InvalidRequest."""
        key = requests.key("handle", handle)
        return self._state(handle, timeout, Command.STATUS_RES, Command.GET_STATUS, key)

    def status_unique(self, unique: str, *, timeout: float | None = None) -> JobState:
        """The same by the job's unique, and how many clients wait for it. Of several job servers all are asked."""
        key = requests.key("unique", unique)
        return self._state(unique, timeout, Command.STATUS_RES_UNIQUE, Command.GET_STATUS_UNIQUE, key)

    def wait(
        self, handle: str, on_progress: Callable[[JobState], None] | None = None, *, timeout: float | None = None
    ) -> bool:
        """Wait until the job server no longer knows a background job: it has ended, well or not; nobody can tell which.

        Calls `on_progress` with each state that differs from the last. False when the job was not known at all.
        Raises JobTimeout."""
        return wait_until_unknown(handle, self.status, on_progress, timeout)

    def echo(self, data: bytes, *, timeout: float | None = None) -> bytes:
        """Send data to the job server, of several to any of them, and return what it sends back: the same."""
        if not isinstance(data, bytes):
            raise InvalidRequest(f"echo takes bytes, not {type(data).__name__}")
        reply = Reply(Command.ECHO_RES)
        self._conversation.ask(reply, request(Command.ECHO_REQ, data), deadline_after(timeout))
        return fields_of(reply)[0]

    def option(self, name: str, *, timeout: float | None = None) -> None:
        """Set an option of the connection, and of those that may follow it. Raises ServerError for one unknown."""
        packet = request(Command.OPTION_REQ, requests.name(name))
        self._conversation.set_option(name, packet, deadline_after(timeout))

    # --- inside --------------------------------------------------------------------------------------------------

    @property
    def _conversation(self) -> Line | Fleet:
        return self._only

    def _codec_for(self, encoding: str | None) -> Codec:
        return self._codec if encoding is None else codec_for(encoding, "workload")

    def _state(self, handle: str, timeout: float | None, expected: Command, command: Command, key: bytes) -> JobState:
        return self._conversation.state_of(handle, expected, request(command, key), deadline_after(timeout))


def _parsed(servers: str | JobServer | Sequence[str | JobServer]) -> list[JobServer]:
    wanted = [servers] if isinstance(servers, str | JobServer) else servers
    parsed = [parse_address(server) if isinstance(server, str) else server for server in wanted]
    if not parsed:
        raise InvalidRequest("a client needs at least one job server")
    return parsed
