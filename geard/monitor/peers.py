"""Another machine's daemon, over its monitor's API.

Rule: an answer is whole within ANSWER_SECONDS or is none, so that a peer which sends a byte now and then is as good as
one that sends nothing.
"""

from __future__ import annotations

import http.client
import os
import ssl
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import gevent
import msgspec

from geard.errors import ConnectionLost, GeardError, ServerTimeout
from geard.monitor.daemons import ANSWER_SECONDS, ControlSocket, Daemon, DaemonState, read_secret
from geard.stats.failures import Failure
from geard.stats.history import History
from geard.supervisor.answers import JobPage, Request
from geard.supervisor.monitor_start import Start

MAX_PEER_BYTES: Final = 32 * 1024 * 1024


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
        deadline = gevent.Timeout.start_new(ANSWER_SECONDS)
        try:
            path = f"{self._url.path}/api/{what}" + (f"?{urlencode(query)}" if query else "")
            connection.request("GET", path, headers=self._headers)
            response = connection.getresponse()
            body = response.read(MAX_PEER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"{self._url.netloc}: {error or type(error).__name__}") from error
        except gevent.Timeout as timeout:
            if timeout is not deadline:
                raise
            raise ServerTimeout(f"{self._url.netloc} does not answer within {ANSWER_SECONDS:g} s") from None
        finally:
            deadline.close()
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


def daemons_of(start: Start) -> list[Daemon]:
    """This machine's first, then the peers."""
    token = read_secret(start.monitor.token_file)
    own = Daemon(os.uname().nodename, ControlSocket(start.control_socket))
    peers = [Daemon(urlsplit(url).netloc, PeerMonitor(url, token)) for url in start.monitor.peers]
    return [own, *peers]
