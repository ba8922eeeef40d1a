"""One job server as the scheduler sees it: a thread that submits and cancels there, and knows whether it answers.

Rules:
- Each job server has its own thread, so that one that hangs holds up none of the others.
- What is asked is done in order: a cancellation goes before what replaces it.
- A second connection, idle, bears the scheduler's name: other schedulers see from it that this one is there.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from geard.client import Client
from geard.client.admin import Admin
from geard.config.model import JobServer
from geard.connection import Connection
from geard.errors import ConnectionLost, GeardError, ServerError
from geard.protocol import Command, request
from geard.scheduler.plan import Cancellation, Submission

CLIENT_ID_PREFIX: Final = "geard-scheduler:"
TIMEOUT_SECONDS: Final = 3.0
PROBE_SECONDS: Final = 1.0
_MOST_QUEUED: Final = 10_000

log = logging.getLogger(__name__)


class Link:
    """See the module. `answers` is whether the job server did, the last time that it was asked anything."""

    def __init__(
        self,
        server: JobServer,
        *,
        encoding: str,
        wanted: Callable[[Submission], bool],
        acknowledged: Callable[[Submission, str], None],
    ) -> None:
        """`wanted` is asked right before a submission; `acknowledged` is told its handle. Both from the thread."""
        self.server = server
        self.answers = False
        self.tried = threading.Event()
        self._encoding = encoding
        self._wanted = wanted
        self._acknowledged = acknowledged
        self._asked: queue.Queue[Submission | Cancellation] = queue.Queue(_MOST_QUEUED)
        self._over = threading.Event()
        self._presence: Connection | None = None
        self._client = Client(
            server, connect_timeout_seconds=TIMEOUT_SECONDS, answer_timeout_seconds=TIMEOUT_SECONDS, encoding="bytes"
        )
        self._admin = Admin(server, timeout_seconds=TIMEOUT_SECONDS)

    def __repr__(self) -> str:
        return f"<Link {self.server} {'answers' if self.answers else 'does not answer'} {self._asked.qsize()} asked>"

    def start(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._serve, name=str(self.server), daemon=True).start()

    def close(self) -> None:
        """Cancel what is still asked to be cancelled, and hang up. Does not wait."""
        self._over.set()

    def ask(self, what: Submission | Cancellation) -> None:
        """Queue it. What finds the queue full is dropped: a submission is repeated anyway."""
        with suppress(queue.Full):
            self._asked.put_nowait(what)

    def others(self) -> list[str]:
        """The names of the other schedulers that are connected. Raises GeardError."""
        names = {row.client_id for row in self._admin.workers() if row.client_id.startswith(CLIENT_ID_PREFIX)}
        return sorted(names - {client_id()})

    def _serve(self) -> None:
        while not self._over.is_set() or not self._asked.empty():
            try:
                asked: Submission | Cancellation | None = self._asked.get(timeout=PROBE_SECONDS)
            except queue.Empty:
                asked = None
            try:
                self._be_present()
                self._do(asked)
            except ConnectionLost as error:
                self._failed(error)
                if self._over.is_set():
                    break
                if isinstance(asked, Cancellation):
                    self.ask(asked)
                time.sleep(PROBE_SECONDS)
            except GeardError as error:  # the job server refused
                log.warning("%s: %s", self.server, error)
            else:
                self._answered()
            self.tried.set()
        self._client.close()
        self._admin.close()
        if self._presence:
            self._presence.close()

    def _do(self, asked: Submission | Cancellation | None) -> None:
        if asked is None:
            self._client.echo(b"geard")
        elif isinstance(asked, Cancellation):
            with suppress(ServerError):  # it runs, or has run
                self._admin.cancel_job(asked.handle)
        elif self._wanted(asked):
            handle = self._client.submit_background(
                asked.schedule.function,
                asked.schedule.workload,
                unique=asked.unique,
                at=datetime.fromtimestamp(asked.at, UTC),
                encoding=asked.schedule.encoding or self._encoding,
            )
            self._acknowledged(asked, str(handle))

    def _be_present(self) -> None:
        if self._presence is None:
            connection = Connection.dial(self.server, timeout_seconds=TIMEOUT_SECONDS)
            connection.send(request(Command.SET_CLIENT_ID, client_id().encode()))
            self._presence = connection

    def _answered(self) -> None:
        if not self.answers:
            log.info("%s answers", self.server)
        self.answers = True

    def _failed(self, error: ConnectionLost) -> None:
        if self.answers or not self.tried.is_set():
            log.warning("%s; schedules go to the others until it answers", error)
        self.answers = False
        presence, self._presence = self._presence, None
        if presence:
            presence.close()


def client_id() -> str:
    """How this scheduler is named in a job server's list of workers."""
    return f"{CLIENT_ID_PREFIX}{socket.gethostname()}:{os.getpid()}"


def links_of(servers: tuple[JobServer, ...], **options: Any) -> dict[str, Link]:
    """A link to each, by its address, not started."""
    return {str(server): Link(server, **options) for server in servers}
