"""The monitor's HTTP server: gevent's pywsgi, within bounds.

Rules:
- At most MAX_CONNECTIONS at a time, and as few as leave SPARE_DESCRIPTORS for the monitor's own questions; more wait in
  the kernel's queue.
- A peer that sends or takes nothing for IO_SECONDS is hung up on, and so is one whose head of a request takes longer:
  no connection costs anything for ever.
- What a peer does wrong is its own business: it is told, and nothing is logged.
"""

from __future__ import annotations

import errno
import http.client
import logging
import os
import resource
import ssl
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any, Final

from gevent import Timeout, socket
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer

from geard.config.model import Listen, Monitor

MAX_CONNECTIONS: Final = 1000
SPARE_DESCRIPTORS: Final = 128
IO_SECONDS: Final = 20.0
BACKLOG: Final = 256
TAKEN_SECONDS: Final = 10.0
"""How long to wait for an address that the monitor before this one still has."""

log = logging.getLogger("geard.monitor")


class Handler(WSGIHandler):
    """One connection."""

    def __init__(self, sock: Any, address: Any, server: Any) -> None:
        sock.settimeout(IO_SECONDS)
        # A Unix socket's peers have no address, where pywsgi expects a pair.
        super().__init__(sock, address or ("", 0), server)  # type: ignore[arg-type]

    def handle(self) -> None:
        with suppress(OSError):  # it went away before it was told what is wrong
            super().handle()

    def read_requestline(self) -> str:
        with Timeout(IO_SECONDS, TimeoutError()):
            return super().read_requestline()

    def read_request(self, raw_requestline: str) -> Any:
        try:
            with Timeout(IO_SECONDS, TimeoutError()):
                return super().read_request(raw_requestline)
        except (OSError, ValueError, http.client.HTTPException):
            return False

    def log_request(self) -> None:
        """Nothing: an access log is the reverse proxy's."""

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        if issubclass(t, OSError):  # it went away, or was too slow
            self.close_connection = True
            return
        super().handle_error(t, v, tb)


class Server(WSGIServer):
    """See the module."""

    def wrap_socket_and_handle(self, client_socket: Any, address: Any) -> Any:
        client_socket.settimeout(IO_SECONDS)  # for the handshake too
        with suppress(ssl.SSLError, OSError):
            return super().wrap_socket_and_handle(client_socket, address)
        return None


def make_server(monitor: Monitor, app: Callable[..., Iterable[bytes]]) -> Server:
    """A server that listens. Raises OSError when it cannot."""
    options: dict[str, Any] = {}
    if monitor.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(monitor.certificate, monitor.key)
        options["ssl_context"] = context
    listener = _listen(monitor.listen)
    return Server(
        listener,
        with_base_path(app, monitor.base_path),
        handler_class=Handler,
        spawn=Pool(_most_connections()),
        log=None,
        error_log=log,
        **options,
    )


def with_base_path(app: Callable[..., Iterable[bytes]], base_path: str) -> Callable[..., Iterable[bytes]]:
    """The app below a path, whether a reverse proxy leaves that path on or takes it off."""
    if not base_path:
        return app

    def below(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == base_path or path.startswith(f"{base_path}/"):
            environ["PATH_INFO"] = path[len(base_path) :] or "/"
        return app(environ, start_response)

    return below


def _most_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return min(MAX_CONNECTIONS, max(descriptors - SPARE_DESCRIPTORS, descriptors // 2))


def _listen(listen: Listen) -> Any:
    deadline = time.monotonic() + TAKEN_SECONDS
    while True:
        try:
            return _bind(listen)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _bind(listen: Listen) -> Any:
    if not listen.path:
        family = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address: Any = (listen.host, listen.port)
    else:
        _remove_leftover(listen.path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        address = listen.path
    old = os.umask(0o117)  # a Unix socket is for us and our group, which a reverse proxy may be in
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(old)
    return listener


def _remove_leftover(path: str) -> None:
    """Remove a socket that nobody answers on. Raises OSError (EADDRINUSE) when somebody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except FileNotFoundError:
            return
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, f"{path} is in use")
