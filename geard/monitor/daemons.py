"""The daemons that are shown: this one, over its control socket, and those of `peers`, over their monitors' API.

Both answer the same questions; each is polled in a greenlet of its own, so one that is slow holds up nobody.
"""

from __future__ import annotations

import http.client
import os
import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from geard.errors import ConnectionLost, GeardError
from geard.monitor.jobservers import JobServerView
from geard.stats.failures import Failure
from geard.stats.history import History
from geard.stats.snapshot import Snapshot
from geard.supervisor import answers
from geard.supervisor.answers import Answer, JobPage, Request
from geard.supervisor.ask import ask
from geard.supervisor.monitor_start import Start

POLL_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 3.0
RELOAD_SECONDS: Final = 330.0
"""How long an action may take: a reload waits for the new generation's imports."""
MAX_PEER_BYTES: Final = 32 * 1024 * 1024


class DaemonState(Struct, frozen=True):
    """A daemon's own view, as its monitor tells it to others."""

    snapshot: Snapshot | None
    job_servers: tuple[JobServerView, ...]
    error: str = ""  # why there is no snapshot, or only an old one


class Source(Protocol):
    """Where a daemon's answers come from. All raise GeardError."""

    def state(self) -> Snapshot | DaemonState:
        """How it is."""

    def failures(self, request: Request) -> tuple[Failure, ...]:
        """Its last failures, newest first."""

    def history(self, request: Request) -> History | None:
        """The history of one function, or of all together."""

    def jobs(self, request: Request) -> JobPage:
        """Running jobs."""

    def stack(self, request: Request) -> str:
        """Where a job is."""


class ControlSocket:
    """This machine's daemon."""

    def __init__(self, path: str) -> None:
        self._path = path

    def state(self) -> Snapshot:
        snapshot = self.ask(Request(answers.STATS)).snapshot
        if snapshot is None:
            raise GeardError("the supervisor told nothing of its state")
        return snapshot

    def failures(self, request: Request) -> tuple[Failure, ...]:
        return self.ask(msgspec.structs.replace(request, command=answers.FAILURES)).failures or ()

    def history(self, request: Request) -> History | None:
        return self.ask(msgspec.structs.replace(request, command=answers.HISTORY)).history

    def jobs(self, request: Request) -> JobPage:
        return self.ask(msgspec.structs.replace(request, command=answers.JOBS)).jobs or JobPage(0, ())

    def stack(self, request: Request) -> str:
        answer = self.ask(msgspec.structs.replace(request, command=answers.STACK))
        return answer.stack or answer.message

    def ask(self, request: Request, timeout_seconds: float = ANSWER_SECONDS) -> Answer:
        """The supervisor's answer."""
        return ask(self._path, request, timeout_seconds=timeout_seconds)


class PeerMonitor:
    """Another machine's daemon, over its monitor's API. The token is this monitor's own."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = urlsplit(url)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def state(self) -> DaemonState:
        state: DaemonState = self._get("state", DaemonState, {})
        return state

    def failures(self, request: Request) -> tuple[Failure, ...]:
        query = {"function": request.function, "limit": request.limit}
        found: tuple[Failure, ...] = self._get("failures", tuple[Failure, ...], query)
        return found

    def history(self, request: Request) -> History | None:
        query = {"function": request.function, "limit": request.limit, "minutes": int(request.minutes)}
        found: History | None = self._get("history", History | None, query)
        return found

    def jobs(self, request: Request) -> JobPage:
        query = {"function": request.function, "limit": request.limit, "offset": request.offset}
        found: JobPage = self._get("jobs", JobPage, query)
        return found

    def stack(self, request: Request) -> str:
        found: dict[str, str] = self._get("stack", dict[str, str], {"pid": request.pid, "handle": request.handle})
        return found.get("stack", "")

    def _get(self, what: str, kind: Any, query: Mapping[str, object]) -> Any:
        connection = self._connect()
        try:
            path = f"{self._url.path}/api/{what}" + (f"?{urlencode(query)}" if query else "")
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            body = response.read(MAX_PEER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"{self._url.netloc}: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise ConnectionLost(f"{self._url.netloc} answers {response.status} {response.reason}")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise GeardError(f"{self._url.netloc} is of another version of geard: {error}") from error

    def _connect(self) -> http.client.HTTPConnection:
        host = self._url.hostname or ""
        if self._url.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, self._url.port, timeout=ANSWER_SECONDS, context=context)
        return http.client.HTTPConnection(host, self._url.port, timeout=ANSWER_SECONDS)


class Daemon:
    """A daemon and the last that is known of it."""

    def __init__(self, name: str, source: Source, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.source = source
        self.snapshot: Snapshot | None = None
        self.job_servers: tuple[JobServerView, ...] = ()
        self.error = "not asked yet"
        self._clock = clock
        self._heard_at = clock()

    def __repr__(self) -> str:
        return f"<Daemon {self.name} {self.error or 'answers'}>"

    @property
    def silent_seconds(self) -> float:
        """Since its last answer."""
        return self._clock() - self._heard_at

    @property
    def is_heard(self) -> bool:
        """Whether the last that was asked has been answered."""
        return not self.error and self.snapshot is not None

    def poll(self) -> None:
        """Ask it how it is. Keeps the last answer when there is none."""
        try:
            state = self.source.state()
        except GeardError as error:
            self.error = str(error)
            return
        if isinstance(state, DaemonState):
            self.job_servers, self.error = state.job_servers, state.error
            if state.snapshot is None:
                return
            self.snapshot = state.snapshot
        else:
            self.snapshot, self.error = state, ""
        self._heard_at = self._clock()


def read_secret(path: str | None) -> str:
    """The password or token in a file: its first line. Raises OSError."""
    return Path(path).read_text().strip().split("\n")[0].strip() if path else ""


def daemons_of(start: Start) -> list[Daemon]:
    """This machine's first, then the peers."""
    token = read_secret(start.monitor.token_file)
    own = Daemon(os.uname().nodename, ControlSocket(start.control_socket))
    peers = [Daemon(urlsplit(url).netloc, PeerMonitor(url, token)) for url in start.monitor.peers]
    return [own, *peers]
