"""The sockets that the job server accepts on: its own, or those that systemd opened for it (socket activation)."""

from __future__ import annotations

import errno
import os
import resource
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from geard.config import JobServer
from geard.errors import CannotConnect, ConfigError, Problem
from geard.jobserver.options import Options

BACKLOG: Final = 1024
_FIRST_PASSED_FD: Final = 3  # see sd_listen_fds(3)
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ACCEPTED_INHERIT: Final = (  # accepted sockets have these from their listener
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # a turn's packets are batched before they are sent
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)


class CannotListen(CannotConnect):
    """The address cannot be listened on: taken, not ours, or not allowed."""


def listen(address: JobServer) -> list[socket.socket]:
    """Listening sockets for every address that the host has on this machine. Raises CannotListen."""
    listeners: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, place in found:
            try:
                listeners.append(_bound(family, place))
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                absent = error  # localhost may have an IPv6 address where the machine has no IPv6
        if absent and not listeners:
            raise absent
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = (error.strerror or str(error)).lower()
        raise CannotListen(f"cannot listen on {address}: {reason}") from error
    return [_prepared(listener) for listener in listeners]


def passed(environ: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The listening sockets that systemd passed to this process; none if it was started without."""
    if environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environ.get("LISTEN_FDS", "0"))
    return [_prepared(socket.socket(fileno=fd)) for fd in range(_FIRST_PASSED_FD, _FIRST_PASSED_FD + count)]


def tls_context(options: Options) -> ssl.SSLContext | None:
    """What TLS to speak; None: none. Raises ConfigError for files that OpenSSL cannot use."""
    if options.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(options.tls_certificate, options.tls_key, password=lambda: "")  # never ask a terminal
        if options.tls_ca:
            context.load_verify_locations(options.tls_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        files = " and ".join(filter(None, (options.tls_certificate, options.tls_key, options.tls_ca)))
        problem = Problem(
            f"{files}: {error.strerror or error}",
            expected="PEM files with a certificate, its key without a password, and the authority's certificate",
        )
        raise ConfigError([problem]) from error
    return context


def allow_files(wanted: int) -> None:
    """Raise this process's limit of open files to `wanted`, as far as it may."""
    with suppress(OSError):  # not allowed here: the connections over the limit wait, and the log says so
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        if soft != resource.RLIM_INFINITY and soft < limit:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _bound(family: socket.AddressFamily, place: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _prepared(listener: socket.socket) -> socket.socket:
    listener.setblocking(False)
    for option in _ACCEPTED_INHERIT:
        listener.setsockopt(*option)
    return listener
