"""The way in: connections are accepted here, from sockets that already listen.

Rules:
- No more than `max_connections` are open. One more is closed at once, which is said once until there is room again.
- Without a file descriptor to be had nothing is accepted for a while: who comes waits in the listening socket's queue.
- No more than a few are accepted in a turn of the loop, however many come at once.
"""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

import gevent

from geard.jobserver.connection import READABLE
from geard.jobserver.listeners import allow_files, tls_context
from geard.jobserver.options import Options

log = logging.getLogger(__name__)

ACCEPTS_PER_TURN: Final = 64
PAUSE_SECONDS: Final = 1.0  # when there are no more file descriptors
SPARE_FILES: Final = 64
_NO_MORE: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Acceptor:
    """See the module. Closes the listening sockets in the end."""

    def __init__(
        self,
        listeners: Sequence[socket.socket],
        options: Options,
        loop: Any,
        accepted: Callable[[socket.socket, str], None],
    ) -> None:
        """`accepted` is handed each new socket, which speaks TLS if it is to, and the host at its other end. Raises
        ConfigError for a certificate that cannot be used."""
        self._listeners = listeners
        self._loop = loop
        self._max_connections = options.max_connections
        self._tls = tls_context(options)
        self._accepted = accepted
        self._open = 0
        self._full = False  # and that has been said
        self._watchers: list[Any] = []  # one for each listening socket

    def __repr__(self) -> str:
        return f"<Acceptor {', '.join(self.addresses)} {self._open}/{self._max_connections} open>"

    @property
    def addresses(self) -> list[str]:
        """Where it listens."""
        return [_name(listener.getsockname()) for listener in self._listeners]

    def start(self) -> None:
        """Accept from now on."""
        allow_files(self._max_connections + SPARE_FILES)
        self._watchers = [self._loop.io(listener.fileno(), READABLE) for listener in self._listeners]
        self._watch()

    def stop(self) -> None:
        """Leave the addresses to others. Idempotent."""
        for watcher in self._watchers:
            watcher.stop()
        for listener in self._listeners:
            listener.close()

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        for watcher in self._watchers:
            watcher.close()

    def gone(self) -> None:
        """One of the connections is closed: there is room for another."""
        self._open -= 1
        self._full = False

    def _watch(self) -> None:
        for listener, watcher in zip(self._listeners, self._watchers, strict=True):
            if listener.fileno() >= 0:  # it may have been closed meanwhile
                watcher.start(self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTS_PER_TURN):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _NO_MORE:
                    self._pause(error)
                    return
                continue  # the peer left before we came to it
            if self._open >= self._max_connections:
                if not self._full:
                    self._full = True
                    log.warning("%d connections are the limit: more are closed", self._open)
                sock.close()
                continue
            self._take(sock, str(address[0]) if isinstance(address, tuple) else "local")

    def _pause(self, error: OSError) -> None:
        log.error("cannot accept connections: %s; trying again in a second", error.strerror)
        for watcher in self._watchers:
            watcher.stop()
        gevent.spawn_later(PAUSE_SECONDS, self._watch)

    def _take(self, sock: socket.socket, host: str) -> None:
        sock.setblocking(False)
        if self._tls:
            try:
                sock = self._tls.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
            except (OSError, ssl.SSLError):
                sock.close()
                return
        self._accepted(sock, host)
        self._open += 1


def _name(address: Any) -> str:
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
